//! `switchback generate` (hidden): what is kept under version control and must not differ.

use std::path::PathBuf;

use switchback_api::{Problem, exit};

use crate::context::Context;
use crate::reference;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to write; made when missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(crate) fn run(args: &Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let files = reference::files();
    reference::write_all(&args.directory, &files)?;
    for (name, _) in &files {
        context.output.line(format!("wrote {}", args.directory.join(name).display()));
    }
    Ok(exit::OK)
}
