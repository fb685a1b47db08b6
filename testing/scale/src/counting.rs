//! What the simulated data plane counts: of each rollout in the table a batch of requests now and
//! then, all of them answered well, so that its exact test is fed and written down.

use std::time::{Duration, Instant};

use switchback_analysis::ArmBatch;
use switchback_domain::{Histogram, Weight};
use switchback_ports::data_plane::{Counted, Report, TrialId};
use switchback_routing::Table;

/// Time between two batches of a rollout's requests.
const BATCH_EVERY: Duration = Duration::from_secs(1);
/// Requests in a batch: of the version on trial and of the one before it, all answered after so long.
const REQUESTS: (u64, u64) = (1, 9);
const LATENCY_MICROS: u64 = 20_000;
/// As the data plane's, when a version answers in time.
const CAP_AGE_MS: u64 = 1_000;

/// A table and what is counted while it is served.
#[derive(Default)]
pub(crate) struct Counting {
    pub(crate) report: Report,
    /// What is on trial, with its share.
    pub(crate) trials: Vec<(TrialId, Weight)>,
    /// When the last batches were counted, and how many times that was done.
    last: Option<Instant>,
    pub(crate) place: u64,
}

impl Counting {
    /// What was counted since the last time, when it is time.
    pub(crate) fn count(&mut self) -> Vec<Counted> {
        if self.last.is_some_and(|last| last.elapsed() < BATCH_EVERY) {
            return Vec::new();
        }
        self.last = Some(Instant::now());
        self.place += 1;
        let answered = |count| {
            let mut latency = Histogram::default();
            latency.record_many(LATENCY_MICROS, count);
            ArmBatch { latency, ..ArmBatch::default() }
        };
        let batch = |(trial, weight): &(TrialId, Weight)| Counted {
            trial: trial.clone(),
            cap_age_ms: CAP_AGE_MS,
            age_ms: 0,
            sequence: self.place,
            weight: *weight,
            candidate: answered(REQUESTS.0),
            baseline: answered(REQUESTS.1),
        };
        self.trials.iter().map(batch).collect()
    }
}

/// What a table has on trial.
pub(crate) fn trials_of(table: &Table) -> Vec<(TrialId, Weight)> {
    let on_trial = table.routes.iter().filter_map(|route| {
        let candidate = route.steering.candidate.as_ref().filter(|candidate| candidate.open)?;
        let shares = route.split.shares();
        let (_, weight) = shares.iter().find(|(release, _)| *release == candidate.release)?;
        let trial = TrialId {
            service: route.service.clone(),
            candidate: candidate.release.clone(),
            salt: candidate.salt.clone(),
        };
        Some((trial, *weight))
    });
    on_trial.collect()
}

/// Each life of it counts anew.
pub(crate) fn incarnation() -> String {
    format!("simulated-{}", std::process::id())
}
