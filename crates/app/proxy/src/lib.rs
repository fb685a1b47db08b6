//! The data plane: sockets and connection pools around core/routing.
//!
//! A process of its own: it serves its last table when the control plane is gone, and after its
//! own restart. Threads: one per core for traffic, one that accepts, one for control. It decides
//! nothing: which version gets which share is in the table.

mod admin;
mod balance;
mod body;
mod compiled;
mod connection;
mod counters;
mod exchange;
mod headers;
pub mod limits;
mod listen;
mod log;
mod metrics;
mod plane;
mod pool;
mod process;
mod registry;
mod service;
mod shared;
mod socket;
mod store;
mod tunnel;
mod worker;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use switchback_ports::data_plane::admin::SOCKET_NAME;

pub use process::run;

/// The file in the state directory whose lock says that a data plane runs.
pub use switchback_ports::data_plane::admin::LOCK_FILE;

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the last table, the lock and (if its path is short enough) the admin socket lie.
    pub state_dir: PathBuf,
    /// The admin socket.
    pub admin_socket: PathBuf,
    /// Threads that carry traffic; `None` takes one per core.
    pub workers: Option<usize>,
    /// Take a session of its own and obey signals: right for a process, wrong inside a test.
    pub detach: bool,
    /// How long requests in flight may go on after it was told to stop.
    pub stop_grace: Duration,
}

impl Options {
    /// A process of its own, with its admin socket where the control plane looks for it.
    /// `state_dir` should be absolute: the socket's path may be derived from its text.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        let state_dir = state_dir.into();
        let admin_socket = switchback_domain::socket_path(&state_dir, SOCKET_NAME);
        let stop_grace = limits::STOP_GRACE;
        Self { state_dir, admin_socket, workers: None, detach: true, stop_grace }
    }
}

/// Why the data plane cannot run.
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
    /// Another data plane has it.
    #[error("another data plane runs on {}", path.display())]
    Locked {
        /// Which directory.
        path: PathBuf,
    },
    /// The admin socket cannot be opened.
    #[error("cannot open the admin socket {}", path.display())]
    Admin {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A thread, runtime or signal handler cannot be set up.
    #[error("cannot set up the data plane's threads")]
    Runtime(#[source] io::Error),
}
