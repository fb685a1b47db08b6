//! Reproducible randomness: splitmix64, because all that matters here is that a seed says it all.

use std::time::Duration;

/// A number that follows from two others and looks like neither.
pub(crate) fn mix(one: u64, other: u64) -> u64 {
    let sum = one.wrapping_add(other.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mixed = (sum ^ (sum >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// A stream of numbers that follows from a seed.
pub(crate) struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.drawn += 1;
        mix(self.seed, self.drawn)
    }

    /// Between the two, both included.
    pub(crate) fn between(&mut self, low: u32, high: u32) -> u32 {
        let span = u64::from(high.saturating_sub(low)) + 1;
        low + u32::try_from(self.next() % span).unwrap_or(0)
    }

    /// True in so many of a thousand cases.
    pub(crate) fn chance(&mut self, per_mille: u32) -> bool {
        self.between(0, 999) < per_mille
    }

    /// Between two numbers of milliseconds.
    pub(crate) fn millis(&mut self, low: u32, high: u32) -> Duration {
        Duration::from_millis(u64::from(self.between(low, high)))
    }

    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let last = u32::try_from(choices.len().saturating_sub(1)).unwrap_or(u32::MAX);
        &choices[self.between(0, last) as usize]
    }
}
