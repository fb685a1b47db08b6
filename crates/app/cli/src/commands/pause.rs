//! `switchback pause`.

use switchback_api::Problem;
use switchback_api::client::Command;

use crate::commands::tell::{self, Target};
use crate::context::Context;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    tell::active(args.target, Command::Pause, false, None, context).await
}
