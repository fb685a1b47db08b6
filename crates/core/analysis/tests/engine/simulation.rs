//! Simulated rollouts with fixed seeds: false rollbacks stay below alpha, and regressions are found
//! with as few requests as the design page says.

use std::time::Duration;

use switchback_analysis::label::bins::Slack;
use switchback_analysis::label::errors::{ErrorCounts, Errors};
use switchback_analysis::sticky::SeenSessions;
use switchback_analysis::{Settings, Trial};
use switchback_domain::{Histogram, Outcome, Timestamp, Weight};

use crate::random::{Random, median, wilson};
use crate::world::{Ending, Rollout, Version, history, lognormal};

const TICK: Duration = Duration::from_millis(100);

fn five(_: Timestamp) -> Weight {
    Weight::from_percent(5)
}

fn fine(random: &mut Random, _: Timestamp) -> Option<u64> {
    (!random.chance(0.001)).then(|| lognormal(random, 1.0))
}

/// A baseline as it is, against `candidate`, at 1,000 requests a second.
fn against(candidate: Version<'_>, duration: Duration) -> Rollout<'_> {
    Rollout {
        settings: Settings::default(),
        weight: &five,
        requests_per_tick: 100,
        tick: TICK,
        candidate,
        baseline: &fine,
        duration,
    }
}

fn endings(rollout: &Rollout<'_>, runs: u64) -> Vec<Ending> {
    let history = history();
    (1..=runs).map(|seed| rollout.run(&history, seed)).collect()
}

fn median_of(endings: &[Ending], number: impl Fn(&Ending) -> u64) -> u64 {
    assert!(endings.iter().all(|ending| ending.fired), "some regressions were not found");
    median(&mut endings.iter().map(number).collect::<Vec<_>>())
}

/// Errors only, one by one at a share, until the line is crossed or `events` errors were seen.
/// Returns the errors of the candidate, and its requests, at the crossing.
fn errors_until(random: &mut Random, ratio: f64, share: Weight, events: u64) -> Option<(u64, u64)> {
    let base = 0.001;
    let part = f64::from(share.basis_points()) / 10_000.0;
    let rate = base * (part * ratio + 1.0 - part);
    let line = switchback_analysis::budget::line(0.01 * 5.0 / 9.0);
    let mut errors = Errors::new(1.0, Timestamp::default());
    let mut requests = 0;
    for _ in 0..events {
        let gap = random.geometric(rate);
        requests += gap;
        let is_candidate = random.chance(part * ratio * base / rate);
        let candidate_requests = u64::from(share.basis_points()) * gap / 10_000;
        let counts = ErrorCounts {
            candidate_requests: candidate_requests.max(1),
            candidate_failed: u64::from(is_candidate),
            baseline_requests: (gap - candidate_requests).max(1),
            baseline_failed: u64::from(!is_candidate),
        };
        errors.observe(Timestamp::from_millis(requests), share, counts);
        if errors.is_ripe() && errors.ln_evidence() >= line {
            let share = u64::from(share.basis_points());
            return Some((errors.total().candidate_failed, requests * share / 10_000));
        }
    }
    None
}

#[test]
fn healthy_errors_are_rolled_back_less_often_than_alpha() {
    let runs = 2000;
    for percent in [1, 5, 50] {
        let share = Weight::from_percent(percent);
        let mut random = Random::new(u64::from(percent));
        let is_fired = |_: &usize| errors_until(&mut random, 1.0, share, 300).is_some();
        let fired = (0..runs).filter(is_fired).count();
        let (_, upper) = wilson(fired, runs);
        assert!(upper <= 0.01, "{percent} %: {fired} of {runs} rolled back");
    }
}

#[test]
fn more_errors_are_found_within_a_handful_of_failed_requests() {
    for (ratio, failed_max, requests_max) in [(10.0, 5, 480), (50.0, 3, 60), (5.0, 9, 1700)] {
        let mut random = Random::new(11);
        let run = |_| errors_until(&mut random, ratio, Weight::from_percent(5), 100_000).unwrap();
        let found: Vec<(u64, u64)> = (0..1001).map(run).collect();
        let failed = median(&mut found.iter().map(|it| it.0).collect::<Vec<_>>());
        let requests = median(&mut found.iter().map(|it| it.1).collect::<Vec<_>>());
        assert!(
            failed <= failed_max && requests <= requests_max,
            "{ratio}: {failed} failed of {requests} requests"
        );
    }
}

#[test]
fn a_late_regression_is_found_almost_as_soon() {
    let mut random = Random::new(5);
    let share = Weight::from_percent(5);
    let mut spent = Vec::new();
    for _ in 0..51 {
        let mut errors = Errors::new(1.0, Timestamp::default());
        let mut now = Timestamp::default();
        let mut failed = 0;
        // Half an hour of one error a second, then ten times as many on the candidate.
        for second in 0_u64.. {
            now = now + Duration::from_secs(1);
            let rate = if second < 1800 { 0.05 } else { 0.5 / 1.45 };
            let is_candidate = random.chance(rate);
            failed += u64::from(second >= 1800 && is_candidate);
            let counts = ErrorCounts {
                candidate_requests: 50,
                candidate_failed: u64::from(is_candidate),
                baseline_requests: 950,
                baseline_failed: u64::from(!is_candidate),
            };
            errors.observe(now, share, counts);
            if errors.is_ripe() && errors.ln_evidence() >= 5.2 {
                break;
            }
        }
        spent.push(failed);
    }
    let failed = median(&mut spent);
    assert!(failed <= 12, "{failed} failed requests");
}

/// 290 and 20 in the median of many runs (`examples/figures.rs`); 41 runs say it to a tenth.
#[test]
fn a_slower_candidate_is_found_within_few_requests() {
    let uncapped = Settings { latency_nats_per_second: f64::INFINITY, ..Settings::default() };
    for (factor, requests_max, tick, per_tick) in [(2.0, 20, 20, 20), (1.2, 330, 100, 100)] {
        let slow = |random: &mut Random, _: Timestamp| Some(lognormal(random, factor));
        let rollout = Rollout {
            settings: uncapped.clone(),
            requests_per_tick: per_tick,
            tick: Duration::from_millis(tick),
            ..against(&slow, Duration::from_mins(2))
        };
        let requests = median_of(&endings(&rollout, 41), |ending| ending.candidate_requests);
        assert!(requests <= requests_max, "x{factor}: {requests} candidate requests");
    }
}

#[test]
fn one_percent_of_requests_ten_times_slower_are_found() {
    let tail = |random: &mut Random, _: Timestamp| {
        let factor = if random.chance(0.01) { 10.0 } else { 1.0 };
        Some(lognormal(random, factor))
    };
    let settings = Settings { latency_nats_per_second: f64::INFINITY, ..Settings::default() };
    let rollout = Rollout { settings, ..against(&tail, Duration::from_mins(5)) };
    let requests = median_of(&endings(&rollout, 41), |ending| ending.candidate_requests);
    assert!(requests <= 650, "{requests} candidate requests");
}

#[test]
fn the_evidence_cap_holds_latency_back_beyond_a_stall_and_errors_not_at_all() {
    let slow = |random: &mut Random, _: Timestamp| Some(lognormal(random, 3.0));
    let slow = endings(&against(&slow, Duration::from_mins(1)), 11);
    let waited = median_of(&slow, |ending| u64::try_from(ending.elapsed.as_millis()).unwrap());
    assert!((700..=1500).contains(&waited), "{waited} ms");
    let down = |_: &mut Random, _: Timestamp| None;
    let down = endings(&against(&down, Duration::from_mins(1)), 11);
    let failed = median_of(&down, |ending| ending.candidate_failed);
    assert!(failed <= 10, "{failed} failed requests, to the end of the tick");
}

#[test]
fn a_candidate_at_the_edge_of_the_tolerance_stays() {
    // Alpha of a tenth, so that few runs say much.
    let settings = Settings { alpha: 0.1, ..Settings::default() };
    let edge = |random: &mut Random, _: Timestamp| {
        (!random.chance(0.001)).then(|| lognormal(random, 1.05))
    };
    let half = |_: Timestamp| Weight::from_percent(25);
    let rollout = Rollout { settings, weight: &half, ..against(&edge, Duration::from_secs(20)) };
    let endings = endings(&rollout, 120);
    let fired = endings.iter().filter(|ending| ending.fired).count();
    assert!(wilson(fired, 120).1 <= 0.15, "{fired} of 120 rolled back");
}

#[test]
fn bursts_drift_and_changing_weights_that_both_versions_share_are_no_evidence() {
    let settings = Settings { alpha: 0.1, ..Settings::default() };
    // Errors times ten and latency times five, every other two seconds; a weight that moves.
    let moody = |random: &mut Random, now: Timestamp| {
        let bad = now.as_millis() / 2000 % 2 == 1;
        let (rate, factor) = if bad { (0.03, 5.0) } else { (0.003, 1.0) };
        (!random.chance(rate)).then(|| lognormal(random, factor))
    };
    let moving = |now: Timestamp| match now.as_millis() / 3000 % 4 {
        0 => Weight::from_percent(5),
        1 => Weight::from_percent(20),
        2 => Weight::from_percent(50),
        _ => Weight::from_percent(10),
    };
    let rollout = Rollout {
        settings,
        weight: &moving,
        requests_per_tick: 40,
        candidate: &moody,
        baseline: &moody,
        ..against(&moody, Duration::from_secs(24))
    };
    let fired = endings(&rollout, 120).iter().filter(|ending| ending.fired).count();
    assert!(wilson(fired, 120).1 <= 0.15, "{fired} of 120 rolled back");
}

#[test]
fn sticky_sessions_count_once_or_else_they_deceive() {
    let (runs, five) = (400, Weight::from_percent(5));
    let run = |seed: u64, is_once: bool| {
        let mut random = Random::new(seed);
        let mut errors = Errors::new(1.0, Timestamp::default());
        let mut seen = SeenSessions::new(seed);
        for session in 0..200_u64 {
            let is_candidate = random.chance(0.05);
            // Each affected session has five errors.
            for _ in 0..5 {
                if is_once && !seen.is_first(session) {
                    continue;
                }
                let counts = ErrorCounts {
                    candidate_requests: 50,
                    candidate_failed: u64::from(is_candidate),
                    baseline_requests: 950,
                    baseline_failed: u64::from(!is_candidate),
                };
                errors.observe(Timestamp::from_millis(session), five, counts);
            }
            if errors.is_ripe() && errors.ln_evidence() >= 5.2 {
                return true;
            }
        }
        false
    };
    let fired = |is_once: bool| (1..=runs).filter(|seed| run(*seed, is_once)).count();
    assert!(fired(true) <= 4, "{} of {runs} with one event per session", fired(true));
    assert!(fired(false) >= 40, "{} of {runs} with every event", fired(false));
}

/// Three times as slow, decaying with a time constant of six seconds.
#[allow(clippy::unnecessary_wraps, reason = "a version may fail")]
fn cold(random: &mut Random, now: Timestamp) -> Option<u64> {
    #[allow(clippy::cast_precision_loss)]
    let age = now.as_millis() as f64 / 6000.0;
    Some(lognormal(random, 1.0 + 2.0 * libm::exp(-age)))
}

#[test]
fn a_cold_start_is_forgiven_after_four_time_constants_and_not_before() {
    let fired = |warm_up: u64| {
        let settings = Settings {
            latency_from: Timestamp::from_millis(warm_up),
            cap_age: Duration::from_secs(1),
            ..Settings::default()
        };
        let rollout = Rollout { settings, ..against(&cold, Duration::from_secs(32)) };
        endings(&rollout, 11).iter().filter(|ending| ending.fired).count()
    };
    assert_eq!((fired(0), fired(24_000)), (11, 0));
}

#[test]
fn a_shared_outage_is_a_hold_that_says_so() {
    let history = history();
    let outage = |random: &mut Random, _: Timestamp| (!random.chance(0.3)).then_some(50_000);
    let rollout = Rollout { baseline: &outage, ..against(&outage, Duration::from_secs(10)) };
    let usual =
        ErrorCounts { baseline_requests: 100_000, baseline_failed: 100, ..ErrorCounts::default() };
    let start = Timestamp::default();
    let mut trial = Trial::new(Settings::default(), &history, usual, start).unwrap();
    let mut random = Random::new(3);
    for tick in 1..=100 {
        trial.feed(&rollout.batch(Timestamp::from_millis(tick * 100), tick, &mut random));
    }
    let verdict = trial.verdict(Timestamp::from_millis(10_000));
    assert_eq!(verdict.outcome, Outcome::Undecided);
    assert!(verdict.findings.iter().any(|finding| finding.rule == "both_arms"), "{verdict:?}");
}

#[test]
fn a_good_candidate_is_certified_and_only_by_evidence() {
    let rollout = Rollout {
        weight: &|_| Weight::from_percent(25),
        settings: Settings { slack: Slack::from_percent(5), ..Settings::default() },
        ..against(&fine, Duration::from_mins(4))
    };
    let (history, mut random) = (history(), Random::new(9));
    let start = Timestamp::default();
    let usual = ErrorCounts::default();
    let mut trial = Trial::new(Settings::default(), &history, usual, start).unwrap();
    let first_safe = (1..=2400_u64).find(|tick| {
        let now = Timestamp::from_millis(tick * 100);
        trial.feed(&rollout.batch(now, *tick, &mut random));
        trial.verdict(now).outcome == Outcome::Safe
    });
    assert!(first_safe.is_some_and(|tick| (50..1800).contains(&tick)), "{first_safe:?}");
    let idle = Trial::new(Settings::default(), &Histogram::default(), usual, start).unwrap();
    assert_eq!(idle.verdict(start + Duration::from_hours(1)).outcome, Outcome::Undecided);
}
