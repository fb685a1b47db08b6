//! `switchback up`.

use std::collections::BTreeMap;

use serde::Serialize;
use switchback_api::client::Client;
use switchback_api::{Problem, RolloutDetail, RolloutSummary, UpAnswer, UpRequest, exit};

use crate::configuration;
use crate::context::{Context, by};
use crate::daemon::{self, Ended};
use crate::output::Output;
use crate::render::outcome;
use crate::stop::Stop;
use crate::watch::{self, Hoped, Watched};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run the control plane in the background and return when every service is up
    #[arg(long, short)]
    detach: bool,
}

/// What `up` has done.
#[derive(Serialize)]
struct BroughtUp {
    rollouts: Vec<RolloutSummary>,
    kept: BTreeMap<String, String>,
}

/// Whose control plane it is.
enum Control {
    /// In a thread of this process: it ends with us.
    Here(Ended),
    /// In another process.
    Elsewhere,
}

pub(crate) async fn run(args: &Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let launch = context.launch()?;
    configuration::must_be_sound(&launch.config, launch.environment.as_ref())?;
    let client = context.client()?;
    let request = UpRequest { environment: context.environment(), by: by() };
    let output = &mut *context.output;
    let control = match client.status(None).await {
        Ok(status) => {
            output.note(format!("the control plane runs already (pid {})", status.control.pid));
            Control::Elsewhere
        }
        Err(error) if !error.is_passing() => return Err(error.into()),
        Err(_) if args.detach => {
            let pid = daemon::start_detached(&launch, &client).await?;
            output.note(format!("the control plane runs in the background (pid {pid})"));
            Control::Elsewhere
        }
        Err(_) => Control::Here(daemon::start_here(launch, &client).await?),
    };
    let exit = bring_up(&client, &request, output).await?;
    match control {
        Control::Here(ended) if exit != exit::INTERRUPTED => stay(ended, exit, output).await,
        Control::Here(_) => Ok(left(exit, output)),
        Control::Elsewhere => Ok(exit),
    }
}

/// Brings every service up and watches.
async fn bring_up(
    client: &Client,
    request: &UpRequest,
    output: &mut Output,
) -> Result<u8, Problem> {
    let UpAnswer { started, kept } = client.up(request).await?;
    for (service, reason) in &kept {
        output.progress(format!("{service}: left as it is, {reason}"));
    }
    let ids: Vec<String> = started.values().map(|accepted| accepted.rollout.clone()).collect();
    let details = match watch::rollouts(client, &ids, output).await? {
        Watched::Interrupted => return Ok(exit::INTERRUPTED),
        Watched::Ended(details) => details,
    };
    for detail in &details {
        output.lines(outcome::lines(detail, output.look()));
    }
    let exit = details.iter().map(|detail| Hoped::Promoted.exit(detail.summary.outcome)).max();
    let rollouts = details.into_iter().map(|RolloutDetail { summary, .. }| summary).collect();
    output.document(&BroughtUp { rollouts, kept });
    Ok(exit.unwrap_or(exit::OK))
}

/// Stays until Ctrl-C, or until the control plane ends (`switchback down`).
async fn stay(ended: Ended, exit: u8, output: &mut Output) -> Result<u8, Problem> {
    let mut stop = Stop::listen()?;
    output.progress(
        "Switchback is up. Ctrl-C leaves the services running; `switchback down` stops them.",
    );
    tokio::select! {
        () = stop.wanted() => Ok(left(exit, output)),
        result = ended => match result {
            Ok(Ok(())) => Ok(exit),
            early => Err(daemon::ended_early(early)),
        },
    }
}

/// Says what runs on without us.
fn left(exit: u8, output: &mut Output) -> u8 {
    output.note(
        "the control plane has stopped; instances and the data plane run on, and serve. \
         `switchback up` takes charge of them again, `switchback down` stops them",
    );
    if exit == exit::INTERRUPTED { exit } else { exit::OK }
}
