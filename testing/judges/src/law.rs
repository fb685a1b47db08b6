//! Laws of latency, exact on the data plane's buckets.

use switchback_domain::histogram::{BUCKETS, bucket_of, upper_bound};

/// A distribution of latencies in microseconds.
#[derive(Debug, Clone, PartialEq)]
pub enum Law {
    /// Log-normal: median and sigma.
    LogNormal(f64, f64),
    /// Pareto: smallest value and exponent.
    Pareto(f64, f64),
    /// Shares of others.
    Mix(Vec<(f64, Law)>),
    /// Another, times a factor.
    Times(f64, Box<Law>),
    /// Another, and so many microseconds more.
    Plus(f64, Box<Law>),
}

impl Law {
    /// What the prototype of the design page measured with: a median of 50 ms and a sigma of 0.6.
    pub fn usual() -> Self {
        Self::LogNormal(50_000.0, 0.6)
    }

    /// This law, every latency times `factor`.
    #[must_use]
    pub fn times(&self, factor: f64) -> Self {
        Self::Times(factor, Box::new(self.clone()))
    }

    /// This law, every latency longer by so many microseconds.
    #[must_use]
    pub fn plus(&self, micros: f64) -> Self {
        Self::Plus(micros, Box::new(self.clone()))
    }

    /// This law for most requests and `other` for a share of them.
    #[must_use]
    pub fn with(&self, share: f64, other: Self) -> Self {
        Self::Mix(vec![(1.0 - share, self.clone()), (share, other)])
    }

    /// This law, a share of the requests waiting up to so many microseconds more (evenly).
    #[must_use]
    pub fn stalled(&self, share: f64, micros: f64) -> Self {
        const PARTS: u32 = 12;
        let part = share / f64::from(PARTS);
        let wait = |at: u32| micros * (f64::from(at) + 0.5) / f64::from(PARTS);
        let waiting = (0..PARTS).map(|at| (part, self.plus(wait(at))));
        Self::Mix(std::iter::once((1.0 - share, self.clone())).chain(waiting).collect())
    }

    /// The probability of less than `micros`.
    pub fn below(&self, micros: f64) -> f64 {
        match self {
            Self::LogNormal(median, sigma) if micros > 0.0 => {
                let deviations = libm::log(micros / median) / sigma;
                0.5 * libm::erfc(-deviations * std::f64::consts::FRAC_1_SQRT_2)
            }
            Self::Pareto(least, exponent) if micros > *least => {
                1.0 - libm::pow(least / micros, *exponent)
            }
            Self::LogNormal(..) | Self::Pareto(..) => 0.0,
            Self::Mix(parts) => parts.iter().map(|(share, law)| share * law.below(micros)).sum(),
            Self::Times(factor, law) => law.below(micros / factor),
            Self::Plus(more, law) => law.below(micros - more),
        }
    }

    /// The mass of each bucket of the data plane, from the first.
    pub fn masses(&self) -> Vec<f64> {
        let mut before = 0.0;
        let mass = |bucket: usize| {
            let last = bucket + 1 == BUCKETS;
            let upto = if last { 1.0 } else { self.below(upper_bound(bucket) as f64 + 1.0) };
            let mass = upto - before;
            before = upto;
            mass
        };
        (0..BUCKETS).map(mass).collect()
    }

    /// The latency that `share` of the requests stay below, to the end of its bucket.
    pub fn quantile(&self, share: f64) -> f64 {
        let reaches = |bucket: &usize| self.below(upper_bound(*bucket) as f64 + 1.0) >= share;
        (0..BUCKETS).find(reaches).map_or(f64::INFINITY, |bucket| upper_bound(bucket) as f64)
    }
}

/// The bucket of so many microseconds, as the data plane counts.
pub fn bucket(micros: u64) -> usize {
    bucket_of(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masses_sum_to_one_and_quantiles_are_those_of_the_law() {
        let laws = [
            Law::usual(),
            Law::Pareto(10_000.0, 2.5),
            Law::usual().with(0.2, Law::usual().times(10.0)),
            Law::usual().stalled(0.3, 300_000.0),
        ];
        for law in laws {
            let sum: f64 = law.masses().iter().sum();
            assert!((sum - 1.0).abs() < 1e-9, "{law:?}: {sum}");
        }
        // exp(0.6 * 2.3263) = 4.038
        assert!((Law::usual().quantile(0.99) / 201_900.0 - 1.0).abs() < 0.02);
        assert!((Law::usual().times(2.0).quantile(0.5) / 100_000.0 - 1.0).abs() < 0.02);
    }
}
