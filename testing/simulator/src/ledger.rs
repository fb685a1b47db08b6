//! What the simulated data plane counts of rollouts' requests for their exact tests, batch by batch,
//! and what a test may have counted of it at most.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use switchback_analysis::ArmBatch;
use switchback_domain::{Histogram, Timestamp, Weight};
use switchback_engine::Counts;
use switchback_ports::data_plane::{Batches, Counted, Cursor, TrialId};

/// Batches that are remembered.
const KEPT_MAX: usize = 512;
/// Age at which a request counts as not ended, in milliseconds; none gets so old here.
const CAP_AGE_MS: u64 = 2_000;

/// Requests of one version.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Answers {
    pub(crate) answered: u64,
    /// How long that took, in microseconds.
    pub(crate) latency: u64,
    /// Of these.
    pub(crate) failed: u64,
    pub(crate) unanswered: u64,
}

impl Answers {
    fn batch(self) -> ArmBatch {
        let mut latency = Histogram::default();
        latency.record_many(self.latency, self.answered);
        let (unanswered, failed_answers) = (self.unanswered, self.failed);
        ArmBatch { unanswered, failed_answers, latency, ..ArmBatch::default() }
    }
}

impl std::ops::AddAssign for Answers {
    fn add_assign(&mut self, more: Self) {
        self.answered += more.answered;
        self.latency = self.latency.max(more.latency);
        self.failed += more.failed;
        self.unanswered += more.unanswered;
    }
}

/// Everything that was counted of one rollout.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Total {
    /// The candidate's requests.
    pub(crate) counts: Counts,
    /// Some batches may not have been read by anybody.
    pub(crate) is_lossy: bool,
    sequence: u64,
}

/// The batches, and their sums.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The place of the newest batch.
    place: u64,
    kept: VecDeque<(Timestamp, Counted)>,
    totals: BTreeMap<TrialId, Total>,
}

impl Ledger {
    /// Counts the requests of a rollout since the last batch.
    pub(crate) fn count(
        &mut self,
        now: Timestamp,
        trial: TrialId,
        weight: Weight,
        candidate: Answers,
        baseline: Answers,
    ) {
        let total = self.totals.entry(trial.clone()).or_default();
        let of = |answers: Answers| answers.answered + answers.unanswered;
        if of(candidate) + of(baseline) == 0 {
            return;
        }
        total.counts.requests += of(candidate);
        total.counts.failed += candidate.failed + candidate.unanswered;
        total.sequence += 1;
        self.place += 1;
        let counted = Counted {
            trial,
            cap_age_ms: CAP_AGE_MS,
            age_ms: 0,
            sequence: total.sequence,
            weight,
            candidate: candidate.batch(),
            baseline: baseline.batch(),
        };
        self.kept.push_back((now, counted));
        if self.kept.len() > KEPT_MAX {
            self.forget(1);
        }
    }

    /// The data plane begins anew, with batches that are counted from one again.
    pub(crate) fn begin_anew(&mut self) {
        self.forget(KEPT_MAX);
        self.place = 0;
        self.totals.values_mut().for_each(|total| total.sequence = 0);
    }

    /// Loses its oldest batches.
    pub(crate) fn forget(&mut self, count: usize) {
        for (_, counted) in self.kept.drain(..count.min(self.kept.len())) {
            self.totals.entry(counted.trial).or_default().is_lossy = true;
        }
    }

    /// Of what was counted until now for other rollouts than these, nobody may know.
    pub(crate) fn distrust_all_but(&mut self, known: &BTreeSet<String>) {
        let others = self.totals.iter_mut().filter(|(trial, _)| !known.contains(&trial.salt));
        others.for_each(|(_, total)| total.is_lossy = true);
    }

    /// What was counted after a cursor: everything that is kept, if it is of another life than
    /// this one.
    pub(crate) fn read(&self, incarnation: String, cursor: &Cursor, now: Timestamp) -> Batches {
        let first = self.place - self.kept.len() as u64;
        let known = if cursor.incarnation == incarnation { cursor.place } else { 0 };
        let skipped = usize::try_from(known.saturating_sub(first)).unwrap_or(usize::MAX);
        let aged = |(at, counted): &(Timestamp, Counted)| {
            let age = u64::try_from(now.since(*at).as_millis()).unwrap_or(u64::MAX);
            Counted { age_ms: age, ..counted.clone() }
        };
        let batches = self.kept.iter().skip(skipped).map(aged).collect();
        Batches { next: Cursor { incarnation, place: self.place }, batches }
    }

    /// Everything that was counted of a rollout of a service.
    pub(crate) fn total(&self, trial: &TrialId) -> Total {
        self.totals.get(trial).copied().unwrap_or_default()
    }
}
