//! What the control plane takes and how fast it is with many services: `cargo xtask bench scale`.
//!
//! The control plane is the one that ships, with its journal on disk and its API, in a process of
//! its own that is measured and killed. Instances and the data plane are simulated in that process.

mod control;
mod counting;
mod drive;
mod figures;
mod prepare;
mod process;
mod world;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const USAGE: &str = "\
scale [--quick] [--services N] [--rollouts N] [--steady SECONDS] [--json] [--write FILE]
                                        measure; --write puts the table into a page
scale control DIR [--without VERSION]   the process that is measured";

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Services that serve.
    pub(crate) services: usize,
    /// Rollouts that run at once, of the first services.
    pub(crate) rollouts: usize,
    /// How long the steady state is measured.
    pub(crate) steady: Duration,
}

const FULL: Size = Size { services: 10_000, rollouts: 1_000, steady: Duration::from_secs(20) };
const QUICK: Size = Size { services: 1_000, rollouts: 100, steady: Duration::from_secs(5) };

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    match *arguments {
        ["control", dir] => control::run(Path::new(dir), None),
        ["control", dir, "--without", version] => control::run(Path::new(dir), Some(version)),
        _ => measure(arguments),
    }
}

fn measure(arguments: &[&str]) -> Result<()> {
    let (mut size, mut is_json, mut page) = (FULL, false, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut number = || -> Result<usize> {
            let word = rest.next().with_context(|| format!("{argument} needs a number"))?;
            word.parse().with_context(|| format!("{argument} {word} is no number"))
        };
        match *argument {
            "--services" => size.services = number()?,
            "--rollouts" => size.rollouts = number()?,
            "--steady" => size.steady = Duration::from_secs(number()? as u64),
            "--quick" => size = QUICK,
            "--json" => is_json = true,
            "--write" => page = Some(*rest.next().context("--write needs a file")?),
            other => bail!("unknown option {other}\n\n{USAGE}"),
        }
    }
    ensure!(size.rollouts <= size.services, "a service has one rollout at a time");
    let figures = drive::measure(size)?;
    if let Some(page) = page {
        figures.write_into(Path::new(page))?;
    }
    let text = if is_json { figures.document().to_string() } else { figures.table() };
    // Whoever closed the pipe does not want it.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
    Ok(())
}
