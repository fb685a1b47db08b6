//! The evidence cap: latency evidence may grow only so fast, because one stalled replica is one
//! accident and not a hundred slow requests.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::math::exact;

/// Growth is limited block by block. Shorter blocks would count the chance losses between two
/// candidate requests in full and their gains not; longer ones would let a stall through.
const BLOCK: Duration = Duration::from_secs(1);

/// Follows a log e-process but takes at most `rate` nats of growth per second (design page, 3.5).
///
/// In each block it multiplies by what the process multiplied by since the block began, or by the
/// allowance if that is less. So at every stopping time the factor's expectation is at most 1:
/// still an e-process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EvidenceCap {
    #[serde(with = "exact")]
    rate: f64,
    age: Duration,
    /// The process and the evidence when the block began.
    #[serde(with = "exact")]
    process_then: f64,
    #[serde(with = "exact")]
    evidence_then: f64,
    #[serde(with = "exact")]
    process: f64,
    #[serde(with = "exact")]
    ln_evidence: f64,
}

impl EvidenceCap {
    /// Starts at 1 (a log of zero). An infinite rate caps nothing; one that is not a positive
    /// number lets nothing grow.
    pub fn new(nats_per_second: f64) -> Self {
        let rate = if nats_per_second > 0.0 { nats_per_second } else { 0.0 };
        let (process_then, evidence_then, process, ln_evidence) = (0.0, 0.0, 0.0, 0.0);
        let age = Duration::ZERO;
        Self { rate, age, process_then, evidence_then, process, ln_evidence }
    }

    /// Takes where the followed process stands now, and how long after the last time. A step
    /// longer than a block is a block of its own.
    pub fn follow(&mut self, ln_process: f64, elapsed: Duration) {
        self.age = self.age.saturating_add(elapsed);
        if self.age > BLOCK {
            (self.process_then, self.evidence_then) = (self.process, self.ln_evidence);
            self.age = elapsed;
        }
        self.process = ln_process;
        let allowed = self.rate * self.age.max(BLOCK).as_secs_f64();
        self.ln_evidence = self.evidence_then + (ln_process - self.process_then).min(allowed);
    }

    /// Log evidence after the cap.
    pub fn ln_evidence(&self) -> f64 {
        self.ln_evidence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[test]
    fn a_stall_makes_two_nats_and_four_where_it_meets_the_end_of_a_block() {
        for (start, nats) in [(3, 2.0), (9, 4.0)] {
            let mut cap = EvidenceCap::new(2.0);
            for tick in 1..=30 {
                cap.follow(f64::from((tick - start).clamp(0, 3)) * 50.0, TICK);
            }
            assert!((cap.ln_evidence() - nats).abs() < 1e-12, "{}", cap.ln_evidence());
        }
    }

    #[test]
    fn slow_growth_losses_and_noise_pass_as_they_are() {
        let mut cap = EvidenceCap::new(2.0);
        for tick in 1..=100 {
            let noise = if tick % 2 == 0 { 0.0 } else { 1.4 };
            cap.follow(f64::from(tick) * 0.01 + noise, TICK);
        }
        assert!((cap.ln_evidence() - 1.0).abs() < 1e-9, "{}", cap.ln_evidence());
        cap.follow(-30.0, TICK);
        assert!(cap.ln_evidence() < -29.0);
        let mut open = EvidenceCap::new(f64::INFINITY);
        open.follow(9.0, Duration::ZERO);
        assert!((open.ln_evidence() - 9.0).abs() < 1e-12);
    }

    #[test]
    fn a_scrape_of_fifteen_seconds_may_make_thirty_nats() {
        let mut cap = EvidenceCap::new(2.0);
        cap.follow(100.0, Duration::from_secs(15));
        assert!((cap.ln_evidence() - 30.0).abs() < 1e-12);
    }
}
