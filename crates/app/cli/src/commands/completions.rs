//! `switchback completions`.

use clap_complete::Shell;
use switchback_api::{Problem, exit};

use crate::context::Context;
use crate::reference;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// For which shell
    shell: Shell,
}

pub(crate) fn run(args: &Args, context: Context<'_>) -> Result<u8, Problem> {
    context.output.raw(&reference::completions(args.shell));
    Ok(exit::OK)
}
