//! The trampoline between a supervisor and the command it runs: makes sure that the command dies
//! with its supervisor, enters its directory, and becomes the command.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::SHIM_EXEC_SUBCOMMAND;
use crate::launch::Launch;

/// What shells answer for a command that cannot be executed.
const CANNOT_EXECUTE: u8 = 127;
/// In place of a file for the reason: standard error.
pub(crate) const TO_STANDARD_ERROR: &str = "-";

/// Prepares a command to be run by a child of this very thread through the trampoline: when the
/// thread ends, so does the command. A reason why it cannot be executed goes to the file `report`.
pub(crate) fn trampoline(executable: &Path, report: &Path, launch: &Launch) -> Command {
    let mut command = Command::new(executable);
    command.arg(SHIM_EXEC_SUBCOMMAND).arg(std::process::id().to_string()).arg(report);
    command.arg(&launch.working_dir).arg(&launch.program).args(&launch.arguments);
    command.envs(&launch.environment);
    command
}

/// The hidden subcommand `shim-exec`: `PARENT REPORT DIRECTORY PROGRAM [ARGUMENT...]`. Returns
/// only when it cannot become the program, with exit code 127.
pub fn shim_exec_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let mut next = || arguments.next().unwrap_or_default();
    let (parent, report, directory, program) = (next(), next(), next(), next());
    if let Err(error) = die_with(&parent) {
        return refuse(&report, &format!("cannot watch the supervisor: {error}"));
    }
    if let Err(error) = std::env::set_current_dir(&directory) {
        let directory = directory.to_string_lossy();
        return refuse(&report, &format!("cannot enter working directory {directory:?}: {error}"));
    }
    let error = Command::new(&program).args(arguments).exec();
    let program = program.to_string_lossy();
    refuse(&report, &format!("cannot execute {program:?}: {error}"))
}

fn die_with(parent: &OsString) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before the line above.
    let parent = parent.to_str().and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
    if parent.is_none() || parent != getppid() {
        return Err(io::Error::other("it is gone"));
    }
    Ok(())
}

fn refuse(report: &OsString, reason: &str) -> ExitCode {
    let told = if report == TO_STANDARD_ERROR {
        writeln!(io::stderr(), "{reason}")
    } else {
        fs::write(report, reason)
    };
    // Nobody is left to tell if that failed; the exit code still says it.
    drop(told);
    ExitCode::from(CANNOT_EXECUTE)
}
