//! `switchback up`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use switchback_api::client::Client;
use switchback_api::{
    Problem, RolloutDetail, RolloutSummary, Status, UpAnswer, UpRequest, code, exit,
};
use switchback_domain::EnvironmentName;
use tokio::time::Instant;

use crate::configuration;
use crate::context::{Context, by};
use crate::daemon::{self, Ended};
use crate::output::Output;
use crate::render::outcome;
use crate::stop::Stop;
use crate::watch::{self, Hoped, Watched};

/// How long services that were deployed before may take to serve again.
const SERVES_WITHIN: Duration = Duration::from_mins(2);
/// Time between two looks at whether they do.
const LOOK_EVERY: Duration = Duration::from_millis(100);

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
    if !all_serve(client, request.environment.as_ref()).await? {
        return Ok(exit::INTERRUPTED);
    }
    let exit = details.iter().map(|detail| Hoped::Promoted.exit(detail.summary.outcome)).max();
    let rollouts = details.into_iter().map(|RolloutDetail { summary, .. }| summary).collect();
    output.document(&BroughtUp { rollouts, kept });
    Ok(exit.unwrap_or(exit::OK))
}

/// Waits until every service that was ever promoted serves, as after `down`; `false` on Ctrl-C.
async fn all_serve(
    client: &Client,
    environment: Option<&EnvironmentName>,
) -> Result<bool, Problem> {
    let mut stop = Stop::listen()?;
    let deadline = Instant::now() + SERVES_WITHIN;
    loop {
        let status = client.status(environment).await?;
        let silent = silent(&status, environment);
        if silent.is_empty() {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            let seconds = SERVES_WITHIN.as_secs();
            let message = format!("{} does not serve after {seconds} s", silent.join(", "));
            let problem = code::NEVER_READY.problem(message).hint("`switchback status` shows why");
            return Err(problem.details(status.data_plane.error.into_iter().collect()));
        }
        tokio::select! {
            () = stop.wanted() => return Ok(false),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Services that should serve and do not. One with a rollout under way is that one's business.
fn silent(status: &Status, environment: Option<&EnvironmentName>) -> Vec<String> {
    let name = environment.map_or(status.environment.as_str(), EnvironmentName::as_str);
    let mine = status.services.iter().filter(|s| s.key.environment.as_str() == name);
    let waits = mine.filter(|s| s.stable.is_some() && s.rollout.is_none() && !s.serves);
    waits.map(|service| service.key.to_string()).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn only_what_was_promoted_here_and_is_left_alone_is_waited_for() {
        let mut status = samples::status();
        status.services.iter_mut().for_each(|service| service.serves = false);
        assert!(silent(&status, None).is_empty(), "one has a rollout, one never came up");
        status.services[0].rollout = None;
        assert_eq!(silent(&status, None), ["production/api"]);
        let other = EnvironmentName::new("staging").ok();
        assert!(silent(&status, other.as_ref()).is_empty());
        status.services[0].serves = true;
        assert!(silent(&status, None).is_empty());
    }
}
