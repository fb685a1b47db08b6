//! Likelihood ratios on a ladder: whole multiples of 1/64 nat, so that a bet is a small number and
//! its logarithms are looked up instead of computed.

use switchback_domain::Weight;

use super::odds::share_of;
use crate::math::{exp, ln};

/// A ratio of `exp(rung / 64)`.
pub(crate) type Rung = i16;

/// Rungs per nat. Half a rung off, a bet grows less than one part in ten thousand slower.
const PER_NAT: f64 = 64.0;
/// Bets stay within 1/50 and 100 times: one request says no more than that.
const LOWEST: Rung = -250;
const HIGHEST: Rung = 294;

/// The rung nearest to a positive ratio. A larger ratio is never on a lower rung.
#[allow(clippy::cast_possible_truncation, reason = "kept within the ladder before")]
pub(crate) fn nearest(ratio: f64) -> Rung {
    let rung = libm::floor(ln_roughly(ratio) * PER_NAT + 0.5);
    rung.clamp(f64::from(LOWEST), f64::from(HIGHEST)) as Rung
}

/// What a rung is worth on the candidate before it is normalized: the logarithm of its ratio.
pub(crate) fn ln_ratio(rung: Rung) -> f64 {
    f64::from(rung) / PER_NAT
}

/// `ln(rho f + 1 - rho)` of every rung `f`: what makes a bet's expectation 1. For one share.
#[derive(Debug, Clone)]
pub(crate) struct LnMeans {
    weight: Weight,
    by_rung: Vec<f64>,
}

impl LnMeans {
    /// For a share.
    pub(crate) fn new(weight: Weight) -> Self {
        let share = share_of(weight);
        let mean = |rung: Rung| ln(share * exp(ln_ratio(rung)) + (1.0 - share));
        Self { weight, by_rung: (LOWEST..=HIGHEST).map(mean).collect() }
    }

    /// The share they are for.
    pub(crate) fn weight(&self) -> Weight {
        self.weight
    }

    /// Of one rung, which [`nearest`] gave.
    pub(crate) fn of(&self, rung: Rung) -> f64 {
        self.by_rung[usize::from(rung.abs_diff(LOWEST))]
    }

    /// Bytes held on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        8 * self.by_rung.capacity()
    }
}

/// A logarithm good to a thousandth, several times faster than an exact one, and continuous and
/// increasing, which is all that a guess needs: with `x = 2^e (1 + t)`, `log2 x` is `e + t` and a
/// polynomial that is 0 at both ends.
fn ln_roughly(positive: f64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    let bits = positive.to_bits();
    let exponent = f64::from(u16::try_from(bits >> 52).unwrap_or(u16::MAX)) - 1023.0;
    let t = f64::from_bits(bits & MANTISSA | 1023 << 52) - 1.0;
    let bend = t * (1.0 - t) * (0.442_695 + t * (0.083_294 * t - 0.247_337));
    (exponent + t + bend) * std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ratio_is_within_a_rung_and_larger_ones_are_never_lower() {
        let (mut before, mut ratio) = (LOWEST, 0.001);
        while ratio < 1000.0 {
            let rung = nearest(ratio);
            assert!(rung >= before, "{ratio}");
            let meant = ln(ratio.clamp(0.02, 100.0)) * PER_NAT;
            assert!((f64::from(rung) - meant).abs() < 0.76, "{ratio}: {rung} for {meant}");
            (before, ratio) = (rung, ratio * 1.000_3);
        }
        assert_eq!((nearest(1.0), nearest(0.0), nearest(f64::INFINITY)), (0, LOWEST, HIGHEST));
    }

    #[test]
    fn on_every_rung_a_coin_of_the_share_keeps_the_wealth_in_the_mean() {
        for points in [1, 100, 500, 2500, 5000, 9999] {
            let weight = Weight::from_basis_points(points).unwrap();
            let (share, means) = (share_of(weight), LnMeans::new(weight));
            for rung in LOWEST..=HIGHEST {
                let (mine, other) = (exp(ln_ratio(rung) - means.of(rung)), exp(-means.of(rung)));
                let mean = share * mine + (1.0 - share) * other;
                assert!((mean - 1.0).abs() < 1e-12, "{points} {rung}: {mean}");
            }
        }
    }
}
