//! Probes: how to ask an instance whether it is up, alive and ready.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeAction {
    /// `GET` this path on the instance; 200 to 399 passes. A JSON body with `"status"` other than
    /// `healthy`, `ok`, `up`, `pass` or `ready` fails.
    Http {
        /// Path and query, starting with `/`.
        path: String,
    },
    /// Open a connection to the instance's port.
    Tcp,
    /// Run this command beside the instance, in its environment; exit code 0 passes.
    Command {
        /// Program and arguments, with templates.
        argv: Vec<String>,
    },
}

/// One probe with its pace and patience.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What to do.
    pub action: ProbeAction,
    /// Time between two tries.
    #[serde(with = "crate::time::millis")]
    pub interval: Duration,
    /// How long one try may take.
    #[serde(with = "crate::time::millis")]
    pub timeout: Duration,
    /// Passes in a row before the instance counts as healthy.
    pub healthy_after: u32,
    /// Failures in a row before it counts as unhealthy.
    pub unhealthy_after: u32,
}

/// The three probes of a service, as Kubernetes users know them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthChecks {
    /// Until it passes, the other two do not run.
    pub startup: Option<Probe>,
    /// When it fails, the instance is started again.
    pub liveness: Option<Probe>,
    /// While it fails, the instance gets no traffic.
    pub readiness: Probe,
    /// How long an instance must stay ready before it counts as ready.
    #[serde(with = "crate::time::millis")]
    pub min_healthy_time: Duration,
}

/// What one try of a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// Whether it passed.
    pub passed: bool,
    /// What was seen, for people: `503 Service Unavailable: {"status":"starting"}`.
    pub detail: String,
}
