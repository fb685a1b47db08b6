//! `switchback ledger`.

use switchback_api::{Problem, exit};

use crate::context::Context;
use crate::render::ledger;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_args: &Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let ledger = context.client()?.ledger().await?;
    let output = &mut *context.output;
    output.lines(ledger::lines(&ledger, output.look()));
    output.document(&ledger);
    Ok(exit::OK)
}
