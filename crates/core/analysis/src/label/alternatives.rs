//! What a slower candidate might look like: likelihood ratios over the latency bins, guessed from
//! the baseline's own distribution before the requests they bet on have ended.

use super::bins::{BINS, Bins, Scale, Slack, TOP};
use super::isotonic::nondecreasing;
use super::rungs::{self, Rung};
use crate::math::count;

/// Whole distributions, slower by a factor, and the capital on each: together a little less than
/// half, most of it on small factors, because large ones are found in no time anyway.
const SHIFTS: [(f64, f64); 8] = [
    (1.1, 0.12),
    (1.2, 0.10),
    (1.35, 0.08),
    (1.5, 0.06),
    (2.0, 0.06),
    (3.0, 0.02),
    (5.0, 0.01),
    (10.0, 0.01),
];
/// A share of the requests, slower by the shift at this index of [`SHIFTS`], and the capital:
/// together 0.34, half of it on the tail that a request in a hundred is.
const TAILS: [(f64, usize, f64); 6] = [
    (0.01, 5, 0.02),
    (0.05, 5, 0.06),
    (0.2, 5, 0.02),
    (0.01, 7, 0.17),
    (0.05, 7, 0.06),
    (0.2, 7, 0.01),
];
/// Capital on the one that is learned.
const LEARNED: f64 = 0.2;
/// Shifts, tails, and one learned from the candidate's own past.
pub(crate) const ALTERNATIVES: usize = SHIFTS.len() + TAILS.len() + 1;

/// Baseline requests before anything is bet on.
const BASELINE_MIN: u64 = 30;
/// Requests' worth of belief that any latency may occur.
const PRIOR: f64 = 0.5;
/// Baseline requests' worth that the candidate's past is shrunk towards the baseline.
const SHRINKAGE: f64 = 30.0;
/// The weight of each alternative; they sum to 1.
pub(crate) fn weights() -> impl Iterator<Item = f64> {
    let shifts = SHIFTS.iter().map(|(_, capital)| *capital);
    let tails = TAILS.iter().map(|(_, _, capital)| *capital);
    shifts.chain(tails).chain(std::iter::once(LEARNED))
}

/// The rung of every bin and alternative, bin by bin ([`ALTERNATIVES`] of them each); empty while
/// the baseline is not known well enough.
///
/// Each alternative is nondecreasing over the bins, which makes the test valid against every
/// candidate that is stochastically no slower, and not only against equal ones (design page, 3.1).
pub(crate) fn guess(
    baseline: &Bins,
    candidate: &Bins,
    cap_micros: u64,
    scale: &Scale,
) -> Vec<Rung> {
    if baseline.total() < BASELINE_MIN {
        return Vec::new();
    }
    let density = smoothed(baseline, None);
    let edges = Edges::new(cap_micros, scale);
    let shifted: Vec<Vec<f64>> =
        SHIFTS.iter().map(|(factor, _)| edges.shift(&density, *factor)).collect();
    let learned = smoothed(candidate, Some(&density));
    let tail = |(share, slow, _): &(f64, usize, f64)| -> Vec<f64> {
        let slow = &shifted[*slow];
        density.iter().zip(slow).map(|(same, slow)| (1.0 - share) * same + share * slow).collect()
    };
    let tails: Vec<Vec<f64>> = TAILS.iter().map(tail).collect();
    let mut table = vec![0; BINS * ALTERNATIVES];
    let mut pools = Vec::with_capacity(BINS);
    let guesses = shifted.iter().chain(&tails).chain(std::iter::once(&learned));
    for (alternative, guess) in guesses.enumerate() {
        nondecreasing(guess, &density, &mut pools);
        let mut bin = 0;
        for pool in &pools {
            let rung = rungs::nearest(pool.mean());
            for _ in 0..pool.members {
                table[bin * ALTERNATIVES + alternative] = rung;
                bin += 1;
            }
        }
    }
    table
}

/// The shares of every bin for the baseline and for `factor` times its latency.
pub(crate) fn densities(baseline: &Bins, factor: f64) -> Vec<(f64, f64)> {
    let density = smoothed(baseline, None);
    let shifted =
        Edges::new(u64::MAX, &Scale::from(Slack::from_percent(0))).shift(&density, factor);
    density.into_iter().zip(shifted).collect()
}

/// Shares per bin: counts blurred over their neighbours, plus a prior: even, or `towards`.
fn smoothed(bins: &Bins, towards: Option<&[f64]>) -> Vec<f64> {
    let counts = bins.counts();
    let weight = if towards.is_some() { SHRINKAGE } else { PRIOR };
    let total = count(bins.total()) + weight;
    let even = 1.0 / crate::math::length(BINS);
    let at = |bin: usize| count(counts[bin.min(TOP - 1)]);
    let share = |bin: usize| {
        let prior = towards.map_or(even, |density| density[bin]);
        let seen = match bin {
            TOP => count(counts[TOP]),
            _ => (at(bin.saturating_sub(1)) + 2.0 * at(bin) + at(bin + 1)) / 4.0,
        };
        (seen + weight * prior) / total
    };
    (0..BINS).map(share).collect()
}

/// The edges of the baseline's bins.
struct Edges {
    /// Where each ordinary bin begins; where the last may be taken to end.
    starts: Vec<f64>,
    /// The first bin that lies beyond the cap.
    beyond: usize,
}

impl Edges {
    fn new(cap_micros: u64, scale: &Scale) -> Self {
        let starts = (0..=TOP).map(|bin| count(scale.edge(bin))).collect();
        let beyond = (0..TOP).find(|bin| scale.edge(*bin) >= cap_micros).unwrap_or(TOP);
        Self { starts, beyond }
    }

    /// The distribution of `factor` times a latency; what would pass the cap does not end. The mass
    /// of a bin lies evenly in it.
    fn shift(&self, density: &[f64], factor: f64) -> Vec<f64> {
        let mut shifted = vec![0.0; BINS];
        shifted[TOP] = density[TOP];
        // Bins and what they are shifted to ascend together.
        let mut at = 0;
        for (edges, mass) in self.starts.windows(2).zip(density) {
            let (mut low, high) = (edges[0] * factor, edges[1] * factor);
            let per_micro = mass / (high - low);
            while at + 1 < TOP && self.starts[at + 1] < high {
                let end = self.starts[at + 1].max(low);
                shifted[self.target(at)] += (end - low) * per_micro;
                (low, at) = (end, at + 1);
            }
            shifted[self.target(at)] += (high - low) * per_micro;
        }
        shifted
    }

    fn target(&self, bin: usize) -> usize {
        if bin >= self.beyond { TOP } else { bin }
    }
}

#[cfg(test)]
mod tests {
    use switchback_domain::Histogram;

    use super::*;

    fn around(micros: u64) -> Bins {
        let mut latency = Histogram::default();
        (0..1000).for_each(|step| latency.record(micros + micros * step / 1000));
        Bins::plain(&latency, 0)
    }

    #[test]
    fn a_shift_moves_all_of_the_mass_and_no_more() {
        let density = smoothed(&around(50_000), None);
        let scale = Scale::from(Slack::from_percent(5));
        for (factor, _) in SHIFTS {
            let shifted = Edges::new(400_000, &scale).shift(&density, factor);
            assert!((shifted.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            let mean = |density: &[f64]| -> f64 {
                (0..TOP).map(|bin| density[bin] * count(scale.edge(bin))).sum()
            };
            if factor < 3.0 {
                let moved =
                    mean(&Edges::new(u64::MAX, &scale).shift(&density, factor)) / mean(&density);
                assert!((moved / factor - 1.0).abs() < 0.06, "{factor}: {moved}");
            }
        }
        let beyond = Edges::new(400_000, &scale).shift(&density, 10.0);
        assert!(beyond[TOP] > 0.9, "ten times 50 ms passes a cap of 400 ms");
    }

    #[test]
    fn every_alternative_is_nondecreasing_and_the_weights_sum_to_one() {
        let scale = Scale::from(Slack::from_percent(5));
        let table = guess(&around(50_000), &around(70_000), 1_000_000, &scale);
        for alternative in 0..ALTERNATIVES {
            let of = |bin: usize| table[bin * ALTERNATIVES + alternative];
            assert!((1..BINS).all(|bin| of(bin) >= of(bin - 1)), "{alternative}");
            assert!(of(TOP) > 0 && of(0) <= 0, "{alternative}");
        }
        assert!((weights().sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!(weights().count(), ALTERNATIVES);
    }

    #[test]
    fn nothing_is_bet_on_a_baseline_nobody_knows() {
        let scale = Scale::from(Slack::from_percent(5));
        assert!(guess(&Bins::default(), &Bins::default(), 1, &scale).is_empty());
    }
}
