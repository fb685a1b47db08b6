//! The figures by name, from what the grid found.

use std::collections::BTreeMap;

use switchback_analysis::budget::line;

use crate::cost::Cost;
use crate::grid::{Found, HOUR, OURS, OURS_SAFE, OURS_UNCAPPED};
use crate::judges::schedule::{ENTRIES, Origin};
use crate::scenario::Kind;

/// A tuned rival counts if its own false-rollback rate stays below this.
const FALSE_MAX: f64 = 0.05;
/// The cases that ratios are formed for: short name and scenario.
pub const CASES: [(&str, &str); 6] = [
    ("errors_1", "errors 0.1 -> 1 %"),
    ("errors_5", "errors 0.1 -> 5 %"),
    ("latency_1.2", "latency x1.2"),
    ("latency_2", "latency x2"),
    ("tail", "1 % of requests x10"),
    ("hang", "all hang"),
];

/// What the grid found, to be asked.
pub struct Results<'a>(pub &'a [Found]);

impl Results<'_> {
    /// A judge in a scenario.
    pub fn of(&self, scenario: &str, judge: &str) -> Option<&Found> {
        self.0.iter().find(|found| found.scenario == scenario && found.judge == judge)
    }

    /// The fastest rival of one origin in a scenario: its name and median seconds. Whoever needs
    /// more than the hour counts as the hour: a ratio to it is a lower bound.
    pub fn fastest(
        &self,
        scenario: &str,
        is_meant: impl Fn(Origin, &str) -> bool,
    ) -> Option<(&'static str, f64)> {
        let rival = |entry: &&crate::judges::schedule::Entry| {
            entry.origin != Origin::Ours && is_meant(entry.origin, entry.name)
        };
        let seconds = |entry: &crate::judges::schedule::Entry| {
            let tally = &self.of(scenario, entry.name)?.tally;
            Some((entry.name, tally.median_seconds().unwrap_or(HOUR as f64)))
        };
        let rivals = ENTRIES.iter().filter(rival).filter_map(seconds);
        rivals.min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Whether a judge rolls healthy rollouts back rarely enough to be taken seriously, at 1,000 and
    /// at 100 requests a second with nothing else going on. In doubt, with few runs, it does.
    pub fn is_sound(&self, judge: &str) -> bool {
        let share = |scenario| self.of(scenario, judge).map(|found| found.tally.interval.0);
        let shares = ["iid", "iid, 100 requests/s"].map(share);
        shares.iter().flatten().next().is_some()
            && shares.iter().flatten().all(|share| *share <= FALSE_MAX)
    }
}

/// All figures there are data for.
pub fn figures(found: &[Found], cost: Option<Cost>) -> BTreeMap<String, f64> {
    let results = Results(found);
    let mut figures = BTreeMap::new();
    for (name, scenario) in CASES {
        of_case(&results, name, scenario, &mut figures);
    }
    healthy(&results, &mut figures);
    bounds(&results, &mut figures);
    if let Some(cost) = cost {
        if let Some(request) = cost.request {
            figures.insert("request_nanos".to_owned(), request.in_place_nanos);
            figures.insert("closing_nanos".to_owned(), request.closing_nanos);
        }
        figures.insert("tick_micros".to_owned(), cost.tick_micros);
        figures.insert("tick_micros_mean".to_owned(), cost.tick_micros_mean);
        figures.insert("tick_micros_p99".to_owned(), cost.tick_micros_p99);
        figures.insert("bytes".to_owned(), cost.bytes as f64);
    }
    figures
}

fn of_case(results: &Results<'_>, name: &str, scenario: &str, figures: &mut BTreeMap<String, f64>) {
    let is_latency = name.starts_with("latency") || name == "tail";
    let judge = if is_latency { OURS_UNCAPPED } else { OURS };
    let mut put = |what: &str, value: Option<f64>| {
        if let Some(value) = value {
            figures.insert(format!("{name}_{what}"), value);
        }
    };
    if let Some(found) = results.of(scenario, judge) {
        put("requests", found.tally.requests.map(|it| it.median));
        put("failed", found.tally.failed.map(|it| it.median));
    }
    let Some(ours) = results.of(scenario, OURS) else { return };
    put("requests_capped", ours.tally.requests.map(|it| it.median));
    let Some(seconds) = ours.tally.median_seconds() else { return };
    put("seconds", Some(seconds));
    let documented = results.fastest(scenario, |origin, _| origin == Origin::Documented);
    put("vs_documented", documented.map(|(_, rival)| rival / seconds));
    let tuned = results
        .fastest(scenario, |origin, name| origin != Origin::Documented && results.is_sound(name));
    put("vs_tuned", tuned.map(|(_, rival)| rival / seconds));
    let spent = ours.tally.spent.map(|spent| spent.median);
    let theirs = documented
        .and_then(|(name, _)| results.of(scenario, name))
        .and_then(|found| found.tally.spent)
        .map(|spent| spent.median);
    let ratio = theirs.zip(spent).filter(|(_, ours)| *ours > 0.0);
    put("failed_vs_documented", ratio.map(|(theirs, ours)| theirs / ours));
}

fn healthy(results: &Results<'_>, figures: &mut BTreeMap<String, f64>) {
    let ours = || results.0.iter().filter(|found| found.judge == OURS);
    let worst = ours()
        .filter(|found| found.kind == Kind::Healthy)
        .map(|found| 100.0 * found.tally.interval.1)
        .max_by(f64::total_cmp);
    figures.extend(worst.map(|worst| ("false_upper".to_owned(), worst)));
    let all = ours().filter(|found| found.kind == Kind::Healthy);
    let (fired, runs) = all.fold((0, 0), |sum, it| (sum.0 + it.tally.fired, sum.1 + it.tally.runs));
    if runs > 0 {
        let upper = 100.0 * crate::tally::wilson(fired, runs).1;
        figures.insert("false_together_upper".to_owned(), upper);
    }
    let named = [
        ("pauses_upper", "pauses of 300 ms, 3 replicas"),
        ("noise_upper", "replica noise 5 %, 3 replicas"),
    ];
    for (figure, scenario) in named {
        let found = results.of(scenario, OURS);
        figures.extend(found.map(|it| (figure.to_owned(), 100.0 * it.tally.interval.1)));
    }
    let safe = results.of("iid, 25 %", OURS_SAFE).and_then(|found| found.tally.median_seconds());
    figures.extend(safe.map(|seconds| ("safe_seconds".to_owned(), seconds)));
}

/// Mean requests over Wald's bound, `ln(1 / alpha)` by the information of one candidate request
/// when the baseline is known and the candidate too (design page, 3.1); for latency, of the shift
/// that is left after the tolerance. And over the bound at half of alpha: a metric's own part of it,
/// more or less, and what the prototype that the aim comes from was held against.
fn bounds(results: &Results<'_>, figures: &mut BTreeMap<String, f64>) {
    let ln = libm::log;
    let (old, new) = (0.001, 0.01);
    let errors = new * ln(new / old) + (1.0 - new) * ln((1.0 - new) / (1.0 - old));
    let deviations = ln(1.2 / 1.05) / 0.6;
    let latency = deviations * deviations / 2.0;
    let cases = [
        ("errors_1_wald", "errors 0.1 -> 1 %", OURS, errors),
        ("latency_1.2_wald", "latency x1.2", OURS_UNCAPPED, latency),
    ];
    for (figure, scenario, judge, information) in cases {
        let mean = results.of(scenario, judge).and_then(|found| found.tally.requests_mean);
        for (alpha, what) in [(0.01, ""), (0.005, "_half")] {
            let ratio = mean.map(|mean| mean * information / line(alpha));
            figures.extend(ratio.map(|ratio| (format!("{figure}{what}"), ratio)));
        }
    }
}
