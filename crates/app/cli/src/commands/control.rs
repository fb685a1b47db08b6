//! `switchback control` (hidden): the control plane alone, as `up --detach` starts it.

use switchback_api::{Problem, exit};

use crate::compose;
use crate::context::Context;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave the session of whoever started it: no terminal's Ctrl-C reaches it
    #[arg(long)]
    detached: bool,
}

pub(crate) fn run(args: &Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let launch = context.launch()?;
    if args.detached {
        // Fails only for a leader of a process group, which already is on its own.
        let _ = rustix::process::setsid();
    }
    // On a thread of its own: the control plane may bring its own runtime.
    let thread = std::thread::spawn(move || compose::run_control_plane(&launch));
    let result = thread.join();
    result.unwrap_or_else(|_| Err(panicked())).map(|()| exit::OK)
}

fn panicked() -> Problem {
    switchback_api::code::INTERNAL.problem("the control plane panicked")
}
