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
    /// Only what was done beside rollouts: maintenance and the like, upgrades of the data plane,
    /// certificates
    #[arg(long)]
    deeds: bool,
}

pub(crate) async fn run(args: Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let query = RolloutsQuery {
        environment: context.environment(),
        service: args.service,
        limit: Some(args.limit),
    };
    let client = context.client()?;
    let deeds = client.deeds(&query).await?;
    let output = &mut *context.output;
    let deed_lines = history::deeds(&deeds, now_ms(), output.look());
    if args.deeds {
        let none = vec!["nothing was done yet".to_owned()];
        output.lines(if deed_lines.is_empty() { none } else { deed_lines });
        output.document(&deeds);
        return Ok(exit::OK);
    }
    let rollouts = client.rollouts(&query).await?;
    output.lines(history::lines(&rollouts, now_ms(), output.look()));
    if !deed_lines.is_empty() {
        output.line("");
        output.lines(deed_lines);
    }
    output.document(&rollouts);
    Ok(exit::OK)
}
