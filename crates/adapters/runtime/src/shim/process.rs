//! The instance's process, from its start to its exit status.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitStatus, kill_process_group};

use super::exec::trampoline;
use super::output::{Output, Readers};
use crate::launch::Launch;
use crate::layout::{InstancePaths, remove};
use crate::proc_fs::{Identity, MARK};

/// The running binary, also after its file was replaced by a newer one.
const OWN_EXECUTABLE: &str = "/proc/self/exe";
/// How long to wait for the end of the output of a process that is gone.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);
/// How often to look for it.
const DRAIN_POLL: Duration = Duration::from_millis(1);

/// A process that was started. Its id stays its own until [`Process::ended_as`] was called,
/// since nobody else waits for it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    ended: Option<WaitStatus>,
    readers: Readers,
}

impl Process {
    /// Starts a command in a process group of its own, its output going to the log.
    pub(super) fn start(
        launch: &Launch,
        paths: &InstancePaths,
        shim: &Identity,
        output: &Output,
    ) -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        remove(&paths.exec_error())?;
        let mut command = trampoline(Path::new(OWN_EXECUTABLE), &paths.exec_error(), launch);
        command.env(MARK, shim.mark()).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let readers = output.read(child.stdout.take(), child.stderr.take());
        Ok(Self { child, ended: None, readers })
    }

    /// Its id; it leads a group with the same.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM to the process and its group.
    pub(super) fn terminate(&self) {
        // Not there any more: then there is nothing to do.
        if let Some(pid) = self.pid().filter(|_| self.ended.is_none()) {
            let _ = kill_process_group(pid, Signal::TERM);
            // A process that was stopped hears nothing until it goes on.
            let _ = kill_process_group(pid, Signal::CONT);
        }
    }

    /// Takes note of a child that was waited for.
    pub(super) fn ended_as(&mut self, pid: Pid, status: WaitStatus) {
        if Some(pid) == self.pid() {
            self.ended = Some(status);
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// After its end: waits until everything it wrote is in the log.
    pub(super) fn drain_output(&self) {
        let deadline = Instant::now() + DRAIN_PATIENCE;
        while Instant::now() < deadline && !self.readers.iter().all(JoinHandle::is_finished) {
            thread::sleep(DRAIN_POLL);
        }
    }

    /// How it ended, for people.
    pub(super) fn exit_text(&self, paths: &InstancePaths) -> String {
        let refused = fs::read_to_string(paths.exec_error()).unwrap_or_default();
        if refused.is_empty() { status_text(self.ended) } else { refused }
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }
}

fn status_text(status: Option<WaitStatus>) -> String {
    let Some(status) = status else { return "it does not end".to_owned() };
    if let Some(signal) = status.terminating_signal() {
        return signal_text(signal);
    }
    format!("exit code {}", status.exit_status().unwrap_or_default())
}

/// A signal as people know it.
pub(crate) fn signal_text(signal: i32) -> String {
    match signal_hook::low_level::signal_name(signal) {
        Some(name) => format!("killed by signal {signal} ({name})"),
        None => format!("killed by signal {signal}"),
    }
}
