//! `switchback demo`.

use switchback_api::{Problem, code};

use crate::context::Context;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Shorter steps and less load
    #[arg(long)]
    fast: bool,
}

pub(crate) fn run(args: &Args, context: Context<'_>) -> Result<u8, Problem> {
    let _ = (args.fast, context);
    Err(code::INTERNAL.problem("the demo is not built in"))
}
