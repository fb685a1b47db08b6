//! The data plane as a process: it is started and watched by the control plane, and outlives it.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;

use crate::data_plane::Error;

/// One process of the data plane in the place of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// The process before, and its version: empty when it does not say.
    pub from: (u32, String),
    /// The process that serves now, and its version.
    pub to: (u32, String),
    /// How long it took.
    pub took: Duration,
}

/// No process took over, and the one that runs goes on. Says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotReplaced(pub String);

/// Keeps the data plane's process running.
#[async_trait]
pub trait Supervision: Send + Sync {
    /// Sees to it that it runs and answers: adopts a living one or starts one. Cheap when it
    /// lives. Returns its process id.
    async fn ensure_started(&self) -> Result<u32, Error>;

    /// Has a new process take over without a gap: of `executable`, or of the program that it is
    /// always started from. When it cannot, the one that runs goes on.
    async fn upgrade(&self, executable: Option<&Path>) -> Result<Replaced, NotReplaced>;

    /// Lets it finish what is on its way and end; returns when it is gone.
    async fn stop(&self) -> Result<(), Error>;
}
