//! Asking an instance how it does.

use std::net::SocketAddr;

use async_trait::async_trait;
use switchback_domain::InstanceId;
use switchback_domain::probe::{Probe, ProbeResult};

/// Asks instances how they do.
#[async_trait]
pub trait Prober: Send + Sync {
    /// Tries once. Never fails: what goes wrong is the answer.
    async fn probe(&self, id: &InstanceId, address: SocketAddr, probe: &Probe) -> ProbeResult;
}
