//! `switchback isolate` and `switchback unisolate`.

use switchback_api::{Mode, Operation, Problem};
use switchback_domain::ServiceName;

use crate::commands::operate::operate;
use crate::context::Context;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which services
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<ServiceName>,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(crate) async fn run(args: Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    operate(args.services, Operation::Isolate, args.reason, context).await
}

pub(crate) async fn end(args: Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    operate(args.services, Operation::End(Mode::Isolated), args.reason, context).await
}
