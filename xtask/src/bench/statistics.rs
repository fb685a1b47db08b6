//! Medians, quantiles and ratios. Pure.

/// The middle of `values`; the mean of the two middle ones when they are even in number. `None`
/// without values.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(sorted[sorted.len() / 2 - 1], upper))
}

/// The smallest value that at least `quantile` (0 to 1) of `values` do not exceed.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a few thousand values"
)]
pub(super) fn quantile(values: &[f64], quantile: f64) -> Option<f64> {
    let sorted = sorted(values);
    let rank = (quantile.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The median of the ratios of values measured in the same round. Rounds in which either is
/// missing, or the divisor is zero, do not count.
pub(super) fn median_ratio(ours: &[Option<f64>], theirs: &[Option<f64>]) -> Option<f64> {
    let ratio = |(ours, theirs): (&Option<f64>, &Option<f64>)| {
        let (ours, theirs) = ((*ours)?, (*theirs)?);
        (theirs > 0.0).then(|| ours / theirs)
    };
    median(&ours.iter().zip(theirs).filter_map(ratio).collect::<Vec<_>>())
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quantiles_of_few_values() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&hundred, 0.99), Some(99.0));
        assert_eq!(quantile(&hundred, 1.0), Some(100.0));
        assert_eq!(quantile(&[7.0], 0.0), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn a_ratio_compares_values_of_the_same_round_only() {
        let ours = [Some(10.0), None, Some(30.0), Some(9.0)];
        let theirs = [Some(5.0), Some(1.0), Some(10.0), Some(0.0)];
        assert_eq!(median_ratio(&ours, &theirs), Some(2.5));
        assert_eq!(median_ratio(&[None], &[Some(1.0)]), None);
    }
}
