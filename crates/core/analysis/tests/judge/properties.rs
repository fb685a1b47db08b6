//! What must hold for every history.

use std::time::Duration;

use proptest::prelude::*;
use switchback_analysis::{Judge, Rules, Sample};
use switchback_domain::trigger::{Threshold, Thresholds, Triggers};
use switchback_domain::{ArmStats, Outcome, Timestamp, Verdict};

/// One second of one version: requests that succeed, requests that fail, latency of all.
#[derive(Debug, Clone, Copy)]
struct Second {
    good: u64,
    failed: u64,
    millis: u64,
}

/// A second of both versions.
type Moment = (Second, Second);

fn second() -> impl Strategy<Value = Second> {
    (0u64..30, prop_oneof![3 => Just(0u64), 1 => 0u64..5], 1u64..200)
        .prop_map(|(good, failed, millis)| Second { good, failed, millis })
}

fn history() -> impl Strategy<Value = Vec<Moment>> {
    prop::collection::vec((second(), second()), 2..60)
}

fn limit(threshold: f64) -> Threshold {
    Threshold { threshold, window: Duration::from_secs(10) }
}

fn rules() -> impl Strategy<Value = Rules> {
    let step = (prop::option::of(0.9..1.0), prop::option::of(0.0..0.1), prop::option::of(1.0..2.0));
    (any::<bool>(), any::<bool>(), prop::option::of(step)).prop_map(|(errors, latency, step)| {
        let triggers = Triggers {
            error_rate: errors.then_some(limit(0.05)),
            response_time: latency.then_some(limit(1.5)),
            latency_p95: latency.then_some(limit(0.15)),
            ..Triggers::default()
        };
        let step = step.map(|(success_rate_min, error_rate_max, latency_ratio_max)| {
            let thresholds = Thresholds {
                success_rate_min,
                error_rate_max,
                latency_p95_max: None,
                latency_p99_max: Some(0.19),
                latency_ratio_max,
                samples_min: 20,
                metrics: Vec::new(),
            };
            (thresholds, Duration::from_secs(15))
        });
        Rules { triggers, step }
    })
}

fn count(arm: &mut ArmStats, second: Second, scale: u64) {
    arm.accepted += scale * (second.good + second.failed);
    arm.responses[1] += scale * second.good;
    arm.responses[4] += scale * second.failed;
    for _ in 0..scale * second.good {
        arm.latency.record(second.millis * 1000);
    }
}

/// All verdicts about a history, each count `scale` times as large.
fn judge(rules: &Rules, history: &[Moment], scale: u64) -> Vec<Verdict> {
    let mut judge = Judge::new(rules.clone(), Timestamp::default());
    let (mut candidate, mut baseline) = (ArmStats::default(), ArmStats::default());
    let mut verdicts = Vec::new();
    for (index, (new, old)) in (1..).zip(history) {
        count(&mut candidate, *new, scale);
        count(&mut baseline, *old, scale);
        verdicts.push(judge.look(Sample {
            at: Timestamp::from_millis(index * 1000),
            baseline: Some(baseline.clone()),
            candidate: candidate.clone(),
            ..Sample::default()
        }));
    }
    verdicts
}

fn is_asked(rules: &Rules) -> bool {
    let Triggers { error_rate, response_time, latency_p95, .. } = &rules.triggers;
    rules.step.is_some() || error_rate.or(*response_time).or(*latency_p95).is_some()
}

proptest! {
    #[test]
    fn no_data_is_never_safe(rules in rules(), mut history in history()) {
        for (candidate, _) in &mut history {
            (candidate.good, candidate.failed) = (0, 0);
        }
        for verdict in judge(&rules, &history, 1) {
            prop_assert_eq!(verdict.outcome, Outcome::Undecided);
        }
    }

    #[test]
    fn the_verdict_is_its_worst_finding(rules in rules(), history in history()) {
        for verdict in judge(&rules, &history, 1) {
            let is = |outcome| move |it: &switchback_domain::Finding| it.outcome == outcome;
            let findings = &verdict.findings;
            let is_safe = !findings.is_empty() && findings.iter().all(is(Outcome::Safe));
            let is_regressed = findings.iter().any(is(Outcome::Regressed));
            prop_assert_eq!(verdict.outcome == Outcome::Safe, is_safe);
            prop_assert_eq!(verdict.outcome == Outcome::Regressed, is_regressed);
            prop_assert_eq!(verdict.findings.is_empty(), !is_asked(&rules));
        }
    }

    #[test]
    fn more_failures_never_turn_regressed_into_safe(
        rules in rules(),
        history in history(),
        more in prop::collection::vec(0u64..10, 60),
    ) {
        let mut worse = history.clone();
        for ((candidate, _), more) in worse.iter_mut().zip(more) {
            candidate.failed += more;
        }
        for (before, after) in judge(&rules, &history, 1).iter().zip(judge(&rules, &worse, 1)) {
            prop_assert!(
                before.outcome != Outcome::Regressed || after.outcome != Outcome::Safe,
                "{:#?} became {:#?}", before, after
            );
        }
    }

    #[test]
    fn ten_times_the_traffic_changes_no_decision(rules in rules(), history in history()) {
        let (once, tenfold) = (judge(&rules, &history, 1), judge(&rules, &history, 10));
        for (before, after) in once.iter().zip(tenfold) {
            // More traffic may give a comparing rule a newer baseline: that is another question.
            let compared = |verdict: &Verdict| {
                verdict.findings.iter().map(|finding| finding.baseline).collect::<Vec<_>>()
            };
            let is_same = compared(before) == compared(&after);
            let is_open = before.outcome == Outcome::Undecided;
            prop_assert!(
                !is_same || is_open || before.outcome == after.outcome,
                "{:#?} became {:#?}", before, after
            );
        }
    }

    #[test]
    fn two_versions_are_not_both_slower_than_the_other(history in history()) {
        let triggers = Triggers { response_time: Some(limit(1.1)), ..Triggers::default() };
        let rules = Rules { triggers, step: None };
        let swapped: Vec<_> = history.iter().map(|(new, old)| (*old, *new)).collect();
        let is_slower = |verdict: &Verdict| verdict.outcome == Outcome::Regressed;
        for (one, other) in judge(&rules, &history, 1).iter().zip(judge(&rules, &swapped, 1)) {
            prop_assert!(!is_slower(one) || !is_slower(&other), "{:#?} and {:#?}", one, other);
        }
    }

    #[test]
    fn a_version_compared_with_itself_is_not_slower(mut history in history()) {
        for (candidate, baseline) in &mut history {
            *candidate = *baseline;
        }
        let triggers = Triggers { response_time: Some(limit(1.0)), ..Triggers::default() };
        for verdict in judge(&Rules { triggers, step: None }, &history, 1) {
            prop_assert!(verdict.outcome != Outcome::Regressed);
        }
    }
}
