//! Flagger's scheduler: one tick per interval, failed checks add up and are never forgiven, and the
//! rollback comes at the start of the tick after the one that reached the threshold (design page,
//! 2.2).

use serde::Deserialize;

/// Where a canary stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Being analysed.
    Progressing,
    /// Rolled back.
    Failed,
}

/// A canary under analysis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canary {
    threshold: u32,
    failed_checks: u32,
    phase: Phase,
}

impl Canary {
    /// Begins. Flagger's default threshold is 1.
    pub fn new(threshold: u32, failed_checks: u32) -> Self {
        Self { threshold, failed_checks, phase: Phase::Progressing }
    }

    /// One tick with traffic on the canary; `check` runs the metrics and says whether all are
    /// within their limits. A query without values is a failed check.
    pub fn tick(&mut self, check: impl FnOnce() -> bool) {
        if self.phase == Phase::Failed {
            return;
        }
        if self.failed_checks >= self.threshold {
            self.phase = Phase::Failed;
            return;
        }
        if !check() {
            self.failed_checks += 1;
        }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Failed checks so far.
    pub fn failed_checks(&self) -> u32 {
        self.failed_checks
    }
}
