//! Weighted isotonic regression: the nondecreasing function nearest to given values.

/// Neighbours that share a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pool {
    /// How many they are.
    pub members: usize,
    above: f64,
    below: f64,
}

impl Pool {
    /// Their value.
    pub fn mean(self) -> f64 {
        self.above / self.below
    }

    fn is_below(self, other: Self) -> bool {
        self.above * other.below < other.above * self.below
    }

    fn join(self, next: Self) -> Self {
        Self {
            members: self.members + next.members,
            above: self.above + next.above,
            below: self.below + next.below,
        }
    }
}

/// The nondecreasing sequence with the smallest weighted sum of squared differences from
/// `above / below`, each weighing what is below (pool adjacent violators; Barlow, Bartholomew,
/// Bremner and Brunk 1972). What is below must be positive. The weighted sum stays what it was, so
/// a likelihood ratio of two distributions keeps its mean of 1.
///
/// Into `pools`, whose memory is used again; pools are compared by cross multiplication, because
/// divisions are what this costs.
pub fn nondecreasing(above: &[f64], below: &[f64], pools: &mut Vec<Pool>) {
    pools.clear();
    let mut values = above.iter().zip(below);
    let next = |(above, below): (&f64, &f64)| Pool { members: 1, above: *above, below: *below };
    let Some(mut last) = values.next().map(next) else { return };
    for next in values.map(next) {
        if last.is_below(next) {
            pools.push(last);
            last = next;
            continue;
        }
        last = last.join(next);
        while let Some(before) = pools.pop_if(|before| !before.is_below(last)) {
            last = before.join(last);
        }
    }
    pools.push(last);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same regression by its minimax formula: max over starts of min over ends of the mean.
    fn by_minimax(above: &[f64], below: &[f64]) -> Vec<f64> {
        let mean = |from: usize, to: usize| {
            let weight: f64 = below[from..=to].iter().sum();
            above[from..=to].iter().sum::<f64>() / weight
        };
        let at = |index: usize| {
            let best =
                |from| (index..above.len()).map(|to| mean(from, to)).fold(f64::MAX, f64::min);
            (0..=index).map(best).fold(f64::MIN, f64::max)
        };
        (0..above.len()).map(at).collect()
    }

    proptest! {
        #[test]
        fn pooling_is_the_minimax_regression(
            pairs in prop::collection::vec((0.0..10.0_f64, 0.01..5.0_f64), 1..12),
        ) {
            let (above, below): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let mut pools = Vec::new();
            nondecreasing(&above, &below, &mut pools);
            let fitted = pools.iter().flat_map(|pool| vec![pool.mean(); pool.members]);
            let fitted: Vec<f64> = fitted.collect();
            let expected = by_minimax(&above, &below);
            prop_assert_eq!(fitted.len(), expected.len());
            for (fitted, expected) in fitted.iter().zip(expected) {
                prop_assert!((fitted - expected).abs() < 1e-9);
            }
        }
    }
}
