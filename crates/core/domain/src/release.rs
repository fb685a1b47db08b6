//! A release: one immutable unit with a hash.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{ServiceKey, Version, Workload};

/// The hash of a release's content, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReleaseId(String);

impl ReleaseId {
    /// The first 8 hexadecimal digits: enough to tell the releases of one service apart.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }

    /// An id read back from where an adapter stored it, or made up by a test.
    pub fn from_stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// All digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.short())
    }
}

/// One immutable unit: a version of a service with everything it runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Hash of the rest.
    pub id: ReleaseId,
    /// Which service, where.
    pub key: ServiceKey,
    /// As its users call it.
    pub version: Version,
    /// What runs; one and the same wherever the release is referred to.
    pub workload: Arc<Workload>,
}

impl Release {
    /// Makes a release; equal content gives an equal id.
    pub fn new(key: ServiceKey, version: Version, workload: Workload) -> Self {
        let content = serde_json::to_vec(&(&key, &version, &workload)).unwrap_or_default();
        let id = ReleaseId(hexadecimal(&Sha256::digest(&content)));
        Self { id, key, version, workload: Arc::new(workload) }
    }

    /// This version's artefact (command and directory) with the configuration (environment,
    /// files, probes, route) of `other`: what a configuration-only rollback brings in.
    #[must_use]
    pub fn with_configuration_of(&self, other: &Self) -> Self {
        let workload = Workload {
            runtime: self.workload.runtime,
            command: self.workload.command.clone(),
            working_dir: self.workload.working_dir.clone(),
            ..Workload::clone(&other.workload)
        };
        Self::new(self.key.clone(), self.version.clone(), workload)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
