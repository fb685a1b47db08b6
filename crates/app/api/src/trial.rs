//! What the exact test of a rollout has taken in and said: enough to do all of it again, anywhere,
//! to the bit.

use serde::{Deserialize, Serialize};
use switchback_analysis::label::errors::ErrorCounts;
use switchback_analysis::label::{Evidence, Invalid};
use switchback_analysis::{Batch, Settings, Trial};
use switchback_domain::{Histogram, Outcome, Timestamp};

/// One test of one rollout: `GET /v1/rollouts/{id}/trials` answers a list, oldest first. A rollout
/// has another one when somebody resumes it after a verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialRecord {
    /// Of which rollout: `r12`.
    pub rollout: String,
    /// What the coin of clients that stay with their version was salted with.
    pub salt: String,
    /// What the candidate was held against.
    pub settings: Settings,
    /// The baseline's latencies before the first request of the test.
    pub history: Histogram,
    /// The baseline's requests and errors before.
    pub usual: ErrorCounts,
    /// When it began.
    pub started: Timestamp,
    /// Everything it was fed, in order.
    pub batches: Vec<Batch>,
    /// What it said, oldest first.
    pub verdicts: Vec<TrialVerdict>,
    /// Whether so much was fed that some of it was not kept: it cannot be done again.
    pub truncated: bool,
}

/// What the test said at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialVerdict {
    /// When.
    pub at: Timestamp,
    /// How many batches it had been fed.
    pub batches: u64,
    /// What it told the engine, together with the document's rules.
    pub outcome: Outcome,
    /// The numbers behind it.
    pub evidence: Evidence,
    /// Of the test's whole state: two that agree have seen and concluded the same, to the bit.
    pub fingerprint: String,
}

impl TrialRecord {
    /// Does it again with these settings; `each` sees the test after every batch.
    pub fn replay(
        &self,
        settings: Settings,
        mut each: impl FnMut(&Trial, &Batch),
    ) -> Result<Trial, Invalid> {
        let mut trial = Trial::new(settings, &self.history, self.usual, self.started)?;
        for batch in &self.batches {
            trial.feed(batch);
            each(&trial, batch);
        }
        Ok(trial)
    }

    /// The verdicts that doing it again does not give to the bit; none if all is well.
    pub fn differences(&self) -> Result<Vec<&TrialVerdict>, Invalid> {
        let mut verdicts = self.verdicts.iter().peekable();
        let mut different = Vec::new();
        let mut fed = 0;
        let mut check = |fed: u64, trial: &Trial| {
            let found = || fingerprint(trial);
            while let Some(verdict) = verdicts.next_if(|verdict| verdict.batches <= fed) {
                different.extend((verdict.fingerprint != found()).then_some(verdict));
            }
        };
        self.replay(self.settings.clone(), |trial, _| {
            fed += 1;
            check(fed, trial);
        })?;
        different.extend(verdicts);
        Ok(different)
    }
}

/// Names a state of the test: FNV-1a over all of it, in 16 hexadecimal digits. Not for keeping
/// anybody out, only for noticing a difference.
pub fn fingerprint(trial: &Trial) -> String {
    let state = serde_json::to_vec(trial).unwrap_or_default();
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", state.iter().fold(0xcbf2_9ce4_8422_2325, mix))
}
