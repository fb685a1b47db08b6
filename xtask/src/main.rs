//! Checks, generators and benchmarks of this repository: `cargo xtask layers | tidy | generate |
//! locked | bench | simulate`.
//!
//! Each check prints every violation with its place and ends with exit code 1 if there is any.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

mod bench;
mod code;
mod generate;
mod layers;
mod locked;
mod simulate;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

const USAGE: &str = "usage: cargo xtask COMMAND

  layers              check that dependencies between crates point down only
  tidy                check what neither rustfmt nor clippy can see
  generate [--check]  write the generated files, or compare them with what is committed
  locked MAX          check that Cargo.lock holds at most MAX packages";

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent")?;
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["layers"] => Ok(report("layers", &layers::check(root)?)),
        ["tidy"] => Ok(report("tidy", &tidy::check(root)?)),
        ["generate"] => generate::write(root).map(|()| ExitCode::SUCCESS),
        ["generate", "--check"] => Ok(report("generate", &generate::check(root)?)),
        ["bench", which, ref options @ ..] => bench::run(root, which, options),
        ["simulate", ref options @ ..] => simulate::run(root, options),
        ["locked", max] => Ok(report("locked", &locked::check(root, max)?)),
        _ => {
            eprintln!("{USAGE}\n{}\n{}", simulate::USAGE, bench::USAGE);
            Ok(ExitCode::from(64))
        }
    }
}

fn report(check: &str, violations: &[String]) -> ExitCode {
    for violation in violations {
        println!("{violation}");
    }
    if violations.is_empty() {
        println!("{check}: clean");
        return ExitCode::SUCCESS;
    }
    println!("{check}: {} to be mended", violations.len());
    ExitCode::FAILURE
}
