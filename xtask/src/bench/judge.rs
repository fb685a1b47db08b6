//! The judge beside others: `testing/judges`, built as it ships, because it is a matter of hours.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

/// The page that holds the tables.
const PAGE: &str = "docs/decision-engine.md";

/// Builds and runs it; its exit code is ours.
pub(super) fn run(root: &Path, arguments: &[&str]) -> Result<ExitCode> {
    let mut passed: Vec<&str> = arguments.iter().flat_map(|argument| passed(argument)).collect();
    // What ships is what is checked.
    let is_given = ["--binary", "--from"].iter().any(|given| arguments.contains(given));
    let live = arguments.contains(&"--live") && !is_given;
    let binary = if live { Some(super::world::build(root)?) } else { None };
    let binary = binary.as_ref().map(|it| it.to_string_lossy());
    if let Some(binary) = &binary {
        passed.extend(["--binary", binary]);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--release", "--package", "switchback-judges"])
        .args(features(arguments))
        .arg("--")
        .args(passed)
        .current_dir(root)
        .status()
        .context("cannot start cargo")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The data plane's own code where its cost is asked for; the smoke and the live check do without.
fn features(arguments: &[&str]) -> &'static [&'static str] {
    let is_short = arguments.contains(&"--smoke") || arguments.contains(&"--live");
    if is_short { &[] } else { &["--features", "request-cost"] }
}

/// The program takes the page by name.
fn passed<'a>(argument: &&'a str) -> Vec<&'a str> {
    if *argument == "--write" { vec!["--write", PAGE] } else { vec![argument] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_named_and_the_rest_is_passed_on() {
        let all = ["--full", "--write", "--seed", "3"];
        let found: Vec<_> = all.iter().flat_map(|argument| passed(argument)).collect();
        assert_eq!(found, ["--full", "--write", PAGE, "--seed", "3"]);
    }
}
