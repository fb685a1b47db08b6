//! How long to wait before a request is repeated: exponential, with full jitter, so that clients
//! who failed together do not come back together.

use std::time::Duration;

/// Doublings beyond this change nothing that a cap would not cut.
const DOUBLINGS_MAX: u32 = 20;

/// The pause before the repetition after `repeated` earlier ones: evenly drawn from nothing to
/// `base`, doubled with each, at most `cap`.
pub fn backoff(repeated: u32, base: Duration, cap: Duration, random: u32) -> Duration {
    let longest = base.saturating_mul(1 << repeated.min(DOUBLINGS_MAX)).min(cap);
    longest.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: Duration = Duration::from_millis(25);
    const CAP: Duration = Duration::from_millis(250);

    #[test]
    fn the_longest_pause_doubles_up_to_the_cap() {
        let longest = [0, 1, 2, 3, 4, 40].map(|n| backoff(n, BASE, CAP, u32::MAX).as_millis());
        assert_eq!(longest, [25, 50, 100, 200, 250, 250]);
        assert_eq!(backoff(3, BASE, CAP, 0), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn no_pause_is_above_the_cap(n: u32, random: u32) {
            prop_assert!(backoff(n, BASE, CAP, random) <= CAP);
        }
    }
}
