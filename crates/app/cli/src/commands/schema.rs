//! `switchback schema`.

use switchback_api::{Problem, exit};

use crate::configuration;
use crate::context::Context;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args, context: Context<'_>) -> Result<u8, Problem> {
    context.output.raw(&configuration::schema());
    Ok(exit::OK)
}
