//! Thresholds of analysis steps: when they break, when they pass, when they wait.

use std::time::Duration;

use switchback_analysis::Rules;
use switchback_domain::Outcome::{Regressed, Safe, Undecided};
use switchback_domain::trigger::{Thresholds, Triggers};

use crate::world::{
    GOOD, IDLE, Load, NO_THRESHOLDS, answering_in, failing, first, limit, step, summaries, trial,
};

#[test]
fn each_threshold_passes_at_the_end_of_the_step_or_breaks_early() {
    let success = Thresholds { success_rate_min: Some(0.995), ..NO_THRESHOLDS };
    let errors = Thresholds { error_rate_max: Some(0.01), ..NO_THRESHOLDS };
    let p95 = Thresholds { latency_p95_max: Some(0.5), ..NO_THRESHOLDS };
    let p99 = Thresholds { latency_p99_max: Some(1.0), ..NO_THRESHOLDS };
    let ratio = Thresholds { latency_ratio_max: Some(1.2), ..NO_THRESHOLDS };
    let slow = |slow_permille| Load { slow_permille, slow_millis: 1500, ..GOOD };
    let cases = [
        ("99.9 % succeed", &success, GOOD, (Safe, 60)),
        ("exactly 99.5 % succeed", &success, failing(5), (Safe, 60)),
        ("98 % succeed", &success, failing(20), (Regressed, 3)),
        ("exactly 1 % fail", &errors, failing(10), (Safe, 60)),
        ("5 % fail", &errors, failing(50), (Regressed, 2)),
        ("all fail", &errors, failing(1000), (Regressed, 1)),
        ("p95 of 40 ms", &p95, GOOD, (Safe, 60)),
        ("6 % take 1.5 s", &p95, slow(60), (Regressed, 1)),
        ("4 % take 1.5 s, p95", &p95, slow(40), (Safe, 60)),
        ("4 % take 1.5 s, p99", &p99, slow(40), (Regressed, 2)),
        ("same mean", &ratio, GOOD, (Safe, 60)),
        ("1.5 times the mean", &ratio, answering_in(60), (Regressed, 1)),
    ];
    for (name, thresholds, load, (outcome, second)) in cases {
        let (mut judge, mut world) = trial(step(thresholds.clone(), 60));
        let verdicts = world.run(&mut judge, 70, &load);
        let found = verdicts.iter().position(|verdict| verdict.outcome != Undecided);
        let found = found.map(|index| (verdicts[index].outcome, index + 1));
        assert_eq!(found, Some((outcome, second)), "{name}: {}", summaries(&verdicts[69]));
    }
}

#[test]
fn a_single_failure_of_fifty_breaks_one_percent_only_when_the_time_is_over() {
    let thresholds = Thresholds { error_rate_max: Some(0.01), ..NO_THRESHOLDS };
    let (mut judge, mut world) = trial(step(thresholds, 60));
    world.run(&mut judge, 1, &failing(20));
    let verdicts = world.run(&mut judge, 59, &IDLE);
    assert_eq!(first(&verdicts, Regressed), Some(59));
    assert_eq!(
        summaries(&verdicts[10]),
        "50 of at least 50 requests, watched 12s of 1m\n\
         error rate 2% of 50 requests, limit 1% (fewer than 3 bad ones)"
    );
}

#[test]
fn too_few_requests_wait_however_long() {
    let thresholds = Thresholds { error_rate_max: Some(0.01), ..NO_THRESHOLDS };
    let (mut judge, mut world) = trial(step(thresholds, 60));
    world.run(&mut judge, 1, &Load { requests: 49, ..GOOD });
    let verdicts = world.run(&mut judge, 600, &IDLE);
    assert!(verdicts.iter().all(|verdict| verdict.outcome == Undecided));
    let verdicts = world.run(&mut judge, 1, &Load { requests: 1, ..GOOD });
    assert_eq!(first(&verdicts, Safe), Some(1), "the fiftieth is enough");
}

#[test]
fn a_step_without_thresholds_waits_for_its_time_and_its_requests() {
    let (mut judge, mut world) = trial(step(NO_THRESHOLDS, 30));
    assert_eq!(first(&world.run(&mut judge, 40, &GOOD), Safe), Some(30));
    let (mut judge, mut world) = trial(step(Thresholds { samples_min: 0, ..NO_THRESHOLDS }, 0));
    assert_eq!(first(&world.run(&mut judge, 5, &IDLE), Safe), None);
    assert_eq!(first(&world.run(&mut judge, 1, &GOOD), Safe), Some(1));
}

#[test]
fn requests_before_the_step_do_not_count_but_the_triggers_windows_go_on() {
    let triggers = Triggers { error_rate: Some(limit(0.05, 2)), ..Triggers::default() };
    let thresholds = Thresholds { error_rate_max: Some(0.5), ..NO_THRESHOLDS };
    let asked = Some((thresholds, Duration::from_mins(1)));
    let (mut judge, mut world) = trial(Rules { triggers, step: asked.clone() });
    let verdicts = world.run(&mut judge, 60, &failing(60));
    assert_eq!(verdicts[59].outcome, Undecided, "{}", summaries(&verdicts[59]));
    judge.enter(asked, world.sample.at);
    let verdicts = world.run(&mut judge, 60, &failing(60));
    assert_eq!(first(&verdicts, Regressed), Some(60), "{}", summaries(&verdicts[59]));
    assert_eq!(verdicts[59].candidate_requests, 59 * 50);
}

#[test]
fn a_step_passes_only_when_the_triggers_hold_too() {
    let triggers = Triggers { cpu_usage: Some(limit(0.85, 5)), ..Triggers::default() };
    let asked = Some((NO_THRESHOLDS, Duration::from_secs(30)));
    let (mut judge, mut world) = trial(Rules { triggers, step: asked });
    assert_eq!(first(&world.run(&mut judge, 60, &GOOD), Safe), None, "CPU is not known");
    world.sample.cpu_cores = Some(0.2);
    assert_eq!(first(&world.run(&mut judge, 1, &GOOD), Safe), Some(1));
}
