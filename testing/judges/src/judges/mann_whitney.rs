//! The interval of the Mann-Whitney test as Kayenta computes it: normal approximation with ties and
//! continuity correction, root search with an absolute tolerance of 1e-4 (design page, 1.1).

use super::brent;

/// Absolute, in units of the metric.
const TOLERANCE: f64 = 1e-4;

/// How far the experiment lies above the control.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shift {
    /// Lower end of the interval.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// The Hodges-Lehmann estimate.
    pub estimate: f64,
}

/// The standardized rank statistic of `experiment - shift` against `control`, less `quantile`;
/// `None` if all observations are tied. Both samples ascend.
pub fn statistic(experiment: &[f64], control: &[f64], shift: f64, quantile: f64) -> Option<f64> {
    let (n, m) = (experiment.len() as f64, control.len() as f64);
    let (mut i, mut j, mut won, mut tie_sum) = (0, 0, 0.0, 0.0);
    while i < experiment.len() || j < control.len() {
        let ours = experiment.get(i).map_or(f64::INFINITY, |value| value - shift);
        let theirs = control.get(j).copied().unwrap_or(f64::INFINITY);
        let value = ours.min(theirs);
        let same_experiment = experiment[i..].iter().take_while(|it| *it - shift <= value).count();
        let same_control = control[j..].iter().take_while(|it| **it <= value).count();
        let tied = (same_experiment + same_control) as f64;
        won += same_experiment as f64 * (j as f64 + same_control as f64 / 2.0);
        tie_sum += tied * tied * tied - tied;
        i += same_experiment;
        j += same_control;
    }
    let distance = won - n * m / 2.0;
    let correction = if distance > 0.0 { 0.5 } else { -0.5 } * f64::from(distance != 0.0);
    let variance = n * m / 12.0 * ((n + m + 1.0) - tie_sum / ((n + m) * (n + m - 1.0)));
    (variance > 0.0).then(|| (distance - correction) / libm::sqrt(variance) - quantile)
}

/// The interval at this confidence. Both samples ascend and are not empty. `None` if all
/// observations are tied at an end of the search.
pub fn shift(experiment: &[f64], control: &[f64], quantile: f64) -> Option<Shift> {
    let ends = ends(experiment, control)?;
    let function = |quantile: f64| {
        move |shift: f64| statistic(experiment, control, shift, quantile).unwrap_or(-quantile)
    };
    let find = |quantile: f64| {
        if statistic(experiment, control, ends.0, quantile)? <= 0.0 {
            return Some(ends.0);
        }
        if statistic(experiment, control, ends.1, quantile)? >= 0.0 {
            return Some(ends.1);
        }
        Some(brent::root(ends.0, ends.1, TOLERANCE, function(quantile)))
    };
    Some(Shift {
        lower: find(quantile)?,
        upper: find(-quantile)?,
        estimate: brent::root(ends.0, ends.1, TOLERANCE, function(0.0)),
    })
}

/// The smallest and the largest shift there can be.
pub fn ends(experiment: &[f64], control: &[f64]) -> Option<(f64, f64)> {
    let low = experiment.first()? - control.last()?;
    Some((low, experiment.last()? - control.first()?))
}
