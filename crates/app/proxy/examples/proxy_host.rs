//! The data plane as a process, for the tests that kill it: `proxy_host --state-dir DIR`, and
//! `--codec own|hyper` before or after it.

use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = switchback_proxy::Options::from_arguments(std::env::args_os().skip(1));
    let ran = match options {
        Ok(options) => switchback_proxy::run(&options).map_err(Box::<dyn Error>::from),
        Err(error) => Err(error.into()),
    };
    let Err(error) = ran else { return ExitCode::SUCCESS };
    let cause = error.source().map(ToString::to_string);
    #[allow(clippy::print_stderr, reason = "a program of its own")]
    {
        eprintln!("{error}: {}", cause.unwrap_or_default());
    }
    ExitCode::FAILURE
}
