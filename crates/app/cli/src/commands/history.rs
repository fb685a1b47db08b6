//! `switchback history`.

use switchback_api::client::RolloutsQuery;
use switchback_api::{Problem, exit};
use switchback_domain::ServiceName;

use crate::context::Context;
use crate::render::history;
use crate::watch::now_ms;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only of this service
    service: Option<ServiceName>,
    /// At most so many
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 20)]
    limit: u32,
}

pub(crate) async fn run(args: Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let query = RolloutsQuery {
        environment: context.environment(),
        service: args.service,
        limit: Some(args.limit),
    };
    let rollouts = context.client()?.rollouts(&query).await?;
    let output = &mut *context.output;
    output.lines(history::lines(&rollouts, now_ms(), output.look()));
    output.document(&rollouts);
    Ok(exit::OK)
}
