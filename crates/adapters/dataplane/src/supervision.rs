//! The data plane's process as the port that the control plane keeps it running through.

use std::io;

use async_trait::async_trait;
use switchback_ports::Supervision;
use switchback_ports::data_plane::Error;

use crate::ProxyDataPlane;

#[async_trait]
impl Supervision for ProxyDataPlane {
    async fn ensure_started(&self) -> Result<u32, Error> {
        let health = Self::ensure_started(self).await.map_err(unavailable)?;
        Ok(health.pid)
    }

    async fn stop(&self) -> Result<(), Error> {
        Self::stop(self).await.map_err(unavailable)
    }
}

fn unavailable(error: crate::Error) -> Error {
    Error::Unavailable(io::Error::other(error))
}
