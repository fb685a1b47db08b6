//! People at random: requests, interference, and after the last fault somebody who helps.

use switchback_domain::Release;
use switchback_domain::strategy::RolloutPolicy;
use switchback_engine::{Command, EventKind, Phase, Request, RequestKind, RolloutId};

use super::Simulation;
use crate::agenda::Happening;
use crate::operator;

impl Simulation {
    pub(super) fn request(&mut self) -> Result<(), String> {
        if self.control.up {
            self.requests_left -= 1;
            let request = self.draw_request();
            let (id, replicas) = (request.id, request.policy.replicas);
            let stable = self.control.service.stable().map(|stable| stable.release.clone());
            let is_other = stable.as_ref() != Some(&request.release.id);
            let is_idle = self.control.service.rollout.as_ref().is_none_or(|r| r.promoted)
                && self.control.service.queue.is_empty();
            let is_taken = self.tell(EventKind::Requested(Box::new(request)))?;
            if is_taken && (is_other || !is_idle) {
                self.accepted.insert(id);
            } else if is_taken {
                self.trace.mark("same release", if replicas > 2 { "more" } else { "fewer" });
            }
        }
        if self.requests_left > 0 {
            self.soon(1_000, 400_000, Happening::Request);
        } else {
            self.soon(60_000, 300_000, Happening::Repair);
        }
        Ok(())
    }

    fn draw_request(&mut self) -> Request {
        let id = RolloutId(self.next_id);
        self.next_id += 1;
        let (kind, release, policy) = match self.random.between(0, 19) {
            0 | 1 => self.draw_repetition(),
            2..=5 => self.draw_rollback(),
            _ => None,
        }
        .unwrap_or_else(|| {
            let policy = operator::policy(&mut self.random);
            (RequestKind::Deploy, self.draw_release(), policy)
        });
        let (accept_no_rollback, asked_at) = (self.random.chance(100), self.now());
        let by = "ada".to_owned();
        Request { id, kind, release, policy, accept_no_rollback, by, asked_at, wall_ms: 0 }
    }

    /// What serves already, once more.
    fn draw_repetition(&mut self) -> Option<(RequestKind, Release, RolloutPolicy)> {
        let stable = self.control.service.stable()?.clone();
        let release = self.control.service.releases.get(&stable.release)?.clone();
        Some((RequestKind::Deploy, release, stable.policy))
    }

    fn draw_rollback(&mut self) -> Option<(RequestKind, Release, RolloutPolicy)> {
        let back = self.control.service.revision_to_restore(None)?.clone();
        let release = self.control.service.releases.get(&back.release)?.clone();
        self.trace.mark("requested", "a rollback");
        Some((RequestKind::Rollback, release, back.policy))
    }

    fn draw_release(&mut self) -> Release {
        if self.versions > 0 && self.random.chance(200) {
            let number = self.random.between(1, self.versions);
            return operator::release(&self.key, number);
        }
        self.new_version()
    }

    pub(super) fn interfere(&mut self) -> Result<(), String> {
        if self.repaired_at.is_some() {
            return Ok(());
        }
        if self.random.chance(self.faults.operator) {
            let command = operator::command(&mut self.random);
            let verb = match command {
                Command::Promote { full: true, .. } => "promote in full",
                Command::Promote { .. } => "promote",
                Command::Pause { .. } => "pause",
                Command::Resume { .. } => "resume",
                Command::Abort { .. } => "abort",
            };
            if self.tell(EventKind::Commanded(command))? {
                self.trace.mark("commanded", verb);
            }
        }
        self.soon(2_000, 60_000, Happening::Interfere);
        Ok(())
    }

    /// Whoever waits for a word gets one; what stays paused after one more try is given up.
    pub(super) fn help(&mut self) -> Result<(), String> {
        self.soon(20_000, 60_000, Happening::Help);
        let Some(rollout) = &self.control.service.rollout else { return Ok(()) };
        let (id, by) = (rollout.request.id, "help".to_owned());
        let command = if rollout.paused.is_some() && self.resumed.insert(id) {
            Command::Resume { by }
        } else if rollout.paused.is_some() {
            Command::Abort { by, reason: None }
        } else if rollout.phase == Phase::AwaitingApproval {
            Command::Promote { full: false, by }
        } else {
            return Ok(());
        };
        self.tell(EventKind::Commanded(command)).map(|_| ())
    }
}
