//! Durations in the few fixed buckets of a classic Prometheus histogram: small enough to be kept
//! for every version. Where quantiles matter there is [`crate::Histogram`].

use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets in microseconds: from a millisecond to half a minute, the usual
/// steps of Prometheus clients and some finer ones where services live. One more bucket follows.
pub const BOUNDS: [u64; 14] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000,
];
/// How many buckets an array needs.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// The bucket of a duration in microseconds: the first whose bound it does not exceed.
pub fn bucket_of(micros: u64) -> usize {
    // Most durations are short: from the start is faster than halving.
    BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len())
}

/// Monotone counts per bucket, and the sum.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Timing {
    /// How many fell into each bucket; not cumulative.
    pub counts: [u64; BUCKETS],
    /// All of them together, in microseconds.
    pub sum_micros: u64,
}

impl Timing {
    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Both, number by number.
    pub(crate) fn zip(&self, other: &Self, operation: fn(u64, u64) -> u64) -> Self {
        let mut counts = self.counts;
        for (mine, theirs) in counts.iter_mut().zip(other.counts) {
            *mine = operation(*mine, theirs);
        }
        Self { counts, sum_micros: operation(self.sum_micros, other.sum_micros) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let buckets = [0, 1_000, 1_001, 30_000_000, 30_000_001, u64::MAX].map(bucket_of);
        assert_eq!(buckets, [0, 0, 1, 13, 14, 14]);
    }
}
