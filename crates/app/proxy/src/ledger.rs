//! What was counted of one version, over all its stays in the table: shared counters while
//! anything is on its way, plain numbers after. Run as it stands by the model in `testing/model`.

use std::sync::Arc;

use switchback_domain::ArmStats;

use crate::counters::Counters;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// What was counted in earlier stays.
    settled: ArmStats,
    live: Option<Arc<Counters>>,
}

impl Ledger {
    /// The counters of this stay, or of the one before if that has not come to rest.
    pub(crate) fn open(&mut self, workers: usize) -> Arc<Counters> {
        Arc::clone(self.live.get_or_insert_with(|| Arc::new(Counters::new(workers))))
    }

    /// Keeps plain numbers instead of counters, once nothing is on its way any more. Only when no
    /// worker can choose the version any more: what comes after would be counted nowhere.
    pub(crate) fn rest(&mut self) {
        if let Some(counters) = self.live.take_if(|counters| counters.in_flight() == 0) {
            self.settled = self.settled.merge(&counters.stats());
        }
    }

    /// Whether there are plain numbers only.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.live.is_none()
    }

    /// Adds what somebody else has counted.
    pub(crate) fn add(&mut self, past: &ArmStats) {
        self.settled = self.settled.merge(past);
    }

    /// How many requests are on their way, and what was counted.
    pub(crate) fn read(&self) -> (u64, ArmStats) {
        let Some(live) = &self.live else { return (0, self.settled.clone()) };
        // In flight first: an outcome is counted before the in-flight count falls.
        let in_flight = live.in_flight();
        (in_flight, self.settled.merge(&live.stats()))
    }
}
