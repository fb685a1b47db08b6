//! The data plane's process as the port that the control plane keeps it running through.

use std::io;
use std::path::Path;

use async_trait::async_trait;
use switchback_domain::with_causes;
use switchback_ports::data_plane::Error;
use switchback_ports::{NotReplaced, Replaced, Supervision};

use crate::ProxyDataPlane;

#[async_trait]
impl Supervision for ProxyDataPlane {
    async fn ensure_started(&self) -> Result<u32, Error> {
        let health = Self::ensure_started(self).await.map_err(unavailable)?;
        Ok(health.pid)
    }

    async fn upgrade(&self, executable: Option<&Path>) -> Result<Replaced, NotReplaced> {
        let upgraded = Self::upgrade(self, executable).await;
        let upgraded = upgraded.map_err(|error| NotReplaced(with_causes(&error)))?;
        let [from, to] = [upgraded.from, upgraded.to].map(|health| (health.pid, health.version));
        Ok(Replaced { from, to, took: upgraded.took })
    }

    async fn stop(&self) -> Result<(), Error> {
        Self::stop(self).await.map_err(unavailable)
    }
}

fn unavailable(error: crate::Error) -> Error {
    Error::Unavailable(io::Error::other(error))
}
