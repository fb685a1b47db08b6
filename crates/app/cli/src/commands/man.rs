//! `switchback man`.

use std::path::PathBuf;

use switchback_api::{Problem, exit};

use crate::context::Context;
use crate::reference;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to write them; made when missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(crate) fn run(args: &Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let pages = reference::man_pages()?;
    reference::write_all(&args.directory, &pages)?;
    context.output.line(format!("wrote {} man pages to {}", pages.len(), args.directory.display()));
    Ok(exit::OK)
}
