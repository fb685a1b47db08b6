//! One metric of the user's: measurements in, a finding out. Not here: asking the sources.

use std::time::Duration;

use switchback_domain::condition::Numbers;
use switchback_domain::metric::{
    Answer, MetricQueries, MetricRule, MetricSource, MetricSpec, OnInsufficient,
};
use switchback_domain::time::humane;
use switchback_domain::{Finding, Outcome, Timestamp};

use crate::label::errors::ErrorCounts;
use crate::math::ln;
use crate::scraped::{Fault, Increments, Scraped, aligned};
use crate::text;

/// Measurements that may be missing before the last one is stale.
const STALE_AFTER: u32 = 3;
/// Room for a slow answer on top.
const STALE_ROOM: Duration = Duration::from_secs(10);
/// Clocks that differ by more cannot be compared.
const SKEW_MAX: Duration = Duration::from_secs(30);

/// Why a metric says nothing at present. Each holds, none ever passes.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Trouble {
    /// Nothing was measured yet.
    #[error("no measurement yet")]
    NotMeasured,
    /// The last measurement is too old.
    #[error("the last measurement is {} old", text::span(*.0))]
    Stale(Duration),
    /// The source cannot be asked, or refuses the query.
    #[error("the source failed: {0}")]
    Failed(String),
    /// The source did not answer in time.
    #[error("the source did not answer in time")]
    TooLate,
    /// The answer was empty.
    #[error("the query returned nothing{}", of(*.0))]
    NoData(Version),
    /// The answer held several series.
    #[error("the query returned {count} series instead of one{whose}", count = .1, whose = of(*.0))]
    SeveralSeries(Version, usize),
    /// The answer was no finite number.
    #[error("the query returned {found} instead of a number{whose}", found = .1, whose = of(*.0))]
    NotANumber(Version, String),
    /// The source's clock differs from ours.
    #[error("the source's clock is {}", apart(*.0))]
    OtherClock(i64),
    /// A measurement was made before the one before it.
    #[error("the clock did not go on since the last measurement")]
    ClockWentBack,
    /// Neither condition holds, or a number for them is missing.
    #[error("{0} meets neither condition")]
    Undetermined(String),
    /// Something is wrong with a counter.
    #[error("{0}")]
    Counter(Fault),
    /// The counters did not move.
    #[error("no requests were counted in the last interval")]
    NoRequests,
}

/// Whose number was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The version on trial.
    Candidate,
    /// The version that serves now.
    Baseline,
}

fn of(version: Version) -> &'static str {
    match version {
        Version::Candidate => "",
        Version::Baseline => " for the baseline",
    }
}

fn apart(seconds: i64) -> String {
    let side = if seconds < 0 { "behind" } else { "ahead of" };
    format!("{} s {side} ours", seconds.unsigned_abs())
}

impl Trouble {
    /// Whether the source is to blame, rather than what it says.
    fn is_error(&self) -> bool {
        match self {
            Self::Failed(_) | Self::TooLate | Self::OtherClock(_) => true,
            Self::NotMeasured
            | Self::Stale(_)
            | Self::NoData(_)
            | Self::SeveralSeries(..)
            | Self::NotANumber(..)
            | Self::ClockWentBack
            | Self::Undetermined(_)
            | Self::Counter(_)
            | Self::NoRequests => false,
        }
    }
}

/// What a metric says now.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// For the verdict. Of a dry run it is never regressed: what it would have been is in words.
    pub finding: Finding,
    /// Whether it keeps a step from passing.
    pub holds: bool,
    /// Whether somebody is to be asked what to do.
    pub asks: bool,
}

/// Watches one metric.
///
/// A measurement is good, bad, an error of the source or says nothing. The metric *fails* with one
/// bad measurement more than `failure_limit`, whenever they come, and stays failed. It *passes*
/// while its newest measurement is good and not stale. In every other case it holds, by name;
/// with more errors or empty measurements in a row than their limits it does what
/// `on_insufficient` says. Unlike Argo Rollouts', a metric without any measurement is no success,
/// and neither is one whose source fails.
#[derive(Debug, Clone)]
pub struct Metric {
    spec: MetricSpec,
    begun: Timestamp,
    /// When the newest measurement came, by the clock of the looks.
    last: Option<Timestamp>,
    /// When it was asked for, by the wall clock.
    asked_at: Option<Timestamp>,
    bad: u32,
    errors: u32,
    empty: u32,
    trouble: Option<Trouble>,
    numbers: Option<Numbers>,
    is_bad: bool,
    failed: bool,
    counters: Option<Counters>,
}

impl Metric {
    /// Begins to watch.
    pub fn new(spec: MetricSpec, begun: Timestamp) -> Self {
        let counters = match spec.rule {
            MetricRule::Odds { ratio_max, .. } => Some(Counters::new(ratio_max)),
            MetricRule::Conditions { .. } | MetricRule::Range { .. } => None,
        };
        Self {
            spec,
            begun,
            last: None,
            asked_at: None,
            bad: 0,
            errors: 0,
            empty: 0,
            trouble: Some(Trouble::NotMeasured),
            numbers: None,
            is_bad: false,
            failed: false,
            counters,
        }
    }

    /// What it watches.
    pub fn spec(&self) -> &MetricSpec {
        &self.spec
    }

    /// When the next measurement is due, given when the last one was asked for.
    pub fn due(&self, asked: Option<Timestamp>) -> Timestamp {
        asked.map_or(self.begun + self.spec.initial_delay, |asked| asked + self.spec.interval)
    }

    /// Takes a measurement that came now and was asked for at `asked_at` of the wall clock, which
    /// sources compare with theirs: the answers to the candidate's queries, then to the baseline's,
    /// if any are asked for (counters: numerator, denominator of each).
    pub fn take(&mut self, now: Timestamp, asked_at: Timestamp, answers: &[Answer]) {
        let goes_on = self.asked_at.is_none_or(|last| asked_at > last);
        (self.last, self.asked_at) = (Some(now), Some(asked_at));
        let result =
            if goes_on { self.measure(asked_at, answers) } else { Err(Trouble::ClockWentBack) };
        match result {
            Ok(is_bad) => {
                (self.errors, self.empty, self.trouble) = (0, 0, None);
                self.is_bad = is_bad;
                self.bad = self.bad.saturating_add(u32::from(is_bad));
                let always_fails = self.counters.is_some() && is_bad;
                self.failed |= always_fails || self.bad > self.spec.failure_limit;
            }
            // A first reading of counters is the beginning of a measurement, not an empty one.
            Err(Trouble::Counter(Fault::First)) => {
                self.errors = 0;
                self.trouble = Some(Trouble::NotMeasured);
            }
            Err(trouble) if trouble.is_error() => {
                self.errors = self.errors.saturating_add(1);
                self.trouble = Some(trouble);
            }
            Err(trouble) => {
                self.errors = 0;
                self.empty = self.empty.saturating_add(1);
                self.trouble = Some(trouble);
            }
        }
    }

    /// Somebody was asked about missing numbers, and lets it go on: the counts begin anew.
    pub fn asked(&mut self) {
        (self.errors, self.empty) = (0, 0);
    }

    /// Whether this measurement is bad.
    fn measure(&mut self, at: Timestamp, answers: &[Answer]) -> Result<bool, Trouble> {
        let per_version = match self.spec.queries {
            MetricQueries::Number { .. } => 1,
            MetricQueries::Counters { .. } => 2,
        };
        let mut readings = Vec::new();
        for (index, answer) in answers.iter().enumerate() {
            let version = if index < per_version { Version::Candidate } else { Version::Baseline };
            readings.push(reading(answer, version, at)?);
        }
        let Some(first) = readings.first() else { return Err(Trouble::NoData(Version::Candidate)) };
        let numbers = Numbers {
            result: first.value,
            baseline: readings.get(per_version).map(|reading| reading.value),
        };
        match (&self.spec.rule, &mut self.counters) {
            (MetricRule::Odds { alpha, .. }, Some(counters)) => {
                let evidence = counters.take(&readings, self.spec.interval)?;
                self.numbers = Some(counters.rates());
                Ok(evidence >= -ln(*alpha))
            }
            (MetricRule::Odds { .. }, None) => Err(Trouble::NotMeasured),
            (MetricRule::Range { min, max }, _) => {
                self.numbers = Some(numbers);
                let is_below = min.is_some_and(|min| numbers.result < min);
                Ok(is_below || max.is_some_and(|max| numbers.result > max))
            }
            (MetricRule::Conditions { success, failure }, _) => {
                self.numbers = Some(numbers);
                let nothing = || Trouble::Undetermined(text::plain(numbers.result));
                let holds = |condition: &Option<switchback_domain::condition::Condition>| {
                    condition.as_ref().map(|it| it.holds(numbers).ok_or_else(nothing)).transpose()
                };
                // What is bad is bad, whatever else it is.
                match (holds(failure)?, holds(success)?) {
                    (Some(true), _) | (None, Some(false)) => Ok(true),
                    (_, Some(true)) | (Some(false), None) => Ok(false),
                    (Some(false), Some(false)) | (None, None) => Err(nothing()),
                }
            }
        }
    }

    /// What it says now.
    pub fn judge(&self, now: Timestamp) -> Judgement {
        let trouble = self.trouble.clone().or_else(|| self.stale(now));
        let outcome = match (self.failed, &trouble) {
            (true, _) if self.spec.critical => Outcome::Regressed,
            (false, None) if !self.is_bad => Outcome::Safe,
            (true | false, _) => Outcome::Undecided,
        };
        let is_short = self.errors > self.spec.consecutive_error_limit
            || self.empty > self.spec.inconclusive_limit;
        let asks = is_short && !self.failed && !self.spec.dry_run;
        let summary = self.summary(outcome, trouble.as_ref());
        let (outcome, holds) = match (self.spec.dry_run, outcome) {
            // Advice never decides, in either direction.
            (true, Outcome::Regressed) => (Outcome::Undecided, false),
            (true, Outcome::Safe | Outcome::Undecided) => (outcome, false),
            (false, _) => (outcome, outcome != Outcome::Safe),
        };
        Judgement {
            finding: Finding {
                rule: format!("metric.{}", self.spec.name),
                outcome,
                observed: self.numbers.map(|numbers| numbers.result),
                limit: self.limit(),
                baseline: self.numbers.and_then(|numbers| numbers.baseline),
                summary,
            },
            holds,
            asks: asks && self.spec.on_insufficient == OnInsufficient::Ask,
        }
    }

    fn stale(&self, now: Timestamp) -> Option<Trouble> {
        let age = now.since(self.last?);
        let limit = self.spec.interval.saturating_mul(STALE_AFTER).saturating_add(STALE_ROOM);
        (age > limit).then_some(Trouble::Stale(age))
    }

    fn limit(&self) -> f64 {
        match &self.spec.rule {
            MetricRule::Range { min, max } => max.or(*min).unwrap_or_default(),
            MetricRule::Odds { ratio_max, .. } => *ratio_max,
            MetricRule::Conditions { .. } => 0.0,
        }
    }

    fn summary(&self, outcome: Outcome, trouble: Option<&Trouble>) -> String {
        let name = &self.spec.name;
        let advice = match (self.spec.dry_run, outcome) {
            (true, Outcome::Regressed) => "dry run, would take it back: ",
            (true, Outcome::Safe | Outcome::Undecided) => "dry run: ",
            (false, _) => "",
        };
        let said = match (self.failed, trouble) {
            (false, Some(trouble)) => trouble.to_string(),
            (true, _) | (false, None) => self.words(),
        };
        let bad = match (self.bad, self.counters.is_some()) {
            (0, _) | (_, true) => String::new(),
            (bad, false) => format!("; {bad} bad, {} forgiven", self.spec.failure_limit),
        };
        let lacks = self.errors.max(self.empty);
        let lacks = if lacks > 1 { format!(" ({lacks} times in a row)") } else { String::new() };
        let place = match self.spec.source {
            MetricSource::DataPlane => "data plane",
            MetricSource::Prometheus(_) => "Prometheus",
            MetricSource::Json(_) => "JSON",
        };
        format!("{advice}{name} ({place}, {}): {said}{lacks}{bad}", self.kind())
    }

    /// The guarantee, in a word: thresholds have none.
    fn kind(&self) -> String {
        match &self.spec.rule {
            MetricRule::Conditions { .. } | MetricRule::Range { .. } => {
                format!("a heuristic every {}", humane(self.spec.interval))
            }
            MetricRule::Odds { alpha, .. } => format!("alpha {}", text::percent(*alpha)),
        }
    }

    fn words(&self) -> String {
        let Some(numbers) = self.numbers else { return "no measurement yet".to_owned() };
        let written = text::plain(numbers.result);
        let baseline = numbers.baseline.map_or_else(String::new, |baseline| {
            format!(" against the baseline's {}", text::plain(baseline))
        });
        let rule = match &self.spec.rule {
            MetricRule::Range { min: Some(min), max: Some(max) } => {
                format!("range {} to {}", text::plain(*min), text::plain(*max))
            }
            MetricRule::Range { min: Some(min), max: None } => {
                format!("at least {}", text::plain(*min))
            }
            MetricRule::Range { min: None, max } => {
                format!("at most {}", max.map_or_else(String::new, text::plain))
            }
            MetricRule::Conditions { success, failure } => {
                let success = success.as_ref().map(|it| format!("success `{it}`"));
                let failure = failure.as_ref().map(|it| format!("failure `{it}`"));
                let both: Vec<_> = success.into_iter().chain(failure).collect();
                both.join(", ")
            }
            MetricRule::Odds { .. } => self.counters.as_ref().map_or_else(String::new, |it| {
                let total = it.scraped.total();
                let (failed, all) = (total.candidate_failed, total.candidate_requests);
                let evidence = text::plain(it.scraped.ln_evidence());
                format!("{failed} of {all}, evidence {evidence} nats")
            }),
        };
        format!("{written}{baseline}, {rule}")
    }
}

struct Reading {
    value: f64,
    at: Timestamp,
}

fn reading(answer: &Answer, version: Version, asked_at: Timestamp) -> Result<Reading, Trouble> {
    match answer {
        Answer::Number { value, .. } if !value.is_finite() => {
            Err(Trouble::NotANumber(version, value.to_string()))
        }
        Answer::Number { value, at } => {
            let apart = at.as_millis().abs_diff(asked_at.as_millis());
            if u128::from(apart) > SKEW_MAX.as_millis() {
                let seconds = i64::try_from(apart / 1000).unwrap_or(i64::MAX);
                let is_ahead = *at > asked_at;
                return Err(Trouble::OtherClock(if is_ahead { seconds } else { -seconds }));
            }
            Ok(Reading { value: *value, at: *at })
        }
        Answer::NoData => Err(Trouble::NoData(version)),
        Answer::SeveralSeries(count) => Err(Trouble::SeveralSeries(version, *count)),
        Answer::NotANumber(found) => Err(Trouble::NotANumber(version, found.clone())),
        Answer::OtherClock(seconds) => Err(Trouble::OtherClock(*seconds)),
        Answer::Failed(why) => Err(Trouble::Failed(why.clone())),
        Answer::TooLate => Err(Trouble::TooLate),
    }
}

/// Counters of both versions and the test of them.
#[derive(Debug, Clone)]
struct Counters {
    /// Numerator and denominator of the candidate, then of the baseline.
    increments: [Increments; 4],
    scraped: Scraped,
}

impl Counters {
    fn new(odds_max: f64) -> Self {
        Self { increments: Default::default(), scraped: Scraped::new(odds_max) }
    }

    /// Takes four readings and says how much evidence there is now, as a logarithm.
    fn take(&mut self, readings: &[Reading], interval: Duration) -> Result<f64, Trouble> {
        let [bad, all, baseline_bad, baseline_all] = readings else {
            return Err(Trouble::NoData(Version::Baseline));
        };
        let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        for other in [bad, baseline_bad, baseline_all] {
            let (one, other) = (all.at.as_millis(), other.at.as_millis());
            aligned(one, other, millis).map_err(Trouble::Counter)?;
        }
        // All four go on together, also when one of them has a fault: an interval counts wholly or
        // not at all.
        let read = [bad, all, baseline_bad, baseline_all];
        let mut counted = [Ok(0); 4];
        for ((slot, increments), reading) in counted.iter_mut().zip(&mut self.increments).zip(read)
        {
            *slot = increments.read(reading.at.as_millis(), reading.value);
        }
        // One that was not taken would count a longer interval than the others: begin anew.
        let is_lost =
            |it: &&Result<u64, Fault>| matches!(it, Err(Fault::NotACount | Fault::ClockWentBack));
        if let Some(Err(fault)) = counted.iter().find(is_lost) {
            self.increments = Default::default();
            return Err(Trouble::Counter(*fault));
        }
        let mut counts = [0; 4];
        for (slot, counted) in counts.iter_mut().zip(counted) {
            *slot = counted.map_err(Trouble::Counter)?;
        }
        let [candidate_failed, candidate_requests, baseline_failed, baseline_requests] = counts;
        if candidate_requests == 0 || baseline_requests == 0 {
            return Err(Trouble::NoRequests);
        }
        let interval = ErrorCounts {
            candidate_requests,
            candidate_failed,
            baseline_requests,
            baseline_failed,
        };
        self.scraped.observe(interval).map_err(Trouble::Counter)?;
        Ok(self.scraped.ln_evidence())
    }

    fn rates(&self) -> Numbers {
        let total = self.scraped.total();
        Numbers { result: total.candidate_rate(), baseline: Some(total.baseline_rate()) }
    }
}
