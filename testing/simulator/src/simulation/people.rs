//! People at random: requests, interference, and after the last fault somebody who helps.

use std::sync::Arc;

use switchback_control::Refusal;
use switchback_domain::route::RouteMode;
use switchback_domain::strategy::RolloutPolicy;
use switchback_domain::{Release, ServiceKey};
use switchback_engine::{
    Command, EventKind, Operation, Phase, Request, RequestKind, RolloutId, Service,
};

use super::Simulation;
use crate::agenda::Happening;
use crate::faults::Fault;
use crate::names::rejection_name;
use crate::nature::Nature;
use crate::operator;

impl Simulation {
    /// Has the control plane take something in; says whether it did.
    pub(super) fn ask(&mut self, key: &ServiceKey, kind: EventKind) -> bool {
        let Some(life) = &mut self.life else { return false };
        let result = life.control.ask(key, kind);
        match &result {
            Ok(()) => {}
            Err(Refusal::Rejected(rejection)) => {
                self.line(|| format!("refused: {rejection}"));
                self.mark("refused", rejection_name(rejection));
            }
            Err(Refusal::Journal(error)) => {
                self.line(|| format!("could not be written: {error}"));
                self.mark("refused", "could not be written");
            }
        }
        self.settle();
        result.is_ok()
    }

    pub(super) fn request(&mut self) {
        if self.life.is_some() {
            self.requests_left -= 1;
            let key = self.random.pick(&self.keys).clone();
            let service = self.service(&key);
            let request = self.draw_request(&key, &service);
            let replicas = request.policy.replicas;
            let stable = service.stable();
            let is_same = stable.is_some_and(|stable| stable.release == request.release.id);
            let was = stable.map_or(0, |stable| stable.policy.replicas);
            let is_idle = service.rollout.is_none() && service.queue.is_empty();
            let is_taken = self.ask(&key, EventKind::Requested(Box::new(request)));
            if is_taken && is_same && is_idle {
                let detail = if replicas > was { "more" } else { "fewer" };
                self.mark("same release", detail);
            }
        }
        if self.requests_left > 0 {
            self.soon(500, 90_000, Happening::Request);
        } else {
            self.soon(10_000, 90_000, Happening::Repair);
        }
    }

    pub(super) fn service(&self, key: &ServiceKey) -> Arc<Service> {
        let known = self.life.as_ref().and_then(|life| life.control.services().get(key));
        known.cloned().unwrap_or_else(|| Arc::new(Service::new(key.clone())))
    }

    fn draw_request(&mut self, key: &ServiceKey, service: &Service) -> Request {
        let Some(life) = &mut self.life else { unreachable!("asked for while it is up") };
        let (id, asked_at): (RolloutId, _) = (life.control.take_id(), life.control.now());
        let (kind, release, policy) = match self.random.between(0, 19) {
            0 | 1 => repetition(service),
            2..=5 => self.draw_rollback(service),
            _ => None,
        }
        .unwrap_or_else(|| {
            let policy = operator::policy(&mut self.random);
            (RequestKind::Deploy, self.draw_release(key, service), policy)
        });
        let accept_no_rollback = self.random.chance(100);
        let by = "ada".to_owned();
        Request { id, kind, release, policy, accept_no_rollback, by, asked_at, wall_ms: 0 }
    }

    fn draw_rollback(
        &mut self,
        service: &Service,
    ) -> Option<(RequestKind, Release, RolloutPolicy)> {
        let back = service.revision_to_restore(None)?.clone();
        let release = service.releases.get(&back.release)?.clone();
        self.mark("requested", "a rollback");
        let replicas = service.stable().map_or(1, |stable| stable.policy.replicas);
        Some((RequestKind::Rollback, release, RolloutPolicy { replicas, ..back.policy }))
    }

    fn draw_release(&mut self, key: &ServiceKey, service: &Service) -> Release {
        let known: Vec<_> = service.releases.values().cloned().collect();
        if !known.is_empty() && self.random.chance(200) {
            return self.random.pick(&known).clone();
        }
        self.new_version(key, service)
    }

    /// A version that may or may not work; the first ones mostly do.
    fn new_version(&mut self, key: &ServiceKey, service: &Service) -> Release {
        self.versions += 1;
        let port = self.keys.iter().position(|found| found == key).unwrap_or(0);
        let port = 8_000 + u16::try_from(port).unwrap_or(0);
        let release = operator::release(key, self.versions, port);
        let is_spared = service.stable().is_none() && self.random.chance(750);
        let is_bad = !is_spared && self.dice.strikes(Fault::BadVersion);
        let nature = Nature::draw(&mut self.random, is_bad);
        self.line(|| format!("    {} of {key} is {nature:?}", release.version));
        self.witness.get().seen(key).errors.insert(release.id.clone(), nature.errors);
        self.natures.insert((key.clone(), release.id.clone()), nature);
        release
    }

    pub(super) fn interfere(&mut self) {
        if self.repaired_at.is_some() {
            return;
        }
        if self.dice.strikes(Fault::Operation) {
            let key = self.random.pick(&self.keys).clone();
            let mode = operator::mode(&self.service(&key), &mut self.random);
            self.operate(&key, mode);
        }
        if self.dice.strikes(Fault::Operator) {
            let command = operator::command(&mut self.random);
            let verb = match command {
                Command::Promote { full: true, .. } => "promote in full",
                Command::Promote { .. } => "promote",
                Command::Pause { .. } => "pause",
                Command::Resume { .. } => "resume",
                Command::Abort { .. } => "abort",
                Command::Cancel { .. } => "cancel",
            };
            let key = self.random.pick(&self.keys).clone();
            if self.ask(&key, EventKind::Commanded(command)) {
                self.mark("commanded", verb);
            }
        }
        self.soon(2_000, 30_000, Happening::Interfere);
    }

    /// Has a route do something else.
    pub(super) fn operate(&mut self, key: &ServiceKey, mode: RouteMode) {
        let operation = Operation { mode, by: "ada".to_owned(), reason: None, wall_ms: 0 };
        let detail = match &operation.mode {
            RouteMode::Serve => "serve",
            RouteMode::Maintenance(_) => "maintenance",
            RouteMode::Isolate => "isolate",
            RouteMode::Pause(_) => "hold",
            RouteMode::Divert { .. } => "divert",
        };
        if self.ask(key, EventKind::Operated(Box::new(operation))) {
            self.mark("operated", detail);
        }
    }

    /// Whoever waits for a word gets one; what stays paused after one more try is given up.
    pub(super) fn help(&mut self) {
        self.soon(20_000, 60_000, Happening::Help);
        for key in self.keys.clone() {
            let service = self.service(&key);
            if service.mode() != RouteMode::Serve {
                self.operate(&key, RouteMode::Serve);
            }
            let Some(rollout) = &service.rollout else { continue };
            let (id, by) = (rollout.request.id, "help".to_owned());
            let command = if rollout.paused.is_some() && self.resumed.insert(id) {
                Command::Resume { by }
            } else if rollout.paused.is_some() {
                Command::Abort { by, reason: None }
            } else if rollout.phase == Phase::AwaitingApproval {
                Command::Promote { full: false, by }
            } else {
                continue;
            };
            self.ask(&key, EventKind::Commanded(command));
        }
    }
}

/// What serves already, once more.
fn repetition(service: &Service) -> Option<(RequestKind, Release, RolloutPolicy)> {
    let stable = service.stable()?;
    let release = service.releases.get(&stable.release)?.clone();
    Some((RequestKind::Deploy, release, stable.policy.clone()))
}
