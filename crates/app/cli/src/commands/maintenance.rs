//! `switchback maintenance on` and `switchback maintenance off`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use switchback_api::{Mode, Operation, Problem, code};
use switchback_domain::ServiceName;

use crate::arguments::duration;
use crate::commands::operate::operate;
use crate::context::Context;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    turn: Turn,
}

#[derive(Debug, clap::Subcommand)]
enum Turn {
    /// Show clients a page, with status 503, and tell them when to come again
    On(On),
    /// Serve again
    Off(Off),
}

#[derive(Debug, clap::Args)]
struct On {
    /// Which services; none is every service of the environment
    #[arg(value_name = "SERVICE")]
    services: Vec<ServiceName>,
    /// An HTML page of at most 64 KiB; otherwise as configured, or a plain one
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// When clients should come again; otherwise as configured, or 1m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    retry_after: Option<Duration>,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Off {
    /// Which services; none is all that are in maintenance
    #[arg(value_name = "SERVICE")]
    services: Vec<ServiceName>,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(crate) async fn run(args: Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    match args.turn {
        Turn::On(on) => {
            let page = on.page.as_deref().map(read).transpose()?;
            let millis = |after: Duration| u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            let retry_after_ms = on.retry_after.map(millis);
            let operation = Operation::Maintenance { page, retry_after_ms };
            operate(on.services, operation, on.reason, context).await
        }
        Turn::Off(off) => {
            operate(off.services, Operation::End(Mode::Maintenance), off.reason, context).await
        }
    }
}

fn read(path: &Path) -> Result<String, Problem> {
    std::fs::read_to_string(path).map_err(|error| {
        code::PAGE_UNREADABLE
            .problem(format!("cannot read {}: {error}", path.display()))
            .hint("give the path of an HTML file")
    })
}
