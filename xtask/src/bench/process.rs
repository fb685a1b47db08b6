//! Processes that are stopped with their guard, and commands that run to their end.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal};

use super::sample;

/// nginx with 10,000 routes takes a few seconds.
const START_MAX: Duration = Duration::from_secs(30);
/// After that a process is killed.
pub(super) const STOP_MAX: Duration = Duration::from_secs(5);
/// How often something that starts or ends is looked at.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A process that is stopped, with all its descendants, when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it says goes to a file in `directory`.
    pub(super) fn start(mut command: Command, directory: &Path) -> Result<Self> {
        let name = Path::new(command.get_program()).file_name().unwrap_or_else(|| OsStr::new("?"));
        let name = name.to_string_lossy().into_owned();
        let log = directory.join("output");
        let file = std::fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, name, log })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process itself.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = pid(self.pid())?;
        rustix::process::kill_process(pid, signal).with_context(|| format!("{} is gone", self.name))
    }

    /// Waits until `ready` holds.
    pub(super) fn wait(&mut self, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        while !ready() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let words = std::fs::read_to_string(&self.log).unwrap_or_default();
                bail!("{} does not serve: {}", self.name, words.trim());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Whoever has ended already needs no signal: every error here means just that.
        let descendants = sample::descendants(self.pid()).unwrap_or_default();
        let _ = self.signal(Signal::TERM);
        let deadline = Instant::now() + STOP_MAX;
        while Instant::now() < deadline && !matches!(self.child.try_wait(), Ok(Some(_))) {
            std::thread::sleep(POLL_INTERVAL);
        }
        for id in descendants {
            let is_ours = id == self.child.id() || runs(id, &self.name);
            if is_ours && let Ok(pid) = pid(id) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

/// Whether a process still is what it was: its number may have been used again.
fn runs(id: u32, name: &str) -> bool {
    let told = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    told.trim() == name
}

fn pid(id: u32) -> Result<Pid> {
    let raw = i32::try_from(id).ok().and_then(Pid::from_raw);
    raw.ok_or_else(|| anyhow!("{id} is no process"))
}

/// Runs a command to its end; its words are the error when it fails.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    let words = [output.stdout, output.stderr].concat();
    let words = String::from_utf8_lossy(&words);
    ensure!(output.status.success(), "{name} failed: {}", words.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_with_its_guard() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("60");
        let process = Process::start(command, directory.path()).unwrap();
        let id = process.pid();
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn a_process_that_ends_instead_of_serving_is_an_error_with_its_words() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no luck; exit 1"]);
        let mut process = Process::start(command, directory.path()).unwrap();
        let error = process.wait(|| false).unwrap_err().to_string();
        assert_eq!(error, "sh does not serve: no luck");
    }
}
