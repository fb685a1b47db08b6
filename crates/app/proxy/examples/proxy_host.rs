//! The data plane as a process, for the tests that kill it and for benchmarks of it alone:
//! `proxy_host [proxy] --state-dir DIR`, and `--codec own|hyper` before or after it.

use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    // The whole binary's word for this part of it.
    let arguments = std::env::args_os().skip(1).skip_while(|word| word == "proxy");
    let options = switchback_proxy::Options::from_arguments(arguments);
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
