//! `switchback resume`.

use switchback_api::Problem;
use switchback_api::client::Command;

use crate::commands::tell::{self, Target};
use crate::context::Context;
use crate::watch::Hoped;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Watch the rollout to its end; the exit code is then that of a deployment
    #[arg(long, short)]
    watch: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let watch = args.watch.then_some(Hoped::Promoted);
    tell::active(args.target, Command::Resume, false, watch, context).await
}
