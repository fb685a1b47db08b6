//! `switchback divert` and `switchback undivert`.

use switchback_api::{Mode, Operation, Problem};
use switchback_domain::{ServiceName, Version};

use crate::commands::operate::operate;
use crate::context::Context;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Whose requests
    service: ServiceName,
    /// To this version of it; it must have ready instances
    #[arg(long, value_name = "VERSION", conflicts_with = "to_service")]
    to_version: Option<Version>,
    /// To this service of the same environment
    #[arg(long, value_name = "SERVICE", required_unless_present = "to_version")]
    to_service: Option<ServiceName>,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EndArgs {
    /// Which services
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<ServiceName>,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(crate) async fn run(args: Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let operation = match (args.to_version, args.to_service) {
        (Some(version), _) => Operation::DivertToVersion(version),
        (None, Some(service)) => Operation::DivertToService(service),
        (None, None) => {
            let problem = switchback_api::code::USAGE.problem("nobody is named to divert to");
            return Err(problem.hint("add --to-version or --to-service"));
        }
    };
    operate(vec![args.service], operation, args.reason, context).await
}

pub(crate) async fn end(args: EndArgs, context: &mut Context<'_>) -> Result<u8, Problem> {
    operate(args.services, Operation::End(Mode::Diverted), args.reason, context).await
}
