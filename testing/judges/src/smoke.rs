//! A minute's worth of the grid, and what has to hold in it: the check that runs with every change.
//!
//! Medians have a bound on both sides: a judge that decides on less evidence than it should is as
//! broken as one that needs more.

use std::time::Duration;

use switchback_analysis::label::bins::Slack;

use crate::grid::{self, Cell, Counts, Found, OURS, OURS_UNCAPPED, Subject};
use crate::scenario::{Kind, Scenario};
use crate::scenarios;
use crate::stream::Ours;

/// Alpha of the default settings.
const ALPHA: f64 = 0.01;
/// Seconds of a healthy run.
const SECONDS: u64 = 900;

/// Something to break on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// Nothing is broken.
    Nothing,
    /// The alpha budget: ten times as much is spent.
    Alpha,
    /// The tolerance: none is given.
    Tolerance,
    /// The bets: placed for a share of 3.5 % when 5 % were drawn.
    Share,
    /// The counting: a failed request counts twice, as if its retry were another one.
    Counting,
    /// The unit: errors of sticky sessions are counted one by one.
    Sessions,
    /// The warm-up: latencies of a cold candidate count.
    WarmUp,
}

impl Mutation {
    /// Those that break something, with their names.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Alpha, "alpha"),
        (Self::Tolerance, "tolerance"),
        (Self::Share, "share"),
        (Self::Counting, "counting"),
        (Self::Sessions, "sessions"),
        (Self::WarmUp, "warm-up"),
    ];

    /// By name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(mutation, _)| mutation)
    }

    /// Whether a scenario can show what is broken.
    fn concerns(self, scenario: &str) -> bool {
        match self {
            Self::Nothing => true,
            Self::Alpha => scenario.starts_with("errors 0.1"),
            Self::Tolerance => scenario.contains("at the tolerance"),
            Self::Share => scenario == "errors 0.1 -> 1 %",
            Self::Counting => scenario == "iid",
            Self::Sessions => scenario.starts_with("sticky"),
            Self::WarmUp => scenario.starts_with("cold start"),
        }
    }

    fn apply(self, ours: &mut Ours, scenario: &mut Scenario) {
        match self {
            Self::Nothing => {}
            Self::Alpha => ours.settings.alpha *= 10.0,
            Self::Tolerance => {
                ours.settings.slack = Slack::from_percent(0);
                ours.keeps_slack = true;
            }
            Self::Share => ours.told_share = 0.7,
            Self::Counting => ours.counts_failures = 2,
            Self::Sessions => {
                if let Some(sticky) = &mut scenario.sticky {
                    sticky.by_session = false;
                }
            }
            Self::WarmUp => scenario.warm_up = 0,
        }
    }
}

/// What a median has to lie between.
struct Band {
    scenario: &'static str,
    judge: &'static str,
    what: What,
    low: f64,
    high: f64,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Requests,
    Failed,
    Seconds,
}

const fn band(
    scenario: &'static str,
    judge: &'static str,
    what: What,
    low: f64,
    high: f64,
) -> Band {
    Band { scenario, judge, what, low, high }
}

/// A twentieth of room on both sides of what these seeds give, or less: spending twice the alpha
/// budget saves a tenth of the requests. The figures to reach are in `goals`.
const BANDS: [Band; 9] = [
    band("errors 0.1 -> 1 %", OURS, What::Requests, 435.0, 480.0),
    band("errors 0.1 -> 1 %", OURS, What::Failed, 4.0, 5.0),
    band("errors 0.1 -> 5 %", OURS, What::Requests, 54.0, 62.0),
    band("errors 0.1 -> 5 %", OURS, What::Failed, 3.0, 3.0),
    band("latency x1.2", OURS_UNCAPPED, What::Requests, 260.0, 295.0),
    band("latency x2", OURS_UNCAPPED, What::Requests, 14.0, 18.0),
    band("1 % of requests x10", OURS_UNCAPPED, What::Requests, 500.0, 560.0),
    band("latency x2", OURS, What::Seconds, 0.4, 5.0),
    band("all hang", OURS, What::Failed, 2.0, 6.0),
];

/// Healthy scenarios of the smoke.
const HEALTHY: [&str; 8] = [
    "iid",
    "shared outage",
    "error drift x10",
    "latency x1.05, at the tolerance",
    "weight changed every 30 s",
    "sticky sessions, 20 errors each",
    "cold start, warm-up 120 s",
    "pauses of 300 ms, 3 replicas",
];

/// Regressions of the smoke.
const REGRESSIONS: [&str; 6] = [
    "errors 0.1 -> 1 %",
    "errors 0.1 -> 5 %",
    "latency x1.2",
    "latency x2",
    "1 % of requests x10",
    "all hang",
];

/// How many runs the smoke takes.
pub const COUNTS: Counts =
    Counts { healthy: 120, regressions: 301, scrapes: 11, dear: 3, methods: 5 };

/// The cells of the smoke, broken or not, ours alone or with all others.
pub fn cells(mutation: Mutation, counts: Counts, with_others: bool) -> Vec<Cell> {
    let meant = |scenario: &Scenario| {
        let name = scenario.name.as_str();
        mutation.concerns(name) && (HEALTHY.contains(&name) || REGRESSIONS.contains(&name))
    };
    let chosen = scenarios::all().into_iter().filter(meant).collect();
    let mut cells = grid::cells(chosen, counts);
    cells.retain_mut(|cell| {
        if cell.scenario.kind != Kind::Regression {
            cell.seconds = SECONDS;
        }
        match &mut cell.subject {
            Subject::Ours(_, ours) => {
                // All of them in the smoke, also those that are outside of the guarantee.
                if cell.scenario.kind != Kind::Regression {
                    cell.runs = counts.healthy;
                }
                mutation.apply(ours, &mut cell.scenario);
                true
            }
            Subject::Safe | Subject::Methods | Subject::Scrapes { .. } => with_others,
        }
    });
    cells
}

/// What does not hold, in words.
pub fn broken(found: &[Found]) -> Vec<String> {
    let ours = found.iter().filter(|found| [OURS, OURS_UNCAPPED].contains(&found.judge.as_str()));
    let mut broken: Vec<String> = ours.filter_map(wrong).collect();
    broken.extend(BANDS.iter().filter_map(|band| band.missed(found)));
    broken
}

fn wrong(found: &Found) -> Option<String> {
    let tally = &found.tally;
    let (name, judge) = (&found.scenario, &found.judge);
    if found.kind == Kind::Regression {
        let missed = tally.runs - tally.fired;
        return (missed > 0).then(|| format!("{name}: {judge} missed {missed} of {}", tally.runs));
    }
    // Proven to be more than alpha.
    (tally.interval.0 > ALPHA)
        .then(|| format!("{name}: {judge} rolled back {} of {}", tally.fired, tally.runs))
}

impl Band {
    fn missed(&self, found: &[Found]) -> Option<String> {
        let is_meant =
            |found: &&Found| found.scenario == self.scenario && found.judge == self.judge;
        let tally = &found.iter().find(is_meant)?.tally;
        let value = match self.what {
            What::Requests => tally.requests?.median,
            What::Failed => tally.failed?.median,
            What::Seconds => tally.seconds?.median,
        };
        let holds = (self.low..=self.high).contains(&value);
        (!holds).then(|| {
            let Self { scenario, judge, what, low, high } = self;
            format!("{scenario}: {judge}: median {what:?} {value}, not from {low} to {high}")
        })
    }
}

/// Longest that the smoke should take, for documents and help.
pub const LASTS: Duration = Duration::from_mins(1);
