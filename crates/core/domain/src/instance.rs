//! One running copy of a release, as the runtime and the probes see it.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{ReleaseId, ServiceKey};

/// Names one instance: environment, service, release and ordinal. Readable, and unique because
/// the release's hash is part of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(String);

impl InstanceId {
    /// The instance `ordinal` (from 0) of a release.
    pub fn new(key: &ServiceKey, release: &ReleaseId, ordinal: u32) -> Self {
        Self(format!("{}.{}.{}.{ordinal}", key.environment, key.service, release.short()))
    }

    /// An id read back from where an adapter stored it.
    pub fn from_stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id as text: file-name safe.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// How an instance is doing, by the worst thing known about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceHealth {
    /// Started; its startup or readiness probes have not passed yet.
    Starting,
    /// Its readiness probe passes and it has been healthy for `min_healthy_time`.
    Ready,
    /// It was ready, and its readiness probe fails now.
    Unready,
    /// Its process ended; the runtime will start it again after a back-off.
    Exited,
    /// It ends again and again: the runtime has given up being quick about it.
    CrashLoop,
    /// It is being stopped, or is gone.
    Stopping,
}

/// What the engine is told about one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceReport {
    /// Which one.
    pub id: InstanceId,
    /// Where it answers, once it has an address.
    pub address: Option<SocketAddr>,
    /// How it does.
    pub health: InstanceHealth,
    /// How often its process was started again.
    pub restarts: u32,
    /// Probes failed in a row, or the last exit: the newest reason why it is not ready.
    pub reason: Option<String>,
}
