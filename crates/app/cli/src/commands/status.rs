//! `switchback status`.

use std::time::Duration;

use switchback_api::client::{Client, Error};
use switchback_api::{Problem, exit};
use switchback_domain::EnvironmentName;

use crate::context::Context;
use crate::output::Output;
use crate::render::status;
use crate::stop::Stop;
use crate::watch::now_ms;

/// Time between two looks with --watch.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep showing it, every second, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
}

pub(crate) async fn run(args: &Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let client = context.client()?;
    let environment = context.environment();
    let output = &mut *context.output;
    let status = client.status(environment.as_ref()).await?;
    if args.watch {
        return watch(&client, environment.as_ref(), output).await;
    }
    output.lines(status::lines(&status, now_ms(), output.look()));
    output.document(&status);
    Ok(exit::OK)
}

/// Shows the status again and again; on a terminal in place, otherwise when it has changed.
async fn watch(
    client: &Client,
    environment: Option<&EnvironmentName>,
    output: &mut Output,
) -> Result<u8, Problem> {
    let mut stop = Stop::listen()?;
    let mut last = Vec::new();
    while !output.is_closed() {
        let lines = match client.status(environment).await {
            Ok(status) => {
                output.document(&status);
                status::lines(&status, now_ms(), output.look())
            }
            Err(error) => vec![waiting(error)?],
        };
        if output.is_interactive() {
            output.draw(&lines);
        } else if lines != last {
            output.lines(&lines);
            output.line("");
            last = lines;
        }
        tokio::select! {
            () = stop.wanted() => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    Ok(exit::OK)
}

/// A control plane that is away for a moment is no reason to stop watching.
fn waiting(error: Error) -> Result<String, Problem> {
    if error.is_passing() { Ok(format!("{error}; waiting for it")) } else { Err(error.into()) }
}
