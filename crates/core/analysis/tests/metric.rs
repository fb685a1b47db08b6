//! The state machine of one metric: limits, names of every bad input, dry runs, counters.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "whatever else comes fails the test"
)]

use std::time::Duration;

use switchback_analysis::metric::Metric;
use switchback_domain::condition::Condition;
use switchback_domain::metric::{
    Answer, Endpoint, MetricQueries, MetricRule, MetricSource, MetricSpec, OnInsufficient,
};
use switchback_domain::{Outcome, Timestamp};

const INTERVAL: Duration = Duration::from_secs(15);

fn spec(rule: MetricRule) -> MetricSpec {
    let endpoint = Endpoint { url: "http://prometheus".to_owned(), authorization_env: None };
    let queries = match rule {
        MetricRule::Odds { .. } => {
            MetricQueries::Counters { numerator: "bad".to_owned(), denominator: "all".to_owned() }
        }
        MetricRule::Conditions { .. } | MetricRule::Range { .. } => {
            MetricQueries::Number { candidate: "rate".to_owned(), baseline: None }
        }
    };
    MetricSpec {
        name: "errors".to_owned(),
        source: MetricSource::Prometheus(endpoint),
        queries,
        rule,
        interval: INTERVAL,
        initial_delay: Duration::from_secs(5),
        failure_limit: 1,
        consecutive_error_limit: 2,
        inconclusive_limit: 1,
        dry_run: false,
        critical: true,
        on_insufficient: OnInsufficient::Ask,
    }
}

fn at_most(max: f64) -> MetricRule {
    MetricRule::Range { min: None, max: Some(max) }
}

fn conditions(success: Option<&str>, failure: Option<&str>) -> MetricRule {
    let parse = |text: &str| Condition::parse(text).unwrap();
    MetricRule::Conditions { success: success.map(parse), failure: failure.map(parse) }
}

/// A metric and its clock, which goes on by an interval with every measurement.
struct World {
    metric: Metric,
    now: Timestamp,
}

impl World {
    fn new(spec: MetricSpec) -> Self {
        let now = Timestamp::from_millis(1_000_000);
        Self { metric: Metric::new(spec, now), now }
    }

    fn number(&self, value: f64) -> Answer {
        Answer::Number { value, at: self.now + INTERVAL }
    }

    fn take(&mut self, answers: &[Answer]) -> &mut Self {
        self.now = self.now + INTERVAL;
        self.metric.take(self.now, self.now, answers);
        self
    }

    fn measure(&mut self, value: f64) -> &mut Self {
        let answer = self.number(value);
        self.take(&[answer])
    }

    /// Candidate's numerator and denominator, then the baseline's.
    fn count(&mut self, values: [f64; 4]) -> &mut Self {
        let answers = values.map(|value| self.number(value));
        self.take(&answers)
    }

    /// Outcome, whether it holds, whether it asks.
    fn says(&self) -> (Outcome, bool, bool) {
        let judgement = self.metric.judge(self.now);
        (judgement.finding.outcome, judgement.holds, judgement.asks)
    }

    fn summary(&self) -> String {
        self.metric.judge(self.now).finding.summary
    }
}

const SAFE: (Outcome, bool, bool) = (Outcome::Safe, false, false);
const HOLDS: (Outcome, bool, bool) = (Outcome::Undecided, true, false);
const ASKS: (Outcome, bool, bool) = (Outcome::Undecided, true, true);
const REGRESSED: (Outcome, bool, bool) = (Outcome::Regressed, true, false);

#[test]
fn nothing_measured_is_no_pass() {
    let world = World::new(spec(at_most(1.0)));
    assert_eq!(world.says(), HOLDS);
    assert!(world.summary().contains("no measurement yet"), "{}", world.summary());
}

#[test]
fn bad_measurements_are_forgiven_up_to_their_limit_and_never_forgotten() {
    let mut world = World::new(spec(at_most(1.0)));
    assert_eq!(world.measure(0.5).says(), SAFE);
    assert_eq!(world.measure(1.5).says(), HOLDS, "{}", world.summary());
    assert_eq!(world.measure(1.0).says(), SAFE, "equal keeps the limit");
    assert_eq!(world.measure(2.0).says(), REGRESSED);
    assert_eq!(world.measure(0.5).says(), REGRESSED, "a failed metric stays failed");
}

#[test]
fn a_good_measurement_passes_only_while_it_is_fresh() {
    let mut world = World::new(spec(at_most(1.0)));
    assert_eq!(world.measure(0.5).says(), SAFE);
    world.now = world.now + Duration::from_secs(56);
    assert_eq!(world.says(), HOLDS);
    assert!(world.summary().contains("the last measurement is 56s old"), "{}", world.summary());
}

#[test]
fn every_bad_answer_holds_by_name() {
    let number = |value| Answer::Number { value, at: Timestamp::from_millis(1_030_000) };
    let old = Answer::Number { value: 0.5, at: Timestamp::from_millis(970_000) };
    let text = Answer::NotANumber("the text \"high\"".to_owned());
    for (answer, named) in [
        (number(f64::NAN), "returned NaN instead of a number"),
        (number(f64::INFINITY), "returned inf instead of a number"),
        (number(f64::NEG_INFINITY), "returned -inf instead of a number"),
        (text, "returned the text \"high\" instead of a number"),
        (Answer::NoData, "the query returned nothing"),
        (Answer::SeveralSeries(3), "returned 3 series instead of one"),
        (Answer::OtherClock(-40), "clock is 40 s behind ours"),
        (old, "clock is 60 s behind ours"),
        (Answer::Failed("503 Service Unavailable".to_owned()), "failed: 503"),
        (Answer::TooLate, "did not answer in time"),
    ] {
        let mut world = World::new(spec(at_most(1.0)));
        assert_eq!(world.measure(0.5).says(), SAFE);
        assert_eq!(world.take(std::slice::from_ref(&answer)).says(), HOLDS, "{answer:?}");
        assert!(world.summary().contains(named), "{answer:?}: {}", world.summary());
        // However long it lasts: it asks, and never decides.
        (0..20).for_each(|_| {
            world.take(std::slice::from_ref(&answer));
        });
        assert_eq!(world.says(), ASKS, "{answer:?}");
        world.metric.asked();
        assert_eq!(world.says(), HOLDS, "{answer:?}");
        assert_eq!(world.measure(0.5).says(), SAFE, "{answer:?}: it may recover");
    }
}

#[test]
fn clocks_may_differ_by_thirty_seconds() {
    for (ahead, expected) in [(30_000, SAFE), (30_001, HOLDS)] {
        let mut world = World::new(spec(at_most(1.0)));
        let at = world.now + INTERVAL + Duration::from_millis(ahead);
        assert_eq!(world.take(&[Answer::Number { value: 0.5, at }]).says(), expected, "{ahead}");
    }
}

#[test]
fn errors_and_empty_answers_have_limits_of_their_own() {
    let mut world = World::new(spec(at_most(1.0)));
    for expected in [HOLDS, HOLDS, ASKS] {
        assert_eq!(world.take(&[Answer::TooLate]).says(), expected);
    }
    let mut world = World::new(spec(at_most(1.0)));
    for (expected, told) in [(HOLDS, "returned nothing"), (ASKS, "nothing (2 times in a row)")] {
        assert_eq!(world.take(&[Answer::NoData]).says(), expected);
        assert!(world.summary().ends_with(told), "{}", world.summary());
    }
    world.measure(0.5);
    assert_eq!(world.take(&[Answer::NoData]).says(), HOLDS, "only those in a row count");
}

#[test]
fn who_waits_does_not_ask() {
    for way in [OnInsufficient::Hold, OnInsufficient::Extend] {
        let mut world = World::new(MetricSpec { on_insufficient: way, ..spec(at_most(1.0)) });
        (0..20).for_each(|_| {
            world.take(&[Answer::TooLate]);
        });
        assert_eq!(world.says(), HOLDS);
    }
}

#[test]
fn a_clock_that_does_not_go_on_is_no_measurement() {
    let mut world = World::new(spec(at_most(1.0)));
    world.measure(0.5);
    let answer = Answer::Number { value: 0.5, at: world.now };
    world.metric.take(world.now, world.now, &[answer]);
    assert_eq!(world.says(), HOLDS);
    assert!(world.summary().contains("the clock did not go on"), "{}", world.summary());
}

#[test]
fn conditions_decide_alone_and_together() {
    let (success, failure) = ("result < 1", "result > 2");
    for (rule, value, expected) in [
        (conditions(Some(success), None), 0.5, SAFE),
        (conditions(Some(success), None), 1.5, REGRESSED),
        (conditions(None, Some(failure)), 1.5, SAFE),
        (conditions(None, Some(failure)), 2.5, REGRESSED),
        (conditions(Some(success), Some(failure)), 0.5, SAFE),
        (conditions(Some(success), Some(failure)), 1.5, HOLDS),
        (conditions(Some(success), Some(failure)), 2.5, REGRESSED),
        (conditions(Some("result < baseline"), None), 0.5, HOLDS),
        (MetricRule::Range { min: Some(1.0), max: Some(2.0) }, 0.5, REGRESSED),
        (MetricRule::Range { min: Some(1.0), max: None }, 1.0, SAFE),
    ] {
        let mut world = World::new(MetricSpec { failure_limit: 0, ..spec(rule.clone()) });
        assert_eq!(world.measure(value).says(), expected, "{rule:?} {value}");
    }
}

#[test]
fn a_baseline_that_is_not_there_holds_and_one_that_is_compares() {
    let rule = conditions(Some("result <= baseline * 1.2"), None);
    let mut world = World::new(spec(rule));
    let candidate = world.number(1.1);
    world.take(&[candidate, Answer::NoData]);
    assert_eq!(world.says(), HOLDS);
    assert!(world.summary().contains("returned nothing for the baseline"), "{}", world.summary());
    let answers = [world.number(1.1), world.number(1.0)];
    assert_eq!(world.take(&answers).says(), SAFE);
    assert_eq!(world.metric.judge(world.now).finding.baseline, Some(1.0));
}

#[test]
fn a_dry_run_only_says_what_it_would_have_done() {
    let mut world = World::new(MetricSpec { dry_run: true, ..spec(at_most(1.0)) });
    assert_eq!(world.says(), (Outcome::Undecided, false, false));
    world.measure(3.0).measure(3.0);
    assert_eq!(world.says(), (Outcome::Undecided, false, false));
    assert!(world.summary().starts_with("dry run, would take it back"), "{}", world.summary());
    (0..9).for_each(|_| {
        world.take(&[Answer::TooLate]);
    });
    assert!(!world.says().2, "nor does it ask");
}

#[test]
fn what_is_not_critical_holds_instead_of_taking_back() {
    let mut world = World::new(MetricSpec { critical: false, ..spec(at_most(1.0)) });
    assert_eq!(world.measure(3.0).measure(3.0).says(), HOLDS);
    assert_eq!(world.measure(0.5).says(), HOLDS);
}

#[test]
fn measurements_are_due_after_the_delay_and_then_every_interval() {
    let world = World::new(spec(at_most(1.0)));
    let start = world.now;
    assert_eq!(world.metric.due(None), start + Duration::from_secs(5));
    assert_eq!(world.metric.due(Some(start)), start + INTERVAL);
}

const ODDS: MetricRule = MetricRule::Odds { ratio_max: 1.0, alpha: 0.001 };

#[test]
fn counters_need_two_readings_and_find_a_regression_exactly() {
    let mut world = World::new(spec(ODDS));
    assert_eq!(world.count([0.0, 100.0, 0.0, 1_000.0]).says(), HOLDS);
    assert_eq!(world.count([1.0, 1_100.0, 19.0, 20_000.0]).says(), SAFE, "{}", world.summary());
    world.count([60.0, 2_100.0, 38.0, 39_000.0]);
    assert_eq!(world.says(), REGRESSED, "{}", world.summary());
    assert!(world.summary().contains("60 of 2000"), "{}", world.summary());
    let mut healthy = World::new(spec(ODDS));
    for step in 0..100 {
        let step = f64::from(step);
        healthy.count([step, step * 1000.0, step * 19.0, step * 19_000.0]);
    }
    assert_eq!(healthy.says(), SAFE, "{}", healthy.summary());
}

#[test]
fn every_bad_counter_holds_by_name_and_is_never_counted() {
    let begun = [0.0, 1_000.0, 0.0, 1_000.0];
    for (next, named) in [
        ([f64::NAN, 2_000.0, 0.0, 2_000.0], "NaN"),
        ([-5.0, 2_000.0, 0.0, 2_000.0], "not a number from zero up"),
        ([0.0, 5.0, 0.0, 2_000.0], "the counter was reset"),
        ([3_000.0, 2_000.0, 0.0, 2_000.0], "more errors than requests"),
        ([0.0, 1_000.0, 0.0, 2_000.0], "no requests"),
    ] {
        let mut world = World::new(spec(ODDS));
        world.count(begun);
        assert_eq!(world.count(next).says(), HOLDS, "{next:?}: {}", world.summary());
        assert!(world.summary().contains(named), "{next:?}: {}", world.summary());
        // What comes after is counted from there on.
        world.count([4_000.0, 10_000.0, 4_000.0, 10_000.0]);
        world.count([4_001.0, 11_000.0, 4_001.0, 11_000.0]);
        assert_eq!(world.says(), SAFE, "{next:?}: {}", world.summary());
    }
}

#[test]
fn counters_read_at_different_times_are_not_compared() {
    let mut world = World::new(spec(ODDS));
    world.count([0.0, 1_000.0, 0.0, 1_000.0]);
    let mut answers = [1.0, 2_000.0, 1.0, 2_000.0].map(|value| world.number(value));
    answers[3] = Answer::Number { value: 2_000.0, at: world.now + INTERVAL * 2 };
    assert_eq!(world.take(&answers).says(), HOLDS);
    assert!(world.summary().contains("read at different times"), "{}", world.summary());
}

#[test]
fn a_missing_answer_is_no_pass() {
    let mut world = World::new(spec(at_most(1.0)));
    assert_eq!(world.take(&[]).says(), HOLDS);
    let mut counters = World::new(spec(ODDS));
    let two = [counters.number(1.0), counters.number(2.0)];
    assert_eq!(counters.take(&two).says(), HOLDS);
}
