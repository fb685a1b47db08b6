//! `switchback lint`.

use switchback_api::{Problem, exit};

use crate::configuration;
use crate::context::Context;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let path = context.config_path()?;
    let report = configuration::check(&path, context.environment().as_ref())?;
    let output = &mut *context.output;
    output.lines(&report.lines);
    output.document(&report.document);
    Ok(if report.mistakes == 0 { exit::OK } else { exit::CONFIG })
}
