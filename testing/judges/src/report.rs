//! The grid's results as one JSON document and as tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::figures::{CASES, Results};
use crate::goals::{Bound, GOALS};
use crate::grid::{Counts, Found, OURS, OURS_SAFE, OURS_UNCAPPED};
use crate::judges::bands::Method;
use crate::judges::schedule::{ENTRIES, Origin};
use crate::scenario::Kind;
use crate::tally::{Quantiles, Tally};

/// Everything that is reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// `smoke`, `usual` or `full`.
    pub mode: String,
    /// The seed of all runs.
    pub seed: u64,
    /// The command that repeats it.
    pub command: String,
    /// How many runs.
    pub counts: Counts,
    /// Published vectors of the others that hold.
    pub vectors: usize,
    /// What the grid found.
    #[serde(rename = "cells")]
    pub found: Vec<Found>,
    /// Figures by name.
    pub figures: BTreeMap<String, f64>,
    /// Checks that did not hold, in words; empty but for the smoke.
    pub broken: Vec<String>,
}

impl Report {
    /// One document: with rates and goals beside what [`Self::read`] needs.
    pub fn json(&self) -> Value {
        let goal = |goal: &crate::goals::Goal| {
            let reached = goal.is_reached(&self.figures);
            json!({"figure": goal.figure, "aim": aim(goal.bound), "reached": reached})
        };
        let mut document = json!(self);
        document["benchmark"] = json!("judge");
        document["goals"] = GOALS.iter().map(goal).collect();
        document["cells"] = self.found.iter().map(cell).collect();
        document
    }

    /// A document that was written before.
    pub fn read(document: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(document)
    }

    /// The tables.
    pub fn markdown(&self) -> String {
        let results = Results(&self.found);
        // Writing to a String cannot fail, here and below.
        let mut text = String::new();
        let Counts { healthy, regressions, scrapes, dear, methods } = self.counts;
        let _ = writeln!(
            text,
            "`{}`, seed {}. Runs per cell: ours {healthy} healthy and {regressions} regressions, by \
             scrapes {scrapes} ({dear} for Kayenta at 15 s), sequential tests {methods}. {} published \
             vectors of the others hold.",
            self.command, self.seed, self.vectors
        );
        for (title, table) in [
            ("Figures", self.goals()),
            ("False rollbacks of ours in an hour", ours_healthy(&self.found)),
            ("False rollbacks of the others in an hour, %", others_healthy(&results, &self.found)),
            ("Regressions found by ours", ours_found(&results, &self.found)),
            ("Seconds until the others roll back (median)", others_found(&results, &self.found)),
            ("Failed candidate requests until then (median)", others_spent(&results, &self.found)),
            ("Against the fastest", ratios(&results)),
            ("Settings of the others", settings()),
        ] {
            let _ = write!(text, "\n### {title}\n\n{table}");
        }
        text
    }

    fn goals(&self) -> String {
        let row = |goal: &crate::goals::Goal| {
            let value = self.figures.get(goal.figure).copied();
            let verdict = match goal.is_reached(&self.figures) {
                Some(true) => "reached",
                Some(false) => "**missed**",
                None => "not measured",
            };
            let value = value.map_or_else(|| "–".to_owned(), number);
            vec![goal.words.to_owned(), aim(goal.bound), value, verdict.to_owned()]
        };
        table(&["Figure", "Aim", "Measured", ""], GOALS.iter().map(row))
    }
}

fn cell(found: &Found) -> Value {
    let share = found.tally.share();
    let mut cell = json!(found);
    if found.kind == Kind::Regression {
        cell["miss_rate"] = json!(1.0 - share);
    } else {
        cell["false_rollback_rate"] = json!(share);
    }
    cell
}

fn aim(bound: Bound) -> String {
    match bound {
        Bound::AtLeast(bound) => format!("at least {}", number(bound)),
        Bound::AtMost(bound) => format!("at most {}", number(bound)),
    }
}

/// A number as people read it.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract().abs() < 1e-9 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A table in Markdown.
pub(crate) fn table<'a>(
    head: &[impl AsRef<str>],
    rows: impl Iterator<Item = Vec<String>> + 'a,
) -> String {
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let head: Vec<&str> = head.iter().map(AsRef::as_ref).collect();
    let rule = vec!["---"; head.len()];
    let rows = rows.map(|row| line(row.iter().map(String::as_str).collect()));
    [line(head), line(rule)].into_iter().chain(rows).collect()
}

/// Scenarios of a kind, in the order they were run.
fn names(found: &[Found], is_meant: impl Fn(Kind) -> bool) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for found in found.iter().filter(|found| is_meant(found.kind)) {
        if !names.contains(&found.scenario.as_str()) {
            names.push(&found.scenario);
        }
    }
    names
}

fn ours_healthy(found: &[Found]) -> String {
    let is_ours = |found: &&Found| found.judge == OURS && found.kind != Kind::Regression;
    let row = |found: &Found| {
        let tally = &found.tally;
        let (low, high) = tally.interval;
        let note = if found.kind == Kind::Healthy { "" } else { "not covered" };
        vec![
            found.scenario.clone(),
            format!("{} of {}", tally.fired, tally.runs),
            format!("{:.2} %", 100.0 * tally.share()),
            format!("{:.2} to {:.2} %", 100.0 * low, 100.0 * high),
            note.to_owned(),
        ]
    };
    let head = ["Scenario", "Rolled back", "Rate", "95 % interval", "Guarantee"];
    table(&head, found.iter().filter(is_ours).map(row))
}

/// Everybody but ours, in the order of the tables.
fn others() -> Vec<&'static str> {
    let scraping = ENTRIES.iter().map(|entry| entry.name);
    scraping.chain(Method::ALL.iter().map(|method| method.name())).collect()
}

fn beside(results: &Results<'_>, scenarios: Vec<&str>, text: impl Fn(&Tally) -> String) -> String {
    let others = others();
    let head: Vec<&str> = std::iter::once("Scenario").chain(others.iter().copied()).collect();
    let row = |scenario: &str| {
        let of = |judge: &&str| {
            results.of(scenario, judge).map_or_else(|| "–".to_owned(), |it| text(&it.tally))
        };
        std::iter::once(scenario.to_owned()).chain(others.iter().map(of)).collect()
    };
    table(&head, scenarios.into_iter().map(row))
}

fn others_healthy(results: &Results<'_>, found: &[Found]) -> String {
    let scenarios = names(found, |kind| kind != Kind::Regression);
    beside(results, scenarios, |tally| number(100.0 * tally.share()))
}

fn others_found(results: &Results<'_>, found: &[Found]) -> String {
    let scenarios = names(found, |kind| kind == Kind::Regression);
    beside(results, scenarios, |tally| {
        let missed = 100.0 * (1.0 - tally.share());
        match (tally.median_seconds(), missed >= 0.5) {
            (None, _) => format!("never ({missed:.0} % missed)"),
            (Some(seconds), true) => format!("{} ({missed:.0} % missed)", number(seconds)),
            (Some(seconds), false) => number(seconds),
        }
    })
}

fn others_spent(results: &Results<'_>, found: &[Found]) -> String {
    let scenarios = names(found, |kind| kind == Kind::Regression);
    let meant = |name: &&str| name.starts_with("errors") || name.ends_with("hang");
    beside(results, scenarios.into_iter().filter(meant).collect(), |tally| {
        tally
            .spent
            .filter(|_| tally.median_seconds().is_some())
            .map_or_else(|| "never".to_owned(), |spent| number(spent.median))
    })
}

fn pair(quantiles: Option<Quantiles>) -> String {
    quantiles.map_or_else(
        || "–".to_owned(),
        |it| format!("{} / {} / {}", number(it.median), number(it.p90), number(it.p99)),
    )
}

fn ours_found(results: &Results<'_>, found: &[Found]) -> String {
    let row = |scenario: &str| {
        let ours = results.of(scenario, OURS).map(|found| &found.tally);
        let uncapped = results.of(scenario, OURS_UNCAPPED).map(|found| &found.tally);
        let missed = ours.map_or(0.0, |tally| 100.0 * (1.0 - tally.share()));
        vec![
            scenario.to_owned(),
            pair(ours.and_then(|tally| tally.requests)),
            pair(ours.and_then(|tally| tally.failed)),
            pair(ours.and_then(|tally| tally.spent)),
            pair(ours.and_then(|tally| tally.seconds)),
            format!("{missed:.1} %"),
            pair(uncapped.and_then(|tally| tally.requests)),
        ]
    };
    let head = [
        "Scenario",
        "Candidate requests judged",
        "Failed ones",
        "Failed by the decision",
        "Seconds",
        "Missed",
        "Requests without the cap",
    ];
    let mut text = table(&head, names(found, |it| it == Kind::Regression).into_iter().map(row));
    let safe = |found: &&Found| found.judge == OURS_SAFE;
    for found in found.iter().filter(safe) {
        let seconds = pair(found.tally.seconds);
        let _ = write!(text, "\nCertified safe, {}: {seconds} s.\n", found.scenario);
    }
    text.push_str("\nMedian / 90th / 99th percentile.\n");
    text
}

fn ratios(results: &Results<'_>) -> String {
    let row = |(_, scenario): &(&str, &str)| {
        let ours = results.of(scenario, OURS).and_then(|found| found.tally.median_seconds());
        let rival = |found: Option<(&'static str, f64)>| {
            let Some((name, seconds)) = found else { return ["–".to_owned(), String::new()] };
            let at_least = if seconds >= crate::grid::HOUR as f64 { "at least " } else { "" };
            let ratio = ours.map_or_else(String::new, |ours| number(seconds / ours));
            [format!("{name}, {} s", number(seconds)), format!("{at_least}{ratio}")]
        };
        let documented = results.fastest(scenario, |origin, _| origin == Origin::Documented);
        let tuned = results.fastest(scenario, |origin, name| {
            origin != Origin::Documented && results.is_sound(name)
        });
        let mut row = vec![(*scenario).to_owned(), ours.map_or_else(String::new, number)];
        row.extend(rival(documented));
        row.extend(rival(tuned));
        row
    };
    let head = [
        "Scenario",
        "Ours, s",
        "Fastest documented",
        "Times",
        "Fastest tuned below 5 % false rollbacks",
        "Times",
    ];
    table(&head, CASES.iter().map(row))
}

fn settings() -> String {
    let row = |entry: &crate::judges::schedule::Entry| {
        vec![entry.name.to_owned(), entry.settings.to_owned()]
    };
    table(&["Judge", "Settings"], ENTRIES.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Ending;

    fn report() -> Report {
        let ending = Ending { fired: true, seconds: 9.5, requests: 454, failed: 5, spent: 6 };
        let found = |kind: Kind, scenario: &str, judge: &str| Found {
            scenario: scenario.to_owned(),
            kind,
            rate: 1000.0,
            judge: judge.to_owned(),
            tally: Tally::new(&[ending, ending, Ending::default()]),
        };
        Report {
            mode: "full".to_owned(),
            seed: 3,
            command: "cargo xtask bench judge --full".to_owned(),
            counts: Counts::FULL,
            vectors: 62,
            found: vec![
                found(Kind::Regression, "errors 0.1 -> 1 %", OURS),
                found(Kind::Regression, "errors 0.1 -> 1 %", "Argo, strict"),
                found(Kind::Healthy, "iid", OURS),
            ],
            figures: BTreeMap::from([("errors_1_failed".to_owned(), 5.0)]),
            broken: Vec::new(),
        }
    }

    #[test]
    fn a_document_is_read_back_and_makes_the_same_tables() {
        let report = report();
        let document = report.json();
        assert_eq!(document["cells"][0]["seconds"]["median"], json!(9.5));
        assert!((document["cells"][0]["miss_rate"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(document["cells"][2]["false_rollback_rate"], json!(2.0 / 3.0));
        let again = Report::read(&document.to_string()).unwrap();
        // Numbers are read back to the last digit but one.
        assert_eq!(again.markdown(), report.markdown());
    }

    #[test]
    fn tables_say_what_was_reached_and_what_was_missed() {
        let text = report().markdown();
        assert!(text.contains("| 0.1 -> 1 % errors: failed ones | at most 5 | 5 | reached |"));
        assert!(text.contains("| not measured |"));
        assert!(text.contains("| iid | 2 of 3 | 66.67 % |"), "{text}");
    }
}
