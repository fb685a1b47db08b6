//! Ways up: first deployments, the three strategies, retention.

use std::time::Duration;

use switchback_domain::strategy::{RolloutPolicy, Step, StrategyKind};
use switchback_domain::{InstanceHealth, Outcome, Weight};

use crate::step::testing::{Story, analysis, hook, judged_canary, policy, version_of};
use crate::{Ending, Event, EventKind, RolloutId, step};

fn blue_green() -> RolloutPolicy {
    let weight = |percent| Step::SetWeight(Weight::from_percent(percent));
    let steps = [10, 25, 50, 100].map(weight).to_vec();
    RolloutPolicy { steps, ..policy(StrategyKind::BlueGreen) }
}

#[test]
fn the_first_deployment_gets_traffic_when_all_instances_are_ready() {
    let mut story = Story::new();
    story.deploy("v1", &judged_canary());
    assert_eq!((story.phase(), story.wanted()), ("Provisioning".into(), "v1=2".into()));
    story.see("v1", &[InstanceHealth::Ready, InstanceHealth::Starting]);
    assert_eq!(story.split(), "nobody serves");
    story.ready("v1", 2);
    assert_eq!((story.phase(), story.split()), ("Shifting".into(), "v1 100%".into()));
    story.acknowledge();
    assert_eq!(story.ending(), (Ending::Promoted, None));
    assert_eq!(story.revisions(), ["v1"]);
}

#[test]
fn a_good_canary_climbs_is_judged_held_back_and_replaces_the_old_version() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    assert_eq!(story.phase(), "Verifying");
    assert_eq!(story.wanted(), "v1=2", "nothing is touched before the way back is verified");
    story.way_back(&[]);
    assert_eq!((story.phase(), story.wanted()), ("Provisioning".into(), "v1=2 v2=1".into()));
    story.ready("v2", 1);
    assert_eq!((story.phase(), story.split()), ("Shifting".into(), "v1 75%, v2 25%".into()));
    story.acknowledge();
    assert_eq!(story.phase(), "Observing");
    story.judge(Outcome::Undecided);
    assert_eq!(story.phase(), "Observing");
    story.judge(Outcome::Safe);
    assert_eq!((story.phase(), story.wanted()), ("Provisioning".into(), "v1=2 v2=2".into()));
    story.ready("v2", 2);
    assert_eq!(story.split(), "v2 100%");
    story.acknowledge();
    story.judge(Outcome::Safe);
    assert_eq!((story.phase(), story.wanted()), ("DrainingBaseline".into(), "v1=2 v2=2".into()));
    assert_eq!(story.revisions(), ["v1", "v2"]);
    story.after(29);
    assert_eq!(story.wanted(), "v1=2 v2=2");
    story.after(1);
    assert_eq!(story.wanted(), "v1=0 v2=2");
    story.see("v1", &[InstanceHealth::Stopping]);
    assert_eq!(story.phase(), "DrainingBaseline");
    story.ready("v1", 0);
    assert_eq!((story.phase(), story.wanted()), ("Idle".into(), "v2=2".into()));
    assert_eq!(story.ending(), (Ending::Promoted, None));
    let asked = story.notes.iter().any(|note| note == "AwaitingApproval");
    assert!(!asked, "nobody was asked: {:?}", story.notes);
}

#[test]
fn each_promotion_is_counted_and_dated() {
    let mut policy = blue_green();
    policy.steps.insert(1, Step::Pause { duration_ms: Some(10_000) });
    let mut story = Story::serving(&policy);
    for (number, version) in [(2, "v2"), (3, "v3")] {
        let mut request = story.request(version, &policy);
        request.wall_ms = 5_000;
        story.ask(&request).unwrap();
        story.run_to("DrainingBaseline");
        let revision = story.service.stable().unwrap();
        assert_eq!((revision.number, revision.promoted_at), (number, story.now));
        assert_eq!(revision.wall_ms, 5_000 + 10_000, "asked for at five seconds, held for ten");
        story.run();
    }
}

#[test]
fn blue_green_starts_a_full_set_and_switches_gradually() {
    let mut story = Story::serving(&blue_green());
    story.deploy("v2", &blue_green());
    story.way_back(&[]);
    assert_eq!(story.wanted(), "v1=2 v2=2");
    story.ready("v2", 2);
    for split in ["v1 90%, v2 10%", "v1 75%, v2 25%", "v1 50%, v2 50%", "v2 100%"] {
        assert_eq!((story.phase(), story.split()), ("Shifting".into(), split.into()));
        assert_eq!(story.wanted(), "v1=2 v2=2", "the old set stays whole");
        story.acknowledge();
    }
    assert_eq!(story.phase(), "DrainingBaseline");
}

#[test]
fn a_rolling_update_of_three_shifts_before_it_shrinks() {
    let rolling = RolloutPolicy { replicas: 3, ..policy(StrategyKind::Rolling) };
    let mut story = Story::serving(&rolling);
    story.deploy("v2", &rolling);
    story.way_back(&[]);
    let rounds =
        [(1, "v1 66.67%, v2 33.33%", "v1=2 v2=1", 2), (2, "v1 33.34%, v2 66.66%", "v1=1 v2=2", 1)];
    for (new, split, wanted, old) in rounds {
        story.ready("v2", new);
        assert_eq!((story.phase(), story.split()), ("Shifting".into(), split.into()));
        story.acknowledge();
        assert_eq!((story.phase(), story.wanted()), ("Provisioning".into(), wanted.into()));
        story.ready("v1", old);
    }
    assert_eq!(story.wanted(), "v1=1 v2=3");
    story.ready("v2", 3);
    assert_eq!((story.split(), story.wanted()), ("v2 100%".into(), "v1=1 v2=3".into()));
    story.acknowledge();
    assert_eq!(story.phase(), "DrainingBaseline");
    story.run();
    assert_eq!(story.wanted(), "v2=3");
}

#[test]
fn an_old_instance_of_a_rolling_update_may_use_its_drain_time() {
    let rolling = RolloutPolicy { replicas: 3, ..policy(StrategyKind::Rolling) };
    let mut story = Story::serving(&rolling);
    story.deploy("v2", &rolling);
    story.way_back(&[]);
    story.ready("v2", 1);
    story.acknowledge();
    story.after(60 + 30 + 9);
    assert_eq!(story.phase(), "Provisioning", "deadline, drain_timeout and stop_timeout");
    story.after(1);
    assert_eq!(story.phase(), "RollingBack");
}

#[test]
fn a_smoke_test_is_passed_before_the_first_traffic() {
    let policy = RolloutPolicy { smoke_tests: vec![hook("smoke")], ..judged_canary() };
    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.way_back(&[]);
    story.ready("v2", 1);
    assert_eq!((story.phase(), story.split()), ("Validating".into(), "v1 100%".into()));
    story.hook_ends(true);
    assert_eq!(story.split(), "v1 75%, v2 25%");
}

#[test]
fn an_instance_lost_during_a_pause_holds_the_next_weight_until_it_is_back_or_overdue() {
    let pause = Step::Pause { duration_ms: Some(10_000) };
    let mut policy = blue_green();
    policy.steps.insert(1, pause);
    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.run_to("Observing");
    story.see("v2", &[InstanceHealth::Unready, InstanceHealth::Unready]);
    assert_eq!(story.phase(), "RollingBack", "nobody is left");

    let mut story = Story::serving(&RolloutPolicy { replicas: 4, ..policy.clone() });
    story.deploy("v2", &RolloutPolicy { replicas: 4, ..policy });
    story.run_to("Observing");
    let half = [InstanceHealth::Ready, InstanceHealth::Unready];
    story.see("v2", &[half, half].concat());
    story.after(10);
    story.acknowledge();
    story.acknowledge();
    assert_eq!((story.phase(), story.split()), ("Shifting".into(), "v1 50%, v2 50%".into()));
    story.acknowledge();
    assert_eq!(story.split(), "v1 50%, v2 50%", "two cannot carry all");
    story.after(60);
    assert_eq!(story.phase(), "RollingBack", "a step that waits has a deadline");
}

#[test]
fn steps_that_stop_short_of_all_traffic_are_completed() {
    let weight = Step::SetWeight(Weight::from_percent(50));
    for steps in [vec![], vec![analysis(5)], vec![weight]] {
        let policy = RolloutPolicy { steps, ..policy(StrategyKind::Canary) };
        let ladder = crate::plan(&policy, crate::RequestKind::Deploy, Some(2));
        let end = [
            crate::PlanStep::Scale { candidate: 2, baseline: None },
            crate::PlanStep::SetWeight(Weight::ALL),
            crate::PlanStep::Promote,
            crate::PlanStep::DrainBaseline,
        ];
        assert!(ladder.ends_with(&end), "{ladder:?}");
    }
}

#[test]
fn retention_never_removes_the_last_good_release() {
    let policy = RolloutPolicy { revision_history_limit: 1, ..policy(StrategyKind::BlueGreen) };
    let mut story = Story::serving(&policy);
    for number in 2..=9 {
        story.deploy(&format!("v{number}"), &policy);
        story.run_to("DrainingBaseline");
        assert_eq!(story.service.releases.len(), 2, "the new one and the way back");
        story.run();
        let previous = format!("v{}", number - 1);
        let restorable = story.service.revision_to_restore(None).expect("always one");
        assert_eq!(version_of(&restorable.release), previous);
        assert!(story.service.releases.contains_key(&restorable.release));
    }
    assert_eq!(story.revisions(), ["v8", "v9"]);
    assert_eq!(story.service.releases.len(), 2, "older ones are forgotten");
}

#[test]
fn the_last_good_release_outlives_any_number_of_promotions_of_the_same_one() {
    let policy = policy(StrategyKind::BlueGreen);
    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.run();
    for replicas in [3, 2, 4, 2] {
        story.deploy("v2", &RolloutPolicy { replicas, ..policy.clone() });
        assert_eq!(story.wanted(), format!("v2={replicas}"));
    }
    let restorable = story.service.revision_to_restore(None).expect("v1 is kept");
    assert_eq!(version_of(&restorable.release), "v1");
    assert_eq!(story.revisions(), ["v1", "v2"], "scaling is no revision");
}

#[test]
fn duplicate_stale_and_foreign_events_change_nothing() {
    let policy = RolloutPolicy { smoke_tests: vec![hook("smoke")], ..judged_canary() };
    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.run_to("Observing");
    let (id, position) = (story.active(), story.position());
    let foreign = RolloutId(99);
    let verdict = |outcome| Box::new(crate::step::testing::verdict(outcome));
    let detail = String::new;
    let stale = [
        EventKind::Ticked,
        EventKind::TrafficAcknowledged { shift: 0 },
        EventKind::TrafficAcknowledged { shift: story.service.traffic.shift },
        EventKind::WayBackChecked { rollout: id, obstacles: vec!["late".to_owned()] },
        EventKind::WayBackChecked { rollout: foreign, obstacles: vec!["not ours".to_owned()] },
        EventKind::HookFinished { rollout: id, position: 2, passed: false, detail: detail() },
        EventKind::HookFinished { rollout: id, position, passed: true, detail: detail() },
        EventKind::HookFinished { rollout: foreign, position, passed: false, detail: detail() },
        EventKind::Judged { rollout: foreign, position, verdict: verdict(Outcome::Regressed) },
        EventKind::Judged { rollout: foreign, position, verdict: verdict(Outcome::Safe) },
        EventKind::Judged { rollout: id, position: position - 1, verdict: verdict(Outcome::Safe) },
        EventKind::Judged { rollout: id, position: 50, verdict: verdict(Outcome::Safe) },
    ];
    for kind in stale {
        let next = step(&story.service, &Event::from(kind.clone()), story.now).unwrap();
        assert_eq!(next.service, story.service, "{kind:?}");
        assert_eq!((next.effects, next.notes), (vec![], vec![]), "{kind:?}");
    }
}

#[test]
fn the_counts_of_the_candidate_are_kept_with_the_rollout() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    let counts = crate::Counts { requests: 40, failed: 1 };
    let event = Event { kind: EventKind::Ticked, counts: Some(counts) };
    let next = step(&story.service, &event, story.now + Duration::from_secs(1)).unwrap();
    assert_eq!(next.service.rollout.map(|rollout| rollout.counts), Some(counts));
}

#[test]
fn an_instance_nobody_asked_for_is_stopped() {
    let mut story = Story::serving(&judged_canary());
    story.ready("v7", 1);
    assert_eq!(story.wanted(), "v1=2 v7=0");
    story.ready("v7", 0);
    assert_eq!(story.wanted(), "v1=2");
}
