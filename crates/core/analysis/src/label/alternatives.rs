//! What a slower candidate might look like: likelihood ratios over the latency bins, guessed from
//! the baseline's own distribution before the requests they bet on have ended.

use super::bins::{BINS, Bins, Scale, Slack, TOP};
use super::isotonic::nondecreasing;
use crate::math::{count, ln};

/// Whole distributions, slower by a factor, and the capital on each: together one half (design
/// page, 3.1), more of it on small factors, because large ones are found in no time anyway.
const SHIFTS: [(f64, f64); 8] = [
    (1.1, 0.12),
    (1.2, 0.10),
    (1.35, 0.08),
    (1.5, 0.06),
    (2.0, 0.06),
    (3.0, 0.04),
    (5.0, 0.02),
    (10.0, 0.02),
];
/// A share of the requests, slower by the shift at this index of [`SHIFTS`], and the capital:
/// together 0.3.
const TAILS: [(f64, usize, f64); 6] = [
    (0.01, 5, 0.02),
    (0.05, 5, 0.06),
    (0.2, 5, 0.02),
    (0.01, 7, 0.12),
    (0.05, 7, 0.06),
    (0.2, 7, 0.02),
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
/// Bets stay within these: one request says no more than that.
const RATIO_MIN: f64 = 0.02;
const RATIO_MAX: f64 = 100.0;

/// The weight of each alternative; they sum to 1.
pub(crate) fn weights() -> impl Iterator<Item = f64> {
    let shifts = SHIFTS.iter().map(|(_, capital)| *capital);
    let tails = TAILS.iter().map(|(_, _, capital)| *capital);
    shifts.chain(tails).chain(std::iter::once(LEARNED))
}

/// `ln f` of every bin and alternative, bin by bin ([`ALTERNATIVES`] numbers each). `None` while
/// the baseline is not known well enough.
///
/// Each `f` is nondecreasing over the bins, which makes the test valid against every candidate
/// that is stochastically no slower, and not only against equal ones (design page, 3.1).
pub(crate) fn ln_ratios(
    baseline: &Bins,
    candidate: &Bins,
    cap_micros: u64,
    scale: &Scale,
) -> Option<Vec<f64>> {
    if baseline.total() < BASELINE_MIN {
        return None;
    }
    let density = smoothed(baseline, None);
    let shifted: Vec<Vec<f64>> =
        SHIFTS.iter().map(|(factor, _)| shift(&density, *factor, cap_micros, scale)).collect();
    let learned = smoothed(candidate, Some(&density));
    let tail = |(share, slow, _): &(f64, usize, f64)| -> Vec<f64> {
        let slow = &shifted[*slow];
        density.iter().zip(slow).map(|(same, slow)| (1.0 - share) * same + share * slow).collect()
    };
    let tails: Vec<Vec<f64>> = TAILS.iter().map(tail).collect();
    let mut table = vec![0.0; BINS * ALTERNATIVES];
    let guesses = shifted.iter().chain(&tails).chain(std::iter::once(&learned));
    for (alternative, guess) in guesses.enumerate() {
        let mut ratio: Vec<f64> = guess.iter().zip(&density).map(|(a, b)| a / b).collect();
        nondecreasing(&mut ratio, &density);
        // Pools are long: one logarithm each.
        let mut pool = (1.0, 0.0);
        for (bin, ratio) in ratio.iter().enumerate() {
            let ratio = ratio.clamp(RATIO_MIN, RATIO_MAX);
            if ratio.to_bits() != f64::to_bits(pool.0) {
                pool = (ratio, ln(ratio));
            }
            table[bin * ALTERNATIVES + alternative] = pool.1;
        }
    }
    Some(table)
}

/// The shares of every bin for the baseline and for `factor` times its latency.
pub(crate) fn densities(baseline: &Bins, factor: f64) -> Vec<(f64, f64)> {
    let density = smoothed(baseline, None);
    let scale = Scale::from(Slack::from_percent(0));
    let shifted = shift(&density, factor, u64::MAX, &scale);
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

/// The distribution of `factor` times a latency; what would pass the cap does not end.
fn shift(density: &[f64], factor: f64, cap_micros: u64, scale: &Scale) -> Vec<f64> {
    let mut shifted = vec![0.0; BINS];
    shifted[TOP] = density[TOP];
    for (bin, mass) in density.iter().enumerate().take(TOP) {
        let low = count(scale.edge(bin)) * factor;
        let high = count(scale.edge(bin + 1)) * factor;
        let (mut at, end) = (scale.bin_of_baseline(floor(low)), scale.bin_of_baseline(floor(high)));
        while at <= end {
            let from = low.max(count(scale.edge(at)));
            let to = if at + 1 < TOP { high.min(count(scale.edge(at + 1))) } else { high };
            let target = if scale.edge(at) >= cap_micros { TOP } else { at };
            shifted[target] += mass * ((to - from) / (high - low)).max(0.0);
            at += 1;
        }
    }
    shifted
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most ten times the last edge, below 2^32"
)]
fn floor(micros: f64) -> u64 {
    micros as u64
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
            let shifted = shift(&density, factor, 400_000, &scale);
            assert!((shifted.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            let mean = |density: &[f64]| -> f64 {
                (0..TOP).map(|bin| density[bin] * count(scale.edge(bin))).sum()
            };
            if factor < 3.0 {
                let moved = mean(&shift(&density, factor, u64::MAX, &scale)) / mean(&density);
                assert!((moved / factor - 1.0).abs() < 0.06, "{factor}: {moved}");
            }
        }
        let beyond = shift(&density, 10.0, 400_000, &scale);
        assert!(beyond[TOP] > 0.9, "ten times 50 ms passes a cap of 400 ms");
    }

    #[test]
    fn every_alternative_is_nondecreasing_and_the_weights_sum_to_one() {
        let scale = Scale::from(Slack::from_percent(5));
        let table = ln_ratios(&around(50_000), &around(70_000), 1_000_000, &scale).unwrap();
        for alternative in 0..ALTERNATIVES {
            let of = |bin: usize| table[bin * ALTERNATIVES + alternative];
            assert!((1..BINS).all(|bin| of(bin) >= of(bin - 1)), "{alternative}");
            assert!(of(TOP) > 0.0 && of(0) <= 0.0, "{alternative}");
        }
        assert!((weights().sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!(weights().count(), ALTERNATIVES);
    }

    #[test]
    fn nothing_is_bet_on_a_baseline_nobody_knows() {
        let scale = Scale::from(Slack::from_percent(5));
        assert!(ln_ratios(&Bins::default(), &Bins::default(), 1, &scale).is_none());
    }
}
