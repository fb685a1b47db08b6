//! The exact test of one rollout: fed with what the data plane counted, and written down, so that
//! after a restart it goes on where it was and nothing counts twice.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use switchback_analysis::label::errors::ErrorCounts;
use switchback_analysis::label::{Fed, Invalid};
use switchback_analysis::{Batch, Settings, Trial};
use switchback_api::trial::fingerprint;
use switchback_api::{TrialRecord, TrialVerdict};
use switchback_domain::{ArmStats, Histogram, Outcome, Timestamp, Verdict};
use switchback_engine::{Counts, RolloutId};
use switchback_ports::journal::{NewRecord, Record};

use crate::clock::Instant;
use crate::{compact, record};

/// Batches are written together: a record a second.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// Bytes of batches that the journal keeps of one test: an hour at a thousand requests a second.
/// From then on only the state is written, and the test cannot be done again.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// Time between two states. The data plane keeps batches for longer.
const STATE_EVERY: Duration = Duration::from_mins(1);
/// Batches that wait for a journal that takes nothing.
const PENDING_MAX: usize = 4_096;
/// Evidence, as a logarithm, above which no step is passed: ten to one. A healthy candidate shows
/// it in at most one rollout of ten, and not for long.
const SUSPICIOUS: f64 = std::f64::consts::LN_10;

const BEGUN: &str = "trial.begun";
const BATCHES: &str = "trial.batches";
const STATE: &str = "trial.state";
const JUDGED: &str = "trial.judged";

/// What a test begins with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Begun {
    pub(crate) salt: String,
    pub(crate) settings: Settings,
    pub(crate) history: Histogram,
    pub(crate) usual: ErrorCounts,
    pub(crate) started: Timestamp,
}

impl Begun {
    /// What the baseline did before the first request of the test.
    pub(crate) fn new(
        rollout: RolloutId,
        settings: Settings,
        before: &ArmStats,
        at: Timestamp,
    ) -> Self {
        let usual = ErrorCounts {
            baseline_requests: before.finished(),
            baseline_failed: before.failed(),
            ..ErrorCounts::default()
        };
        let (salt, history) = (rollout.to_string(), before.latency.clone());
        Self { salt, settings, history, usual, started: at }
    }

    fn trial(&self) -> Result<Trial, Invalid> {
        Trial::new(self.settings.clone(), &self.history, self.usual, self.started)
    }
}

/// The state of a test of which not everything is kept.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    fed: u64,
    trial: Trial,
}

/// See the module.
pub(crate) struct Exact {
    pub(crate) rollout: RolloutId,
    begun: Begun,
    trial: Trial,
    /// Batches it was fed.
    fed: u64,
    last: Option<Timestamp>,
    is_begun_written: bool,
    pending: Vec<Batch>,
    verdicts: Vec<TrialVerdict>,
    /// Bytes of batches in the journal.
    bytes: usize,
    truncated: bool,
    /// The engine was told that the candidate is worse.
    was_heard: bool,
    written_at: Instant,
    state_at: Instant,
}

/// What it says for the advance of a step.
pub(crate) struct Opinion {
    pub(crate) verdict: Verdict,
    /// Whether something keeps the step from passing, whatever else holds.
    pub(crate) holds: bool,
}

impl Exact {
    pub(crate) fn begin(rollout: RolloutId, begun: Begun) -> Result<Self, Invalid> {
        let (trial, now) = (begun.trial()?, Instant::now());
        Ok(Self {
            rollout,
            begun,
            trial,
            fed: 0,
            last: None,
            is_begun_written: false,
            pending: Vec::new(),
            verdicts: Vec::new(),
            bytes: 0,
            truncated: false,
            was_heard: false,
            written_at: now,
            state_at: now,
        })
    }

    /// Begins anew: somebody lets the rollout go on although the test has spoken.
    pub(crate) fn begin_again(&mut self, now: Timestamp) {
        let begun = Begun { started: now, ..self.begun.clone() };
        if let Ok(again) = Self::begin(self.rollout, begun) {
            *self = again;
        }
    }

    /// Goes on where the journal's records end; `None` if there are none of a test.
    pub(crate) fn restore(rollout: RolloutId, records: &[Record]) -> Option<Self> {
        let last = records.iter().rposition(|record| record.content.kind == BEGUN)?;
        let (first, rest) = records[last..].split_first()?;
        let mut exact = Self::begin(rollout, read(first)?).ok()?;
        exact.is_begun_written = true;
        for record in rest {
            match record.content.kind.as_str() {
                BATCHES => {
                    exact.bytes += record.content.body.len();
                    for batch in compact::decode(&record.content.body).unwrap_or_default() {
                        exact.take(&batch);
                    }
                }
                STATE => {
                    let Some(State { fed, trial }) = read(record) else { continue };
                    (exact.fed, exact.trial, exact.truncated) = (fed, trial, true);
                }
                JUDGED => {
                    let said: Option<TrialVerdict> = read(record);
                    exact.was_heard |= said.is_some_and(|it| it.outcome == Outcome::Regressed);
                }
                _ => {}
            }
        }
        Some(exact)
    }

    fn take(&mut self, batch: &Batch) -> bool {
        let counted = match self.trial.feed(batch) {
            Fed::Counted | Fed::Gap(_) => true,
            Fed::Repeated | Fed::TooManySources => false,
        };
        if counted {
            self.fed += 1;
            self.last = self.last.max(Some(batch.at));
        }
        counted
    }

    /// Takes a batch, unless it was taken before.
    pub(crate) fn feed(&mut self, batch: Batch) {
        if !self.take(&batch) {
            return;
        }
        if self.truncated || self.pending.len() >= PENDING_MAX {
            self.pending.clear();
            self.truncated = true;
        } else {
            self.pending.push(batch);
        }
    }

    /// Whether it has found that the candidate is worse, and the engine was told.
    pub(crate) fn was_heard(&self) -> bool {
        self.was_heard && self.trial.fired().is_some()
    }

    /// The candidate's requests that it has counted.
    pub(crate) fn counts(&self) -> Counts {
        let counts = self.trial.counts();
        Counts { requests: counts.candidate_requests, failed: counts.candidate_failed }
    }

    /// What it says now. `since`: when the present step began, if both versions are drawn; a test
    /// without anything to compare has no say but for what it has found before.
    pub(crate) fn opinion(&self, now: Timestamp, since: Option<Timestamp>) -> Opinion {
        let last = self.last.unwrap_or(self.begun.started);
        let Some(since) = since else {
            let mut verdict = self.trial.verdict(last);
            verdict.findings.retain(|finding| is_metric(&finding.rule));
            return Opinion { verdict, holds: false };
        };
        // Requests that come now and then are no silence as long as the step has seen some.
        let as_of = if last >= since { last } else { now };
        let verdict = self.trial.verdict(as_of);
        let has_hold = verdict.findings.iter().any(|finding| !is_metric(&finding.rule));
        let holds = has_hold || self.trial.evidence().together >= SUSPICIOUS;
        Opinion { verdict, holds }
    }

    /// Notes down what the engine was told.
    pub(crate) fn judged(&mut self, at: Timestamp, outcome: Outcome) {
        self.was_heard |= outcome == Outcome::Regressed;
        self.verdicts.push(TrialVerdict {
            at,
            batches: self.fed,
            outcome,
            evidence: self.trial.evidence(),
            fingerprint: fingerprint(&self.trial),
        });
    }

    /// What is to be written now, if anything is.
    pub(crate) fn unwritten(&self, at: Timestamp) -> Vec<NewRecord> {
        let is_due = self.written_at.elapsed() >= WRITE_EVERY && !self.pending.is_empty();
        let needs_state = self.truncated && self.state_at.elapsed() >= STATE_EVERY;
        if !is_due && self.verdicts.is_empty() && !needs_state {
            return Vec::new();
        }
        let of = |kind, body| record::of_trial(self.rollout, kind, at, body);
        let mut records = Vec::new();
        if !self.is_begun_written {
            records.push(of(BEGUN, json(&self.begun)));
        }
        if !self.pending.is_empty() {
            records.push(of(BATCHES, compact::encode(&self.pending)));
        }
        if self.truncated {
            let state = State { fed: self.fed, trial: self.trial.clone() };
            records.push(of(STATE, json(&state)));
        }
        records.extend(self.verdicts.iter().map(|verdict| of(JUDGED, json(verdict))));
        records
    }

    /// The journal has taken these.
    pub(crate) fn written(&mut self, records: &[NewRecord]) {
        let batches = records.iter().filter(|record| record.kind == BATCHES);
        self.bytes += batches.map(|record| record.body.len()).sum::<usize>();
        self.truncated |= self.bytes >= BYTES_MAX;
        self.is_begun_written = true;
        self.pending.clear();
        self.verdicts.clear();
        (self.written_at, self.state_at) = (Instant::now(), Instant::now());
    }
}

fn is_metric(rule: &str) -> bool {
    matches!(rule, "errors" | "latency" | "events")
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn read<T: serde::de::DeserializeOwned>(record: &Record) -> Option<T> {
    serde_json::from_slice(&record.content.body).ok()
}

/// The tests that a rollout's records tell of, oldest first.
pub(crate) fn tell(rollout: RolloutId, records: &[Record]) -> Vec<TrialRecord> {
    let mut told: Vec<TrialRecord> = Vec::new();
    for record in records {
        let kind = record.content.kind.as_str();
        if kind == BEGUN {
            let Some(Begun { salt, settings, history, usual, started }) = read(record) else {
                continue;
            };
            let rollout = rollout.to_string();
            let (batches, verdicts, truncated) = (Vec::new(), Vec::new(), false);
            told.push(TrialRecord {
                rollout,
                salt,
                settings,
                history,
                usual,
                started,
                batches,
                verdicts,
                truncated,
            });
            continue;
        }
        let Some(last) = told.last_mut() else { continue };
        match kind {
            BATCHES => {
                last.batches.extend(compact::decode(&record.content.body).unwrap_or_default());
            }
            STATE => last.truncated = true,
            JUDGED => last.verdicts.extend(read::<TrialVerdict>(record)),
            _ => {}
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use switchback_analysis::ArmBatch;
    use switchback_domain::{Epoch, Weight};
    use switchback_ports::journal::Sequence;

    use super::*;

    const ROLLOUT: RolloutId = RolloutId(7);

    fn begun() -> Begun {
        let mut before = ArmStats::default();
        (0..500).for_each(|step| before.latency.record(40_000 + step * 20));
        Begun::new(ROLLOUT, Settings::default(), &before, Timestamp::from_millis(1_000))
    }

    /// Every fourth batch of the candidate has a failure.
    fn batch(sequence: u64) -> Batch {
        let arm = |requests: u64, failed: u64| {
            let mut latency = Histogram::default();
            (0..requests).for_each(|step| latency.record(40_000 + (step + sequence) * 31));
            ArmBatch { latency, failed_answers: failed, ..ArmBatch::default() }
        };
        Batch {
            at: Timestamp::from_millis(1_000 + sequence * 100),
            source: "one".to_owned(),
            sequence,
            weight: Weight::from_percent(5),
            candidate: arm(5, u64::from(sequence.is_multiple_of(4))),
            baseline: arm(95, 0),
        }
    }

    fn as_read(records: &[NewRecord]) -> Vec<Record> {
        let read = |content: &NewRecord| Record {
            sequence: Sequence(1),
            epoch: Epoch(1),
            content: content.clone(),
            hash: String::new(),
        };
        records.iter().map(read).collect()
    }

    fn at(sequence: u64) -> Timestamp {
        batch(sequence).at
    }

    /// A test that was fed these, and what it wrote after each verdict.
    fn told(upto: u64, judged_at: &[u64]) -> (Exact, Vec<Record>) {
        let mut exact = Exact::begin(ROLLOUT, begun()).unwrap();
        let mut written = Vec::new();
        for sequence in 1..=upto {
            exact.feed(batch(sequence));
            if judged_at.contains(&sequence) {
                exact.judged(at(sequence), Outcome::Undecided);
                let records = exact.unwritten(at(sequence));
                exact.written(&records);
                written.extend(as_read(&records));
            }
        }
        (exact, written)
    }

    #[test]
    fn a_restart_goes_on_to_the_bit_and_counts_nothing_twice() {
        let (alive, written) = told(9, &[3, 6]);
        let mut restored = Exact::restore(ROLLOUT, &written).unwrap();
        assert_eq!(restored.fed, 6, "three were not written any more");
        // The data plane tells all that it remembers.
        (1..=9).for_each(|sequence| restored.feed(batch(sequence)));
        assert_eq!((restored.fed, alive.fed), (9, 9));
        assert_eq!(fingerprint(&restored.trial), fingerprint(&alive.trial));
        assert_eq!(restored.trial.evidence().counts.candidate_requests, 45);
    }

    #[test]
    fn what_was_written_can_be_done_again_and_a_change_is_noticed() {
        let (_, written) = told(9, &[3, 9]);
        let mut told = tell(ROLLOUT, &written);
        assert_eq!((told.len(), told[0].batches.len(), told[0].verdicts.len()), (1, 9, 2));
        assert!(told[0].differences().unwrap().is_empty());
        told[0].batches[1].candidate.failed_answers += 1;
        assert_eq!(told[0].differences().unwrap().len(), 2);
    }

    #[test]
    fn above_its_limit_the_state_is_kept_instead() {
        let (mut exact, mut written) = told(6, &[6]);
        exact.truncated = true;
        exact.feed(batch(7));
        exact.judged(at(7), Outcome::Undecided);
        written.extend(as_read(&exact.unwritten(at(7))));
        let restored = Exact::restore(ROLLOUT, &written).unwrap();
        assert_eq!(fingerprint(&restored.trial), fingerprint(&exact.trial));
        assert_eq!(restored.fed, 7);
        assert!(tell(ROLLOUT, &written)[0].truncated);
    }

    #[test]
    fn a_rollout_that_is_resumed_after_the_verdict_is_tested_anew() {
        let (mut exact, _) = told(60, &[]);
        assert!(!exact.was_heard(), "nobody was told yet");
        exact.judged(at(60), Outcome::Regressed);
        assert!(exact.was_heard());
        exact.begin_again(at(61));
        assert!(!exact.was_heard());
        assert_eq!(exact.trial.evidence().counts.candidate_requests, 0);
    }

    #[test]
    fn a_step_is_held_without_data_of_its_own_and_by_evidence_that_grows() {
        let (quiet, _) = told(3, &[]);
        let late = at(3) + Duration::from_mins(1);
        assert!(!quiet.opinion(late, Some(at(1))).holds, "few requests are no silence");
        let silent = quiet.opinion(late, Some(at(3) + Duration::from_secs(1)));
        assert!(silent.holds);
        let words = silent.verdict.findings.last().map(|finding| finding.rule.as_str());
        assert_eq!(words, Some("data"));
        assert!(!quiet.opinion(late, None).holds, "nothing is drawn any more");
        let (growing, _) = told(8, &[]);
        let opinion = growing.opinion(at(8), Some(at(1)));
        assert!(opinion.holds && opinion.verdict.outcome == Outcome::Undecided);
        let (bad, _) = told(60, &[]);
        for since in [Some(at(1)), None] {
            assert_eq!(bad.opinion(at(60), since).verdict.outcome, Outcome::Regressed);
        }
    }
}
