//! Weighted isotonic regression: the nondecreasing function nearest to given values.

/// Replaces `values` by the nondecreasing sequence with the smallest weighted sum of squared
/// differences (pool adjacent violators; Barlow, Bartholomew, Bremner and Brunk 1972). Weights must
/// be positive. The weighted sum stays what it was, so a likelihood ratio keeps its mean of 1.
pub fn nondecreasing(values: &mut [f64], weights: &[f64]) {
    let mut pools: Vec<Pool> = Vec::with_capacity(values.len());
    for (value, weight) in values.iter().zip(weights) {
        let mut pool = Pool { mean: *value, weight: *weight, members: 1 };
        while let Some(before) = pools.last().copied().filter(|before| before.mean >= pool.mean) {
            pool = before.join(pool);
            pools.pop();
        }
        pools.push(pool);
    }
    let fitted = pools.iter().flat_map(|pool| std::iter::repeat_n(pool.mean, pool.members));
    values.iter_mut().zip(fitted).for_each(|(value, fitted)| *value = fitted);
}

#[derive(Debug, Clone, Copy)]
struct Pool {
    mean: f64,
    weight: f64,
    members: usize,
}

impl Pool {
    fn join(self, next: Self) -> Self {
        let weight = self.weight + next.weight;
        let mean = (self.mean * self.weight + next.mean * next.weight) / weight;
        Self { mean, weight, members: self.members + next.members }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same regression by its minimax formula: max over starts of min over ends of the mean.
    fn by_minimax(values: &[f64], weights: &[f64]) -> Vec<f64> {
        let mean = |from: usize, to: usize| {
            let weight: f64 = weights[from..=to].iter().sum();
            let sum: f64 = (from..=to).map(|at| values[at] * weights[at]).sum();
            sum / weight
        };
        let at = |index: usize| {
            let best =
                |from| (index..values.len()).map(|to| mean(from, to)).fold(f64::MAX, f64::min);
            (0..=index).map(best).fold(f64::MIN, f64::max)
        };
        (0..values.len()).map(at).collect()
    }

    proptest! {
        #[test]
        fn pooling_is_the_minimax_regression(
            pairs in prop::collection::vec((0.0..10.0_f64, 0.01..5.0_f64), 1..12),
        ) {
            let (mut values, weights): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let expected = by_minimax(&values, &weights);
            nondecreasing(&mut values, &weights);
            for (value, expected) in values.iter().zip(expected) {
                prop_assert!((value - expected).abs() < 1e-9);
            }
        }
    }
}
