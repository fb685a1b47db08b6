//! The control plane with many services: `testing/scale`, built as it ships.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

/// The page that holds the table.
const PAGE: &str = "docs/reliability.md";

/// Builds and runs it; its exit code is ours.
pub(super) fn run(root: &Path, arguments: &[&str]) -> Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "--release", "--package", "switchback-scale", "--"]);
    for argument in arguments {
        command.arg(argument);
        if *argument == "--write" {
            command.arg(PAGE);
        }
    }
    let status = command.current_dir(root).status().context("cannot start cargo")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
