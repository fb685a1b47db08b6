//! Ways back: every reason for one, and what may stand in its way.

use switchback_domain::InstanceHealth::{self, CrashLoop, Exited, Ready, Starting, Unready};
use switchback_domain::strategy::{FailureAction, RolloutPolicy, Step, StrategyKind};
use switchback_domain::{Outcome, Weight};

use crate::step::testing::{Story, hook, judged_canary, policy};
use crate::{CauseKind, Ending, EventKind};

fn rolling_of_three() -> RolloutPolicy {
    RolloutPolicy { replicas: 3, ..policy(StrategyKind::Rolling) }
}

/// A rolling update from three instances of v1 to v2 that has come so many instances far.
fn rolled_on_by(count: usize) -> Story {
    let mut story = Story::serving(&rolling_of_three());
    story.deploy("v2", &rolling_of_three());
    story.way_back(&[]);
    for new in 1..=count {
        story.ready("v2", new);
        story.acknowledge();
        story.ready("v1", 3 - new);
    }
    story
}

/// It ends rolled back to v1, which never lost an instance, and v2 is gone.
fn rolled_back(mut story: Story, cause: CauseKind) -> Story {
    assert!(["RollingBack", "Idle"].contains(&story.phase().as_str()), "{}", story.phase());
    assert!(story.wanted().starts_with("v1=2"), "{}", story.wanted());
    story.run();
    assert_eq!((story.split(), story.wanted()), ("v1 100%".into(), "v1=2".into()));
    let (ending, why) = story.ending();
    assert_eq!((ending, why.unwrap().kind), (Ending::RolledBack, cause));
    story
}

#[test]
fn a_canary_that_regresses_is_taken_back_at_each_step() {
    let policy = RolloutPolicy { smoke_tests: vec![hook("smoke")], ..judged_canary() };
    let mut reached = 0;
    for rounds in 1..20 {
        let mut story = Story::serving(&policy);
        story.deploy("v2", &policy);
        for _ in 0..rounds {
            story.obey();
        }
        if story.phase() == "DrainingBaseline" {
            break;
        }
        reached = reached.max(story.position());
        story.judge(Outcome::Regressed);
        rolled_back(story, CauseKind::Regressed);
    }
    assert!(reached >= 6, "every step was tried, up to {reached}");
}

#[test]
fn a_version_that_never_becomes_ready_is_taken_back_at_its_deadline() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.way_back(&[]);
    story.see("v2", &[Starting]);
    story.after(59);
    assert_eq!((story.phase(), story.split()), ("Provisioning".into(), "v1 100%".into()));
    story.after(1);
    let story = rolled_back(story, CauseKind::NotReady);
    let text = story.ending().1.unwrap().text;
    assert_eq!(text, "0 of 1 instances of v2 ready after 1m: Starting");
}

#[test]
fn an_instance_that_comes_and_goes_is_no_progress() {
    let mut story = Story::serving(&rolling_of_three());
    story.deploy("v2", &RolloutPolicy { replicas: 2, ..judged_canary() });
    story.way_back(&[]);
    story.run_to("Observing");
    story.judge(Outcome::Safe);
    assert_eq!(story.phase(), "Provisioning");
    for _ in 0..12 {
        story.see("v2", &[Ready, Unready]);
        story.after(5);
        story.see("v2", &[Ready, Starting]);
        story.see("v1", &[Ready, Ready, Unready]);
        story.ready("v1", 3);
    }
    assert_eq!(story.phase(), "RollingBack");
}

#[test]
fn a_version_that_ends_again_and_again_fails_fast() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.way_back(&[]);
    story.see("v2", &[Exited]);
    assert_eq!(story.phase(), "Provisioning", "one exit is not a loop");
    story.see("v2", &[CrashLoop]);
    rolled_back(story, CauseKind::CrashLoop);
}

#[test]
fn instances_that_nobody_has_asked_for_yet_break_nothing() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.see("v2", &[CrashLoop]);
    assert_eq!(story.phase(), "Verifying", "left over from an earlier rollout");
}

#[test]
fn what_was_seen_before_is_not_told_again() {
    let mut story = Story::serving(&judged_canary());
    story.see("v1", &[Ready, Unready]);
    let told = story.notes.len();
    story.see("v1", &[Ready, Unready]);
    assert_eq!(story.notes.len(), told, "{:?}", story.notes);
}

#[test]
fn a_version_that_becomes_ready_and_then_dies_is_taken_back() {
    for health in [Unready, Exited, InstanceHealth::Stopping] {
        let mut story = Story::serving(&judged_canary());
        story.deploy("v2", &judged_canary());
        story.run_to("Observing");
        story.see("v2", &[health]);
        rolled_back(story, CauseKind::Died);
    }
}

#[test]
fn a_failed_smoke_test_keeps_traffic_away() {
    let policy = RolloutPolicy { smoke_tests: vec![hook("smoke")], ..judged_canary() };
    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.run_to("Validating");
    story.hook_ends(false);
    assert_eq!(story.split(), "v1 100%");
    let story = rolled_back(story, CauseKind::CheckFailed);
    assert_eq!(story.ending().1.unwrap().text, "smoke failed: exit code 1");
}

#[test]
fn a_hook_that_says_nothing_is_overdue_in_time() {
    let policy = RolloutPolicy { smoke_tests: vec![hook("smoke")], ..judged_canary() };
    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.run_to("Validating");
    story.after(64);
    assert_eq!(story.phase(), "Validating");
    story.after(1);
    rolled_back(story, CauseKind::Deadline);
}

#[test]
fn a_hook_that_passed_while_the_control_plane_slept_has_passed() {
    let policy = RolloutPolicy { smoke_tests: vec![hook("smoke")], ..judged_canary() };
    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.run_to("Validating");
    story.now = story.now + std::time::Duration::from_hours(1);
    story.hook_ends(true);
    assert_eq!(story.phase(), "Shifting");
}

#[test]
fn no_evidence_is_no_pass() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.run_to("Observing");
    story.judge(Outcome::Undecided);
    story.after(119);
    assert_eq!(story.phase(), "Observing");
    story.after(1);
    let story = rolled_back(story, CauseKind::NoEvidence);
    assert!(story.ending().1.unwrap().text.contains("Undecided by the numbers"));
}

#[test]
fn a_data_plane_that_never_acknowledges_stops_the_climb_and_the_way_back_until_it_does() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.way_back(&[]);
    story.ready("v2", 1);
    story.after(60);
    assert_eq!((story.phase(), story.split()), ("RollingBack".into(), "v1 100%".into()));
    assert_eq!(story.wanted(), "v1=2 v2=1", "the old table may still be served");
    let why = story.service.rollout.as_ref().unwrap().cause.clone().unwrap();
    let text = "\"weight 25%\" made no progress for 1m";
    assert_eq!((why.kind, why.text.as_str()), (CauseKind::Deadline, text));
    story.after(60);
    assert_eq!(story.phase(), "Stuck");
    assert_eq!(story.wanted(), "v1=2 v2=1");
    story.acknowledge();
    assert_eq!((story.phase(), story.wanted()), ("RollingBack".into(), "v1=2 v2=0".into()));
    story.run();
    assert_eq!(story.ending().0, Ending::RolledBack);
}

#[test]
fn a_rolling_update_comes_back_no_faster_than_its_old_instances_do() {
    let mut story = rolled_on_by(2);
    assert_eq!(
        (story.wanted(), story.split()),
        ("v1=1 v2=3".into(), "v1 33.34%, v2 66.66%".into())
    );
    story.abort().unwrap();
    assert_eq!(story.wanted(), "v1=3 v2=3", "capacity first");
    assert_eq!(story.split(), "v1 33.34%, v2 66.66%", "one of three carries no more");
    story.see("v1", &[Ready, Starting, Starting]);
    assert_eq!(story.split(), "v1 33.34%, v2 66.66%");
    story.see("v1", &[Ready, Ready, Starting]);
    assert_eq!(story.split(), "v1 66.66%, v2 33.34%");
    story.acknowledge();
    story.see("v1", &[Ready, Unready, Starting]);
    assert_eq!(story.split(), "v1 66.66%, v2 33.34%", "never less than before");
    assert_eq!(story.wanted(), "v1=3 v2=3");
    story.ready("v1", 3);
    assert_eq!((story.split(), story.wanted()), ("v1 100%".into(), "v1=3 v2=3".into()));
    story.acknowledge();
    assert_eq!(story.wanted(), "v1=3 v2=0");
    story.ready("v2", 0);
    assert_eq!(story.ending().0, Ending::RolledBack);
}

#[test]
fn old_instances_that_do_not_come_back_in_time_leave_all_traffic_to_those_that_do() {
    let mut story = rolled_on_by(2);
    story.abort().unwrap();
    story.see("v1", &[Ready, Starting, Starting]);
    story.after(59);
    assert_eq!(story.split(), "v1 33.34%, v2 66.66%", "they may still come");
    story.after(1);
    assert_eq!(story.split(), "v1 100%", "short of instances is better than bad");
    let reason = "not ready any more (Unready)";
    story.see("v1", &[Unready, Starting, Starting]);
    assert!(story.notes.iter().any(|note| note.ends_with(reason)), "{:?}", story.notes);
}

#[test]
fn when_the_candidate_is_dead_the_baseline_takes_all_with_whatever_it_has() {
    let mut story = rolled_on_by(1);
    story.see("v2", &[CrashLoop]);
    assert_eq!(story.split(), "v1 100%");
}

#[test]
fn instances_that_drain_are_given_their_time_before_a_rollback_is_called_stuck() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.run_to("Observing");
    story.judge(Outcome::Regressed);
    story.acknowledge();
    story.after(30 + 10 + 59);
    assert_eq!((story.phase(), story.wanted()), ("RollingBack".into(), "v1=2 v2=0".into()));
    story.after(1);
    assert_eq!(story.phase(), "Stuck");
    story.run();
    assert_eq!(story.ending().0, Ending::RolledBack);
}

#[test]
fn a_baseline_that_cannot_come_back_is_stuck_loudly_and_heals_by_itself() {
    let mut story = rolled_on_by(1);
    story.ready("v2", 2);
    story.acknowledge();
    story.see("v1", &[Exited, CrashLoop]);
    story.judge(Outcome::Regressed);
    assert_eq!((story.phase(), story.wanted()), ("RollingBack".into(), "v1=3 v2=2".into()));
    story.after(60);
    assert_eq!(story.phase(), "Stuck");
    let need = "3 ready instances of the baseline, has 0: CrashLoop";
    assert!(story.notes.iter().any(|note| note.contains(need)), "{:?}", story.notes);
    assert_eq!(story.split(), "v1 33.34%, v2 66.66%", "the candidate serves what it can");
    story.after(3600);
    assert_eq!(story.phase(), "Stuck");
    story.see("v1", &[Ready, Ready, CrashLoop]);
    assert_eq!(
        (story.phase(), story.split()),
        ("RollingBack".into(), "v1 66.66%, v2 33.34%".into())
    );
    story.run();
    assert_eq!(story.ending().0, Ending::RolledBack);
}

#[test]
fn an_old_instance_that_comes_back_when_all_is_stuck_gets_all_traffic() {
    let mut story = rolled_on_by(2);
    story.abort().unwrap();
    story.see("v1", &[Unready]);
    story.after(60);
    assert_eq!(story.phase(), "Stuck");
    story.ready("v1", 1);
    assert_eq!((story.phase(), story.split()), ("RollingBack".into(), "v1 100%".into()));
}

#[test]
fn each_instance_that_goes_gives_the_next_one_its_time() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.run_to("Observing");
    story.ready("v2", 2);
    story.abort().unwrap();
    story.acknowledge();
    story.after(30 + 10 + 59);
    story.ready("v2", 1);
    story.after(59);
    assert_eq!(story.phase(), "RollingBack");
    story.after(1);
    assert_eq!(story.phase(), "Stuck");
}

#[test]
fn a_hook_that_fails_while_the_rollout_is_taken_back_pauses_nothing() {
    let failure_action = FailureAction::Pause;
    let smoke_tests = vec![hook("smoke")];
    let policy = RolloutPolicy { failure_action, smoke_tests, ..judged_canary() };
    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.run_to("Validating");
    story.abort().unwrap();
    story.hook_ends(false);
    assert_eq!((story.phase(), story.paused()), ("RollingBack".into(), None));
}

#[test]
fn a_hook_answers_once_and_for_its_own_step() {
    let policy = RolloutPolicy { smoke_tests: vec![hook("smoke")], ..judged_canary() };
    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.run_to("Validating");
    let (rollout, position) = (story.active(), story.position() + 1);
    let detail = String::new();
    story.tell(EventKind::HookFinished { rollout, position, passed: false, detail }).unwrap();
    assert_eq!(story.phase(), "Validating", "another step's answer");
    story.pause().unwrap();
    story.hook_ends(true);
    story.hook_ends(false);
    assert_eq!(story.phase(), "Validating", "it has passed");
}

#[test]
fn a_check_of_the_way_back_that_does_not_answer_is_overdue_and_said_in_round_numbers() {
    for (deadline, told) in [(1_500, "1500ms"), (60_004, "1m")] {
        let progress_deadline = std::time::Duration::from_millis(deadline);
        let policy = RolloutPolicy { progress_deadline, ..judged_canary() };
        let mut story = Story::serving(&policy);
        story.deploy("v2", &policy);
        story.after(61);
        let (ending, cause) = story.ending();
        let cause = cause.unwrap();
        let text = format!("\"verify the way back\" made no progress for {told}");
        assert_eq!((ending, cause.kind), (Ending::RolledBack, CauseKind::Deadline));
        assert_eq!(cause.text, text);
    }
}

#[test]
fn without_a_baseline_a_failure_is_withdrawn() {
    let mut story = Story::new();
    story.deploy("v1", &judged_canary());
    story.see("v1", &[CrashLoop, Starting]);
    assert_eq!((story.phase(), story.wanted()), ("Withdrawing".into(), "v1=0".into()));
    story.run();
    assert_eq!((story.wanted(), story.split()), (String::new(), "nobody serves".into()));
    assert_eq!(story.ending().0, Ending::Withdrawn);
    story.deploy("v2", &judged_canary());
    story.run();
    assert_eq!(story.split(), "v2 100%");
}

#[test]
fn a_first_deployment_that_dies_with_traffic_is_withdrawn_after_the_traffic() {
    let mut story = Story::new();
    story.deploy("v1", &judged_canary());
    story.ready("v1", 2);
    story.see("v1", &[Exited, Exited]);
    assert_eq!((story.split(), story.wanted()), ("nobody serves".into(), "v1=2".into()));
    story.acknowledge();
    assert_eq!(story.wanted(), "v1=0");
    story.run();
    assert_eq!(story.ending().0, Ending::Withdrawn);
}

#[test]
fn without_a_verified_way_back_nothing_begins() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.way_back(&["the old binary is gone"]);
    assert_eq!(story.wanted(), "v1=2");
    let (ending, cause) = story.ending();
    assert_eq!((ending, cause.unwrap().kind), (Ending::Withdrawn, CauseKind::NotVerified));
}

#[test]
fn a_missing_way_back_can_be_accepted() {
    let mut story = Story::serving(&judged_canary());
    let mut request = story.request("v2", &judged_canary());
    request.accept_no_rollback = true;
    story.ask(&request).unwrap();
    story.way_back(&["the old binary is gone"]);
    assert_eq!(story.phase(), "Provisioning");
    assert!(story.notes.iter().any(|note| note.contains("accepted with --accept-no-rollback")));
}

#[test]
fn failure_action_pause_stops_where_it_is_and_a_resume_grants_a_new_deadline() {
    let policy = RolloutPolicy { failure_action: FailureAction::Pause, ..judged_canary() };
    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.way_back(&[]);
    story.after(60);
    assert_eq!(story.phase(), "Provisioning");
    assert!(story.paused().unwrap().contains("0 of 1 instances of v2 ready"));
    story.after(3600);
    story.resume().unwrap();
    assert_eq!(story.paused(), None, "the same deadline does not strike twice");
    story.after(59);
    assert_eq!(story.paused(), None);
    story.ready("v2", 1);
    story.acknowledge();
    story.judge(Outcome::Regressed);
    assert_eq!((story.phase(), story.split()), ("Observing".into(), "v1 75%, v2 25%".into()));
    assert!(story.paused().is_some());
    story.abort().unwrap();
    rolled_back(story, CauseKind::Aborted);
}

#[test]
fn failure_action_continue_goes_on_after_a_bad_verdict_but_skips_no_hook() {
    let mut policy = RolloutPolicy { failure_action: FailureAction::Continue, ..judged_canary() };
    policy.steps.insert(1, Step::Hook(hook("migrate")));
    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.way_back(&[]);
    story.ready("v2", 1);
    story.acknowledge();
    let position = story.position();
    story.judge(Outcome::Regressed);
    assert_eq!(story.position(), position, "the hook has not answered");
    story.hook_ends(true);
    story.judge(Outcome::Regressed);
    assert_eq!(story.phase(), "Provisioning", "written down, going on");
    story.see("v2", &[Starting, Starting]);
    assert!(story.paused().unwrap().contains("cannot go on"));
}

#[test]
fn a_weight_needs_the_instances_that_carry_it_also_after_they_were_counted() {
    let mut policy = policy(StrategyKind::BlueGreen);
    policy.steps = [10, 100].map(|percent| Step::SetWeight(Weight::from_percent(percent))).to_vec();
    let mut story = Story::serving(&policy);
    story.deploy("v2", &policy);
    story.way_back(&[]);
    story.ready("v2", 2);
    story.see("v2", &[Ready, Unready]);
    story.acknowledge();
    assert_eq!(story.split(), "v1 90%, v2 10%", "half of them cannot carry all");
    story.ready("v2", 2);
    assert_eq!(story.split(), "v2 100%");
}
