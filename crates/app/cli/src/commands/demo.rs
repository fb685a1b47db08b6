//! `switchback demo`.

use switchback_api::Problem;

use crate::context::{Context, by};
use crate::demo;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Shorter steps and less load
    #[arg(long)]
    fast: bool,
}

pub(crate) async fn run(args: &Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let by = by();
    demo::run(args.fast, by, context.output).await
}
