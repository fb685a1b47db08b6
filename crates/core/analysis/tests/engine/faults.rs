//! Restarts, repetitions, silence and nonsense: each is named, and none makes a verdict.

use std::time::Duration;

use switchback_analysis::label::errors::ErrorCounts;
use switchback_analysis::label::{Direction, Fed, Invalid};
use switchback_analysis::{ArmBatch, Batch, Settings, Trial};
use switchback_domain::{Histogram, Outcome, Timestamp, Weight};

use crate::random::Random;
use crate::world::{Rollout, history, lognormal};

fn trial(settings: Settings) -> Trial {
    Trial::new(settings, &history(), ErrorCounts::default(), Timestamp::default()).unwrap()
}

fn batch(sequence: u64) -> Batch {
    let mut random = Random::new(sequence);
    let five = |_: Timestamp| Weight::from_percent(5);
    let answer =
        |random: &mut Random, _: Timestamp| (!random.chance(0.01)).then(|| lognormal(random, 1.1));
    let rollout = Rollout {
        settings: Settings::default(),
        weight: &five,
        requests_per_tick: 100,
        tick: Duration::from_millis(100),
        candidate: &answer,
        baseline: &answer,
        duration: Duration::ZERO,
    };
    rollout.batch(Timestamp::from_millis(sequence * 100), sequence, &mut random)
}

#[test]
fn a_trial_written_down_and_read_back_goes_on_to_the_bit() {
    let mut whole = trial(Settings::default());
    let mut restarted = whole.clone();
    for sequence in 1..=60 {
        whole.feed(&batch(sequence));
        restarted.feed(&batch(sequence));
        if sequence % 7 == 0 {
            let written = serde_json::to_string(&restarted).unwrap();
            restarted = serde_json::from_str(&written).unwrap();
            // What was fed before the restart is fed again.
            assert_eq!(restarted.feed(&batch(sequence)), Fed::Repeated);
            assert_eq!(restarted.feed(&batch(sequence - 3)), Fed::Repeated);
        }
    }
    let bits = |trial: &Trial| serde_json::to_string(trial).unwrap();
    assert_eq!(bits(&whole), bits(&restarted));
    let now = Timestamp::from_millis(6000);
    assert_eq!(whole.verdict(now), restarted.verdict(now));
    let evidence = whole.evidence();
    assert_eq!(evidence.latency.to_bits(), restarted.evidence().latency.to_bits());
}

#[test]
fn a_restarted_data_plane_counts_on_and_a_lost_batch_is_a_hold() {
    let mut trial = trial(Settings::default());
    assert_eq!(trial.feed(&batch(1)), Fed::Counted);
    let mut again = batch(1);
    again.source = "proxy after its restart".to_owned();
    assert_eq!(trial.feed(&again), Fed::Counted);
    assert_eq!(trial.feed(&batch(5)), Fed::Gap(3));
    let verdict = trial.verdict(Timestamp::from_millis(600));
    assert!(verdict.findings.iter().any(|finding| finding.summary.contains("lost")));
    for source in 0..14 {
        let mut batch = batch(1);
        batch.source = source.to_string();
        assert_eq!(trial.feed(&batch), Fed::Counted);
    }
    let mut one_too_many = batch(1);
    one_too_many.source = "another".to_owned();
    assert_eq!(trial.feed(&one_too_many), Fed::TooManySources);
}

#[test]
fn silence_is_a_hold() {
    let mut trial = trial(Settings::default());
    let rules = |trial: &Trial, now: u64| -> Vec<String> {
        let verdict = trial.verdict(Timestamp::from_millis(now));
        assert_eq!(verdict.outcome, Outcome::Undecided);
        verdict.findings.into_iter().map(|finding| finding.rule).collect()
    };
    assert_eq!(rules(&trial, 0), ["errors", "latency", "data"]);
    trial.feed(&batch(1));
    assert_eq!(rules(&trial, 200), ["errors", "latency"]);
    assert_eq!(rules(&trial, 60_000), ["errors", "latency", "data"]);
}

#[test]
fn a_broken_coin_is_a_hold_and_no_rollback() {
    let mut trial = trial(Settings::default());
    for sequence in 1..=200 {
        let mut batch = batch(sequence);
        // All of the requests, and with them the errors, are said to be the candidate's.
        std::mem::swap(&mut batch.candidate, &mut batch.baseline);
        trial.feed(&batch);
    }
    let verdict = trial.verdict(Timestamp::from_millis(20_000));
    let is_held = verdict.findings.iter().any(|finding| finding.rule == "assignment");
    assert!(is_held, "{verdict:?}");
}

#[test]
fn a_hang_is_an_error_and_the_slowest_of_all() {
    let mut trial = trial(Settings::default());
    let mut hung = 0;
    for sequence in 1..=100 {
        let mut batch = batch(sequence);
        batch.baseline.unanswered = 0;
        hung += batch.candidate.requests();
        let unfinished = batch.candidate.requests();
        batch.candidate = ArmBatch { unfinished, ..ArmBatch::default() };
        trial.feed(&batch);
        if trial.fired().is_some() {
            break;
        }
    }
    assert!(trial.fired().is_some_and(|fired| fired.blamed[0]), "{:?}", trial.evidence());
    assert!(hung <= 12, "{hung} hung requests");
}

#[test]
fn fewer_purchases_are_a_regression_where_they_are_counted() {
    let mut trial = trial(Settings { events: Some(Direction::Fewer), ..Settings::default() });
    for sequence in 1..=400 {
        let mut batch = batch(sequence);
        (batch.candidate.unanswered, batch.baseline.unanswered) = (0, 0);
        batch.weight = Weight::from_percent(50);
        (batch.candidate.latency, batch.baseline.latency) =
            (batch.baseline.latency.clone(), batch.baseline.latency);
        (batch.candidate.events, batch.baseline.events) = (2, 6);
        trial.feed(&batch);
    }
    let verdict = trial.verdict(Timestamp::from_millis(40_000));
    assert_eq!(verdict.cause().map(|finding| finding.rule.as_str()), Some("events"), "{verdict:?}");
}

#[test]
fn counts_without_end_and_clocks_that_go_back_do_not_stop_the_judge() {
    let mut trial = trial(Settings::default());
    for (sequence, at) in [(1, 5000), (2, 100), (3, u64::MAX), (4, 0)] {
        let monster =
            ArmBatch { unanswered: u64::MAX, unfinished: u64::MAX, ..ArmBatch::default() };
        trial.feed(&Batch {
            at: Timestamp::from_millis(at),
            source: String::new(),
            sequence,
            weight: Weight::from_percent(5),
            candidate: monster.clone(),
            baseline: monster,
        });
    }
    assert_ne!(trial.verdict(Timestamp::default()).outcome, Outcome::Safe);
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    let refused = |settings: Settings| {
        let usual = ErrorCounts::default();
        Trial::new(settings, &Histogram::default(), usual, Timestamp::default()).unwrap_err()
    };
    let zero = refused(Settings { alpha: 0.0, ..Settings::default() });
    assert_eq!(zero, Invalid::Chance(0.0));
    let nan = refused(Settings { error_ratio: f64::NAN, ..Settings::default() });
    assert!(matches!(nan, Invalid::ErrorRatio(_)));
    let whole = refused(Settings { error_budget: 1.0, ..Settings::default() });
    assert_eq!(whole, Invalid::ErrorBudget(1.0));
}

#[test]
fn a_trial_fits_into_64_kibibytes() {
    let mut trial = trial(Settings::default());
    (1..=100).for_each(|sequence| {
        trial.feed(&batch(sequence));
    });
    assert!(trial.bytes() <= 64 * 1024, "{}", trial.bytes());
}

#[test]
fn the_capital_of_all_metrics_together_is_one() {
    for events in [None, Some(Direction::Either)] {
        let evidence = trial(Settings { events, ..Settings::default() }).evidence();
        assert!(evidence.together.abs() < 1e-12, "{events:?}: {}", evidence.together);
        assert!((evidence.line - 100.0_f64.ln()).abs() < 1e-12);
    }
}
