//! `switchback down`.

use std::time::Duration;

use serde::Serialize;
use switchback_api::client::{Client, Error};
use switchback_api::{DownRequest, Problem, exit};

use crate::context::{Context, by};
use crate::{daemon, paths};

/// How long the control plane may take to go after it has answered, or broken off.
const GONE_WITHIN: Duration = Duration::from_mins(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also when nothing seems to run: start a control plane just to stop what may be left
    #[arg(long)]
    force: bool,
}

/// What was done.
#[derive(Serialize)]
struct Stopped {
    stopped: bool,
}

pub(crate) async fn run(args: &Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let client = context.client()?;
    let request = DownRequest { by: by() };
    let needed = args.force || paths::sockets_are_left(&context.state_dir()?);
    let launch = if needed { Some(context.launch()?) } else { None };
    let output = &mut *context.output;
    if let Err(error) = client.status(None).await {
        // Instances and the data plane outlive a control plane: only one can stop them in order.
        let Some(launch) = launch.filter(|_| error.is_passing()) else {
            return Err(not_running(error));
        };
        let pid = daemon::start_detached(&launch, &client).await?;
        output.note(format!("started a control plane (pid {pid}) to stop what is left"));
    }
    output.progress("stopping every instance, the data plane and the control plane ...");
    stop(&client, &request).await?;
    output.line("stopped; the journal stays");
    output.document(&Stopped { stopped: true });
    Ok(exit::OK)
}

/// Stops everything. The control plane may be gone before its answer is through.
pub(crate) async fn stop(client: &Client, request: &DownRequest) -> Result<(), Problem> {
    match client.down(request).await {
        Ok(()) | Err(Error::Broken(_) | Error::NotRunning { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    daemon::gone(client, GONE_WITHIN).await
}

fn not_running(error: Error) -> Problem {
    let nobody = matches!(error, Error::NotRunning { .. });
    let problem = error.into_problem();
    if !nobody {
        return problem;
    }
    problem.hint("instances may still run: `switchback down --force` stops what is left")
}
