//! A service, a clock and short words for events, so that a test reads like an incident report.
//! Checks after every event what must hold after every event.

use std::time::Duration;

use switchback_domain::strategy::RolloutPolicy;
use switchback_domain::{
    Finding, InstanceHealth, InstanceId, InstanceReport, Outcome, ReleaseId, Timestamp, Verdict,
};

use super::{key, release};
use crate::words::describe_split;
use crate::{
    Cause, Command, Effect, Ending, Event, EventKind, Rejection, Request, RequestKind, RolloutId,
    Service, describe_phase, outstanding, step, violations,
};

/// A service and a clock.
pub(crate) struct Story {
    pub(crate) service: Service,
    pub(crate) now: Timestamp,
    pub(crate) notes: Vec<String>,
    next: u64,
}

impl Story {
    /// A service that was never deployed.
    pub(crate) fn new() -> Self {
        let now = Timestamp::from_millis(1_000_000);
        Self { service: Service::new(key()), now, notes: Vec::new(), next: 1 }
    }

    /// v1 serves, by this policy.
    pub(crate) fn serving(policy: &RolloutPolicy) -> Self {
        let mut story = Self::new();
        story.deploy("v1", policy);
        story.run();
        assert_eq!((story.phase(), story.split()), ("Idle".into(), "v1 100%".into()));
        story
    }

    pub(crate) fn tell(&mut self, kind: EventKind) -> Result<(), Rejection> {
        let event = Event::from(kind);
        let transition = step(&self.service, &event, self.now)?;
        assert_eq!(violations(&transition.service), [], "after {event:?}");
        let before = outstanding(&self.service);
        for effect in outstanding(&transition.service) {
            let is_new = !before.contains(&effect);
            assert_eq!(transition.effects.contains(&effect), is_new, "{effect:?}");
        }
        self.notes.extend(transition.notes.into_iter().map(|note| note.text));
        self.service = transition.service;
        let again = step(&self.service, &EventKind::Ticked.into(), self.now).unwrap();
        assert_eq!(again.service, self.service, "a step goes as far as it can: {event:?}");
        Ok(())
    }

    fn hear(&mut self, kind: EventKind) {
        self.tell(kind).expect("observations are never refused");
    }

    pub(crate) fn request(&mut self, version: &str, policy: &RolloutPolicy) -> Request {
        let id = RolloutId(self.next);
        self.next += 1;
        Request {
            id,
            kind: RequestKind::Deploy,
            release: release(version),
            policy: policy.clone(),
            accept_no_rollback: false,
            by: "ada".to_owned(),
            asked_at: self.now,
            wall_ms: 0,
        }
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Result<(), Rejection> {
        self.tell(EventKind::Requested(Box::new(request.clone())))
    }

    pub(crate) fn deploy(&mut self, version: &str, policy: &RolloutPolicy) -> Request {
        let request = self.request(version, policy);
        self.ask(&request).expect("accepted");
        request
    }

    /// The answer to one more request.
    pub(crate) fn ask_again(
        &mut self,
        version: &str,
        policy: &RolloutPolicy,
    ) -> Result<(), Rejection> {
        let request = self.request(version, policy);
        self.ask(&request)
    }

    pub(crate) fn see(&mut self, version: &str, health: &[InstanceHealth]) {
        let release = release(version).id;
        let instances = (0..).zip(health).map(|(ordinal, health)| InstanceReport {
            id: InstanceId::new(&key(), &release, ordinal),
            address: None,
            health: *health,
            restarts: 0,
            reason: (*health != InstanceHealth::Ready).then(|| format!("{health:?}")),
        });
        let instances = instances.collect();
        self.hear(EventKind::PoolObserved { release, instances });
    }

    pub(crate) fn ready(&mut self, version: &str, count: usize) {
        self.see(version, &vec![InstanceHealth::Ready; count]);
    }

    pub(crate) fn acknowledge(&mut self) {
        let shift = self.service.traffic.shift;
        self.hear(EventKind::TrafficAcknowledged { shift });
    }

    pub(crate) fn way_back(&mut self, obstacles: &[&str]) {
        let rollout = self.active();
        let obstacles = obstacles.iter().map(|&text| text.to_owned()).collect();
        self.hear(EventKind::WayBackChecked { rollout, obstacles });
    }

    pub(crate) fn hook_ends(&mut self, passed: bool) {
        let (rollout, position) = (self.active(), self.position());
        let detail = "exit code 1".to_owned();
        self.hear(EventKind::HookFinished { rollout, position, passed, detail });
    }

    pub(crate) fn judge(&mut self, outcome: Outcome) {
        let (rollout, position) = (self.active(), self.position());
        self.hear(EventKind::Judged { rollout, position, verdict: Box::new(verdict(outcome)) });
    }

    pub(crate) fn after(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.hear(EventKind::Ticked);
    }

    pub(crate) fn promote(&mut self, full: bool) -> Result<(), Rejection> {
        self.tell(EventKind::Commanded(Command::Promote { full, by: "ada".to_owned() }))
    }

    pub(crate) fn pause(&mut self) -> Result<(), Rejection> {
        let by = "ada".to_owned();
        self.tell(EventKind::Commanded(Command::Pause { by, reason: None }))
    }

    pub(crate) fn resume(&mut self) -> Result<(), Rejection> {
        self.tell(EventKind::Commanded(Command::Resume { by: "ada".to_owned() }))
    }

    pub(crate) fn abort(&mut self) -> Result<(), Rejection> {
        let by = "ada".to_owned();
        self.tell(EventKind::Commanded(Command::Abort { by, reason: None }))
    }

    pub(crate) fn cancel(&mut self, rollout: RolloutId) -> Result<(), Rejection> {
        let (by, reason) = ("ada".to_owned(), Some("not today".to_owned()));
        self.tell(EventKind::Commanded(Command::Cancel { rollout, by, reason }))
    }

    /// The world does the next thing that is asked of it. Says whether there was one.
    pub(crate) fn obey(&mut self) -> bool {
        for effect in outstanding(&self.service) {
            let told = match effect {
                Effect::KeepPool { release, replicas } => self.match_pool(&release, replicas),
                Effect::Publish { .. } => {
                    self.acknowledge();
                    true
                }
                Effect::CheckWayBack { .. } => {
                    self.way_back(&[]);
                    true
                }
                Effect::RunHook { .. } => {
                    self.hook_ends(true);
                    true
                }
                Effect::Judge { step: Some((_, millis)), .. } => {
                    self.now = self.now + Duration::from_millis(millis);
                    self.judge(Outcome::Safe);
                    true
                }
                Effect::Judge { step: None, .. } | Effect::WakeAt(_) => false,
            };
            if told {
                return true;
            }
        }
        false
    }

    fn match_pool(&mut self, release: &ReleaseId, replicas: u32) -> bool {
        let pool = self.service.pool(release);
        let version = version_of(release);
        let differs = (pool.ready(), pool.present()) != (replicas, replicas);
        if differs {
            self.ready(&version, replicas as usize);
        }
        differs
    }

    /// The world does everything that is asked of it, and time passes, until the rollout ends or
    /// waits for somebody.
    pub(crate) fn run(&mut self) {
        self.run_to("Idle");
    }

    /// The same, until a phase is reached.
    pub(crate) fn run_to(&mut self, phase: &str) {
        for _ in 0..200 {
            if self.phase() == phase && (phase != "Idle" || outstanding_is_met(&self.service)) {
                return;
            }
            if self.obey() {
                continue;
            }
            let wakeup = outstanding(&self.service).into_iter().find_map(|effect| match effect {
                Effect::WakeAt(at) => Some(at),
                Effect::KeepPool { .. }
                | Effect::Publish { .. }
                | Effect::CheckWayBack { .. }
                | Effect::RunHook { .. }
                | Effect::Judge { .. } => None,
            });
            let Some(at) = wakeup else { return };
            self.now = self.now.max(at);
            self.hear(EventKind::Ticked);
        }
        panic!("no end: {} {}", self.phase(), self.notes.join("\n"));
    }

    pub(crate) fn active(&self) -> RolloutId {
        self.service.rollout.as_ref().map_or(RolloutId(0), |rollout| rollout.request.id)
    }

    pub(crate) fn position(&self) -> usize {
        self.service.rollout.as_ref().map_or(0, |rollout| rollout.position)
    }

    pub(crate) fn phase(&self) -> String {
        let rollout = self.service.rollout.as_ref();
        rollout.map_or("Idle", |rollout| describe_phase(&rollout.phase)).to_owned()
    }

    pub(crate) fn paused(&self) -> Option<String> {
        Some(self.service.rollout.as_ref()?.paused.as_ref()?.reason.clone())
    }

    pub(crate) fn split(&self) -> String {
        describe_split(&self.service)
    }

    /// `v1=2 v2=1`: instances wanted.
    pub(crate) fn wanted(&self) -> String {
        let pools = self.service.pools.iter();
        let mut words: Vec<_> =
            pools.map(|(id, pool)| format!("{}={}", version_of(id), pool.desired)).collect();
        words.sort();
        words.join(" ")
    }

    /// How the last rollout ended, and why it was taken back.
    pub(crate) fn ending(&self) -> (Ending, Option<Cause>) {
        let ended = self.service.ended.last().expect("a rollout ended");
        (ended.ending, ended.rollout.cause.clone())
    }

    pub(crate) fn revisions(&self) -> Vec<String> {
        self.service.revisions.iter().map(|revision| version_of(&revision.release)).collect()
    }
}

/// The version of a release that a story deployed.
pub(crate) fn version_of(id: &ReleaseId) -> String {
    let names = (1..=20).map(|number| format!("v{number}"));
    names.into_iter().find(|name| release(name).id == *id).expect("the tests use v1 to v20")
}

fn outstanding_is_met(service: &Service) -> bool {
    let met = service.pools.values().all(|pool| pool.present() == pool.desired);
    met && service.traffic.is_acknowledged()
}

pub(crate) fn verdict(outcome: Outcome) -> Verdict {
    let finding = Finding {
        rule: "error_rate".to_owned(),
        outcome,
        observed: Some(0.05),
        limit: 0.01,
        baseline: None,
        summary: format!("{outcome:?} by the numbers"),
    };
    Verdict {
        outcome,
        findings: vec![finding],
        candidate_requests: 100,
        candidate_failed: 5,
        baseline_requests: 300,
        baseline_failed: 0,
    }
}
