//! How long to wait before a process that ended is started again. Pure: time and chance are
//! handed in.

use std::time::Duration;

use crate::settings::Limits;

/// Doublings after which the pause has long reached its maximum; keeps the shift in range.
const DOUBLINGS_MAX: u32 = 20;

/// Counts the ends in a row.
#[derive(Debug, Default)]
pub(crate) struct BackOff {
    ends: u32,
}

/// The pause before the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) delay: Duration,
    /// Ended so often without a stable run in between that it counts as a crash loop.
    pub(crate) crash_loop: bool,
}

impl BackOff {
    /// The process ended after `ran_for`; `chance` is from 0 to 1. The pause doubles with every
    /// end in a row; its second half is left to chance, so that instances that fell together do
    /// not rise together.
    pub(crate) fn ended(&mut self, ran_for: Duration, chance: f64, limits: &Limits) -> Pause {
        self.ends = if ran_for >= limits.stable_after { 1 } else { self.ends.saturating_add(1) };
        let doublings = (self.ends - 1).min(DOUBLINGS_MAX);
        let full = limits.backoff_min.saturating_mul(1 << doublings).min(limits.backoff_max);
        let delay = full.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
        Pause { delay, crash_loop: self.ends >= limits.crash_loop_ends }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum_and_the_third_end_is_a_crash_loop() {
        let (mut backoff, limits) = (BackOff::default(), Limits::default());
        let mut pauses = || backoff.ended(Duration::ZERO, 1.0, &limits);
        let first: Vec<Pause> = (0..40).map(|_| pauses()).collect();
        let millis: Vec<u128> = first.iter().map(|pause| pause.delay.as_millis()).collect();
        assert_eq!(millis[..5], [100, 200, 400, 800, 1600]);
        assert_eq!(millis[39], 30_000);
        assert_eq!(first.iter().position(|pause| pause.crash_loop), Some(2));
    }

    #[test]
    fn a_stable_run_starts_anew() {
        let (mut backoff, limits) = (BackOff::default(), Limits::default());
        for _ in 0..9 {
            backoff.ended(Duration::ZERO, 0.0, &limits);
        }
        let pause = backoff.ended(limits.stable_after, 0.0, &limits);
        assert_eq!(pause, Pause { delay: Duration::from_millis(50), crash_loop: false });
    }
}
