//! A token bucket in one number (the generic cell rate algorithm): when the bucket will be full
//! again. So it fits an atomic word, and a decision is one compare-and-swap.

use std::time::Duration;

use switchback_domain::resilience::Rate;

use crate::Moment;
use crate::moment::nanos;

/// A rate, prepared. The state of a bucket is one [`Moment`]; a new one is full at
/// `Moment::default()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Between two requests at the rate.
    interval: u64,
    /// How far ahead of the rate requests may be: the burst but for one.
    ahead: u64,
}

impl Bucket {
    /// Prepares a rate. One that makes no sense (no request, no time) lets one request through in
    /// the longest interval there is, so that a mistake is noticed and no division fails.
    pub fn new(rate: &Rate) -> Self {
        let interval = nanos(rate.per).checked_div(u64::from(rate.requests)).unwrap_or(u64::MAX);
        let interval = interval.max(1);
        Self { interval, ahead: interval.saturating_mul(u64::from(rate.burst.saturating_sub(1))) }
    }

    /// Takes one request out of a bucket that will be full at `full_at`: when it will be full
    /// then, or how long to wait for a request to be in it.
    pub fn take(&self, full_at: Moment, now: Moment) -> Result<Moment, Duration> {
        let from = full_at.max(now);
        let lead = nanos(from.since(now));
        match lead.checked_sub(self.ahead) {
            Some(wait @ 1..) => Err(Duration::from_nanos(wait)),
            Some(0) | None => Ok(from + Duration::from_nanos(self.interval)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(requests: u32, per_ms: u64, burst: u32) -> Rate {
        Rate { requests, per: Duration::from_millis(per_ms), burst }
    }

    fn at(millis: u64) -> Moment {
        Moment::default() + Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_then_the_rate() {
        let bucket = Bucket::new(&rate(10, 1_000, 3));
        let mut full_at = Moment::default();
        for _ in 0..3 {
            full_at = bucket.take(full_at, at(5_000)).unwrap();
        }
        assert_eq!(bucket.take(full_at, at(5_000)), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(full_at, at(5_099)), Err(Duration::from_millis(1)));
        full_at = bucket.take(full_at, at(5_100)).unwrap();
        assert!(bucket.take(full_at, at(5_100)).is_err());
        assert!(bucket.take(full_at, at(9_000)).is_ok());
    }

    #[test]
    fn what_makes_no_sense_does_no_harm() {
        for odd in [rate(0, 0, 0), rate(0, 1_000, 5), rate(u32::MAX, 1, 0)] {
            let bucket = Bucket::new(&odd);
            let full_at = bucket.take(Moment::default(), at(1)).unwrap();
            let _ = bucket.take(full_at, at(1));
        }
    }

    proptest! {
        #[test]
        fn in_no_window_do_more_pass_than_burst_and_rate_allow(
            (requests, per_ms, burst) in (1_u32..50, 1_u64..2_000, 1_u32..20),
            pauses in prop::collection::vec(0_u64..200, 1..200),
        ) {
            let bucket = Bucket::new(&rate(requests, per_ms, burst));
            let (mut full_at, mut now, mut passed) = (Moment::default(), 10_000, Vec::new());
            for pause in pauses {
                now += pause;
                match bucket.take(full_at, at(now)) {
                    Ok(next) => {
                        full_at = next;
                        passed.push(now);
                    }
                    Err(wait) => {
                        let then = at(now) + wait;
                        prop_assert!(bucket.take(full_at, then).is_ok(), "told the right wait");
                    }
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (count, until) in passed[first..].iter().enumerate() {
                    let window = nanos(Duration::from_millis(until - from));
                    let allowed = u64::from(burst) + window / bucket.interval;
                    prop_assert!((count as u64) < allowed, "{} above {allowed}", count + 1);
                }
            }
        }
    }
}
