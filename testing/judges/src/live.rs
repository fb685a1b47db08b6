//! The live check: the simulated scenarios again, by the shipped program. Real sockets, the data
//! plane's own cohorts, the control plane's own judge, and instances that misbehave as the
//! scenario's versions do. What it needs is measured and held against what the simulation says at
//! the same rate and share.

mod expected;
pub mod instance;
mod site;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::figures::CASES;
use crate::report::{number, table};
use crate::scenario::Scenario;
use crate::scenarios;
use expected::{Expected, PERCENT};
use site::Site;

/// Simulated and live medians may differ by this part.
const AGREE_WITHIN: f64 = 0.25;
/// The last request that reaches the candidate comes at most so long after the verdict.
pub const LAST_REQUEST_MILLIS_MAX: f64 = 50.0;
/// Rollouts of each scenario.
pub const ROUNDS: u64 = 10;
/// Requests a second: little enough for two cores that others use, too.
pub const RATE: u32 = 500;

/// What went wrong with the check itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, a socket or a program.
    #[error("cannot {what}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The program under test refused.
    #[error("switchback {command} failed: {said}")]
    Refused {
        /// Its arguments.
        command: String,
        /// Its words.
        said: String,
    },
    /// The control plane did not answer.
    #[error("the control plane does not answer")]
    Silent(#[source] switchback_api::client::Error),
    /// The load could not be started.
    #[error("cannot start the load")]
    Load(#[source] switchback_demo::load::Error),
    /// An instance was not told who it is.
    #[error("an instance needs {0} in its environment")]
    Unknown(&'static str),
}

/// Says what an input or output error kept us from.
fn cannot(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    |source| Error::Io { what: what.into(), source }
}

/// What to check.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program under test.
    pub binary: PathBuf,
    /// This program: it is also what the instances run.
    pub instance: PathBuf,
    /// Rollouts of each scenario.
    pub rounds: u64,
    /// Requests a second.
    pub rate: u32,
    /// The seed of the simulated side.
    pub seed: u64,
    /// Scenarios whose name holds this.
    pub only: Option<String>,
}

/// One rollout of a bad version.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Seconds from the candidate's first request to the verdict.
    pub seconds: f64,
    /// Candidate requests that had been judged then.
    pub requests: f64,
    /// Failed ones among them.
    pub failed: f64,
    /// Seconds from the arrival of the last of them to the verdict: they end, their cohort is
    /// closed, read and judged.
    pub delay: f64,
    /// Milliseconds from the verdict to the last request that reached the candidate; 0 if that
    /// came before.
    pub last_millis: f64,
}

/// All rollouts of one scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The scenario.
    pub scenario: String,
    /// Rollouts of it.
    pub rollouts: u64,
    /// Those that were taken back by the exact test.
    #[serde(rename = "runs")]
    pub live: Vec<Measured>,
    /// What the simulation says.
    pub expected: Expected,
}

impl Case {
    fn median(&self, of: fn(&Measured) -> f64) -> Option<f64> {
        quantile(self.live.iter().map(of), 0.5)
    }

    /// Seconds that the simulation and the measured delay come to.
    fn predicted(&self) -> Option<f64> {
        Some(self.expected.seconds + self.median(|it| it.delay)?)
    }

    /// Live by predicted seconds.
    fn ratio(&self) -> Option<f64> {
        Some(self.median(|it| it.seconds)? / self.predicted()?)
    }

    fn agrees(&self) -> bool {
        self.ratio().is_some_and(|ratio| (ratio - 1.0).abs() <= AGREE_WITHIN)
    }

    /// With medians beside what [`Report::read`] needs.
    fn json(&self) -> Value {
        let mut document = json!(self);
        let medians = [
            ("live_seconds", self.median(|it| it.seconds)),
            ("live_requests", self.median(|it| it.requests)),
            ("live_failed", self.median(|it| it.failed)),
            ("pipeline_delay_seconds", self.median(|it| it.delay)),
            ("predicted_seconds", self.predicted()),
            ("live_over_predicted", self.ratio()),
        ];
        for (name, value) in medians {
            document[name] = json!(value);
        }
        document["agrees"] = json!(self.agrees());
        document
    }

    fn row(&self) -> Vec<String> {
        let show = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), number);
        let last = |share: f64| quantile(self.live.iter().map(|it| it.last_millis), share);
        vec![
            self.scenario.clone(),
            format!("{} of {}", self.live.len(), self.rollouts),
            show(self.median(|it| it.requests)),
            number(self.expected.requests),
            show(self.median(|it| it.failed)),
            show(self.median(|it| it.seconds)),
            show(self.predicted()),
            show(self.median(|it| it.delay)),
            show(self.ratio()),
            (if self.agrees() { "agrees" } else { "**differs**" }).to_owned(),
            format!("{} / {}", show(last(0.5)), show(last(0.99))),
        ]
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    rounds: u64,
    rate: u32,
    seed: u64,
    cases: Vec<Case>,
}

/// Runs all of it; `tell` hears what comes next.
pub fn run(options: &Options, tell: &dyn Fn(&str)) -> Result<Report, Error> {
    let names = CASES.iter().map(|(_, scenario)| *scenario);
    let meant = |name: &&str| options.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let all = scenarios::all();
    let chosen: Vec<&Scenario> =
        names.filter(meant).filter_map(|name| all.iter().find(|it| it.name == name)).collect();
    let expect = |scenario: &&Scenario| Case {
        scenario: scenario.name.clone(),
        rollouts: 0,
        live: Vec::new(),
        expected: Expected::of(scenario, f64::from(options.rate), options.seed),
    };
    tell("simulating");
    let mut cases: Vec<Case> = chosen.iter().map(expect).collect();
    let site = Site::start(options)?;
    for round in 1..=options.rounds {
        for case in &mut cases {
            tell(&format!("round {round} of {}: {}", options.rounds, case.scenario));
            case.rollouts += 1;
            case.live.extend(site.take_back(&case.scenario, round)?);
        }
    }
    site.end()?;
    let Options { rounds, rate, seed, .. } = *options;
    Ok(Report { rounds, rate, seed, cases })
}

impl Report {
    /// A document that was written before.
    pub fn read(document: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(document)
    }

    /// Whether simulation and reality agree everywhere.
    pub fn agrees(&self) -> bool {
        self.cases.iter().all(Case::agrees)
    }

    /// Milliseconds from verdict to last candidate request that a share of all rollouts stays
    /// below.
    fn last_request(&self, share: f64) -> Option<f64> {
        let all = self.cases.iter().flat_map(|case| &case.live);
        quantile(all.map(|measured| measured.last_millis), share)
    }

    /// One document.
    pub fn json(&self) -> Value {
        let mut document = json!(self);
        document["benchmark"] = json!("judge-live");
        document["percent"] = json!(PERCENT);
        document["cases"] = self.cases.iter().map(Case::json).collect();
        document["agrees"] = json!(self.agrees());
        document["verdict_to_last_request_p50_ms"] = json!(self.last_request(0.5));
        document["verdict_to_last_request_p99_ms"] = json!(self.last_request(0.99));
        document["verdict_to_last_request_goal_ms"] = json!(LAST_REQUEST_MILLIS_MAX);
        document
    }

    /// The table.
    pub fn markdown(&self) -> String {
        let Self { rounds, rate, .. } = self;
        let head = [
            "Scenario",
            "Taken back",
            "Requests judged",
            "Simulated",
            "Failed ones",
            "Seconds",
            "Simulated + delay",
            "Pipeline delay, s",
            "Ratio",
            "Within 25 %",
            "Verdict to last request, ms (median / p99)",
        ];
        let rows = table(&head, self.cases.iter().map(Case::row));
        let last = self.last_request(0.99);
        let shown = last.map_or_else(|| "–".to_owned(), number);
        let is_reached = last.is_some_and(|last| last <= LAST_REQUEST_MILLIS_MAX);
        let verdict = if is_reached { "reached" } else { "**missed**" };
        format!(
            "`cargo xtask bench judge --live --rounds {rounds} --rate {rate}`: {rate} requests a \
             second, {PERCENT} % of them for the candidate; live medians beside those of {} simulated \
             rollouts.\n\n{rows}\nVerdict to last candidate request, all rollouts: p99 {shown} ms, aim \
             at most {LAST_REQUEST_MILLIS_MAX:.0} ms: {verdict}.\n",
            expected::RUNS
        )
    }
}

/// The value that a share of the values does not exceed; `None` without any.
fn quantile(values: impl Iterator<Item = f64>, share: f64) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let rank = libm::ceil(share * values.len() as f64) as usize;
    values.get(rank.saturating_sub(1)).copied()
}

/// The version that misbehaves like a scenario's candidate: its place among the cases, and which
/// of the rollouts it is.
fn version_of(scenario: &str, round: u64) -> String {
    let place = CASES.iter().position(|(_, name)| *name == scenario).unwrap_or_default();
    format!("case{place}-{round}")
}

/// The scenario that a version misbehaves by; `None` for one that is as it should be.
fn scenario_of(version: &str) -> Option<Scenario> {
    let (place, _) = version.strip_prefix("case")?.split_once('-')?;
    let (_, name) = CASES.get(place.parse::<usize>().ok()?)?;
    scenarios::all().into_iter().find(|scenario| scenario.name == *name)
}

/// Where a version notes down when requests arrived.
fn arrivals(directory: &Path, version: &str) -> PathBuf {
    directory.join(format!("{version}.arrivals"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(seconds: f64, last_millis: f64) -> Measured {
        Measured { seconds, requests: 400.0, failed: 5.0, delay: 0.5, last_millis }
    }

    #[test]
    fn versions_are_named_after_scenarios_and_lead_back_to_them() {
        for (_, scenario) in CASES {
            let version = version_of(scenario, 7);
            assert_eq!(scenario_of(&version).map(|it| it.name).as_deref(), Some(scenario));
        }
        assert!(scenario_of("v1").is_none() && scenario_of("case99-1").is_none());
    }

    #[test]
    fn a_case_agrees_when_its_median_is_what_was_predicted_and_not_otherwise() {
        let case = |seconds: f64| Case {
            scenario: "errors 0.1 -> 1 %".to_owned(),
            rollouts: 3,
            live: vec![measured(seconds, 3.0), measured(90.0, 60.0), measured(0.1, 1.0)],
            expected: Expected { seconds: 3.5, requests: 400.0 },
        };
        assert!(case(4.9).agrees() && case(3.1).agrees());
        assert!(!case(5.1).agrees() && !case(2.9).agrees());
        let nothing = Case { live: Vec::new(), ..case(1.0) };
        assert!(!nothing.agrees(), "no rollout is no agreement");
        let report = Report { rounds: 3, rate: 500, seed: 1, cases: vec![case(4.0)] };
        let again = Report::read(&report.json().to_string()).unwrap();
        assert_eq!(again, report);
        assert_eq!(report.json()["verdict_to_last_request_p99_ms"], json!(60.0));
        let text = report.markdown();
        assert!(text.contains("| 3 of 3 | 400 | 400 |") && text.contains("**missed**"), "{text}");
    }
}
