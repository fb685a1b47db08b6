//! The documents' triggers (R05), each with the documents' numbers.

use std::time::Duration;

use switchback_domain::Outcome::{Regressed, Safe, Undecided};
use switchback_domain::trigger::{CustomMetric, Threshold, Triggers};

use crate::world::{
    GOOD, IDLE, Load, answering_in, failing, first, limit, summaries, trial, triggers,
};

#[test]
fn each_request_trigger_fires_after_its_window_and_only_above_its_limit() {
    let errors = Triggers { error_rate: Some(limit(0.05, 2)), ..Triggers::default() };
    let mean = Triggers { response_time: Some(limit(2.0, 3)), ..Triggers::default() };
    let tail = Triggers { latency_p95: Some(limit(2.0, 5)), ..Triggers::default() };
    let slow = |slow_permille| Load { slow_permille, slow_millis: 2500, ..GOOD };
    let cases = [
        ("6 % errors for 2 min", &errors, failing(60), Some(120)),
        ("every request fails", &errors, failing(1000), Some(120)),
        ("5 % errors are the limit", &errors, failing(50), None),
        ("0.1 % errors", &errors, GOOD, None),
        ("no traffic", &errors, IDLE, None),
        ("latency 2.5x for 3 min", &mean, answering_in(100), Some(180)),
        ("latency 2x is the limit", &mean, answering_in(79), None),
        ("latency 1x", &mean, GOOD, None),
        ("6 % take 2.5 s for 5 min", &tail, slow(60), Some(300)),
        ("4 % take 2.5 s", &tail, slow(40), None),
        ("all take 2 s", &tail, answering_in(2000), None),
    ];
    for (name, rules, load, expected) in cases {
        let (mut judge, mut world) = trial(triggers(rules.clone()));
        let verdicts = world.run(&mut judge, 400, &load);
        assert_eq!(first(&verdicts, Regressed), expected, "{name}: {}", summaries(&verdicts[399]));
        assert_eq!(first(&verdicts, Safe).is_some(), expected.is_none() && load.requests > 0);
    }
}

#[test]
fn a_short_burst_of_errors_in_a_long_good_window_does_not_fire() {
    let rules = Triggers { error_rate: Some(limit(0.05, 2)), ..Triggers::default() };
    let (mut judge, mut world) = trial(triggers(rules));
    world.run(&mut judge, 200, &GOOD);
    world.run(&mut judge, 5, &failing(900));
    let verdicts = world.run(&mut judge, 300, &GOOD);
    assert_eq!(first(&verdicts, Regressed), None);
}

#[test]
fn one_failed_request_of_one_does_not_fire_and_ten_of_ten_do() {
    let rules = Triggers { error_rate: Some(limit(0.05, 2)), ..Triggers::default() };
    for (requests, outcome) in [(1, Undecided), (9, Undecided), (10, Regressed)] {
        let (mut judge, mut world) = trial(triggers(rules.clone()));
        world.run(&mut judge, 1, &Load { requests, ..failing(1000) });
        let verdicts = world.run(&mut judge, 119, &IDLE);
        assert_eq!(verdicts[118].outcome, outcome, "{requests} requests");
    }
    // A failure of ten is above 5 %, but two bad requests are no evidence.
    let (mut judge, mut world) = trial(triggers(rules));
    world.run(&mut judge, 1, &Load { requests: 20, ..failing(100) });
    let verdicts = world.run(&mut judge, 119, &IDLE);
    assert_eq!(verdicts[118].outcome, Undecided, "{}", summaries(&verdicts[118]));
}

#[test]
fn the_evidence_reads_like_a_sentence() {
    let rules = Triggers {
        error_rate: Some(limit(0.05, 2)),
        response_time: Some(limit(2.0, 3)),
        latency_p95: Some(limit(2.0, 5)),
        ..Triggers::default()
    };
    let (mut judge, mut world) = trial(triggers(rules));
    let early = world.run(&mut judge, 40, &Load { millis: 100, ..failing(60) });
    assert_eq!(
        summaries(&early[39]),
        "error rate 6% of 2000 requests, limit 5% (for 40s of 2m)\n\
         mean latency 100.35 ms of 2000 requests is 2.48x the baseline's 40.45 ms of 2000 requests, \
         limit 2x (for 40s of 3m)\n\
         p95 100.35 ms of 2000 requests, limit 2 s"
    );
    let late = world.run(&mut judge, 80, &Load { millis: 100, ..failing(60) });
    let cause = late[79].cause().map(|finding| finding.summary.as_str());
    assert_eq!(cause, Some("error rate 6% of 6000 requests, limit 5% for 2m"));
    assert_eq!((late[79].candidate_requests, late[79].candidate_failed), (6000, 360));
    assert_eq!((late[79].baseline_requests, late[79].baseline_failed), (6000, 6));
}

#[test]
fn a_candidate_with_all_the_traffic_is_compared_with_the_baselines_past() {
    let rules = Triggers { response_time: Some(limit(2.0, 3)), ..Triggers::default() };
    let (mut judge, mut world) = trial(triggers(rules));
    let mut outcome = Undecided;
    for _ in 0..180 {
        world.tick(&answering_in(100), &IDLE);
        outcome = world.look(&mut judge).outcome;
    }
    assert_eq!(outcome, Regressed);
}

#[test]
fn three_failed_health_checks_in_two_minutes_fire_at_once() {
    let rules = Triggers { health_checks: Some(limit(3.0, 2)), ..Triggers::default() };
    let (mut judge, mut world) = trial(triggers(rules.clone()));
    world.sample.failed_probes += 2;
    assert_eq!(first(&world.run(&mut judge, 60, &GOOD), Regressed), None);
    world.sample.failed_probes += 1;
    let verdicts = world.run(&mut judge, 1, &GOOD);
    assert_eq!(first(&verdicts, Regressed), Some(1));
    assert_eq!(summaries(&verdicts[0]), "3 failed health checks within 2m, limit 3");

    let (mut judge, mut world) = trial(triggers(rules));
    for _ in 0..10 {
        world.sample.failed_probes += 1;
        let verdicts = world.run(&mut judge, 65, &GOOD);
        assert_eq!(first(&verdicts, Regressed), None, "two in two minutes");
    }
}

#[test]
fn no_failed_health_check_is_never_too_many() {
    let rules = Triggers { health_checks: Some(limit(0.0, 2)), ..Triggers::default() };
    let (mut judge, mut world) = trial(triggers(rules));
    assert_eq!(world.run(&mut judge, 1, &GOOD)[0].outcome, Safe);
    world.sample.failed_probes += 1;
    assert_eq!(world.run(&mut judge, 1, &GOOD)[0].outcome, Regressed);
}

#[test]
fn health_checks_that_failed_before_the_first_look_or_in_a_replaced_instance_do_not_count() {
    let rules = Triggers { health_checks: Some(limit(3.0, 2)), ..Triggers::default() };
    let (mut judge, mut world) = trial(triggers(rules));
    for failed_probes in [2, 0, 1, 0, 0] {
        world.sample.failed_probes = failed_probes;
        let verdicts = world.run(&mut judge, 70, &GOOD);
        assert_eq!(first(&verdicts, Regressed), None);
    }
}

#[test]
fn cpu_memory_and_custom_metrics_fire_when_every_reading_of_the_window_is_above() {
    let custom = CustomMetric {
        name: "queue_depth".to_owned(),
        argv: vec!["depth".to_owned()],
        limit: Threshold { threshold: 100.0, window: Duration::from_mins(5) },
        interval: Duration::from_secs(30),
    };
    let cases = [
        (Triggers { cpu_usage: Some(limit(0.85, 5)), ..Triggers::default() }, "CPU use 0.9 cores"),
        (Triggers { memory_usage: Some(limit(5e8, 5)), ..Triggers::default() }, "memory 512 MiB"),
        (Triggers { custom: vec![custom], ..Triggers::default() }, "queue_depth 101"),
    ];
    for (rules, words) in cases {
        let (mut judge, mut world) = trial(triggers(rules));
        let none = world.run(&mut judge, 10, &GOOD);
        assert_eq!(none[9].outcome, Undecided, "no reading");
        world.sample.cpu_cores = Some(0.9);
        world.sample.memory_bytes = Some(536_870_912.0);
        world.sample.custom.insert("queue_depth".to_owned(), 101.0);
        let high = world.run(&mut judge, 301, &GOOD);
        assert_eq!(first(&high, Regressed), Some(301), "{words}");
        assert!(summaries(&high[300]).starts_with(words), "{}", summaries(&high[300]));
        world.sample.cpu_cores = Some(0.85);
        world.sample.memory_bytes = Some(5e8);
        world.sample.custom.insert("queue_depth".to_owned(), 100.0);
        assert_eq!(world.run(&mut judge, 1, &GOOD)[0].outcome, Safe);
    }
}

#[test]
fn a_custom_metric_may_be_read_as_rarely_as_its_interval() {
    let custom = CustomMetric {
        name: "backlog".to_owned(),
        argv: vec!["backlog".to_owned()],
        limit: Threshold { threshold: 1.0, window: Duration::from_mins(2) },
        interval: Duration::from_mins(1),
    };
    let rules = Triggers { custom: vec![custom], ..Triggers::default() };
    let (mut judge, mut world) = trial(triggers(rules));
    let mut fired = None;
    for second in 0..=120 {
        let custom = (second % 60 == 0).then(|| ("backlog".to_owned(), 7.0));
        world.sample.custom = custom.into_iter().collect();
        let verdicts = world.run(&mut judge, 1, &GOOD);
        if verdicts[0].outcome == Regressed {
            fired.get_or_insert(second);
        }
    }
    assert_eq!(fired, Some(120));
}
