//! A new instance gets fewer requests at first: its caches are cold, its code is not compiled yet.
//!
//! The share is drawn, not weighed: among idle instances a new one that only looked more loaded
//! would lose every comparison and get nothing at all.

use std::time::Duration;

/// The least share of what the others get: Envoy's.
const READINESS_MIN: f64 = 0.1;

/// An instance that is as ready as any.
pub const REST: f64 = 1.0;

/// How much of its share an instance of this age gets: from a tenth, rising evenly, to all of it.
pub fn readiness(age: Duration, window: Duration) -> f64 {
    if age >= window {
        return REST;
    }
    (age.as_secs_f64() / window.as_secs_f64()).max(READINESS_MIN)
}

/// Whether the chosen instance leaves this request to the other one. Only how the two compare
/// counts: where all are new, none is spared.
pub fn turns_away(chosen: f64, other: f64, random: u32) -> bool {
    chosen < other && f64::from(random) >= chosen / other * (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    #[test]
    fn the_share_grows_from_a_tenth_to_all() {
        let of = |seconds| readiness(Duration::from_secs(seconds), WINDOW);
        assert!((of(0) - 0.1).abs() < 1e-9 && (of(3) - 0.1).abs() < 1e-9);
        assert!((of(15) - 0.5).abs() < 1e-9);
        assert!((of(30) - 1.0).abs() < 1e-9 && (of(900) - 1.0).abs() < 1e-9);
        assert!((readiness(Duration::ZERO, Duration::ZERO) - 1.0).abs() < 1e-9, "switched off");
    }

    #[test]
    fn only_what_is_newer_than_the_other_is_spared() {
        assert!(!turns_away(0.1, 0.1, u32::MAX));
        assert!(!turns_away(1.0, 0.1, u32::MAX));
        let step = u32::MAX / 1_000;
        let kept = (0..1_000).filter(|n| !turns_away(0.1, 1.0, n * step)).count();
        assert!((99..=101).contains(&kept), "{kept}");
    }
}
