//! What goes into the judge: one look at the world, and the rules to hold it against.

use std::collections::BTreeMap;
use std::time::Duration;

use switchback_domain::trigger::{Thresholds, Triggers};
use switchback_domain::{ArmStats, Timestamp};

/// One look at the world. Counters are cumulative: the judge subtracts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sample {
    /// When the counters were read. Must move forward from look to look.
    pub at: Timestamp,
    /// The data plane's counters of the version that serves now; `None` when there is no such
    /// version or nothing is known about it, which no comparing rule takes as a pass.
    pub baseline: Option<ArmStats>,
    /// The data plane's counters of the version on trial.
    pub candidate: ArmStats,
    /// Of the data plane; changes when it starts anew and its counters with it.
    pub incarnation: String,
    /// CPU use in cores, the highest of the candidate's instances; `None` when not known.
    pub cpu_cores: Option<f64>,
    /// Resident memory in bytes, the highest of the candidate's instances; `None` when not known.
    pub memory_bytes: Option<f64>,
    /// Failed health checks, cumulative over the candidate's instances. Those before the first
    /// look do not count, nor does a step back (an instance that was replaced).
    pub failed_probes: u64,
    /// The newest number of each custom metric, by its name; left out when its command failed or
    /// printed none.
    pub custom: BTreeMap<String, f64>,
}

/// What the candidate is held against.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rules {
    /// At every moment.
    pub triggers: Triggers,
    /// During an analysis step: what to keep to, and how long to look at least.
    pub step: Option<(Thresholds, Duration)>,
}
