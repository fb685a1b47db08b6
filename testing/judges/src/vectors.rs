//! Published test vectors of the others, kept as data with their source: a model that fails one is
//! not compared with.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::judges::kayenta::{self, Class, Direction, Judged, Metric};
use crate::judges::{argo, confseq, flagger, mann_whitney, normal_quantile};

/// The files, by name.
const FILES: [(&str, &str); 6] = [
    ("kayenta_mann_whitney", include_str!("../data/kayenta_mann_whitney.json")),
    ("kayenta_classifier", include_str!("../data/kayenta_classifier.json")),
    ("kayenta_scorer", include_str!("../data/kayenta_scorer.json")),
    ("confseq", include_str!("../data/confseq.json")),
    ("argo", include_str!("../data/argo.json")),
    ("flagger", include_str!("../data/flagger.json")),
];

/// What was checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// How many vectors hold.
    pub passed: usize,
    /// Each that does not, in words.
    pub broken: Vec<String>,
}

impl Report {
    fn note(&mut self, file: &str, case: &str, holds: bool, found: &dyn std::fmt::Debug) {
        if holds {
            self.passed += 1;
        } else {
            self.broken.push(format!("{file}: {case}: found {found:?}"));
        }
    }

    fn close(&mut self, file: &str, case: &str, found: f64, expected: f64, within: f64) {
        self.note(file, case, (found - expected).abs() <= within, &(found, expected));
    }
}

/// Checks every vector.
pub fn check() -> Report {
    check_files(&FILES)
}

/// Checks the vectors of these files, by name and text.
pub fn check_files(files: &[(&str, &str)]) -> Report {
    let mut report = Report::default();
    for (name, text) in files {
        let checked = match *name {
            "kayenta_mann_whitney" => read(text).map(|file| intervals(&mut report, &file)),
            "kayenta_classifier" => read(text).map(|file| classes(&mut report, &file)),
            "kayenta_scorer" => read(text).map(|file| scores(&mut report, &file)),
            "confseq" => read(text).map(|file| boundaries(&mut report, &file)),
            "argo" => read(text).map(|file| phases(&mut report, &file)),
            "flagger" => read(text).map(|file| canaries(&mut report, &file)),
            _ => Err("no such file of vectors".to_owned()),
        };
        if let Err(error) = checked {
            report.broken.push(format!("{name}: {error}"));
        }
    }
    report
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn ascending(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    values
}

#[derive(Deserialize)]
struct Cases<T> {
    cases: Vec<T>,
}

#[derive(Deserialize)]
struct IntervalCase {
    name: String,
    confidence: f64,
    control: Vec<f64>,
    experiment: Vec<f64>,
    interval: [f64; 2],
    estimate: Option<f64>,
    within: f64,
    ends: Option<[f64; 2]>,
    at_ends_lower: Option<[f64; 2]>,
    at_ends_upper: Option<[f64; 2]>,
}

fn intervals(report: &mut Report, file: &Cases<IntervalCase>) {
    for case in &file.cases {
        let (control, experiment) = (ascending(&case.control), ascending(&case.experiment));
        let quantile = normal_quantile(1.0 - (1.0 - case.confidence) / 2.0);
        let name = &case.name;
        let mut close = |what: &str, found: f64, expected: f64| {
            let case_name = format!("{name}, {what}");
            report.close("kayenta_mann_whitney", &case_name, found, expected, case.within);
        };
        let shift = mann_whitney::shift(&experiment, &control, quantile);
        let of = |part: fn(&mann_whitney::Shift) -> f64| shift.as_ref().map_or(f64::NAN, part);
        close("lower", of(|shift| shift.lower), case.interval[0]);
        close("upper", of(|shift| shift.upper), case.interval[1]);
        if let Some(estimate) = case.estimate {
            close("estimate", of(|shift| shift.estimate), estimate);
        }
        let Some(ends) = mann_whitney::ends(&experiment, &control) else { continue };
        if let Some(expected) = case.ends {
            close("smallest shift", ends.0, expected[0]);
            close("largest shift", ends.1, expected[1]);
        }
        let at = |shift, quantile| {
            mann_whitney::statistic(&experiment, &control, shift, quantile).unwrap_or(f64::NAN)
        };
        for (expected, quantile) in
            [(case.at_ends_lower, quantile), (case.at_ends_upper, -quantile)]
        {
            if let Some([low, high]) = expected {
                close("statistic at the smallest shift", at(ends.0, quantile), low);
                close("statistic at the largest shift", at(ends.1, quantile), high);
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Sample {
    Named(String),
    Given(Vec<f64>),
}

#[derive(Deserialize)]
struct ClassCase {
    name: String,
    experiment: Sample,
    control: Sample,
    direction: Direction,
    expected: Class,
}

#[derive(Deserialize)]
struct Classes {
    fraction: f64,
    confidence: f64,
    samples: BTreeMap<String, Vec<f64>>,
    cases: Vec<ClassCase>,
}

fn classes(report: &mut Report, file: &Classes) {
    let sample = |sample: &Sample| match sample {
        Sample::Named(name) => file.samples.get(name).cloned().unwrap_or_default(),
        Sample::Given(values) => values.clone(),
    };
    for case in &file.cases {
        let metric = Metric {
            direction: case.direction,
            tolerance: file.fraction,
            confidence: file.confidence,
            ..Metric::default()
        };
        let prepared = |it: &Sample| kayenta::prepared(&sample(it), &metric);
        let found =
            kayenta::classify(&prepared(&case.control), &prepared(&case.experiment), &metric);
        report.note("kayenta_classifier", &case.name, found == case.expected, &found);
    }
}

#[derive(Deserialize)]
struct ScoreCase {
    name: String,
    weights: BTreeMap<String, f64>,
    metrics: Vec<Judged>,
    score: f64,
    within: f64,
}

fn scores(report: &mut Report, file: &Cases<ScoreCase>) {
    for case in &file.cases {
        let found = kayenta::score(&case.metrics, &case.weights);
        report.close("kayenta_scorer", &case.name, found, case.score, case.within);
    }
}

#[derive(Deserialize)]
struct Boundaries {
    within: f64,
    two_sided_normal: Mixture,
    two_sided_beta_binomial: Mixture,
    empirical_process: Band,
}

#[derive(Deserialize)]
struct Mixture {
    v_opt: f64,
    alpha_opt: f64,
    best_rho: Option<f64>,
    #[serde(default)]
    g: f64,
    #[serde(default)]
    h: f64,
    s: f64,
    v: f64,
    #[serde(rename = "log_mixture")]
    log: f64,
    #[serde(rename = "bound_at_0.05")]
    bound: f64,
}

#[derive(Deserialize)]
struct Band {
    t: f64,
    alpha: f64,
    t_min: f64,
    a: f64,
    bound: f64,
}

fn boundaries(report: &mut Report, file: &Boundaries) {
    let mut close = |case: &str, found: f64, expected: f64| {
        report.close("confseq", case, found, expected, file.within);
    };
    let it = &file.two_sided_normal;
    let rho = confseq::best_rho(it.v_opt, it.alpha_opt);
    close("normal mixture, best rho", rho, it.best_rho.unwrap_or(f64::NAN));
    close("normal mixture", confseq::normal_mixture(it.s, it.v, rho), it.log);
    close("normal mixture, bound", confseq::normal_bound(it.v, rho, 0.05), it.bound);
    let it = &file.two_sided_beta_binomial;
    let mixture = confseq::BetaBinomial::new(it.v_opt, it.alpha_opt, it.g, it.h);
    close("beta-binomial mixture", mixture.log_mixture(it.s, it.v), it.log);
    close("beta-binomial mixture, bound", mixture.bound(it.v, 0.05), it.bound);
    let it = &file.empirical_process;
    let band = confseq::Band::new(it.alpha, it.t_min, it.a);
    close("empirical process", band.radius(it.t), it.bound);
}

#[derive(Deserialize)]
struct PhaseCase {
    name: String,
    status: argo::Phase,
    #[serde(default = "yes")]
    measured: bool,
    #[serde(default)]
    terminating: bool,
    #[serde(flatten)]
    limits: argo::Limits,
    #[serde(flatten)]
    counts: argo::Counts,
}

const fn yes() -> bool {
    true
}

fn phases(report: &mut Report, file: &Cases<PhaseCase>) {
    for case in &file.cases {
        let found = argo::assess(&case.limits, &case.counts, case.measured, case.terminating);
        report.note("argo", &case.name, found == case.status, &found);
    }
}

#[derive(Deserialize)]
struct CanaryCase {
    name: String,
    threshold: u32,
    failed_before: u32,
    checks: Vec<bool>,
    phase: flagger::Phase,
    failed_checks: u32,
}

fn canaries(report: &mut Report, file: &Cases<CanaryCase>) {
    for case in &file.cases {
        let mut canary = flagger::Canary::new(case.threshold, case.failed_before);
        case.checks.iter().for_each(|check| canary.tick(|| *check));
        let found = (canary.phase(), canary.failed_checks());
        report.note("flagger", &case.name, found == (case.phase, case.failed_checks), &found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_published_vector_holds() {
        let report = check();
        assert!(report.broken.is_empty(), "{:#?}", report.broken);
        assert!(report.passed >= 50, "{}", report.passed);
    }

    #[test]
    fn a_changed_vector_and_an_unreadable_file_are_named() {
        let changed = FILES[2].1.replacen("33.33", "66.67", 1);
        let files = [("kayenta_scorer", changed.as_str()), ("argo", "{"), ("other", "{}")];
        let broken = check_files(&files).broken;
        assert_eq!(broken.len(), 3, "{broken:?}");
        assert!(broken[0].starts_with("kayenta_scorer: One Group, Three Metrics"), "{broken:?}");
    }
}
