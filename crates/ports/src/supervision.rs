//! The data plane as a process: it is started and watched by the control plane, and outlives it.

use async_trait::async_trait;

use crate::data_plane::Error;

/// Keeps the data plane's process running.
#[async_trait]
pub trait Supervision: Send + Sync {
    /// Sees to it that it runs and answers: adopts a living one or starts one. Cheap when it
    /// lives. Returns its process id.
    async fn ensure_started(&self) -> Result<u32, Error>;

    /// Lets it finish what is on its way and end; returns when it is gone.
    async fn stop(&self) -> Result<(), Error>;
}
