//! The binary `switchback`: parses, runs one command, prints, and ends with a documented exit
//! code. What the parts are wired to is in `compose`; nothing here decides anything.

mod arguments;
mod commands;
mod compose;
mod configuration;
mod context;
mod daemon;
mod demo;
mod detect;
mod error_pages;
mod output;
mod paths;
mod reference;
mod render;
mod replay;
mod select;
mod stop;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use switchback_api::{Problem, code, exit};

use arguments::Arguments;
use context::Context;
use output::Output;

fn main() -> ExitCode {
    if let Some(exit) = compose::run_role(std::env::args_os().skip(1)) {
        return exit;
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return ExitCode::from(not_parsed(&error)),
    };
    let mut output = Output::standard(&arguments.global);
    let result = run(arguments, &mut output);
    let exit = result.unwrap_or_else(|problem| {
        output.problem(&problem);
        problem.exit_code
    });
    ExitCode::from(exit)
}

fn run(arguments: Arguments, output: &mut Output) -> Result<u8, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| code::INTERNAL.problem(error.to_string()))?;
    let file = arguments.global.file.clone().or(arguments.short_file);
    let mut context = Context { global: arguments.global, file, output };
    runtime.block_on(commands::run(arguments.command, &mut context))
}

/// Prints help, the version, or what is wrong with the command line.
fn not_parsed(error: &clap::Error) -> u8 {
    let _ = error.print();
    let asked_for = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion].contains(&error.kind());
    if asked_for { exit::OK } else { exit::USAGE }
}
