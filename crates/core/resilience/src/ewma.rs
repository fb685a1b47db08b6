//! What an instance costs: a moving average of its response times that jumps to a new peak at once
//! and forgets it slowly (Finagle's and linkerd's peak EWMA).

use std::time::Duration;

use crate::Moment;
use crate::moment::nanos;

/// An observation weighs 1/e after 10 seconds: linkerd's.
const DECAYS_PER_NANO: f64 = 1e-10;
/// Below this, the third term of the series does not matter.
const SMALL: f64 = 1.0 / 64.0;
/// What an instance is believed to take that was never asked: linkerd's.
const COST_UNKNOWN: Duration = Duration::from_millis(30);
/// A failure counts at most so much on top of what is known: linkerd's penalty.
const PENALTY_MAX: Duration = Duration::from_secs(5);

/// The average of one instance. Two numbers, so that they fit into two atomic words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeakEwma {
    cost_nanos: f64,
    at: Moment,
}

impl PeakEwma {
    /// An instance that was never asked.
    pub fn new(now: Moment) -> Self {
        Self { cost_nanos: real(nanos(COST_UNKNOWN)), at: now }
    }

    /// What [`Self::to_bits`] gave.
    pub fn from_bits(cost: u64, at: u64) -> Self {
        Self { cost_nanos: f64::from_bits(cost), at: Moment::from_nanos(at) }
    }

    /// To be kept in two words.
    pub fn to_bits(self) -> (u64, u64) {
        (self.cost_nanos.to_bits(), self.at.as_nanos())
    }

    /// It answered after so long.
    #[must_use]
    pub fn observed(self, now: Moment, took: Duration) -> Self {
        let took = real(nanos(took));
        let cost_nanos = if took >= self.cost_nanos {
            took
        } else {
            took + (self.cost_nanos - took) * self.kept(now)
        };
        Self { cost_nanos, at: now.max(self.at) }
    }

    /// It failed after so long. Costs twice what it did, so that failing fast does not look fast;
    /// one failure alone does not turn everybody to the others.
    #[must_use]
    pub fn failed(self, now: Moment, took: Duration) -> Self {
        let penalty = (self.cost(now) * 2.0).min(real(nanos(PENALTY_MAX)));
        let cost_nanos = penalty.max(real(nanos(took))).max(self.cost(now));
        Self { cost_nanos, at: now.max(self.at) }
    }

    /// What it costs to give it one more request, having `pending` already: comparable between
    /// instances at one moment.
    pub fn load(self, now: Moment, pending: u64) -> f64 {
        self.cost(now) * (real(pending) + 1.0)
    }

    /// The average in nanoseconds; falls while nothing is observed, so that an instance that was
    /// slow is tried again.
    fn cost(self, now: Moment) -> f64 {
        self.cost_nanos * self.kept(now)
    }

    /// How much of the past still counts: `exp(-x)`. Busy instances were asked a moment ago, where
    /// two terms of the series are exact to a millionth and cost a tenth.
    fn kept(self, now: Moment) -> f64 {
        let x = real(nanos(now.since(self.at))) * DECAYS_PER_NANO;
        if x < SMALL { 1.0 - x + x * x / 2.0 } else { libm::exp(-x) }
    }
}

#[allow(clippy::cast_precision_loss, reason = "an average needs no more than 52 bits")]
fn real(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn millis(ewma: PeakEwma, now: Moment) -> f64 {
        ewma.load(now, 0) / 1e6
    }

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let start = PeakEwma::new(at(0));
        assert!((millis(start, at(0)) - 30.0).abs() < 1e-9);
        let peak = start.observed(at(10), Duration::from_millis(500));
        assert!((millis(peak, at(10)) - 500.0).abs() < 1e-9);
        let later = peak.observed(at(10_010), Duration::from_millis(10));
        let expected = 10.0 + 490.0 / std::f64::consts::E;
        assert!((millis(later, at(10_010)) - expected).abs() < 1e-6, "{later:?}");
        assert!((millis(peak, at(10_010)) - 500.0 / std::f64::consts::E).abs() < 1e-6);
    }

    #[test]
    fn failing_fast_does_not_look_fast() {
        let mut failing = PeakEwma::new(at(0)).observed(at(0), Duration::from_millis(30));
        for n in 1..=20 {
            let next = failing.failed(at(n), Duration::from_micros(50));
            assert!(millis(next, at(n)) >= millis(failing, at(n)));
            failing = next;
        }
        assert!(millis(failing, at(20)) <= 5_000.0);
        assert!(millis(failing, at(20)) > 4_000.0);
        let late = failing.failed(at(21), Duration::from_secs(30));
        assert!(
            (millis(late, at(21)) - 30_000.0).abs() < 1e-6,
            "a time-out is no less than it took"
        );
    }

    proptest! {
        #[test]
        fn the_average_stays_between_the_least_and_the_greatest_observation(
            times in prop::collection::vec((0_u64..1_000, 1_u64..100_000_000), 1..50),
        ) {
            let mut ewma = PeakEwma::new(at(0));
            let mut now = at(0);
            let mut greatest = 30_000_000_u64;
            for (pause, took) in times {
                now = now + Duration::from_millis(pause);
                ewma = ewma.observed(now, Duration::from_nanos(took));
                greatest = greatest.max(took);
                let load = ewma.load(now, 0);
                prop_assert!(load >= real(took) * (1.0 - 1e-9), "never below the newest");
                prop_assert!(load <= real(greatest) * (1.0 + 1e-9));
                prop_assert!(ewma.load(now, 3) > load, "pending requests cost");
                let (cost, stamp) = ewma.to_bits();
                prop_assert_eq!(PeakEwma::from_bits(cost, stamp), ewma);
            }
        }
    }
}
