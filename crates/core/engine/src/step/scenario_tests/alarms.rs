//! What is asked of the world in each state, and when the rollout wants to be looked at again.
//! The policy of these tests: a minute for progress, half a minute to hold back, half a minute to
//! drain, ten seconds to stop.

use std::time::Duration;

use switchback_domain::metric::{
    MetricQueries, MetricRule, MetricSource, MetricSpec, OnInsufficient,
};
use switchback_domain::strategy::{RolloutPolicy, Step, StrategyKind};
use switchback_domain::{Outcome, Weight};

use crate::step::testing::{Story, analysis, hook, judged_canary, policy};
use crate::{Effect, EventKind, outstanding};

/// Seconds from now until the alarm.
fn alarm(story: &Story) -> Option<u64> {
    outstanding(&story.service).iter().find_map(|effect| match effect {
        Effect::WakeAt(at) => Some(at.since(story.now).as_secs()),
        Effect::KeepPool { .. }
        | Effect::Publish { .. }
        | Effect::CheckWayBack { .. }
        | Effect::RunHook { .. }
        | Effect::Judge { .. } => None,
    })
}

fn asks(story: &Story, wanted: fn(&Effect) -> bool) -> bool {
    outstanding(&story.service).iter().any(wanted)
}

fn runs_a_hook(effect: &Effect) -> bool {
    matches!(effect, Effect::RunHook { .. })
}

fn judges(effect: &Effect) -> bool {
    matches!(effect, Effect::Judge { .. })
}

/// A canary with every kind of step.
fn varied() -> RolloutPolicy {
    let weight = |percent| Step::SetWeight(Weight::from_percent(percent));
    let steps = vec![
        weight(25),
        Step::Pause { duration_ms: Some(90_000) },
        Step::Hook(hook("audit")),
        analysis(60),
        Step::Approve,
        weight(100),
    ];
    let smoke_tests = vec![hook("smoke")];
    RolloutPolicy { steps, smoke_tests, ..policy(StrategyKind::Canary) }
}

#[test]
fn each_step_is_looked_at_again_when_its_time_is_over() {
    let mut story = Story::serving(&policy(StrategyKind::Canary));
    story.deploy("v2", &varied());
    assert_eq!((story.phase(), alarm(&story)), ("Verifying".into(), Some(60)));
    story.after(7);
    assert_eq!(alarm(&story), Some(53), "time that passes is no progress");
    story.way_back(&[]);
    assert_eq!((story.phase(), alarm(&story)), ("Provisioning".into(), Some(60)));
    story.ready("v2", 1);
    assert_eq!((story.phase(), alarm(&story)), ("Validating".into(), Some(5 + 60)));
    story.hook_ends(true);
    assert_eq!((story.phase(), alarm(&story)), ("Shifting".into(), Some(60)));
    story.acknowledge();
    assert_eq!((story.phase(), alarm(&story)), ("Observing".into(), Some(90)));
    story.after(90);
    assert_eq!((story.phase(), alarm(&story)), ("Observing".into(), Some(5 + 60)), "the hook");
    story.hook_ends(true);
    assert_eq!((story.phase(), alarm(&story)), ("Observing".into(), Some(60 + 60)), "analysis");
    story.judge(Outcome::Safe);
    assert_eq!((story.phase(), alarm(&story)), ("AwaitingApproval".into(), None));
    story.promote(false).unwrap();
    story.ready("v2", 2);
    story.acknowledge();
    assert_eq!((story.phase(), alarm(&story)), ("DrainingBaseline".into(), Some(30)));
    story.after(30);
    // To drain, to stop, and a minute more: from then on nobody waits for it.
    assert_eq!((story.phase(), alarm(&story)), ("DrainingBaseline".into(), Some(30 + 10 + 60)));
    story.after(99);
    assert_eq!(story.phase(), "DrainingBaseline");
    story.after(1);
    assert_eq!(story.phase(), "Idle", "the old instance does not go");
}

#[test]
fn what_waits_for_somebody_sets_no_alarm() {
    let steps = vec![Step::SetWeight(Weight::from_percent(25)), Step::Pause { duration_ms: None }];
    let waits = RolloutPolicy { steps, auto_promote: false, ..policy(StrategyKind::Canary) };
    let mut story = Story::serving(&policy(StrategyKind::Canary));
    story.deploy("v2", &waits);
    story.run_to("AwaitingApproval");
    assert_eq!(alarm(&story), None, "a pause until promoted");
    story.promote(false).unwrap();
    story.run_to("AwaitingApproval");
    assert_eq!((story.split().as_str(), alarm(&story)), ("v2 100%", None), "the promotion");
    story.pause().unwrap();
    assert_eq!(alarm(&story), None);
    story.abort().unwrap();
    assert_eq!((story.phase(), alarm(&story)), ("RollingBack".into(), Some(60)));
}

#[test]
fn a_promotion_that_lacks_an_instance_is_looked_at_again_in_time() {
    let steps = vec![Step::SetWeight(Weight::ALL), Step::Pause { duration_ms: Some(10_000) }];
    let canary = RolloutPolicy { steps, ..policy(StrategyKind::Canary) };
    let mut story = Story::serving(&canary);
    story.deploy("v2", &canary);
    story.run_to("Observing");
    story.ready("v2", 1);
    story.after(10);
    assert_eq!((story.phase(), alarm(&story)), ("Promoting".into(), Some(60)));
}

#[test]
fn old_instances_of_a_rolling_update_are_waited_for_as_long_as_they_may_take() {
    let rolling = policy(StrategyKind::Rolling);
    let mut story = Story::serving(&rolling);
    story.deploy("v2", &rolling);
    story.way_back(&[]);
    assert_eq!(alarm(&story), Some(60), "new ones");
    story.ready("v2", 1);
    story.acknowledge();
    assert_eq!(story.wanted(), "v1=1 v2=1");
    assert_eq!(alarm(&story), Some(60 + 30 + 10), "an old one ends its requests");
}

fn metric(on_insufficient: OnInsufficient, dry_run: bool) -> MetricSpec {
    MetricSpec {
        name: "rate".to_owned(),
        source: MetricSource::DataPlane,
        queries: MetricQueries::Number { candidate: "errors".to_owned(), baseline: None },
        rule: MetricRule::Range { min: None, max: Some(1.0) },
        interval: Duration::from_secs(10),
        initial_delay: Duration::ZERO,
        failure_limit: 0,
        consecutive_error_limit: 1,
        inconclusive_limit: 1,
        dry_run,
        critical: false,
        on_insufficient,
    }
}

#[test]
fn an_analysis_is_waited_for_twice_as_long_where_a_metric_that_counts_may_extend_it() {
    for (on_insufficient, dry_run, expected) in [
        (OnInsufficient::Extend, false, 2 * (60 + 60)),
        (OnInsufficient::Extend, true, 60 + 60),
        (OnInsufficient::Hold, false, 60 + 60),
    ] {
        let mut policy = judged_canary();
        policy.triggers.metrics = vec![metric(on_insufficient, dry_run)];
        let mut story = Story::serving(&policy);
        story.deploy("v2", &policy);
        story.run_to("Observing");
        assert_eq!(alarm(&story), Some(expected), "{on_insufficient:?} {dry_run}");
    }
}

#[test]
fn a_paused_rollout_runs_no_hook_and_is_judged_all_the_same() {
    let mut story = Story::serving(&policy(StrategyKind::Canary));
    story.deploy("v2", &varied());
    story.run_to("Validating");
    assert!(asks(&story, runs_a_hook));
    assert!(!asks(&story, judges), "there is nothing to judge before the first traffic");
    story.pause().unwrap();
    assert!(!asks(&story, runs_a_hook));
    story.resume().unwrap();
    story.hook_ends(true);
    assert!(asks(&story, judges), "from the first share on");
    story.pause().unwrap();
    assert!(asks(&story, judges));
}

#[test]
fn nobody_judges_a_first_version_nor_what_is_promoted() {
    let mut story = Story::new();
    story.deploy("v1", &judged_canary());
    story.ready("v1", 2);
    assert_eq!((story.phase(), story.split()), ("Shifting".into(), "v1 100%".into()));
    assert!(!asks(&story, judges), "there is nothing to go back to");
    story.run();
    story.deploy("v2", &policy(StrategyKind::Canary));
    story.run_to("DrainingBaseline");
    assert!(!asks(&story, judges));
}

#[test]
fn an_acknowledgement_that_is_known_is_no_progress() {
    let mut story = Story::serving(&policy(StrategyKind::Canary));
    story.deploy("v2", &policy(StrategyKind::Canary));
    story.run_to("Shifting");
    story.after(10);
    let shift = story.service.traffic.acknowledged;
    story.tell(EventKind::TrafficAcknowledged { shift }).unwrap();
    assert_eq!((story.phase(), alarm(&story)), ("Shifting".into(), Some(50)));
    story.acknowledge();
    assert_ne!(story.phase(), "Shifting");
}

#[test]
fn a_verdict_is_told_when_it_changes() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.run_to("Observing");
    let before = story.notes.len();
    story.judge(Outcome::Undecided);
    story.judge(Outcome::Undecided);
    assert_eq!(story.notes[before..], ["undecided: Undecided by the numbers"]);
}

#[test]
fn a_verdict_on_what_is_promoted_comes_too_late() {
    let mut story = Story::serving(&policy(StrategyKind::Canary));
    story.deploy("v2", &policy(StrategyKind::Canary));
    story.run_to("DrainingBaseline");
    let (before, said) = (story.service.clone(), story.notes.len());
    story.judge(Outcome::Regressed);
    assert_eq!((&story.service, story.notes.len()), (&before, said));
}
