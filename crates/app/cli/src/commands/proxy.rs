//! `switchback proxy upgrade`.

use std::path::PathBuf;

use clap::Subcommand;
use switchback_api::{Problem, ProxyUpgradeRequest, exit};

use crate::context::{Context, by, here};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Replace the data plane's process without a gap: no request lost, no connection closed
    Upgrade(Upgrade),
}

#[derive(Debug, clap::Args)]
struct Upgrade {
    /// The program to run; without it, the one that the control plane was started from
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

pub(crate) async fn run(args: Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let Action::Upgrade(Upgrade { binary }) = args.action;
    let client = context.client()?;
    // The control plane has another current directory.
    let binary = match binary {
        Some(path) => Some(here()?.join(path)),
        None => None,
    };
    let request = ProxyUpgradeRequest { binary, by: by() };
    let upgraded = client.upgrade_proxy(&request).await?;
    let output = &mut *context.output;
    output.line(format!(
        "data plane: process {} ({}) took over from process {} ({}) in {} ms",
        upgraded.to.pid,
        version(&upgraded.to.version),
        upgraded.from.pid,
        version(&upgraded.from.version),
        upgraded.took_ms
    ));
    output.document(&upgraded);
    Ok(exit::OK)
}

fn version(known: &str) -> &str {
    if known.is_empty() { "an older version" } else { known }
}
