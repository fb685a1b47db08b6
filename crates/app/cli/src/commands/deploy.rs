//! `switchback deploy`.

use switchback_api::{Accepted, DeployRequest, Problem, exit};
use switchback_domain::strategy::{BusyPolicy, StrategyKind};
use switchback_domain::{ServiceName, Version};

use crate::arguments::named;
use crate::context::{Context, by};
use crate::output::Output;
use crate::render::plan;
use crate::watch::{self, Hoped};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which service
    pub(crate) service: ServiceName,
    /// Which version; otherwise the configured one
    #[arg(long, value_name = "VERSION")]
    pub(crate) version: Option<Version>,
    /// Another strategy than the configured one, with its default steps
    #[arg(long, value_name = "STRATEGY", value_parser = named::<StrategyKind>(&["rolling", "blue-green", "canary"]))]
    pub(crate) strategy: Option<StrategyKind>,
    /// What to do when a rollout of the service is active: wait for it, take it back, or give up
    #[arg(long, value_name = "POLICY", value_parser = named::<BusyPolicy>(&["queue", "supersede", "refuse"]))]
    pub(crate) on_busy: Option<BusyPolicy>,
    /// Start although there is no verified way back; this is written into the audit
    #[arg(long)]
    pub(crate) accept_no_rollback: bool,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Return when the rollout is accepted instead of watching it to its end
    #[arg(long)]
    pub(crate) no_wait: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let client = context.client()?;
    let (dry_run, no_wait) = (args.dry_run, args.no_wait);
    let request = request(args, context);
    let output = &mut *context.output;
    if dry_run {
        let plan = client.plan(&request).await?;
        output.lines(plan::lines(&plan, output.look()));
        output.document(&plan);
        return Ok(exit::OK);
    }
    let accepted = client.deploy(&request).await?;
    say_accepted(&accepted, output);
    if no_wait || accepted.rollout.is_empty() {
        output.document(&accepted);
        return Ok(exit::OK);
    }
    watch::to_end(&client, &accepted.rollout, Hoped::Promoted, output).await
}

fn request(args: Args, context: &Context<'_>) -> DeployRequest {
    DeployRequest {
        service: args.service,
        version: args.version,
        environment: context.environment(),
        strategy: args.strategy,
        on_busy: args.on_busy,
        accept_no_rollback: args.accept_no_rollback,
        dry_run: args.dry_run,
        by: by(),
    }
}

/// Says what was begun.
pub(crate) fn say_accepted(accepted: &Accepted, output: &mut Output) {
    let queued = if accepted.queued { ", waits for the active one" } else { "" };
    if !accepted.rollout.is_empty() {
        output.line(format!("rollout {} accepted{queued}", accepted.rollout));
    }
    if let Some(note) = &accepted.note {
        output.note(note);
    }
}
