//! The grid: every scenario with every judge, many runs each, on all cores.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use switchback_analysis::Settings;
use switchback_domain::{Outcome, Timestamp};

use crate::arm::Draws;
use crate::judges::bands::{Method, Methods, Seen};
use crate::judges::schedule::ENTRIES;
use crate::scenario::{Kind, Prepared, Scenario};
use crate::stream::{self, Group, Ours};
use crate::tally::{Ending, Tally};
use crate::windows;

/// A rollout takes an hour.
pub const HOUR: u64 = 3600;
/// Runs that one thread takes at a time.
const PORTION: u64 = 20;
/// The methods on streams are asked again when the candidate has this many requests more.
const MORE: f64 = 1.02;
/// The repeated test looks every so many milliseconds.
const EVERY_MILLIS: u64 = 10_000;

/// Names of our own ways to judge.
pub const OURS: &str = "ours";
/// Without the evidence cap.
pub const OURS_UNCAPPED: &str = "ours, no cap";
/// Time until a candidate is certified safe.
pub const OURS_SAFE: &str = "ours, certified safe";

/// Who judges the runs of a cell.
#[derive(Debug, Clone)]
pub enum Subject {
    /// The trial, set like this, under a name.
    Ours(&'static str, Box<Ours>),
    /// The trial, until it certifies the candidate.
    Safe,
    /// All methods on streams at once.
    Methods,
    /// Those who decide by scrapes, at once: the dear ones or the others.
    Scrapes {
        /// Only those marked as dear, or only the others.
        dear: bool,
    },
}

/// A scenario, a subject, and how many runs of how long.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The scenario.
    pub scenario: Scenario,
    /// Who judges.
    pub subject: Subject,
    /// How many runs.
    pub runs: u64,
    /// Seconds until a run is over.
    pub seconds: u64,
}

/// How many runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Ours, healthy.
    pub healthy: u64,
    /// Ours, regressions.
    pub regressions: u64,
    /// Judges by scrapes.
    pub scrapes: u64,
    /// The dear ones among them.
    pub dear: u64,
    /// Methods on streams.
    pub methods: u64,
}

impl Counts {
    /// The default: minutes.
    pub const USUAL: Self =
        Self { healthy: 500, regressions: 301, scrapes: 101, dear: 21, methods: 51 };
    /// The protocol.
    pub const FULL: Self =
        Self { healthy: 10_000, regressions: 1001, scrapes: 1001, dear: 201, methods: 201 };
}

/// All cells of the protocol.
pub fn cells(scenarios: Vec<Scenario>, counts: Counts) -> Vec<Cell> {
    scenarios.into_iter().flat_map(|scenario| cells_of(&scenario, counts)).collect()
}

fn cells_of(scenario: &Scenario, counts: Counts) -> Vec<Cell> {
    let is_regression = scenario.kind == Kind::Regression;
    let cell = |subject: Subject, runs: u64, seconds: u64| Cell {
        scenario: scenario.clone(),
        subject,
        runs,
        seconds,
    };
    let runs = match scenario.kind {
        Kind::Healthy => counts.healthy,
        // Nothing to prove there.
        Kind::Outside => counts.healthy.div_ceil(10),
        Kind::Regression => counts.regressions,
    };
    let mut cells = vec![cell(Subject::Ours(OURS, Box::default()), runs, HOUR)];
    let is_slow = is_regression && !scenario.name.starts_with("errors");
    if is_slow && scenario.rate == 1000.0 {
        let settings = Settings { latency_nats_per_second: f64::INFINITY, ..Settings::default() };
        let uncapped = Ours { settings, ..Ours::default() };
        let subject = Subject::Ours(OURS_UNCAPPED, Box::new(uncapped));
        cells.push(cell(subject, counts.regressions, HOUR));
    }
    cells.push(cell(Subject::Scrapes { dear: false }, counts.scrapes, HOUR));
    cells.push(cell(Subject::Scrapes { dear: true }, counts.dear, HOUR));
    if scenario.rate == 1000.0 {
        let seconds = if is_regression { HOUR / 3 } else { HOUR };
        cells.push(cell(Subject::Methods, counts.methods, seconds));
    }
    if ["iid", "iid, 25 %", "iid, 50 %"].contains(&scenario.name.as_str()) {
        cells.push(cell(Subject::Safe, counts.regressions.min(201), HOUR / 4));
    }
    cells
}

/// What a judge came to in a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The scenario.
    pub scenario: String,
    /// What it is there to show.
    pub kind: Kind,
    /// Requests a second.
    pub rate: f64,
    /// The judge.
    pub judge: String,
    /// All runs.
    #[serde(flatten)]
    pub tally: Tally,
}

/// Endings of the judges of one portion, by their names.
type Portion = Vec<(&'static str, Vec<Ending>)>;

/// How a grid is run.
pub struct Running<'a> {
    /// The seed of all runs.
    pub seed: u64,
    /// Threads; results do not depend on them.
    pub threads: usize,
    /// No portion is begun after that: cells then have fewer runs, the first ones.
    pub until: Option<Instant>,
    /// Hears how many portions of how many are done.
    pub tell: &'a (dyn Fn(usize, usize) + Sync),
}

/// Runs all cells, a little of each at a time.
pub fn run(cells: &[Cell], running: &Running<'_>) -> Vec<Found> {
    let portions = portions(cells);
    let results = in_threads(cells, &portions, running);
    let mut endings: BTreeMap<(usize, usize), (&'static str, Vec<Ending>)> = BTreeMap::new();
    for (at, portion) in results {
        for (judge, (name, runs)) in portion.into_iter().enumerate() {
            let entry = endings.entry((portions[at].0, judge)).or_insert((name, Vec::new()));
            entry.1.extend(runs);
        }
    }
    let found = |((cell, _), (judge, endings)): ((usize, usize), (&str, Vec<Ending>))| Found {
        scenario: cells[cell].scenario.name.clone(),
        kind: cells[cell].scenario.kind,
        rate: cells[cell].scenario.rate,
        judge: judge.to_owned(),
        tally: Tally::new(&endings),
    };
    endings.into_iter().map(found).collect()
}

/// Cell and first run of each portion, so that all cells come forward together.
fn portions(cells: &[Cell]) -> Vec<(usize, u64)> {
    let of_cell = |(at, cell): (usize, &Cell)| {
        let runs = cell.runs;
        (0..runs.div_ceil(PORTION))
            .map(move |it| (it * PORTION * 1_000_000 / runs, at, it * PORTION))
    };
    let mut portions: Vec<(u64, usize, u64)> = cells.iter().enumerate().flat_map(of_cell).collect();
    portions.sort_unstable();
    portions.into_iter().map(|(_, cell, first)| (cell, first)).collect()
}

fn in_threads(
    cells: &[Cell],
    portions: &[(usize, u64)],
    running: &Running<'_>,
) -> BTreeMap<usize, Portion> {
    let is_over = || running.until.is_some_and(|until| Instant::now() >= until);
    let next = AtomicUsize::new(0);
    let results: Mutex<BTreeMap<usize, Portion>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..running.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some((cell, first)) = portions.get(at).filter(|_| !is_over()) else {
                        break;
                    };
                    let cell = &cells[*cell];
                    let last = (first + PORTION).min(cell.runs);
                    let portion = cell.portion(running.seed, *first..last);
                    if let Ok(mut results) = results.lock() {
                        results.insert(at, portion);
                        (running.tell)(results.len(), portions.len());
                    }
                }
            });
        }
    });
    results.into_inner().unwrap_or_default()
}

impl Cell {
    fn portion(&self, seed: u64, runs: std::ops::Range<u64>) -> Portion {
        let prepared = self.scenario.ready();
        let mut draws = Draws::default();
        match &self.subject {
            Subject::Ours(name, ours) => {
                let mut one = |run: u64| {
                    let mut run = stream::Run::new(&prepared, &mut draws, seed, run);
                    ours.run(&mut run, self.seconds)
                };
                vec![(*name, runs.map(&mut one).collect())]
            }
            Subject::Safe => {
                let one = |run: u64| safe(&prepared, &mut draws, seed, run, self.seconds);
                vec![(OURS_SAFE, runs.map(one).collect())]
            }
            Subject::Methods => {
                let methods = Methods::default();
                let one = |run: u64| {
                    let mut run = stream::Run::new(&prepared, &mut draws, seed, run);
                    compared(&methods, &mut run, self.seconds)
                };
                let endings: Vec<[Ending; 4]> = runs.map(one).collect();
                let of = |at: usize| endings.iter().map(|ending| ending[at]).collect();
                Method::ALL.iter().enumerate().map(|(at, it)| (it.name(), of(at))).collect()
            }
            Subject::Scrapes { dear } => {
                scrapes(&prepared, &mut draws, seed, runs, self.seconds, *dear)
            }
        }
    }
}

/// When our trial certifies a healthy candidate.
fn safe(prepared: &Prepared<'_>, draws: &mut Draws, seed: u64, run: u64, seconds: u64) -> Ending {
    let ours = Ours::default();
    let mut trial = ours.trial(prepared);
    let mut run = stream::Run::new(prepared, draws, seed, run);
    let (mut group, mut sequence) = (Group::default(), 0);
    while run.millis() < seconds * 1000 {
        run.next(&mut group);
        sequence += 1;
        trial.feed(&ours.batch(&group, run.millis(), sequence));
        let now = Timestamp::from_millis(run.millis());
        if trial.verdict(now).outcome == Outcome::Safe {
            let counts = trial.evidence().counts;
            return Ending {
                fired: true,
                seconds: run.millis() as f64 / 1000.0,
                requests: counts.candidate_requests,
                failed: counts.candidate_failed,
                spent: counts.candidate_failed,
            };
        }
    }
    Ending::default()
}

/// When each method on streams finds the candidate worse.
fn compared(methods: &Methods, run: &mut stream::Run<'_>, seconds: u64) -> [Ending; 4] {
    let mut endings = [Ending::default(); 4];
    let (mut candidate, mut baseline) = (Seen::default(), Seen::default());
    let (mut group, mut asked, mut looked) = (Group::default(), 0.0, 0);
    while run.millis() < seconds * 1000 && endings.iter().any(|ending| !ending.fired) {
        run.next(&mut group);
        group.candidate.iter().for_each(|drawn| candidate.add(drawn));
        baseline.add(&group.baseline);
        let has_more = candidate.requests > asked * MORE;
        let is_due = run.millis() / EVERY_MILLIS > looked;
        for (ending, method) in endings.iter_mut().zip(Method::ALL) {
            let asks = match method {
                Method::RepeatedZ => is_due,
                Method::Bands | Method::Quantiles | Method::MixtureRatio => has_more,
            };
            if !ending.fired && asks && methods.fires(method, &candidate, &baseline) {
                *ending = Ending {
                    fired: true,
                    seconds: run.millis() as f64 / 1000.0,
                    requests: candidate.requests as u64,
                    failed: candidate.failed as u64,
                    spent: candidate.failed as u64,
                };
            }
        }
        if has_more {
            asked = candidate.requests;
        }
        looked = run.millis() / EVERY_MILLIS;
    }
    endings
}

fn scrapes(
    prepared: &Prepared<'_>,
    draws: &mut Draws,
    seed: u64,
    runs: std::ops::Range<u64>,
    seconds: u64,
    dear: bool,
) -> Portion {
    let entries: Vec<_> = ENTRIES.iter().filter(|entry| entry.is_dear == dear).collect();
    let mut portion: Portion = entries.iter().map(|entry| (entry.name, Vec::new())).collect();
    for run in runs {
        let mut judges: Vec<_> = entries.iter().map(|entry| (entry.make)()).collect();
        let mut endings = vec![Ending::default(); judges.len()];
        let mut run = windows::Run::new(prepared, draws, seed, run);
        let mut second = 0;
        while second < seconds && endings.iter().any(|ending| !ending.fired) {
            let look = run.scrape().clone();
            second = look.second;
            let (requests, failed) = run.spent();
            let open = judges.iter_mut().zip(&mut endings).filter(|(_, ending)| !ending.fired);
            for (judge, ending) in open {
                if judge.rolls_back(&look) {
                    let seconds = second as f64;
                    *ending = Ending { fired: true, seconds, requests, failed, spent: failed };
                }
            }
        }
        portion.iter_mut().zip(endings).for_each(|((_, all), ending)| all.push(ending));
    }
    portion
}
