//! What became of the requests that chance alone assigned: one batch per tick, rollout and weight,
//! for the exact test of the control plane.

use serde::{Deserialize, Serialize};
use switchback_analysis::{ArmBatch, Batch};
use switchback_domain::{ReleaseId, ServiceKey, Timestamp, Weight};

/// One rollout's coin: its requests are compared with each other and with no others'.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TrialId {
    /// Whose requests.
    pub service: ServiceKey,
    /// The version on trial.
    pub candidate: ReleaseId,
    /// Names the rollout: the salt of the table's candidate.
    pub salt: String,
}

/// How far somebody has read. The default has read nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// Of which life of the data plane.
    pub incarnation: String,
    /// The last place read; places count from 1.
    pub place: u64,
}

/// What was counted since a cursor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Batches {
    /// Where to go on.
    pub next: Cursor,
    /// Oldest first; the oldest ones may be gone, which their sequence numbers tell.
    pub batches: Vec<Counted>,
}

/// The requests of one rollout that arrived in one tick, complete: what had not ended at the cap
/// age is unfinished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Of which rollout.
    pub trial: TrialId,
    /// Age at which a request counts as not ended, in milliseconds; the same for the whole trial
    /// as long as the data plane lives.
    pub cap_age_ms: u64,
    /// How long ago the batch was closed, in milliseconds: clocks of two machines are two.
    pub age_ms: u64,
    /// Rises by one from batch to batch of a trial and incarnation.
    pub sequence: u64,
    /// The candidate's share when these requests arrived.
    pub weight: Weight,
    /// The candidate's requests.
    pub candidate: ArmBatch,
    /// Everybody else's.
    pub baseline: ArmBatch,
}

impl Counted {
    /// As the test takes it: counted by the data plane of this incarnation, `now` by the reader's
    /// clock.
    pub fn batch(&self, incarnation: &str, now: Timestamp) -> Batch {
        Batch {
            at: Timestamp::from_millis(now.as_millis().saturating_sub(self.age_ms)),
            source: incarnation.to_owned(),
            sequence: self.sequence,
            weight: self.weight,
            candidate: self.candidate.clone(),
            baseline: self.baseline.clone(),
        }
    }
}
