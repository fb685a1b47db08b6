//! `switchback completions`.

use clap_complete::Shell;
use switchback_api::exit;

use crate::context::Context;
use crate::reference;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// For which shell
    shell: Shell,
}

pub(crate) fn run(args: &Args, context: &mut Context<'_>) -> u8 {
    context.output.raw(&reference::completions(args.shell));
    exit::OK
}
