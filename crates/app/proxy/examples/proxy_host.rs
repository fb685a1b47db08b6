//! The data plane as a process, for the tests that kill it: `proxy_host --state-dir DIR`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip_while(|argument| argument != "--state-dir");
    let Some(state_dir) = arguments.nth(1) else { return ExitCode::from(64) };
    match switchback_proxy::run(&switchback_proxy::Options::new(state_dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            #[allow(clippy::print_stderr, reason = "a program of its own")]
            {
                eprintln!("{error}: {}", cause.unwrap_or_default());
            }
            ExitCode::FAILURE
        }
    }
}
