//! Runs a command beside an instance: its output captured, its time bounded, its process group
//! killed at the end. It dies with the control plane.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use switchback_domain::probe::ProbeResult;
use switchback_domain::time::humane;

use crate::launch::Launch;
use crate::shim::exec::{TO_STANDARD_ERROR, trampoline};
use crate::shim::signal_text;

/// The newest output that is kept.
const OUTPUT_BYTES_MAX: usize = 4 * 1024;
/// Read at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// How often to look whether an ended command's last words came through.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// Runs a command to its end or for `timeout`. The detail is its output, after `exit code 2: ` or
/// `timed out after 1s: ` when it did not pass.
pub(crate) fn execute(
    executable: &Path,
    launch: &Launch,
    timeout: Duration,
) -> io::Result<ProbeResult> {
    let mut command = trampoline(executable, Path::new(TO_STANDARD_ERROR), launch);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.process_group(0).spawn()?;
    let mut output = Vec::new();
    let attended = attend(&mut child, Instant::now() + timeout, &mut output);
    // Not waited for yet, so the group's id is still its own.
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let status = child.wait()?;
    let ended = attended?;
    Ok(result(ended.then_some(status), timeout, &output))
}

/// Collects output until the command ends; false when the deadline came first.
fn attend(child: &mut Child, deadline: Instant, output: &mut Vec<u8>) -> io::Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("no process id"))?;
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    for pipe in [stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)] {
        pipe.map_or(Ok(()), |pipe| fcntl_setfl(pipe, OFlags::NONBLOCK))?;
    }
    loop {
        let descriptors = [stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)];
        let open: Vec<BorrowedFd<'_>> = descriptors.into_iter().flatten().collect();
        let left = deadline.saturating_duration_since(Instant::now());
        let ended = wait(handle.as_fd(), &open, left)?;
        take(&mut stdout, output);
        take(&mut stderr, output);
        if ended {
            return Ok(true);
        }
        if deadline <= Instant::now() {
            return Ok(false);
        }
    }
}

/// Waits for output or the end; tells whether the process has ended.
fn wait(process: BorrowedFd<'_>, pipes: &[BorrowedFd<'_>], patience: Duration) -> io::Result<bool> {
    let mut descriptors = vec![PollFd::new(&process, PollFlags::IN)];
    descriptors.extend(pipes.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
    let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
    match poll(&mut descriptors, Some(&timeout)) {
        Ok(_) => Ok(!descriptors[0].revents().is_empty()),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Reads what is there; closes the pipe at its end.
fn take(pipe: &mut Option<impl Read>, output: &mut Vec<u8>) {
    let mut chunk = [0; CHUNK_BYTES];
    let Some(open) = pipe else { return };
    let started_at = Instant::now();
    // A flood must not keep us from looking at the clock.
    while started_at.elapsed() < LAST_WORDS {
        match open.read(&mut chunk) {
            Ok(length) if length > 0 => {
                output.extend_from_slice(&chunk[..length]);
                let surplus = output.len().saturating_sub(OUTPUT_BYTES_MAX);
                output.drain(..surplus);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => {
                *pipe = None;
                return;
            }
        }
    }
}

fn result(status: Option<ExitStatus>, timeout: Duration, output: &[u8]) -> ProbeResult {
    use std::os::unix::process::ExitStatusExt;
    let said = String::from_utf8_lossy(output).trim().to_owned();
    let ending = match status {
        None => format!("timed out after {}", humane(timeout)),
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => signal_text(signal.unwrap_or_default()),
        },
    };
    let passed = status.is_some_and(|status| status.success());
    let detail = match (passed, said.is_empty()) {
        (_, true) => ending,
        (true, false) => said,
        (false, false) => format!("{ending}: {said}"),
    };
    ProbeResult { passed, detail }
}
