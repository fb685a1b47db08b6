//! `switchback rollback`.

use switchback_api::{Problem, RollbackRequest, Status, exit};
use switchback_domain::ServiceName;

use crate::commands::deploy::say_accepted;
use crate::context::{Context, by};
use crate::watch::{self, Hoped};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which service; its active rollout is taken back, if there is one
    service: ServiceName,
    /// To which revision; otherwise the one before the present one
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    /// Keep the version, take back only its configuration
    #[arg(long)]
    config_only: bool,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Return when it is accepted instead of watching it to its end
    #[arg(long)]
    no_wait: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let client = context.client()?;
    let environment = context.environment();
    let before = client.status(environment.as_ref()).await?;
    let request = RollbackRequest {
        service: args.service,
        environment,
        revision: args.to,
        config_only: args.config_only,
        reason: args.reason,
        by: by(),
    };
    let output = &mut *context.output;
    let accepted = client.rollback(&request).await?;
    say_accepted(&accepted, output);
    if args.no_wait || accepted.rollout.is_empty() {
        output.document(&accepted);
        return Ok(exit::OK);
    }
    let hoped = hoped(&before, &accepted.rollout);
    watch::to_end(&client, &accepted.rollout, hoped, output).await
}

/// A rollout that was there before is taken back; a new one brings the old revision in.
fn hoped(before: &Status, rollout: &str) -> Hoped {
    let known = |service: &switchback_api::ServiceStatus| {
        service.rollout.iter().chain(&service.queue).any(|known| known.id == rollout)
    };
    if before.services.iter().any(known) { Hoped::TakenBack } else { Hoped::Promoted }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn taking_an_active_rollout_back_succeeds_when_it_is_taken_back() {
        assert_eq!(hoped(&samples::status(), "r12"), Hoped::TakenBack);
        assert_eq!(hoped(&samples::status(), "r13"), Hoped::Promoted);
    }
}
