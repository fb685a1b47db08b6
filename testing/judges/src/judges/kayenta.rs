//! Kayenta's judge of one set of series: classification per metric and the weighted score (design
//! page, 1.1). When it judges is the matter of `schedule`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{mann_whitney, normal_quantile};
use crate::random::Random;

/// Which change of a metric is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// More.
    Increase,
    /// Less.
    Decrease,
    /// Both.
    Either,
}

/// What a metric came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// No difference to speak of.
    Pass,
    /// The experiment is higher.
    High,
    /// The experiment is lower.
    Low,
    /// Nothing to compare.
    Nodata,
    /// Nothing to compare although there must be.
    NodataFail,
}

/// What takes the place of missing points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// They are left out.
    Remove,
    /// They count as zero.
    Zero,
}

/// The measure of an effect's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Mean over mean.
    MeanRatio,
    /// Chance that a point of the experiment is higher than one of the control.
    CommonLanguage,
}

/// A metric's settings, by default those of Kayenta.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Which change is bad.
    pub direction: Direction,
    /// How missing points are treated.
    pub missing: Missing,
    /// Outliers are taken out beyond so many interquartile ranges; `None` keeps them.
    pub outliers: Option<f64>,
    /// How the size of an effect is measured.
    pub effect: Effect,
    /// Effects at least this large count as an increase.
    pub allowed_increase: f64,
    /// Effects at most this large count as a decrease.
    pub allowed_decrease: f64,
    /// Without data the metric fails.
    pub must_have_data: bool,
    /// The part of the estimated shift that the interval has to stay beyond: hard-coded 0.25.
    pub tolerance: f64,
    /// Confidence of the interval: hard-coded 0.98.
    pub confidence: f64,
}

impl Default for Metric {
    fn default() -> Self {
        Self {
            direction: Direction::Either,
            missing: Missing::Remove,
            outliers: None,
            effect: Effect::MeanRatio,
            allowed_increase: 1.0,
            allowed_decrease: 1.0,
            must_have_data: false,
            tolerance: 0.25,
            confidence: 0.98,
        }
    }
}

/// Points as they came, `NaN` where there was none, made ready.
pub fn prepared(points: &[f64], metric: &Metric) -> Vec<f64> {
    let mut values: Vec<f64> = match metric.missing {
        Missing::Remove => points.iter().copied().filter(|value| !value.is_nan()).collect(),
        Missing::Zero => points.iter().map(|it| if it.is_nan() { 0.0 } else { *it }).collect(),
    };
    values.sort_unstable_by(f64::total_cmp);
    if let Some(factor) = metric.outliers
        && !values.is_empty()
    {
        let (low, high) = (percentile(&values, 0.25), percentile(&values, 0.75));
        let reach = factor * (high - low);
        // Never narrower than from the first to the 99th percentile.
        let low = (low - reach).min(percentile(&values, 0.01));
        let high = (high + reach).max(percentile(&values, 0.99));
        values.retain(|value| (low..=high).contains(value));
    }
    values
}

/// The percentile of ascending values by linear interpolation (R's seventh kind).
fn percentile(values: &[f64], share: f64) -> f64 {
    let rank = share * (values.len() - 1) as f64;
    let below = libm::floor(rank);
    let at = below as usize;
    let next = values[(at + 1).min(values.len() - 1)];
    values[at] + (rank - below) * (next - values[at])
}

/// Compares two prepared samples.
pub fn classify(control: &[f64], experiment: &[f64], metric: &Metric) -> Class {
    if control.is_empty() || experiment.is_empty() {
        return match (metric.missing, metric.must_have_data) {
            (Missing::Zero, _) => Class::Pass,
            (Missing::Remove, true) => Class::NodataFail,
            (Missing::Remove, false) => Class::Nodata,
        };
    }
    let is_constant = |sample: &[f64]| sample.first() == sample.last();
    let both_constant = is_constant(control) && is_constant(experiment);
    if control == experiment || (both_constant && control.first() == experiment.first()) {
        return Class::Pass;
    }
    if both_constant {
        return compare(&blurred(control, 1), &blurred(experiment, 2), metric);
    }
    compare(control, experiment, metric)
}

/// A constant sample with noise of a hundred thousandth, so that there is something to rank.
fn blurred(sample: &[f64], stream: u64) -> Vec<f64> {
    let mut random = Random::new(stream, "kayenta", sample.len() as u64);
    let blur = |value: &f64| value + value * 1e-5 * random.normal();
    let mut sample: Vec<f64> = sample.iter().map(blur).collect();
    sample.sort_unstable_by(f64::total_cmp);
    sample
}

fn compare(control: &[f64], experiment: &[f64], metric: &Metric) -> Class {
    let quantile = normal_quantile(1.0 - (1.0 - metric.confidence) / 2.0);
    let Some(shift) = mann_whitney::shift(experiment, control, quantile) else {
        return Class::Pass;
    };
    let effect = effect(control, experiment, metric.effect);
    let is_watched = |direction| [direction, Direction::Either].contains(&metric.direction);
    let least = metric.tolerance * shift.estimate.abs();
    let has = |reached: bool| reached || effect.is_nan();
    if is_watched(Direction::Increase)
        && shift.lower > least
        && has(effect >= metric.allowed_increase)
    {
        return Class::High;
    }
    if is_watched(Direction::Decrease)
        && shift.upper < -least
        && has(effect <= metric.allowed_decrease)
    {
        return Class::Low;
    }
    Class::Pass
}

fn effect(control: &[f64], experiment: &[f64], measure: Effect) -> f64 {
    let mean = |sample: &[f64]| sample.iter().sum::<f64>() / sample.len() as f64;
    match measure {
        Effect::MeanRatio => {
            let (old, new) = (mean(control), mean(experiment));
            if old == 0.0 || new == 0.0 { f64::NAN } else { new / old }
        }
        Effect::CommonLanguage => {
            let pairs = (control.len() * experiment.len()) as f64;
            let wins = |new: &f64| -> f64 {
                let below = control.partition_point(|old| old < new);
                let same = control.partition_point(|old| old <= new) - below;
                below as f64 + same as f64 / 2.0
            };
            experiment.iter().map(wins).sum::<f64>() / pairs
        }
    }
}

/// How much a metric matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criticality {
    /// It counts in its group.
    Normal,
    /// If it does not pass, nothing does.
    Critical,
    /// It is only shown.
    ReportOnly,
}

/// A classified metric of a group.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Judged {
    /// The group it belongs to.
    pub group: String,
    /// What it came to.
    #[serde(rename = "classification")]
    pub class: Class,
    /// How much it matters.
    pub criticality: Criticality,
}

/// The score of all metrics, 0 to 100, with the groups' weights in percent.
pub fn score(metrics: &[Judged], weights: &BTreeMap<String, f64>) -> f64 {
    let counted: Vec<&Judged> =
        metrics.iter().filter(|metric| metric.criticality != Criticality::ReportOnly).collect();
    let without = counted.iter().filter(|metric| metric.class == Class::Nodata).count();
    let has_failed = |metric: &&Judged| {
        metric.criticality == Criticality::Critical && metric.class != Class::Pass
    };
    if counted.iter().any(has_failed) || 2 * without >= counted.len() {
        return 0.0;
    }
    let mut groups: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for metric in &counted {
        let (passed, all) = groups.entry(&metric.group).or_default();
        *passed += f64::from(metric.class == Class::Pass);
        *all += f64::from(metric.class != Class::Nodata);
    }
    let given: f64 = groups.keys().filter_map(|group| weights.get(*group)).sum();
    let rest = groups.keys().filter(|group| !weights.contains_key(**group)).count();
    let shared = (100.0 - given) / rest.max(1) as f64;
    let part = |(group, (passed, all)): (&&str, &(f64, f64))| {
        let score = if *all > 0.0 { 100.0 * passed / all } else { 100.0 };
        score * weights.get(*group).copied().unwrap_or(shared) / 100.0
    };
    let sum: f64 = groups.iter().map(part).sum();
    libm::round(sum * 100.0) / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_points_go_before_outliers_do() {
        let points = [1.0, f64::NAN, 2.0, 3.0, 2.0, 1.0, 3.0, 2.0, 1000.0];
        let plain = prepared(&points, &Metric::default());
        assert_eq!(plain.len(), 8);
        let zero = Metric { missing: Missing::Zero, ..Metric::default() };
        assert!(prepared(&points, &zero)[0].abs() < 1e-12);
        let strict = Metric { outliers: Some(3.0), ..Metric::default() };
        // The fence reaches at least to the 99th percentile, which interpolates below the largest.
        assert_eq!(prepared(&points, &strict).len(), 7);
    }

    #[test]
    fn points_that_lie_apart_fail_however_few_they_are() {
        let classes = |count: u32| {
            let control: Vec<f64> = (0..count).map(f64::from).collect();
            let experiment: Vec<f64> = (0..count).map(|at| f64::from(at) + 100.0).collect();
            classify(&control, &experiment, &Metric::default())
        };
        // The interval's end is the end of the search, as in the source.
        assert_eq!((classes(1), classes(2), classes(5)), (Class::Pass, Class::High, Class::High));
    }
}
