//! The figures beside their goals: a table for people, a document for programs.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Where the table goes in a page.
const MARKS: (&str, &str) = ("<!-- scale -->\n", "<!-- /scale -->");

/// Quantiles of many times, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    half: f64,
    most: f64,
    last: f64,
}

impl Times {
    pub(crate) fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
            times.get(index).copied().unwrap_or(f64::NAN)
        };
        Self { half: at(50), most: at(99), last: at(100) }
    }
}

/// What was measured.
pub(crate) struct Figures {
    pub(crate) services: usize,
    pub(crate) rollouts: usize,
    pub(crate) memory_mib: f64,
    pub(crate) calm_cores: f64,
    pub(crate) busy_cores: f64,
    pub(crate) decision: Times,
    pub(crate) resume: Times,
}

/// One figure; its goal if it has one.
struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    below: Option<f64>,
}

impl Row {
    /// `None` without a goal. A figure that is none has missed it.
    fn reached(&self) -> Option<bool> {
        self.below.map(|goal| self.value < goal)
    }
}

impl Figures {
    fn rows(&self) -> Vec<Row> {
        let row = |what: &str, value: f64, unit, below| {
            let what = what.replace("{n}", &self.rollouts.to_string());
            Row { what, value, unit, below }
        };
        vec![
            row("memory, the most ever", self.memory_mib, "MiB", Some(512.0)),
            row("processor, no rollout", self.calm_cores, "cores", Some(1.0)),
            row("processor, {n} rollouts being watched", self.busy_cores, "cores", Some(1.0)),
            row("from `deploy` to the order to start, p50", self.decision.half, "ms", None),
            row("the same, p99", self.decision.most, "ms", None),
            row(
                "from the start after `kill -9` to a rollout's next order, p50",
                self.resume.half,
                "ms",
                None,
            ),
            row("the same, p99", self.resume.most, "ms", Some(1_000.0)),
            row("the same, the last", self.resume.last, "ms", None),
        ]
    }

    /// As one JSON document.
    pub(crate) fn document(&self) -> Value {
        let row = |row: Row| {
            json!({
                "what": row.what,
                "value": (row.value * 100.0).round() / 100.0,
                "unit": row.unit,
                "below": row.below,
                "reached": row.reached(),
            })
        };
        let rows: Vec<_> = self.rows().into_iter().map(row).collect();
        json!({ "services": self.services, "rollouts": self.rollouts, "figures": rows })
    }

    /// As a table in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "| {} services, {} rollouts at once | Measured | Goal | |\n| --- | ---: | ---: | --- |\n",
            self.services, self.rollouts
        );
        for row in self.rows() {
            let (value, unit) = (row.value, row.unit);
            let goal = row.below.map_or_else(String::new, |below| format!("< {below} {unit}"));
            let said = match row.reached() {
                Some(true) => "reached",
                Some(false) => "missed",
                None => "",
            };
            let value = if unit == "cores" { format!("{value:.2}") } else { format!("{value:.0}") };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "| {} | {value} {unit} | {goal} | {said} |", row.what);
        }
        text
    }

    /// Puts the table into a page, in the place of the last one.
    pub(crate) fn write_into(&self, page: &Path) -> Result<()> {
        let text = std::fs::read_to_string(page).context("cannot read the page")?;
        let (before, rest) = text.split_once(MARKS.0).context("the page has no place for it")?;
        let (_, after) = rest.split_once(MARKS.1).context("the page has no place for it")?;
        let text = [before, MARKS.0, &self.table(), MARKS.1, after].concat();
        std::fs::write(page, text).context("cannot write the page")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_times_and_nothing_measured_is_nothing_reached() {
        let times = Times::of((0..1_000).rev().map(f64::from).collect());
        assert_eq!((times.half, times.most, times.last), (500.0, 990.0, 999.0));
        let none = Times::of(Vec::new());
        let row = Row { what: String::new(), value: none.most, unit: "ms", below: Some(1.0) };
        assert_eq!(row.reached(), Some(false));
    }
}
