//! The evidence cap: latency evidence may grow only so fast, because one stalled replica is one
//! accident and not a hundred slow requests.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::math::exact;

/// How much may grow at once, in seconds of the allowed growth: at two nats a second 4 nats, less
/// than any verdict needs.
const BURST: f64 = 2.0;

/// Follows a log e-process but takes at most `rate` nats of growth per second, and `BURST`
/// seconds' worth of it at once (design page, 3.5).
///
/// A bucket that leaks at the rate holds what grew; what would make it overflow is not taken. What
/// the process loses empties the bucket again, so that the chance losses and gains of ordinary
/// requests pass as they are. No step takes more growth than the process had, and how much is
/// known before it: the factor's expectation is at most the process's, which is at most 1. So
/// this is still an e-process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EvidenceCap {
    #[serde(with = "exact")]
    rate: f64,
    /// Growth that has not leaked away yet.
    #[serde(with = "exact")]
    level: f64,
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
        Self { rate, level: 0.0, process: 0.0, ln_evidence: 0.0 }
    }

    /// Takes where the followed process stands now, and how long after the last time.
    pub fn follow(&mut self, ln_process: f64, elapsed: Duration) {
        let grown = ln_process - self.process;
        self.process = ln_process;
        if self.rate.is_infinite() {
            self.ln_evidence += grown;
            return;
        }
        // What leaks away during a long step makes room for what grew in it.
        let full = self.rate * (BURST + elapsed.as_secs_f64());
        let taken = grown.min(full - self.level);
        self.ln_evidence += taken;
        self.level = (self.level + taken - self.rate * elapsed.as_secs_f64()).max(0.0);
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
    fn a_stall_makes_four_nats_whenever_it_comes_and_a_bad_version_two_a_second_more() {
        for start in [3, 9] {
            let mut cap = EvidenceCap::new(2.0);
            for tick in 1..=30 {
                cap.follow(f64::from((tick - start).clamp(0, 3)) * 50.0, TICK);
            }
            let found = cap.ln_evidence();
            assert!((4.0..=4.7).contains(&found), "{found}");
        }
        let mut cap = EvidenceCap::new(2.0);
        (1..=20).for_each(|tick| cap.follow(f64::from(tick) * 50.0, TICK));
        assert!((cap.ln_evidence() - 8.0).abs() < 0.3, "{}", cap.ln_evidence());
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
    fn it_never_takes_more_growth_than_there_is() {
        let mut cap = EvidenceCap::new(2.0);
        let (mut process, mut before) = (0.0, 0.0);
        for tick in 0..500 {
            let grown = f64::from(tick * 37 % 101) / 20.0 - 2.5;
            process += grown;
            cap.follow(process, TICK);
            assert!(cap.ln_evidence() - before <= grown + 1e-12);
            before = cap.ln_evidence();
        }
    }

    #[test]
    fn a_scrape_of_fifteen_seconds_may_make_as_much_as_fifteen_seconds() {
        let mut cap = EvidenceCap::new(2.0);
        cap.follow(100.0, Duration::from_secs(15));
        assert!((cap.ln_evidence() - 34.0).abs() < 1e-12);
    }
}
