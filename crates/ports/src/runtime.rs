//! Where instances run. Writes are *ensure*: doing them twice is doing them once.

pub mod conformance;
pub mod fake;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use switchback_domain::probe::ProbeResult;
use switchback_domain::{
    Generation, InstanceId, ProjectName, ReleaseId, ServiceKey, Version, Workload,
};

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// Its name; one name is one instance, for ever.
    pub id: InstanceId,
    /// Whose project.
    pub project: ProjectName,
    /// Which service, where.
    pub key: ServiceKey,
    /// Of which release.
    pub release: ReleaseId,
    /// As its users call it.
    pub version: Version,
    /// What runs. Release templates are filled; instance templates are the runtime's to fill.
    pub workload: Arc<Workload>,
}

/// Where the process of an instance is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ProcessState {
    /// Asked for; no process yet.
    Starting,
    /// A process runs.
    Running {
        /// Its process id, for people.
        pid: u32,
    },
    /// The process ended and will be started again.
    BackingOff {
        /// Time to the next start, at the time of the report.
        #[serde(with = "switchback_domain::time::millis")]
        next_start_in: Duration,
        /// Ended so often in a short time that it counts as a crash loop.
        crash_loop: bool,
    },
    /// Being stopped.
    Stopping,
    /// Its supervisor is gone and so is its process; only the record is left.
    Lost,
}

/// What the runtime knows about an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// As it was asked for.
    pub spec: InstanceSpec,
    /// Where it answers, once known.
    pub address: Option<SocketAddr>,
    /// Where in its life.
    pub process: ProcessState,
    /// How often the process was started again after it ended.
    pub restarts: u32,
    /// How the process ended last, for people: `exit code 1`, `killed by signal 9 (SIGKILL)`.
    pub last_exit: Option<String>,
}

/// What an instance uses.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time used since start, in seconds, with its children's.
    pub cpu_seconds: f64,
    /// Resident memory in bytes, of all its processes.
    pub memory_bytes: u64,
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Wall clock, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// `stdout`, `stderr`, or `switchback` for the supervisor's own words.
    pub stream: String,
    /// The line without its end; invalid UTF-8 replaced, cut at 16 KiB.
    pub text: String,
}

/// A place in an instance's log: pass back what the last call returned.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogCursor(pub String);

/// Lines and where to go on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogPage {
    /// Oldest first.
    pub lines: Vec<LogLine>,
    /// Where the next call goes on.
    pub next: LogCursor,
}

/// Which lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogQuery {
    /// The newest `n`.
    Tail(usize),
    /// What came after a cursor, at most so many.
    After(LogCursor, usize),
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A newer write was seen: the caller is not in charge any more.
    #[error("refused: generation {given} is older than {seen}")]
    Fenced {
        /// The caller's.
        given: Generation,
        /// The newest seen.
        seen: Generation,
    },
    /// There is no such instance.
    #[error("there is no instance {0}")]
    Unknown(InstanceId),
    /// The operation on the instance failed; trying again may help.
    #[error("cannot {operation} {instance}")]
    Failed {
        /// `start`, `stop`, ...
        operation: &'static str,
        /// Of which.
        instance: InstanceId,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The runtime as a whole cannot be asked.
    #[error("the runtime does not answer")]
    Unavailable(#[source] std::io::Error),
}

/// Where instances run.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Turns away, from now on and for good, the writes of every life before this one's. A life
    /// does so before its first list: what it lists then, nobody else changes any more.
    async fn take_charge(&self, generation: Generation) -> Result<(), Error>;

    /// Sees to it that the instance runs, and keeps running. Returns when its supervision is
    /// durable; the process may still be starting.
    async fn ensure_running(
        &self,
        spec: &InstanceSpec,
        generation: Generation,
    ) -> Result<(), Error>;

    /// Stops the instance (SIGTERM, its `stop_timeout`, SIGKILL) and returns when nothing of it
    /// is left but its log. Unknown instances are stopped already.
    async fn ensure_stopped(&self, id: &InstanceId, generation: Generation) -> Result<(), Error>;

    /// Ends the process so that it is started again, at once and without counting as a crash.
    async fn restart(&self, id: &InstanceId, reason: &str) -> Result<(), Error>;

    /// Every instance that was asked for and not stopped, also those started by an earlier life
    /// of the control plane.
    async fn list(&self) -> Result<Vec<Instance>, Error>;

    /// Returns when something may have changed since the last call; may return early.
    async fn changed(&self);

    /// Runs a command beside the instance, in its environment and directory.
    async fn execute(
        &self,
        id: &InstanceId,
        argv: &[String],
        timeout: Duration,
    ) -> Result<ProbeResult, Error>;

    /// What the instance uses now.
    async fn usage(&self, id: &InstanceId) -> Result<Usage, Error>;

    /// Its output, also after it was stopped, as long as it is kept.
    async fn logs(&self, id: &InstanceId, query: LogQuery) -> Result<LogPage, Error>;
}
