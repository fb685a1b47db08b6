//! One running copy of a release, as the runtime and the probes see it.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;

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
        let (environment, service) = (key.environment.as_str(), key.service.as_str());
        let (release, ordinal) = (release.short(), ordinal.to_string());
        Self([environment, service, release, &ordinal].join("."))
    }

    /// The instances of a release of which so many are wanted.
    pub fn wanted(
        key: &ServiceKey,
        release: &ReleaseId,
        desired: u32,
    ) -> impl Iterator<Item = Self> {
        (0..desired).map(|ordinal| Self::new(key, release, ordinal))
    }

    /// Where the ids of all instances of a service lie in their order, and no others.
    pub fn all_of(key: &ServiceKey) -> Range<Self> {
        let (environment, service) = (key.environment.as_str(), key.service.as_str());
        // Names hold no dot, and a slash is what comes after it.
        let end = |mark: &str| Self([environment, ".", service, mark].concat());
        end(".")..end("/")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EnvironmentName, ServiceName};

    #[test]
    fn the_instances_of_a_service_lie_together() {
        let key = |service: &str| {
            let environment = EnvironmentName::new("prod").unwrap();
            ServiceKey::new(environment, ServiceName::new(service).unwrap())
        };
        let release = ReleaseId::from_stored("c0ffee00c0ffee00");
        let range = InstanceId::all_of(&key("api"));
        for ordinal in [0, 9, 10, 4_000_000_000] {
            let id = InstanceId::new(&key("api"), &release, ordinal);
            assert_eq!(id.as_str(), format!("prod.api.c0ffee00.{ordinal}"));
            assert!(range.contains(&id));
            for other in ["ap", "api-2", "api0", "apis", "b"] {
                assert!(!range.contains(&InstanceId::new(&key(other), &release, ordinal)));
            }
        }
    }
}
