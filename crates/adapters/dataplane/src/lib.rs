//! The control plane's hand on the data plane: start it, publish tables, read its counts.
//!
//! Everything goes over the admin socket; whether a data plane runs is told by the lock in its
//! state directory, never by a process id.

mod client;
mod supervise;
mod supervision;
mod upgrade;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use switchback_domain::Generation;
use switchback_ports::data_plane::admin::{CheckAnswer, Health, PublishAnswer, SOCKET_NAME};
use switchback_ports::data_plane::{Batches, Cursor, DataPlane, Error as PortError, Report};
use switchback_routing::Table;

pub use upgrade::Upgraded;

/// The new process gives up by itself sooner: each of its few steps takes ten seconds at most.
const UPGRADE_MAX: Duration = Duration::from_mins(1);

/// How to reach the data plane, and how to start it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its state directory: absolute.
    pub state_dir: PathBuf,
    /// The program that is the data plane.
    pub executable: PathBuf,
    /// What comes before `--state-dir DIR` on its command line.
    pub arguments: Vec<OsString>,
    /// How long a new process may take to take over.
    pub upgrade_within: Duration,
}

impl Options {
    /// `executable proxy --state-dir state_dir`.
    pub fn new(state_dir: impl Into<PathBuf>, executable: impl Into<PathBuf>) -> Self {
        let arguments = vec!["proxy".into()];
        let (state_dir, executable) = (state_dir.into(), executable.into());
        Self { state_dir, executable, arguments, upgrade_within: UPGRADE_MAX }
    }
}

/// Why the data plane could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state directory cannot be used.
    #[error("cannot use {}", path.display())]
    StateDir {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program cannot be run.
    #[error("cannot run {}", executable.display())]
    Spawn {
        /// Which.
        executable: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended instead of serving.
    #[error("the data plane ended at its start ({status}): {last_words}")]
    Ended {
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The end of its log.
        last_words: String,
    },
    /// The process that was to take over ended instead; the one that runs goes on.
    #[error("the new data plane ended ({status}), the old one goes on: {last_words}")]
    NotReplaced {
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it, or the old one, said about it in the log.
        last_words: String,
    },
    /// The process that was to take over did not in time, and was killed.
    #[error("the new data plane did not take over within {within:?}, the old one goes on")]
    NotReady {
        /// How long it was given.
        within: Duration,
    },
    /// Another upgrade is under way.
    #[error("another upgrade of the data plane is under way")]
    Upgrading,
    /// It runs (its lock is held), but does not answer in time. It may still carry traffic, so it
    /// is not killed.
    #[error("a data plane runs on {}, but does not answer", state_dir.display())]
    Silent {
        /// Its state directory.
        state_dir: PathBuf,
        /// What the last attempt met.
        #[source]
        source: io::Error,
    },
}

/// The data plane process, as the control plane sees it.
#[derive(Debug)]
pub struct ProxyDataPlane {
    options: Options,
    socket: PathBuf,
    /// The processes this one started, to be collected when they end.
    children: Mutex<Vec<std::process::Child>>,
    /// One upgrade at a time.
    upgrading: tokio::sync::Mutex<()>,
}

impl ProxyDataPlane {
    /// Nothing happens yet; see [`Self::ensure_started`].
    pub fn new(options: Options) -> Self {
        let socket = switchback_domain::socket_path(&options.state_dir, SOCKET_NAME);
        let (children, upgrading) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { options, socket, children, upgrading }
    }

    /// What it says about itself; an error when it does not answer.
    pub async fn health(&self) -> io::Result<Health> {
        client::get(&self.socket, "/v1/health").await
    }

    /// Its process id, while it answers. For people: never signal it.
    pub async fn pid(&self) -> Option<u32> {
        self.health().await.ok().map(|health| health.pid)
    }
}

#[async_trait]
impl DataPlane for ProxyDataPlane {
    async fn publish(&self, table: &Table) -> Result<Generation, PortError> {
        let body = serde_json::to_vec(table)
            .map_err(|error| PortError::Refused(format!("not to be written as JSON: {error}")))?;
        let answer = client::put(&self.socket, "/v1/table", body).await;
        match answer.map_err(PortError::Unavailable)? {
            PublishAnswer::Serving { generation } => Ok(generation),
            PublishAnswer::Fenced { given, seen } => Err(PortError::Fenced { given, seen }),
            PublishAnswer::Refused { reason } => Err(PortError::Refused(reason)),
            PublishAnswer::Unacknowledged { reason } => {
                Err(PortError::Unavailable(io::Error::new(io::ErrorKind::TimedOut, reason)))
            }
        }
    }

    async fn check(&self, table: &Table) -> Result<(), PortError> {
        let body = serde_json::to_vec(table)
            .map_err(|error| PortError::Refused(format!("not to be written as JSON: {error}")))?;
        let answer = client::put(&self.socket, "/v1/check", body).await;
        match answer.map_err(PortError::Unavailable)? {
            CheckAnswer { reason: None } => Ok(()),
            CheckAnswer { reason: Some(reason) } => Err(PortError::Refused(reason)),
        }
    }

    async fn serving(&self) -> Result<Table, PortError> {
        client::get(&self.socket, "/v1/table").await.map_err(PortError::Unavailable)
    }

    async fn report(&self) -> Result<Report, PortError> {
        client::get(&self.socket, "/v1/report").await.map_err(PortError::Unavailable)
    }

    async fn batches(&self, after: &Cursor) -> Result<Batches, PortError> {
        let path = format!("/v1/batches?of={}&after={}", after.incarnation, after.place);
        client::get(&self.socket, &path).await.map_err(PortError::Unavailable)
    }
}
