//! `switchback promote`.

use switchback_api::Problem;
use switchback_api::client::Command;

use crate::commands::tell::{self, Target};
use crate::context::Context;
use crate::watch::Hoped;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Skip every step that is left
    #[arg(long)]
    full: bool,
    /// Watch the rollout to its end; the exit code is then that of a deployment
    #[arg(long, short)]
    watch: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let watch = args.watch.then_some(Hoped::Promoted);
    tell::active(args.target, Command::Promote, args.full, watch, context).await
}
