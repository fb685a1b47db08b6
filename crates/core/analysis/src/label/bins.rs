//! Latency in coarse bins: eight per octave, 32 microseconds to 134 seconds, and one above all
//! for what did not end.
//!
//! An exact coarsening of the data plane's buckets (64 per octave); finer bins decide no better
//! and cost more.

use serde::{Deserialize, Serialize};
use switchback_domain::Histogram;
use switchback_domain::histogram::{bucket_of, upper_bound};

/// The first octave starts at 2^5 microseconds; less falls into bin 0.
const OCTAVE_FIRST: u32 = 5;
/// Octaves of ordinary bins.
const OCTAVES: u32 = 22;
/// The bin of requests that did not end: worse than any latency.
pub const TOP: usize = (OCTAVES << 3) as usize;
/// All bins.
pub const BINS: usize = TOP + 1;

/// The bin of a latency in microseconds. No float is involved.
pub const fn bin_of(micros: u64) -> usize {
    if micros < (1 << OCTAVE_FIRST) {
        return 0;
    }
    let octave = micros.ilog2();
    if octave >= OCTAVE_FIRST + OCTAVES {
        return TOP - 1;
    }
    let eighth = (micros >> (octave - 3)) & 7;
    ((octave - OCTAVE_FIRST) << 3) as usize + eighth as usize
}

/// The smallest latency of an ordinary bin, in microseconds.
#[allow(clippy::cast_possible_truncation, reason = "bins are fewer than 2^8")]
pub const fn lower_edge(bin: usize) -> u64 {
    if bin == 0 {
        return 0;
    }
    (8 + (bin as u64 & 7)) << ((bin >> 3) as u32 + OCTAVE_FIRST - 3)
}

/// How much slower the candidate may be, in basis points of the baseline's latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slack(u16);

impl Slack {
    /// Slack in percent.
    pub const fn from_percent(percent: u8) -> Self {
        Self(percent as u16 * 100)
    }

    /// Slack in basis points.
    pub const fn from_basis_points(basis_points: u16) -> Self {
        Self(basis_points)
    }

    /// The factor: 1.05 for 5 %.
    pub fn factor(self) -> f64 {
        1.0 + f64::from(self.0) / 10_000.0
    }

    /// A latency of the candidate with the slack taken off, rounded down.
    pub const fn take_off(self, micros: u64) -> u64 {
        micros.saturating_mul(10_000) / (10_000 + self.0 as u64)
    }
}

/// The edges of the bins for both versions.
///
/// A candidate's latency belongs below an edge if it does so with the slack taken off, but of a
/// latency only its bucket is known. So the candidate's edge is the next end of a bucket above the
/// baseline's edge times the slack: rounding only ever favours the candidate. Each bin's edge is
/// moved within its first half to where that costs least.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Slack", into = "Slack")]
pub struct Scale {
    slack: Slack,
    baseline: Vec<u64>,
    candidate: Vec<u64>,
}

impl From<Scale> for Slack {
    fn from(scale: Scale) -> Self {
        scale.slack
    }
}

impl From<Slack> for Scale {
    fn from(slack: Slack) -> Self {
        let edges = (0..TOP).map(|bin| cheapest_edge(bin, slack));
        let (baseline, candidate) = edges.unzip();
        Self { slack, baseline, candidate }
    }
}

impl Scale {
    /// The smallest latency of an ordinary bin of the baseline, in microseconds; of the bin after
    /// the last, where the last may be taken to end.
    pub fn edge(&self, bin: usize) -> u64 {
        self.baseline.get(bin).copied().unwrap_or(lower_edge(TOP))
    }

    /// The bin of a latency of the baseline.
    pub fn bin_of_baseline(&self, micros: u64) -> usize {
        let bin = bin_of(micros);
        if micros < self.edge(bin) { bin - 1 } else { bin }
    }

    /// The bin of a latency of the candidate.
    fn bin_of_candidate(&self, micros: u64) -> usize {
        let highest = bin_of(self.slack.take_off(micros));
        let is_reached = |bin: &usize| self.candidate.get(*bin).is_some_and(|edge| *edge <= micros);
        (1..=highest).rev().find(is_reached).unwrap_or(0)
    }
}

/// The edge of a bin for the baseline and for the candidate.
fn cheapest_edge(bin: usize, slack: Slack) -> (u64, u64) {
    let start = lower_edge(bin);
    if bin == 0 {
        return (0, 0);
    }
    let step = ((lower_edge(bin + 1) - start) / 8).max(1);
    let pair = |edge: u64| {
        // Above `edge * (1 + slack)`, at the start of a bucket of the data plane.
        let moved = edge.saturating_mul(10_000 + u64::from(slack.0)).div_ceil(10_000);
        let bucket = upper_bound(bucket_of(moved));
        let above = if fast_end(bucket) == moved { moved } else { bucket + 1 };
        (edge, above)
    };
    let first = pair(start);
    let others = (1..4).map(|at| pair(start + at * step));
    // Compares above / edge by cross multiplication.
    others.fold(first, |best, next| if next.1 * best.0 < best.1 * next.0 { next } else { best })
}

/// Counts per bin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bins(Vec<u64>);

impl Default for Bins {
    fn default() -> Self {
        Self(vec![0; BINS])
    }
}

impl Bins {
    /// Latencies as they are.
    pub fn plain(latency: &Histogram, unfinished: u64) -> Self {
        Self::counted(latency, unfinished, bin_of)
    }

    /// The baseline's latencies: what took longer than the cap (with the slack taken off) did not
    /// end in time, as the candidate's would not have. Ties go against the baseline, so that
    /// rounding never makes evidence.
    pub fn of_baseline(
        latency: &Histogram,
        unfinished: u64,
        cap_micros: u64,
        scale: &Scale,
    ) -> Self {
        let bin = |upper: u64| if upper > cap_micros { TOP } else { scale.bin_of_baseline(upper) };
        Self::counted(latency, unfinished, bin)
    }

    /// The candidate's latencies with the slack taken off. If the candidate is at most that much
    /// slower than the baseline in the stochastic order, these bins are stochastically no higher
    /// than the baseline's.
    pub fn of_candidate(latency: &Histogram, unfinished: u64, scale: &Scale) -> Self {
        Self::counted(latency, unfinished, |upper| scale.bin_of_candidate(fast_end(upper)))
    }

    fn counted(latency: &Histogram, unfinished: u64, bin: impl Fn(u64) -> usize) -> Self {
        let mut bins = Self::default();
        latency.buckets().for_each(|(upper, count)| bins.put(bin(upper), count));
        bins.put(TOP, unfinished);
        bins
    }

    fn put(&mut self, bin: usize, count: u64) {
        self.0[bin] = self.0[bin].saturating_add(count);
    }

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, more)| *mine = mine.saturating_add(*more));
    }

    /// All counts.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum: u64, count| sum.saturating_add(*count))
    }

    /// The latency in microseconds that `quantile` (0 to 1) of the requests stay below, to the
    /// next edge; `None` without requests or if that many did not end.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let rank = quantile.clamp(0.0, 1.0) * crate::math::count(self.total());
        let mut seen = 0;
        let bin = self.0.iter().position(|count| {
            seen = u64::saturating_add(seen, *count);
            seen > 0 && crate::math::count(seen) >= rank
        })?;
        (bin < TOP).then(|| lower_edge(bin + 1))
    }

    /// Counts by bin, [`BINS`] of them.
    pub fn counts(&self) -> &[u64] {
        &self.0
    }
}

/// The fast end of the data plane's bucket that ends at `upper` microseconds.
pub(crate) fn fast_end(upper: u64) -> u64 {
    match bucket_of(upper) {
        0 => 0,
        bucket => upper_bound(bucket - 1) + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_follow_each_other_and_hold_their_edges() {
        for bin in 1..TOP {
            let edge = lower_edge(bin);
            assert_eq!((bin_of(edge), bin_of(edge - 1)), (bin, bin - 1), "edge {edge}");
        }
        assert_eq!((bin_of(0), bin_of(u64::MAX)), (0, TOP - 1));
    }

    #[test]
    fn a_quantile_is_the_next_edge_above_that_many_requests() {
        let mut latency = Histogram::default();
        (0..90).for_each(|_| latency.record(10_000));
        (0..10).for_each(|_| latency.record(100_000));
        let bins = Bins::of_baseline(&latency, 0, u64::MAX, &Scale::from(Slack::from_percent(0)));
        let above = |micros| Some(lower_edge(bin_of(micros) + 1));
        let quantiles = [0.0, 0.5, 0.9, 0.91, 1.0].map(|quantile| bins.quantile(quantile));
        let (fast, slow) = (above(10_000), above(100_000));
        assert_eq!(quantiles, [fast, fast, fast, slow, slow]);
        assert_eq!(Bins::default().quantile(0.5), None);
    }

    #[test]
    fn the_data_planes_buckets_never_straddle_a_bin() {
        for micros in (0..100_000).chain((100_000..400_000_000).step_by(77_777)) {
            let upper = upper_bound(bucket_of(micros));
            assert_eq!(bin_of(fast_end(upper)), bin_of(upper), "{micros}");
        }
    }

    #[test]
    fn a_candidate_slower_by_the_slack_is_in_no_higher_bin_and_hardly_ever_in_a_lower_one() {
        for percent in [0, 5, 10, 25] {
            let scale = Scale::from(Slack::from_percent(percent));
            let (mut lower, mut all) = (0, 0);
            for micros in (40..2_000_000_u64).step_by(97) {
                let (mut old, mut new) = (Histogram::default(), Histogram::default());
                old.record(micros);
                new.record(micros * (100 + u64::from(percent)) / 100);
                let bin = |bins: &Bins| bins.counts().iter().position(|count| *count > 0);
                let old = bin(&Bins::of_baseline(&old, 0, u64::MAX, &scale));
                let new = bin(&Bins::of_candidate(&new, 0, &scale));
                assert!(new <= old, "{micros} us at {percent} %");
                lower += usize::from(new < old);
                all += 1;
            }
            assert!(lower * 25 < all, "{percent} %: {lower} of {all} lost a bin");
        }
    }

    #[test]
    fn edges_ascend_whatever_the_slack_is() {
        for points in [0, 500, 777, 1000, 10_000] {
            let scale = Scale::from(Slack::from_basis_points(points));
            let ascends = |edges: &[u64]| edges.windows(2).all(|pair| pair[0] < pair[1]);
            assert!(ascends(&scale.baseline) && ascends(&scale.candidate), "{points}");
            assert_eq!(Scale::from(Slack::from(scale.clone())), scale);
        }
    }
}
