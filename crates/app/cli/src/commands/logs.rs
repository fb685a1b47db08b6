//! `switchback logs`.

use std::time::Duration;

use switchback_api::client::{Client, Error, LogsFrom, LogsQuery};
use switchback_api::{Logs, Problem, exit};

use crate::context::Context;
use crate::output::Output;
use crate::render::logs;
use crate::select;
use crate::stop::Stop;

/// Time between two looks with --follow.
const LOOK_EVERY: Duration = Duration::from_millis(300);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only of this service
    service: Option<String>,
    /// Keep printing new lines until Ctrl-C
    #[arg(long, short = 'f')]
    pub(crate) follow: bool,
    /// How many of the newest lines to begin with
    #[arg(long, short = 'n', value_name = "LINES", default_value_t = 100)]
    tail: u32,
    /// Only of this instance, as `switchback status` names it
    #[arg(long, value_name = "INSTANCE")]
    instance: Option<String>,
}

pub(crate) async fn run(args: Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let client = context.client()?;
    let query = LogsQuery {
        environment: context.environment(),
        service: args.service.as_deref().map(select::service).transpose()?,
        instance: args.instance,
        from: LogsFrom::Tail(args.tail),
    };
    let output = &mut *context.output;
    let page = client.logs(&query).await?;
    if args.follow {
        return follow(&client, query, page, output).await;
    }
    output
        .lines(page.lines.iter().map(|entry| logs::line(entry, output.look())).collect::<Vec<_>>());
    output.document(&page);
    Ok(exit::OK)
}

/// Prints lines as they come; with --json each on a line of its own.
async fn follow(
    client: &Client,
    mut query: LogsQuery,
    mut page: Logs,
    output: &mut Output,
) -> Result<u8, Problem> {
    let mut stop = Stop::listen()?;
    let mut away = false;
    while !output.is_closed() {
        for entry in &page.lines {
            output.line(logs::line(entry, output.look()));
            output.document(entry);
        }
        query.from = LogsFrom::After(std::mem::take(&mut page.cursor));
        tokio::select! {
            () = stop.wanted() => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        page = match client.logs(&query).await {
            Ok(page) => page,
            Err(error) => nothing_yet(error, &query, &mut away, output)?,
        };
        away &= page.lines.is_empty();
    }
    Ok(exit::OK)
}

/// No lines while the control plane is away; the cursor stays. Said once.
fn nothing_yet(
    error: Error,
    query: &LogsQuery,
    away: &mut bool,
    output: &mut Output,
) -> Result<Logs, Problem> {
    if !error.is_passing() {
        return Err(error.into());
    }
    if !std::mem::replace(away, true) {
        output.note(format!("{error}; waiting for it"));
    }
    let cursor = match &query.from {
        LogsFrom::After(cursor) => cursor.clone(),
        LogsFrom::Tail(_) => String::new(),
    };
    Ok(Logs { lines: Vec::new(), cursor })
}
