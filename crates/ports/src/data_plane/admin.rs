//! The words of the data plane's admin socket: what its answers mean on both sides of it.

use serde::{Deserialize, Serialize};
use switchback_domain::Generation;

/// The admin socket's name, for `switchback_domain::socket_path`.
pub const SOCKET_NAME: &str = "proxy";

/// The name of the socket on which a data plane hands over to its successor, for
/// `switchback_domain::socket_path`.
pub const HANDOVER_NAME: &str = "handover";

/// The argument of a data plane that takes over from the one that runs.
pub const TAKE_OVER: &str = "--take-over";

/// The file in the state directory that a running data plane holds locked (`flock`): the only
/// truth about whether one runs. Its content, the process id, is for people.
pub const LOCK_FILE: &str = "proxy.lock";

/// The answer to `PUT /v1/table`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum PublishAnswer {
    /// Every worker serves from this table, or a newer one.
    Serving {
        /// The newest table that every worker serves from.
        generation: Generation,
    },
    /// A newer table is there already; nothing was changed.
    Fenced {
        /// The caller's.
        given: Generation,
        /// The newest seen.
        seen: Generation,
    },
    /// The table cannot be served; nothing was changed.
    Refused {
        /// Why.
        reason: String,
    },
    /// The table is in force, but a worker has not acknowledged it in time: ask again.
    Unacknowledged {
        /// Which workers.
        reason: String,
    },
}

/// The answer to `PUT /v1/check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckAnswer {
    /// Why the table could not be served; `None` if it could.
    pub reason: Option<String>,
}

/// The answer to `GET /v1/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Its process id.
    pub pid: u32,
    /// Changes with every start, but not when a process takes over from another one.
    pub incarnation: String,
    /// The newest table in force.
    pub generation: Generation,
    /// Whether it was told to stop and only finishes what it has.
    pub stopping: bool,
    /// Of the binary that serves; empty when it is older than this field.
    #[serde(default)]
    pub version: String,
    /// Processes that were replaced by this one and finish what they could not hand over.
    #[serde(default)]
    pub retiring: u64,
    /// Connections that this process took over from others.
    #[serde(default)]
    pub taken_over: u64,
}
