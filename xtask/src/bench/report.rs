//! What a benchmark found: figures by name, tables for people, and what was aimed at.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::goals::{GOALS, Goal, Verdict};
use super::world::World;

/// The page before any benchmark has run.
pub(super) const EMPTY_PAGE: &str = "# Benchmarks\n";

/// A table for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) title: String,
    pub(super) head: Vec<&'static str>,
    pub(super) rows: Vec<Vec<String>>,
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Report {
    /// `proxy` or `switch`.
    pub(super) benchmark: &'static str,
    pub(super) quick: bool,
    /// Whether somebody else built what was measured.
    pub(super) binary_given: bool,
    /// Where and with whom.
    pub(super) setting: String,
    pub(super) tables: Vec<Table>,
    /// What needs to be said beside the tables.
    pub(super) notes: Vec<String>,
    /// By name; see `docs/benchmarks.md`.
    pub(super) figures: BTreeMap<String, f64>,
}

impl Report {
    /// Nothing yet, of this benchmark in this world.
    pub(super) fn new(benchmark: &'static str, world: &World) -> Result<Self> {
        Ok(Self {
            benchmark,
            quick: world.quick,
            binary_given: world.binary_given,
            setting: super::setting(world)?,
            tables: Vec::new(),
            notes: super::busy().into_iter().collect(),
            figures: BTreeMap::new(),
        })
    }

    /// Takes a figure, unless there is none.
    pub(super) fn figure(&mut self, name: impl Into<String>, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.figures.insert(name.into(), value);
        }
    }

    /// One document: the figures by name, beside what tells what they are.
    pub(super) fn json(&self) -> Value {
        let figures = self.figures.iter().map(|(name, value)| (name.clone(), rounded(*value)));
        let mut document: Map<String, Value> = figures.collect();
        document.insert("benchmark".to_owned(), json!(self.benchmark));
        document.insert("quick".to_owned(), json!(self.quick));
        document.insert("binary_given".to_owned(), json!(self.binary_given));
        document.insert("setting".to_owned(), json!(self.setting));
        document.insert("notes".to_owned(), json!(self.notes));
        Value::Object(document)
    }

    /// The tables, the goals, and the command that made them.
    pub(super) fn markdown(&self) -> String {
        let quick = if self.quick { " --quick" } else { "" };
        let given = if self.binary_given { " --binary FILE" } else { "" };
        let (benchmark, setting) = (self.benchmark, &self.setting);
        // Writing to a String cannot fail, here and below.
        let mut text = format!("`cargo xtask bench {benchmark}{quick}{given}`, {setting}.\n");
        for table in self.tables.iter().chain([&self.goals()]) {
            let _ = write!(text, "\n### {}\n\n{}", table.title, table.markdown());
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}\n");
        }
        text
    }

    /// `page` with this report in the place of the last one of its kind, or at its end.
    pub(super) fn put_into(&self, page: &str) -> String {
        let marks =
            ["begin", "end"].map(|mark| format!("<!-- {mark}: bench {} -->", self.benchmark));
        let block = format!("{}\n{}{}", marks[0], self.markdown(), marks[1]);
        let between = page.find(&marks[0]).zip(page.find(&marks[1]));
        match between.filter(|(begin, end)| begin < end) {
            Some((begin, end)) => {
                format!("{}{block}{}", &page[..begin], &page[end + marks[1].len()..])
            }
            None => format!("{}\n\n## bench {}\n\n{block}\n", page.trim_end(), self.benchmark),
        }
    }

    fn goals(&self) -> Table {
        let goals = GOALS.iter().filter(|goal| goal.benchmark == self.benchmark);
        let row = |goal: &Goal| {
            let mut row = vec![goal.words.to_owned(), goal.bound()];
            row.extend(self.judged(goal, Some(goal.figure)));
            row.extend(self.judged(goal, of_variant(goal.figure).as_deref()));
            row
        };
        Table {
            title: "Goals".to_owned(),
            head: vec!["What", "Goal", "As shipped", "", "Codec hyper", ""],
            rows: goals.map(row).collect(),
        }
    }

    fn judged(&self, goal: &Goal, figure: Option<&str>) -> [String; 2] {
        let value = figure.and_then(|figure| self.figures.get(figure)).copied();
        let verdict = match goal.judge(value) {
            Verdict::Reached => "reached",
            Verdict::Missed => "**missed**",
            Verdict::Unknown => "not measured",
        };
        [value.map_or_else(|| "–".to_owned(), precise), verdict.to_owned()]
    }
}

/// A figure's name for the codec that is not what is shipped; none where only that is measured.
fn of_variant(figure: &str) -> Option<String> {
    match figure.split_once("_vs_") {
        Some((metric, reference)) => Some(format!("{metric}_hyper_vs_{reference}")),
        // Some are of one codec, or of none.
        None if figure.starts_with("upgrade_") || !figure.contains("_ours") => None,
        None => Some(figure.replacen("_ours", "_ours_hyper", 1)),
    }
}

impl Table {
    fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let head: Vec<_> = self.head.iter().map(|cell| (*cell).to_owned()).collect();
        let rule: Vec<_> = head.iter().map(|_| "---".to_owned()).collect();
        let rows = self.rows.iter().map(|row| line(row));
        [line(&head), line(&rule)].into_iter().chain(rows).collect()
    }
}

/// A number as people read it: three figures that say something.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract().abs() < 1e-9 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Close to a bound the third place decides.
fn precise(value: f64) -> String {
    if value.abs() < 10.0 && value.fract().abs() > 1e-9 {
        return format!("{value:.3}");
    }
    number(value)
}

/// The same as [`number`] when there may be none.
pub(super) fn cell(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), number)
}

fn rounded(value: f64) -> Value {
    if value.fract().abs() < 1e-9 && value.abs() < 1e15 {
        #[allow(clippy::cast_possible_truncation, reason = "checked")]
        return json!(value as i64);
    }
    json!((value * 1e4).round() / 1e4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report {
            benchmark: "proxy",
            quick: true,
            binary_given: false,
            setting: "2 cores".to_owned(),
            tables: vec![Table {
                title: "T".to_owned(),
                head: vec!["a", "b"],
                rows: vec![vec!["1".to_owned(), "2".to_owned()]],
            }],
            notes: vec!["N.".to_owned()],
            figures: BTreeMap::new(),
        };
        report.figure("throughput_vs_nginx", Some(1.234_56));
        report.figure("cpu_vs_nginx", Some(0.9));
        report.figure("cpu_hyper_vs_nginx", Some(0.7));
        report.figure("switch_failed_ours", Some(0.0));
        report.figure("nothing", None);
        report.figure("nonsense", Some(f64::NAN));
        report
    }

    #[test]
    fn the_document_holds_the_figures_by_name() {
        let document = report().json();
        assert_eq!(document["throughput_vs_nginx"], json!(1.2346));
        assert_eq!(document["switch_failed_ours"], json!(0));
        assert_eq!((&document["benchmark"], &document["quick"]), (&json!("proxy"), &json!(true)));
        assert!(document.get("nothing").is_none() && document.get("nonsense").is_none());
    }

    #[test]
    fn goals_are_judged_and_missing_figures_said() {
        let text = report().markdown();
        assert!(text.starts_with("`cargo xtask bench proxy --quick`, 2 cores.\n"));
        assert!(text.contains("| a | b |\n| --- | --- |\n| 1 | 2 |\n"));
        let lines: Vec<_> = text.lines().filter(|line| line.contains("nginx")).collect();
        assert!(lines.iter().any(|line| line.contains("| 1.235 | reached | – |")), "{text}");
        assert!(
            lines.iter().any(|line| line.contains("| 0.900 | **missed** | 0.700 | reached |")),
            "{text}"
        );
        assert!(lines.iter().any(|line| line.ends_with("| – | not measured |")), "{text}");
    }

    #[test]
    fn every_goal_has_a_name_for_the_other_codec() {
        let of_variant = |figure| of_variant(figure).unwrap_or_default();
        assert_eq!(of_variant("cpu_100k_vs_nginx"), "cpu_100k_hyper_vs_nginx");
        assert_eq!(of_variant("switch_failed_ours_10k"), "switch_failed_ours_hyper_10k");
        assert!(GOALS.iter().all(|goal| of_variant(goal.figure) != goal.figure));
    }

    #[test]
    fn a_report_replaces_the_last_of_its_kind_and_nothing_else() {
        let other = Report { benchmark: "switch", ..report() };
        let page = other.put_into(&report().put_into("# Page\n\nWords.\n"));
        let changed = Report { setting: "4 cores".to_owned(), ..report() };
        let again = changed.put_into(&page);
        assert_eq!(again, page.replacen("2 cores", "4 cores", 1));
        assert_eq!(changed.put_into(&again), again);
        assert!(again.starts_with("# Page\n\nWords.\n\n## bench proxy\n"));
    }

    #[test]
    fn numbers_keep_what_matters() {
        let cases = [(0.0, "0"), (0.456, "0.46"), (12.34, "12.3"), (123.4, "123"), (1e5, "100000")];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
