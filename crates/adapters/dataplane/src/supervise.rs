//! Starting, adopting and stopping the data plane process.
//!
//! The truth is the lock it holds and the socket it answers on. A process id is never signalled,
//! so a number that was used again can do no harm.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::FlockOperation;
use switchback_ports::data_plane::admin::{Health, LOCK_FILE};
use tokio::time::Instant;

use crate::{Error, ProxyDataPlane, client};

/// From the start of the process to its first answer: it reads its table and opens its listeners.
const START_MAX: Duration = Duration::from_secs(10);
/// The data plane finishes what is in flight for up to 30 s.
const STOP_MAX: Duration = Duration::from_secs(40);
/// How often a starting or stopping process is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// The end of the log that goes into an error.
const LAST_WORDS_BYTES: u64 = 2_000;
/// A log above this is begun anew at the next start; the data plane writes a line per incident.
const LOG_BYTES_MAX: u64 = 4 * 1024 * 1024;

impl ProxyDataPlane {
    /// Adopts the data plane that runs, or starts one, and returns when it answers. Cheap when it
    /// is alive: call it as often as you like.
    pub async fn ensure_started(&self) -> Result<Health, Error> {
        if let Ok(health) = self.health().await
            && !health.stopping
        {
            return Ok(health);
        }
        self.collect_children();
        let deadline = Instant::now() + START_MAX;
        while self.is_locked()? {
            match self.health().await {
                Ok(health) if !health.stopping => return Ok(health),
                Err(source) if Instant::now() > deadline => return Err(self.silent(source)),
                // It starts, or ends: both pass.
                Ok(_) | Err(_) => {}
            }
            if Instant::now() > deadline + STOP_MAX {
                return Err(self.silent(io::ErrorKind::TimedOut.into()));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        let said = self.log_length();
        let pid = self.spawn(&self.options.executable, None)?;
        self.first_answer(pid, said).await
    }

    /// Asks the data plane to finish what is in flight and to end; returns when it has.
    pub async fn stop(&self) -> Result<(), Error> {
        let deadline = Instant::now() + STOP_MAX;
        let mut asked = false;
        while self.is_locked()? {
            if !asked {
                let answer: io::Result<Health> = client::post(&self.socket, "/v1/stop").await;
                match answer {
                    Ok(_) => asked = true,
                    Err(source) if Instant::now() > deadline => return Err(self.silent(source)),
                    Err(_) => {}
                }
            }
            if Instant::now() > deadline {
                return Err(self.silent(io::ErrorKind::TimedOut.into()));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        self.collect_children();
        Ok(())
    }

    /// The data plane's log file.
    pub fn log_path(&self) -> PathBuf {
        self.options.state_dir.join("proxy.log")
    }

    async fn first_answer(&self, pid: u32, said: u64) -> Result<Health, Error> {
        let deadline = Instant::now() + START_MAX;
        loop {
            match self.health().await {
                Ok(health) => return Ok(health),
                Err(source) if Instant::now() > deadline => return Err(self.silent(source)),
                Err(_) => {}
            }
            if let Some(status) = self.collect(pid) {
                // Another one may have been quicker: then that is the data plane.
                if let Ok(health) = self.health().await {
                    return Ok(health);
                }
                return Err(Error::Ended { status, last_words: self.last_words(said) });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Starts the process. It takes a session of its own, so it outlives this one.
    pub(crate) fn spawn(&self, executable: &Path, argument: Option<&str>) -> Result<u32, Error> {
        let options = &self.options;
        let log = self.open_log()?;
        let errors = log.try_clone().map_err(|source| wrong(self.log_path(), source))?;
        let mut command = Command::new(executable);
        command.args(&options.arguments).arg("--state-dir").arg(&options.state_dir).args(argument);
        command.current_dir(&options.state_dir);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.spawn().map_err(|source| {
            let executable = executable.to_owned();
            Error::Spawn { executable, source }
        })?;
        let pid = child.id();
        self.children().push(child);
        Ok(pid)
    }

    fn open_log(&self) -> Result<File, Error> {
        let path = self.log_path();
        let large = fs::metadata(&path).is_ok_and(|facts| facts.len() > LOG_BYTES_MAX);
        if large {
            // One former log is kept; losing it is no reason not to start.
            let _ = fs::rename(&path, path.with_extension("log.1"));
        }
        let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        opened.map_err(|source| wrong(path, source))
    }

    /// Whether some process has the state directory.
    fn is_locked(&self) -> Result<bool, Error> {
        let directory = &self.options.state_dir;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|source| wrong(directory.clone(), source))?;
        let path = directory.join(LOCK_FILE);
        let opened =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = opened.map_err(|source| wrong(path, source))?;
        // Held for an instant only; a data plane that starts now tries again for two seconds.
        Ok(rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err())
    }

    /// Takes the exit status of a process this one started, if it has ended: no zombie stays.
    pub(crate) fn collect(&self, pid: u32) -> Option<ExitStatus> {
        let mut children = self.children();
        let place = children.iter().position(|child| child.id() == pid)?;
        children[place].try_wait().ok()??;
        // It has ended: this does not wait.
        children.swap_remove(place).wait().ok()
    }

    /// Kills a process this one started; nothing happens if it was collected already.
    pub(crate) fn kill(&self, pid: u32) {
        let mut children = self.children();
        if let Some(child) = children.iter_mut().find(|child| child.id() == pid) {
            // It may have ended this very moment.
            let _ = child.kill();
            let _ = child.wait();
        }
        children.retain(|child| child.id() != pid);
    }

    pub(crate) fn collect_children(&self) {
        self.children().retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
    }

    fn children(&self) -> MutexGuard<'_, Vec<Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much the log holds now.
    pub(crate) fn log_length(&self) -> u64 {
        let length = fs::metadata(self.log_path()).map_or(0, |facts| facts.len());
        // It is set aside before the next start.
        if length > LOG_BYTES_MAX { 0 } else { length }
    }

    /// The end of what came to the log after `said` bytes.
    pub(crate) fn last_words(&self, said: u64) -> String {
        let read = || {
            let mut log = File::open(self.log_path())?;
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(said.max(length.saturating_sub(LAST_WORDS_BYTES))))?;
            let mut bytes = Vec::new();
            log.read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        read().unwrap_or_else(|error| format!("its log cannot be read: {error}"))
    }

    pub(crate) fn silent(&self, source: io::Error) -> Error {
        Error::Silent { state_dir: self.options.state_dir.clone(), source }
    }
}

fn wrong(path: PathBuf, source: io::Error) -> Error {
    Error::StateDir { path, source }
}
