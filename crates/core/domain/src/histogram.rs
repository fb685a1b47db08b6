//! Log-linear latency buckets: 64 per octave, so at most 1.6 % error, exact counts, mergeable.
//!
//! The data plane counts into an atomic array with [`bucket_of`]; everybody else reads snapshots.

use serde::{Deserialize, Serialize};

/// Buckets per octave, as a power of two.
const SUB_BITS: u32 = 6;
/// Values at or above this many microseconds (about 71 minutes) share the last bucket.
const VALUE_MAX: u64 = (1 << 32) - 1;
/// How many buckets an array needs.
pub const BUCKETS: usize = bucket_of(VALUE_MAX) + 1;

/// The bucket of a duration in microseconds.
#[allow(clippy::cast_possible_truncation, reason = "bounded by VALUE_MAX: below 2^12")]
pub const fn bucket_of(micros: u64) -> usize {
    let value = if micros > VALUE_MAX { VALUE_MAX } else { micros };
    if value < (1 << SUB_BITS) {
        return value as usize;
    }
    let shift = value.ilog2() - SUB_BITS;
    (((shift as u64 + 1) << SUB_BITS) + ((value >> shift) - (1 << SUB_BITS))) as usize
}

/// The largest duration in microseconds that falls into a bucket.
pub const fn upper_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < (1 << SUB_BITS) {
        return bucket;
    }
    let shift = (bucket >> SUB_BITS) - 1;
    (((bucket & ((1 << SUB_BITS) - 1)) + (1 << SUB_BITS) + 1) << shift) - 1
}

/// Counts per bucket, stored sparsely: (bucket, count), ascending by bucket. Stored ones that name
/// a bucket there is not, or not in this order, are refused when they are read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u16, u64)>", into = "Vec<(u16, u64)>")]
pub struct Histogram(Vec<(u16, u64)>);

/// These counts are no histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("latency bucket {bucket} is out of order or beyond the last one, {}", BUCKETS - 1)]
pub struct BadBucket {
    bucket: u16,
}

impl TryFrom<Vec<(u16, u64)>> for Histogram {
    type Error = BadBucket;

    fn try_from(counts: Vec<(u16, u64)>) -> Result<Self, BadBucket> {
        let disorder = counts.windows(2).find(|pair| pair[0].0 >= pair[1].0).map(|pair| pair[1].0);
        let beyond = counts.last().map(|last| last.0).filter(|last| usize::from(*last) >= BUCKETS);
        match disorder.or(beyond) {
            Some(bucket) => Err(BadBucket { bucket }),
            None => Ok(Self(counts)),
        }
    }
}

impl From<Histogram> for Vec<(u16, u64)> {
    fn from(histogram: Histogram) -> Self {
        histogram.0
    }
}

impl Histogram {
    /// Builds from a dense array of counts.
    pub fn from_dense(counts: impl IntoIterator<Item = u64>) -> Self {
        let sparse = counts.into_iter().enumerate().filter(|(_, count)| *count > 0);
        Self(sparse.filter_map(|(b, count)| Some((u16::try_from(b).ok()?, count))).collect())
    }

    /// Counts one duration in microseconds.
    pub fn record(&mut self, micros: u64) {
        let Ok(bucket) = u16::try_from(bucket_of(micros)) else { return };
        match self.0.binary_search_by_key(&bucket, |entry| entry.0) {
            Ok(at) => self.0[at].1 += 1,
            Err(at) => self.0.insert(at, (bucket, 1)),
        }
    }

    /// Counts one duration in microseconds so many times.
    pub fn record_many(&mut self, micros: u64, count: u64) {
        let Ok(bucket) = u16::try_from(bucket_of(micros)) else { return };
        if count == 0 {
            return;
        }
        // Often the longest so far: then nothing has to be searched or moved.
        if self.0.last().is_none_or(|(last, _)| *last < bucket) {
            self.0.push((bucket, count));
            return;
        }
        match self.0.binary_search_by_key(&bucket, |entry| entry.0) {
            Ok(at) => self.0[at].1 += count,
            Err(at) => self.0.insert(at, (bucket, count)),
        }
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// The smallest bucket bound, in microseconds, that at least `quantile` (0 to 1) of the
    /// durations do not exceed; `None` when nothing was counted.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts stay far below 2^52"
    )]
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let rank = ((quantile.clamp(0.0, 1.0) * total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in &self.0 {
            seen += count;
            if seen >= rank {
                return Some(upper_bound(usize::from(*bucket)));
            }
        }
        None
    }

    /// The mean in microseconds, from bucket bounds; `None` when nothing was counted.
    #[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub fn mean(&self) -> Option<f64> {
        let total = self.count();
        let weighted =
            |(b, count): &(u16, u64)| upper_bound(usize::from(*b)) as f64 * *count as f64;
        (total > 0).then(|| self.0.iter().map(weighted).sum::<f64>() / total as f64)
    }

    /// What was counted after `earlier`, a snapshot of the same counter.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        self.combine(earlier, u64::saturating_sub)
    }

    /// Both together.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        let mut merged = self.clone();
        for (bucket, count) in &other.0 {
            match merged.0.binary_search_by_key(bucket, |entry| entry.0) {
                Ok(at) => merged.0[at].1 += count,
                Err(at) => merged.0.insert(at, (*bucket, *count)),
            }
        }
        merged
    }

    /// (largest microseconds of the bucket, count), ascending.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(bucket, count)| (upper_bound(usize::from(*bucket)), *count))
    }

    fn combine(&self, other: &Self, operation: fn(u64, u64) -> u64) -> Self {
        let of = |bucket: &u16| match other.0.binary_search_by_key(bucket, |entry| entry.0) {
            Ok(at) => other.0[at].1,
            Err(_) => 0,
        };
        let combined = self.0.iter().map(|(b, count)| (*b, operation(*count, of(b))));
        Self(combined.filter(|(_, count)| *count > 0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_within_two_percent() {
        let mut previous = 0;
        for micros in (0..200_000).chain((200_000..VALUE_MAX).step_by(999_983)) {
            let bucket = bucket_of(micros);
            assert!(bucket >= previous && bucket < BUCKETS);
            let bound = upper_bound(bucket);
            assert!(bound >= micros, "{micros} above its bound {bound}");
            #[allow(clippy::cast_precision_loss)]
            let error = (bound - micros) as f64 / micros.max(1) as f64;
            assert!(error <= 0.016, "{micros}: {error}");
            previous = bucket;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn stored_counts_are_read_back_and_nonsense_is_refused() {
        let read = |text: &str| serde_json::from_str::<Histogram>(text);
        let good = read("[[3,2],[1727,1]]").unwrap();
        assert_eq!(
            (good.count(), serde_json::to_string(&good).unwrap().as_str()),
            (3, "[[3,2],[1727,1]]")
        );
        for bad in ["[[1728,1]]", "[[3,1],[3,1]]", "[[4,1],[3,1]]", "[[1,-1]]"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn many_at_once_are_many_one_by_one() {
        let (mut once, mut each) = (Histogram::default(), Histogram::default());
        for (micros, count) in [(500, 3), (900_000, 2), (40, 1), (500, 4), (7, 0)] {
            once.record_many(micros, count);
            (0..count).for_each(|_| each.record(micros));
        }
        assert_eq!(once, each);
    }

    #[test]
    fn quantiles_mean_and_difference() {
        let mut early = Histogram::default();
        (1..=50).for_each(|micros| early.record(micros));
        let mut late = early.clone();
        (51..=60).for_each(|micros| late.record(micros));
        assert_eq!(early.quantile(0.5), Some(25));
        assert_eq!(early.quantile(1.0), Some(50));
        assert_eq!(late.since(&early).count(), 10);
        assert_eq!(late.since(&early).quantile(0.0), Some(51));
        assert_eq!(early.merge(&late).count(), 110);
        assert_eq!(Histogram::default().quantile(0.5), None);
        assert!((early.mean().unwrap() - 25.5).abs() < 1e-9);
    }
}
