//! How many requests at once are good: Netflix's Gradient2. The limit falls when response times
//! rise above their long average, which is the sign of a queue somewhere, and creeps up otherwise.
//! It never pauses traffic to measure, which would distort a canary.

use std::time::Duration;

use switchback_domain::resilience::AdaptivePolicy;

/// How much of a new estimate is taken over.
const SMOOTHING: f64 = 0.2;
/// Requests that may queue, in any case.
const QUEUE: f64 = 4.0;
/// Observations that the long average looks back on.
const LONG_WINDOW: u32 = 600;
/// The first so many are averaged evenly.
const WARM_UP: u32 = 10;
/// A response time this much above its long average is within what is normal.
const TOLERANCE: f64 = 1.5;
/// When the long average is so far above what is seen, load has fallen: it follows faster.
const DRIFT: f64 = 2.0;

/// See the module.
#[derive(Debug, Clone)]
pub struct Gradient {
    policy: AdaptivePolicy,
    limit: f64,
    long: f64,
    observed: u32,
}

impl Gradient {
    /// At the policy's initial limit.
    pub fn new(policy: AdaptivePolicy) -> Self {
        let limit = f64::from(policy.initial).clamp(f64::from(policy.min.max(1)), highest(&policy));
        Self { policy, limit, long: 0.0, observed: 0 }
    }

    /// How many requests may be on their way at once.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and the policy's greatest, a u32"
    )]
    pub fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// A request took so long while `in_flight` were on their way, it included.
    pub fn observe(&mut self, took: Duration, in_flight: u32) {
        let short = took.as_secs_f64();
        let long = self.average(short);
        // As few as this say nothing about what would be too many.
        if f64::from(in_flight) < self.limit / 2.0 {
            return;
        }
        let gradient = if short > 0.0 { (TOLERANCE * long / short).clamp(0.5, 1.0) } else { 1.0 };
        let wanted = self.limit * gradient + QUEUE;
        let smoothed = self.limit * (1.0 - SMOOTHING) + wanted * SMOOTHING;
        self.limit = smoothed.clamp(f64::from(self.policy.min.max(1)), highest(&self.policy));
    }

    /// Takes an observation into the long average.
    fn average(&mut self, short: f64) -> f64 {
        if self.observed < WARM_UP {
            self.observed += 1;
            self.long += (short - self.long) / f64::from(self.observed);
        } else {
            self.long += (short - self.long) * 2.0 / f64::from(LONG_WINDOW + 1);
        }
        if short > 0.0 && self.long / short > DRIFT {
            self.long *= 0.95;
        }
        self.long
    }
}

fn highest(policy: &AdaptivePolicy) -> f64 {
    f64::from(policy.max.max(policy.min).max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAST: Duration = Duration::from_millis(10);

    fn gradient() -> Gradient {
        Gradient::new(AdaptivePolicy::default())
    }

    #[test]
    fn steady_times_let_the_limit_creep_up_to_the_greatest() {
        let mut one = gradient();
        assert_eq!(one.limit(), 20);
        one.observe(FAST, 20);
        assert!((one.limit - 20.8).abs() < 1e-9, "a fifth of the queue: {}", one.limit);
        (0..1_000).for_each(|_| one.observe(FAST, 200));
        assert_eq!(one.limit(), 200);
    }

    #[test]
    fn times_that_rise_bring_it_down_to_the_least() {
        let mut one = gradient();
        (0..1_000).for_each(|_| one.observe(FAST, 200));
        let before = one.limit;
        one.observe(FAST * 10, 200);
        let expected = before * 0.8 + (before * 0.5 + QUEUE) * 0.2;
        assert!((one.limit - expected).abs() < 1e-6, "half at most: {}", one.limit);
        (0..50).for_each(|_| one.observe(FAST * 10, 200));
        assert_eq!(one.limit(), 20);
    }

    #[test]
    fn it_does_not_grow_on_what_half_of_it_would_carry() {
        let mut one = gradient();
        (0..1_000).for_each(|_| one.observe(FAST, 9));
        assert_eq!(one.limit(), 20);
    }

    #[test]
    fn what_is_within_the_tolerance_is_normal() {
        let mut one = gradient();
        (0..100).for_each(|_| one.observe(FAST, 200));
        let before = one.limit;
        one.observe(FAST.mul_f64(1.4), 200);
        assert!(one.limit > before);
    }

    proptest! {
        #[test]
        fn the_limit_stays_within_its_bounds(
            seen in prop::collection::vec((0_u64..100_000, 0_u32..1_000), 1..300),
            (initial, min, max) in (0_u32..300, 0_u32..300, 0_u32..300),
        ) {
            let mut one = Gradient::new(AdaptivePolicy { initial, min, max });
            for (micros, in_flight) in seen {
                one.observe(Duration::from_micros(micros), in_flight);
                prop_assert!(one.limit() >= min.max(1));
                prop_assert!(one.limit() <= max.max(min).max(1));
            }
        }
    }
}
