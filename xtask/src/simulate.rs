//! `cargo xtask simulate`: builds the simulator with the profile it has to itself and runs it.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

pub(crate) const USAGE: &str = "  \
  simulate [--schedules N] [--seed S] [--threads T] [--json]
                      run N schedules (20000) of the control plane under faults; the last line is
                      one JSON document
  simulate --seed S   run one schedule; if it fails, make it small and tell what happens
  simulate --seeded-bugs [--schedules N] [--only BUG] [--json]
                      switch on bugs one at a time, and say which are noticed";

/// Runs the simulator with these options; its exit code says whether everything held.
pub(crate) fn run(root: &Path, options: &[&str]) -> Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root).args(["run", "--quiet", "--profile", "simulate"]);
    command.args(["--package", "switchback-simulator", "--bin", "simulate"]);
    if options.contains(&"--seeded-bugs") {
        command.args(["--features", "seeded-bugs"]);
    }
    let status = command.arg("--").args(options).status().context("cannot start cargo")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}
