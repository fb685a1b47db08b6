//! What operators ask for: approval, pauses, promotions, aborts, rollbacks.

use switchback_domain::InstanceHealth::{Ready, Unready};
use switchback_domain::route::{Destination, Maintenance, RouteMode};
use switchback_domain::strategy::{RolloutPolicy, Step, StrategyKind};
use switchback_domain::{Outcome, Weight};

use crate::step::testing::{Story, hook, judged_canary, policy, version_of};
use crate::{
    CauseKind, Ending, EventKind, OPERATIONS_MAX, Operation, PlanStep, Rejection, Request,
    RequestKind, Service,
};

fn with_step(step: Step) -> RolloutPolicy {
    let weight = |percent| Step::SetWeight(Weight::from_percent(percent));
    let steps = vec![weight(25), step, weight(100)];
    RolloutPolicy { steps, ..policy(StrategyKind::Canary) }
}

#[test]
fn approval_is_waited_for_without_a_deadline() {
    for step in [Step::Approve, Step::Pause { duration_ms: None }] {
        let policy = with_step(step);
        let mut story = Story::serving(&policy);
        story.deploy("v2", &policy);
        story.run_to("AwaitingApproval");
        story.after(1_000_000);
        assert_eq!(story.phase(), "AwaitingApproval");
        story.promote(false).unwrap();
        assert_eq!(story.phase(), "Provisioning");
    }
}

#[test]
fn a_pause_ends_by_time_or_by_promote() {
    let policy = with_step(Step::Pause { duration_ms: Some(30_000) });
    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.run_to("Observing");
    story.after(29);
    assert_eq!(story.phase(), "Observing");
    story.after(1);
    assert_eq!(story.phase(), "Provisioning");

    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.run_to("Observing");
    story.promote(false).unwrap();
    assert_eq!(story.phase(), "Provisioning");
}

#[test]
fn without_auto_promote_all_traffic_waits_for_a_word_however_long() {
    let policy = RolloutPolicy { auto_promote: false, ..judged_canary() };
    let mut story = Story::serving(&RolloutPolicy { auto_promote: true, ..policy.clone() });
    story.deploy("v2", &policy);
    story.run_to("AwaitingApproval");
    assert_eq!((story.split(), story.revisions().len()), ("v2 100%".into(), 1));
    story.after(1_000_000);
    assert_eq!(story.phase(), "AwaitingApproval");
    story.promote(false).unwrap();
    assert_eq!(story.phase(), "DrainingBaseline", "waiting long is no missed deadline");
    assert_eq!(story.revisions(), ["v1", "v2"]);
}

#[test]
fn without_auto_promote_nobody_is_asked_about_a_first_version_or_a_rollback() {
    let policy = RolloutPolicy { auto_promote: false, ..judged_canary() };
    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.run_to("AwaitingApproval");
    story.promote(false).unwrap();
    story.run();
    let back = Request { kind: RequestKind::Rollback, ..story.request("v1", &policy) };
    story.ask(&back).unwrap();
    story.run();
    assert_eq!(story.revisions(), ["v1", "v2", "v1"]);
}

#[test]
fn a_promotion_in_full_at_the_last_step_promotes_once() {
    let policy = RolloutPolicy { auto_promote: false, ..judged_canary() };
    let mut story = Story::serving(&RolloutPolicy { auto_promote: true, ..policy.clone() });
    story.deploy("v2", &policy);
    story.run_to("AwaitingApproval");
    story.promote(true).unwrap();
    story.run();
    assert_eq!(story.revisions(), ["v1", "v2"]);
    assert_eq!(story.ask_again("v2", &policy), Err(Rejection::Unchanged));
}

#[test]
fn a_promotion_waits_for_the_instances_it_promotes() {
    let policy = RolloutPolicy { auto_promote: false, ..judged_canary() };
    let mut story = Story::serving(&RolloutPolicy { auto_promote: true, ..policy.clone() });
    story.deploy("v2", &policy);
    story.run_to("AwaitingApproval");
    story.see("v2", &[Ready, Unready]);
    story.promote(false).unwrap();
    assert_eq!((story.phase(), story.revisions().len()), ("Promoting".into(), 1));
    story.after(59);
    story.ready("v2", 2);
    assert_eq!(story.phase(), "DrainingBaseline");
}

#[test]
fn promote_in_full_skips_the_steps_but_not_the_capacity_nor_the_smoke_test() {
    let mut policy = RolloutPolicy { smoke_tests: vec![hook("smoke")], ..judged_canary() };
    policy.steps.insert(0, Step::Approve);
    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.way_back(&[]);
    assert_eq!(story.phase(), "AwaitingApproval");
    story.promote(true).unwrap();
    assert_eq!((story.phase(), story.wanted()), ("Provisioning".into(), "v1=2 v2=2".into()));
    story.ready("v2", 2);
    assert_eq!((story.phase(), story.split()), ("Validating".into(), "v1 100%".into()));
    story.hook_ends(true);
    assert_eq!(story.split(), "v2 100%");
    story.run();
    assert_eq!(
        (story.revisions(), story.wanted()),
        (vec!["v1".into(), "v2".into()], "v2=2".into())
    );
}

#[test]
fn promote_in_full_during_an_analysis_needs_no_further_word() {
    let policy = RolloutPolicy { auto_promote: false, ..judged_canary() };
    let mut story = Story::serving(&RolloutPolicy { auto_promote: true, ..policy.clone() });
    story.deploy("v2", &policy);
    story.run_to("Observing");
    story.promote(true).unwrap();
    story.run();
    assert_eq!(story.ending().0, Ending::Promoted);
    let stable = story.service.stable().expect("v2 was promoted");
    assert_eq!(stable.policy, policy, "the word was for this rollout, not for the policy");
}

#[test]
fn a_word_of_an_operators_stands_in_for_a_verdict() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.run_to("Observing");
    story.promote(false).unwrap();
    assert_eq!(
        (story.phase(), story.wanted()),
        ("Provisioning".into(), "v1=2 v2=2".into()),
        "on to the next step"
    );
}

#[test]
fn only_a_promotion_in_full_is_taken_while_traffic_moves() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.run_to("Shifting");
    assert!(story.promote(false).is_err(), "the step waits for nobody");
    story.promote(true).unwrap();
    story.run();
    assert_eq!(story.split(), "v2 100%");
    let judged = story.notes.iter().filter(|note| note.starts_with("safe")).count();
    assert_eq!(judged, 0, "{:?}", story.notes);
}

#[test]
fn promote_is_refused_where_nobody_is_waited_for() {
    let policy = RolloutPolicy { smoke_tests: vec![hook("smoke")], ..judged_canary() };
    let mut story = Story::serving(&policy);
    assert_eq!(story.promote(false), Err(Rejection::NoRollout));
    story.deploy("v2", &policy);
    for phase in ["Verifying", "Provisioning", "Validating", "Shifting"] {
        story.run_to(phase);
        assert!(matches!(story.promote(false), Err(Rejection::NotNow { .. })), "{phase}");
    }
}

#[test]
fn a_pause_stops_the_climb_and_its_deadlines() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.way_back(&[]);
    story.after(50);
    story.pause().unwrap();
    assert!(story.pause().is_err(), "paused already");
    story.after(3600);
    assert_eq!(story.phase(), "Provisioning");
    story.ready("v2", 1);
    assert_eq!(story.split(), "v1 100%", "ready, but paused");
    story.resume().unwrap();
    assert_eq!(story.split(), "v1 75%, v2 25%");
    assert!(story.resume().is_err(), "not paused");
}

#[test]
fn time_spent_paused_counts_towards_no_deadline_and_no_delay() {
    let policy = with_step(Step::Pause { duration_ms: Some(30_000) });
    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.run_to("Observing");
    story.after(20);
    story.pause().unwrap();
    story.after(500);
    story.resume().unwrap();
    story.after(9);
    assert_eq!(story.phase(), "Observing");
    story.after(1);
    assert_eq!(story.phase(), "Provisioning");
    story.after(50);
    story.pause().unwrap();
    story.after(500);
    story.resume().unwrap();
    story.after(9);
    assert_eq!(story.phase(), "Provisioning");
    story.after(1);
    assert_eq!(story.phase(), "RollingBack");
}

#[test]
fn what_moves_during_a_pause_has_waited_only_since_then() {
    let policy = RolloutPolicy { replicas: 8, ..with_step(Step::Approve) };
    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.way_back(&[]);
    story.after(10);
    story.pause().unwrap();
    story.after(3600);
    story.ready("v2", 1);
    story.after(20);
    story.resume().unwrap();
    story.after(59);
    assert_eq!(story.phase(), "Provisioning");
    story.after(1);
    assert_eq!(story.phase(), "RollingBack", "an hour of pause is no hour more to wait");
}

#[test]
fn a_resume_after_a_deadline_that_passed_at_the_pause_grants_another_one() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.way_back(&[]);
    story.now = story.now + std::time::Duration::from_hours(1);
    story.pause().unwrap();
    story.resume().unwrap();
    assert_eq!(story.phase(), "Provisioning", "the word is newer than the deadline");
    story.after(59);
    assert_eq!(story.phase(), "Provisioning");
    story.after(1);
    assert_eq!(story.phase(), "Idle", "taken back");
}

#[test]
fn a_paused_candidate_that_regresses_is_taken_back_all_the_same() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.run_to("Observing");
    story.pause().unwrap();
    story.judge(Outcome::Regressed);
    assert_eq!((story.phase(), story.split()), ("RollingBack".into(), "v1 100%".into()));
}

#[test]
fn abort_works_in_every_phase_before_the_promotion() {
    let mut policy =
        RolloutPolicy { smoke_tests: vec![hook("smoke")], auto_promote: false, ..judged_canary() };
    let first = RolloutPolicy { auto_promote: true, ..policy.clone() };
    policy.steps.insert(2, Step::Approve);
    let mut seen = std::collections::BTreeSet::new();
    for rounds in 0..30 {
        let mut story = Story::serving(&first);
        story.deploy("v2", &policy);
        for _ in 0..rounds {
            if !story.obey() && story.phase() == "AwaitingApproval" && story.split() != "v2 100%" {
                story.promote(false).unwrap();
            }
        }
        seen.insert(story.phase());
        story.abort().unwrap();
        assert!(story.abort().is_err(), "it is being taken back");
        assert!(story.pause().is_err() && story.promote(true).is_err());
        story.run();
        assert_eq!((story.split(), story.wanted()), ("v1 100%".into(), "v1=2".into()));
        let (ending, cause) = story.ending();
        assert_eq!((ending, cause.unwrap().kind), (Ending::RolledBack, CauseKind::Aborted));
    }
    let all =
        ["AwaitingApproval", "Observing", "Provisioning", "Shifting", "Validating", "Verifying"];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
}

#[test]
fn abort_after_the_promotion_is_refused_with_the_way_to_do_it() {
    let mut story = Story::serving(&judged_canary());
    assert_eq!(story.abort(), Err(Rejection::NoRollout));
    story.deploy("v2", &judged_canary());
    story.run_to("DrainingBaseline");
    let refusal = story.abort().unwrap_err().to_string();
    assert!(refusal.contains("switchback rollback"), "{refusal}");
}

#[test]
fn a_rollback_to_an_earlier_revision_takes_the_short_way() {
    let policy = RolloutPolicy { smoke_tests: vec![hook("smoke")], ..judged_canary() };
    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.run();
    let mut request = story.request("v1", &policy);
    request.kind = RequestKind::Rollback;
    story.ask(&request).unwrap();
    let plan = &story.service.rollout.as_ref().unwrap().plan;
    assert_eq!(plan.len(), 5, "{plan:?}");
    assert_eq!(plan[0], PlanStep::Scale { candidate: 2, baseline: None });
    story.run();
    assert_eq!((story.split(), story.wanted()), ("v1 100%".into(), "v1=2".into()));
    assert_eq!(story.revisions(), ["v1", "v2", "v1"]);
    let forward = story.service.revision_to_restore(None).unwrap();
    assert_eq!(version_of(&forward.release), "v2", "and the way forward again");
}

#[test]
fn a_rollback_during_the_hold_back_finds_the_old_version_still_up() {
    let policy = judged_canary();
    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.run_to("DrainingBaseline");
    let mut request = story.request("v1", &policy);
    request.kind = RequestKind::Rollback;
    story.ask(&request).unwrap();
    story.way_back(&[]);
    assert_eq!((story.phase(), story.split()), ("Shifting".into(), "v1 100%".into()));
    assert_eq!(story.wanted(), "v1=2 v2=2");
}

fn operated(mode: RouteMode, by: &str) -> EventKind {
    EventKind::Operated(Box::new(Operation { mode, by: by.to_owned(), reason: None, wall_ms: 0 }))
}

#[test]
fn a_version_that_is_sent_all_requests_keeps_its_instances() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.run_to("DrainingBaseline");
    let to = Destination::Version(crate::step::testing::release("v1").id);
    story.tell(operated(RouteMode::Divert { to }, "ada")).unwrap();
    story.deploy("v3", &judged_canary());
    assert_eq!(story.wanted(), "v1=2 v2=2");
    story.tell(operated(RouteMode::Serve, "ada")).unwrap();
    assert_eq!(story.wanted(), "v1=0 v2=2");
}

#[test]
fn an_old_version_that_is_sent_all_requests_outlives_its_hold_back_time() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.run_to("DrainingBaseline");
    let to = Destination::Version(crate::step::testing::release("v1").id);
    story.tell(operated(RouteMode::Divert { to }, "ada")).unwrap();
    story.after(3600);
    assert_eq!(story.phase(), "Idle");
    assert_eq!(story.wanted(), "v1=2 v2=2");
    story.tell(operated(RouteMode::Serve, "ada")).unwrap();
    assert_eq!(story.wanted(), "v1=0 v2=2");
}

#[test]
fn what_a_route_does_is_kept_without_a_rollout_noticing() {
    let policy = judged_canary();
    let story = Story::serving(&policy);
    let step = |service: &Service, kind: EventKind| {
        crate::step(service, &kind.into(), switchback_domain::Timestamp::default()).unwrap()
    };
    let page = Maintenance { page: "<p>long</p>".to_owned(), ..Maintenance::default() };
    let on = step(&story.service, operated(RouteMode::Maintenance(page), "anna"));
    assert_eq!(on.notes[0].text, "in maintenance, clients told to come again in 1m, by anna");
    assert_eq!((&on.service.traffic, on.effects.len()), (&story.service.traffic, 0));
    let stable = story.service.stable().unwrap().release.clone();
    let to = Destination::Version(stable);
    let diverted = step(&on.service, operated(RouteMode::Divert { to }, "ben"));
    assert_eq!(diverted.notes[0].text, "diverted to version v1, by ben");
    let past = &diverted.service.operations[0].mode;
    assert_eq!(*past, RouteMode::Maintenance(Maintenance::default()), "its page is not kept");
    let mut service = diverted.service;
    for _ in 0..2 * OPERATIONS_MAX {
        service = step(&service, operated(RouteMode::Isolate, "cleo")).service;
    }
    assert_eq!((service.operations.len(), service.mode()), (OPERATIONS_MAX, RouteMode::Isolate));
    let service = step(&service, operated(RouteMode::Serve, "cleo")).service;
    assert_eq!(service.mode(), RouteMode::Serve);
}
