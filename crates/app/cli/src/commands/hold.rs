//! `switchback hold` and `switchback release`.

use std::time::Duration;

use switchback_api::{Mode, Operation, Problem};
use switchback_domain::ServiceName;

use crate::arguments::duration;
use crate::commands::operate::operate;
use crate::context::Context;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which services
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<ServiceName>,
    /// How long each request waits at most; otherwise as configured, or 30s
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    longest: Option<Duration>,
    /// How many requests wait at most, per service; otherwise as configured, or 1000
    #[arg(long, value_name = "REQUESTS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    cap: Option<u32>,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EndArgs {
    /// Which services; none is all that are held
    #[arg(value_name = "SERVICE")]
    services: Vec<ServiceName>,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(crate) async fn run(args: Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let operation = Operation::Hold { deadline_ms: args.longest.map(millis), cap: args.cap };
    operate(args.services, operation, args.reason, context).await
}

pub(crate) async fn end(args: EndArgs, context: &mut Context<'_>) -> Result<u8, Problem> {
    operate(args.services, Operation::End(Mode::Held), args.reason, context).await
}
