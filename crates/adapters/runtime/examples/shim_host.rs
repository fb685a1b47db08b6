//! Stands in for the `switchback` binary in this crate's tests: the two hidden subcommands, and a
//! server that does nothing but listen.

#![allow(clippy::print_stdout, reason = "what it says is what the tests wait for")]

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;

use switchback_runtime::{SHIM_EXEC_SUBCOMMAND, SHIM_SUBCOMMAND, shim_exec_main, shim_main};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let rest = arguments.iter().skip(1);
    match arguments.first().and_then(|name| name.to_str()) {
        Some(SHIM_SUBCOMMAND) => rest.map(Path::new).next().map_or(ExitCode::FAILURE, shim_main),
        Some(SHIM_EXEC_SUBCOMMAND) => shim_exec_main(rest.cloned()),
        Some("listen") => listen(),
        Some(_) | None => ExitCode::FAILURE,
    }
}

/// Listens on `PORT` until it is killed.
fn listen() -> ExitCode {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse::<u16>().ok());
    let listener = TcpListener::bind(("127.0.0.1", port.unwrap_or_default()));
    match listener {
        Ok(listener) => {
            println!("listening on {port:?}");
            listener.incoming().for_each(drop);
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("cannot listen: {error}");
            ExitCode::from(98)
        }
    }
}
