//! `switchback schema`.

use switchback_api::exit;

use crate::configuration;
use crate::context::Context;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args, context: &mut Context<'_>) -> u8 {
    context.output.raw(&configuration::schema());
    exit::OK
}
