//! `switchback abort`.

use switchback_api::Problem;
use switchback_api::client::Command;

use crate::commands::tell::{self, Target};
use crate::context::Context;
use crate::watch::Hoped;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Return at once instead of watching the rollout to its end
    #[arg(long)]
    no_wait: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let watch = (!args.no_wait).then_some(Hoped::TakenBack);
    tell::active(args.target, Command::Abort, false, watch, context).await
}
