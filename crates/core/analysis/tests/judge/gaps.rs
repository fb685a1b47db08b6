//! Missing data, restarts and odd clocks: nothing fires and nothing passes over a gap.

use std::time::Duration;

use switchback_analysis::Rules;
use switchback_domain::Outcome::{Regressed, Safe, Undecided};
use switchback_domain::trigger::{Thresholds, Triggers};
use switchback_domain::{ArmStats, Timestamp};

use crate::world::{GOOD, NO_THRESHOLDS, World, failing, first, limit, step, trial, triggers};

fn error_trigger() -> Rules {
    triggers(Triggers { error_rate: Some(limit(0.05, 2)), ..Triggers::default() })
}

/// Something that happens to the world between two looks.
type Event = fn(&mut World);

const RESTARTS: [(&str, Event); 7] = [
    ("the data plane started anew", |world| {
        world.sample.incarnation.push_str(" again");
    }),
    ("its counters went back", |world| {
        world.sample.candidate = ArmStats::default();
        world.sample.baseline = Some(ArmStats::default());
    }),
    ("only the failures went back", |world| {
        let responses = &mut world.sample.candidate.responses;
        (responses[1], responses[4]) = (responses[1] + 1000, 0);
    }),
    ("the baseline vanished", |world| world.sample.baseline = None),
    ("nobody looked for a minute", |world| {
        world.sample.at = world.sample.at + Duration::from_mins(1);
    }),
    ("the clock was set forward an hour", |world| {
        world.sample.at = world.sample.at + Duration::from_hours(1);
    }),
    ("the clock was set back by seconds", |world| {
        world.sample.at = world.sample.at - Duration::from_secs(20);
    }),
];

#[test]
fn a_triggers_window_starts_anew_after_each_kind_of_gap() {
    for (name, event) in RESTARTS {
        let (mut judge, mut world) = trial(error_trigger());
        assert_eq!(first(&world.run(&mut judge, 119, &failing(100)), Regressed), None);
        event(&mut world);
        let verdicts = world.run(&mut judge, 130, &failing(100));
        assert_eq!(first(&verdicts, Regressed), Some(121), "{name}");
    }
}

#[test]
fn a_step_starts_anew_after_each_kind_of_gap() {
    for (name, event) in RESTARTS {
        let (mut judge, mut world) = trial(step(NO_THRESHOLDS, 30));
        assert_eq!(first(&world.run(&mut judge, 29, &GOOD), Safe), None);
        event(&mut world);
        assert_eq!(first(&world.run(&mut judge, 40, &GOOD), Safe), Some(31), "{name}");
    }
}

#[test]
fn a_restarted_data_plane_leaves_health_checks_and_cpu_alone() {
    let rules = Triggers {
        health_checks: Some(limit(3.0, 2)),
        cpu_usage: Some(limit(0.85, 2)),
        ..Triggers::default()
    };
    let (mut judge, mut world) = trial(triggers(rules));
    world.sample.cpu_cores = Some(0.9);
    world.sample.failed_probes = 2;
    world.run(&mut judge, 60, &GOOD);
    world.sample.incarnation.push_str(" again");
    let verdicts = world.run(&mut judge, 61, &GOOD);
    assert_eq!(first(&verdicts, Regressed), Some(61));
}

#[test]
fn a_clock_that_stands_still_is_no_evidence() {
    let (mut judge, mut world) = trial(error_trigger());
    world.run(&mut judge, 119, &failing(100));
    for _ in 0..100 {
        assert_eq!(world.look(&mut judge).outcome, Undecided);
    }
}

#[test]
fn a_second_look_in_the_same_moment_takes_nothing_away() {
    let (mut judge, mut world) = trial(step(NO_THRESHOLDS, 30));
    for second in 1..=30 {
        world.run(&mut judge, 1, &GOOD);
        let outcome = world.look(&mut judge).outcome;
        assert_eq!(outcome == Safe, second == 30, "{second}");
    }
}

#[test]
fn looks_before_the_beginning_are_no_evidence() {
    let mut world = World::new();
    let started = world.sample.at + Duration::from_secs(20);
    let rules = step(NO_THRESHOLDS, 10);
    let mut judge = switchback_analysis::Judge::new(rules, started);
    let verdicts = world.run(&mut judge, 40, &GOOD);
    assert_eq!(first(&verdicts, Safe), Some(30));
    assert_eq!(verdicts[29].candidate_requests, 500);

    let mut world = World::new();
    let started = world.sample.at + Duration::from_secs(20);
    let mut judge = switchback_analysis::Judge::new(error_trigger(), started);
    assert_eq!(first(&world.run(&mut judge, 150, &failing(100)), Regressed), Some(140));
}

#[test]
fn looks_before_a_later_step_are_no_evidence_about_it() {
    let (mut judge, mut world) = trial(error_trigger());
    let asked = step(NO_THRESHOLDS, 10).step;
    judge.enter(asked, world.sample.at + Duration::from_secs(20));
    let verdicts = world.run(&mut judge, 40, &GOOD);
    assert_eq!(first(&verdicts, Safe), Some(30));
    assert_eq!(verdicts[29].candidate_requests, 500);
}

#[test]
fn what_compares_needs_something_to_compare_with() {
    let ratio = Thresholds { latency_ratio_max: Some(1.2), ..NO_THRESHOLDS };
    let mean = Triggers { response_time: Some(limit(2.0, 1)), ..Triggers::default() };
    for baseline in [None, Some(ArmStats::default())] {
        for rules in [step(ratio.clone(), 10), triggers(mean.clone())] {
            let mut world = World::new();
            world.sample.baseline = baseline.clone();
            let mut judge = switchback_analysis::Judge::new(rules, Timestamp::default());
            for _ in 0..200 {
                world.tick(&GOOD, &crate::world::IDLE);
                let verdict = world.look(&mut judge);
                assert_eq!(verdict.outcome, Undecided);
            }
        }
    }
}

#[test]
fn limits_that_are_no_number_never_pass_and_never_fire() {
    for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let rules = Triggers {
            error_rate: Some(limit(odd, 1)),
            response_time: Some(limit(odd, 1)),
            latency_p95: Some(limit(odd, 1)),
            health_checks: Some(limit(odd, 1)),
            ..Triggers::default()
        };
        let thresholds = Thresholds {
            success_rate_min: Some(odd),
            error_rate_max: Some(odd),
            latency_p95_max: Some(odd),
            latency_p99_max: Some(odd),
            latency_ratio_max: Some(odd),
            samples_min: 1,
            metrics: Vec::new(),
        };
        let asked = Some((thresholds, Duration::from_secs(1)));
        let (mut judge, mut world) = trial(Rules { triggers: rules, step: asked });
        for verdict in world.run(&mut judge, 90, &failing(500)) {
            assert_eq!(verdict.outcome, Undecided);
            let mut rules = verdict.findings.iter().filter(|it| it.rule != "samples_min");
            assert!(rules.all(|it| it.outcome == Undecided && it.limit.is_finite()));
        }
    }
}

#[test]
fn without_rules_there_is_no_pass() {
    let (mut judge, mut world) = trial(Rules::default());
    assert_eq!(first(&world.run(&mut judge, 20, &GOOD), Safe), None);
}
