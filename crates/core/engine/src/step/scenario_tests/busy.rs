//! A second request while a rollout runs, and requests for what serves already.

use switchback_domain::strategy::{BusyPolicy, RolloutPolicy, StrategyKind};

use crate::service::QUEUE_MAX;
use crate::step::testing::{Story, judged_canary, policy};
use crate::{CauseKind, Ending, Rejection, RolloutId};

fn busy(on_busy: BusyPolicy) -> RolloutPolicy {
    RolloutPolicy { on_busy, ..judged_canary() }
}

#[test]
fn a_queued_rollout_starts_when_the_running_one_has_ended() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.run_to("Observing");
    story.deploy("v3", &busy(BusyPolicy::Queue));
    assert_eq!((story.service.queue.len(), story.phase()), (1, "Observing".into()));
    assert_eq!(story.service.releases.len(), 3, "the one that waits is known");
    assert_eq!(story.notes.last().map(String::as_str), Some("r3 waits for r2"));
    story.run();
    assert_eq!(story.revisions(), ["v1", "v2", "v3"]);
    assert_eq!(story.wanted(), "v3=2");
}

#[test]
fn a_queued_rollout_starts_after_a_rollback_too() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.run_to("Observing");
    story.deploy("v3", &busy(BusyPolicy::Queue));
    story.abort().unwrap();
    story.run();
    assert_eq!(story.revisions(), ["v1", "v3"]);
}

#[test]
fn what_waits_can_be_cancelled_alone() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.run_to("Observing");
    let [third, fourth] = ["v3", "v4"].map(|version| story.deploy(version, &judged_canary()));
    let before = story.service.clone();
    story.cancel(third.id).unwrap();
    assert_eq!(story.notes.last().map(String::as_str), Some("cancelled by ada: not today"));
    let (cancelled, after) = (story.service.ended.last().unwrap(), &story.service);
    assert_eq!((cancelled.rollout.request.id, cancelled.ending), (third.id, Ending::Withdrawn));
    assert_eq!(cancelled.rollout.cause.as_ref().unwrap().kind, CauseKind::Aborted);
    assert_eq!(after.queue.iter().map(|waits| waits.id).collect::<Vec<_>>(), [fourth.id]);
    assert!(!after.releases.contains_key(&third.release.id), "nothing refers to it any more");
    let running = (&after.rollout, &after.traffic, &after.pools);
    assert_eq!(running, (&before.rollout, &before.traffic, &before.pools), "it goes on");
    story.run();
    assert_eq!(story.revisions(), ["v1", "v2", "v4"]);
}

#[test]
fn what_does_not_wait_cannot_be_cancelled() {
    let mut story = Story::serving(&judged_canary());
    let first = story.service.ended[0].rollout.request.id;
    let running = story.deploy("v2", &judged_canary());
    let before = story.service.clone();
    for rollout in [first, running.id, RolloutId(9)] {
        let why = "it does not wait".to_owned();
        let refused = Rejection::NotNow { rollout, verb: "cancelled", why };
        assert_eq!(story.cancel(rollout), Err(refused));
    }
    assert_eq!(story.service, before);
}

#[test]
fn a_superseding_rollout_takes_the_running_one_back_first() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.run_to("Observing");
    story.deploy("v3", &busy(BusyPolicy::Queue));
    let last = story.deploy("v4", &busy(BusyPolicy::Supersede));
    assert_eq!((story.phase(), story.split()), ("RollingBack".into(), "v1 100%".into()));
    assert_eq!(story.service.queue.len(), 1);
    let queued = &story.service.ended.last().unwrap().rollout;
    assert_eq!(queued.request.id, RolloutId(3), "what waited will never start");
    assert_eq!(queued.cause.as_ref().unwrap().kind, CauseKind::Superseded);
    story.run_to("Verifying");
    assert_eq!(story.active(), last.id);
    assert_eq!(story.ending().0, Ending::Superseded);
    story.run();
    assert_eq!(story.revisions(), ["v1", "v4"]);
}

#[test]
fn superseding_what_is_promoted_takes_back_only_what_waits() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.deploy("v3", &judged_canary());
    story.run_to("DrainingBaseline");
    story.deploy("v4", &busy(BusyPolicy::Supersede));
    assert_eq!((story.phase(), story.split()), ("DrainingBaseline".into(), "v2 100%".into()));
    story.run();
    assert_eq!(story.revisions(), ["v1", "v2", "v4"]);
}

#[test]
fn superseding_what_is_being_taken_back_waits_for_its_end() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.run_to("Observing");
    story.abort().unwrap();
    story.deploy("v3", &busy(BusyPolicy::Supersede));
    assert_eq!(story.phase(), "RollingBack");
    story.run();
    assert_eq!(story.revisions(), ["v1", "v3"]);
    let endings: Vec<_> = story.service.ended.iter().map(|ended| ended.ending).collect();
    assert_eq!(endings, [Ending::Promoted, Ending::RolledBack, Ending::Promoted]);
}

#[test]
fn a_refused_rollout_changes_nothing() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    let before = story.service.clone();
    let answer = story.ask_again("v3", &busy(BusyPolicy::Refuse));
    assert_eq!(answer, Err(Rejection::Busy { running: RolloutId(2) }));
    assert_eq!(story.service, before);
}

#[test]
fn the_queue_has_a_limit() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.run_to("Observing");
    for _ in 0..QUEUE_MAX {
        story.deploy("v3", &judged_canary());
    }
    let answer = story.ask_again("v4", &judged_canary());
    assert_eq!(answer, Err(Rejection::QueueFull(QUEUE_MAX)));
    assert_eq!(story.ask_again("v4", &busy(BusyPolicy::Supersede)), Ok(()));
    assert_eq!(story.service.queue.len(), 1);
}

#[test]
fn the_same_release_in_the_queue_ends_when_its_turn_comes() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    let more = RolloutPolicy { replicas: 5, ..judged_canary() };
    let second = story.deploy("v2", &more);
    story.run();
    assert_eq!((story.split(), story.wanted()), ("v2 100%".into(), "v2=5".into()));
    assert_eq!(story.revisions(), ["v1", "v2"], "brought in once");
    let ended = story.service.ended.last().unwrap();
    assert_eq!((ended.rollout.request.id, ended.ending), (second.id, Ending::Promoted));
}

#[test]
fn a_deploy_during_the_hold_back_begins_at_once() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.run_to("DrainingBaseline");
    story.deploy("v3", &busy(BusyPolicy::Refuse));
    assert_eq!((story.phase(), story.active()), ("Verifying".into(), RolloutId(3)));
    assert_eq!(story.ending(), (Ending::Promoted, None));
    assert_eq!(story.wanted(), "v1=0 v2=2", "v2 is the way back now");
    story.run();
    assert_eq!((story.revisions().len(), story.wanted()), (3, "v3=2".into()));
}

#[test]
fn a_deploy_during_the_hold_back_does_not_overtake_those_that_wait() {
    let mut story = Story::serving(&judged_canary());
    story.deploy("v2", &judged_canary());
    story.deploy("v3", &judged_canary());
    story.run_to("DrainingBaseline");
    story.deploy("v4", &judged_canary());
    story.run();
    assert_eq!(story.split(), "v4 100%", "the newest wins");
    let order: Vec<_> =
        story.service.ended.iter().map(|ended| ended.rollout.request.id.0).collect();
    assert_eq!(order, [1, 2, 3, 4]);
}

#[test]
fn the_same_release_again_is_unchanged_or_scaled() {
    let mut story = Story::serving(&judged_canary());
    assert_eq!(story.ask_again("v1", &judged_canary()), Err(Rejection::Unchanged));
    let more = RolloutPolicy { replicas: 4, ..policy(StrategyKind::Canary) };
    story.deploy("v1", &more);
    assert_eq!((story.phase(), story.wanted()), ("Idle".into(), "v1=4".into()));
    assert_eq!(story.ask_again("v1", &more), Err(Rejection::Unchanged));
    assert_eq!(story.revisions(), ["v1"]);
}

#[test]
fn only_so_many_ended_rollouts_are_kept_in_the_state() {
    let mut story = Story::serving(&judged_canary());
    for _ in 0..crate::ENDED_MAX + 5 {
        story.deploy("v2", &judged_canary());
        story.abort().unwrap();
    }
    assert_eq!(story.service.ended.len(), crate::ENDED_MAX);
}
