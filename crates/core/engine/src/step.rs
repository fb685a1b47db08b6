//! One step of the machine: apply the event, then go as far as the new facts allow.
//!
//! `command` takes in new rollouts and commands, `forward` climbs the plan, `backward` is the way
//! back, a path of its own.

mod backward;
mod command;
mod forward;
mod observe;
#[cfg(test)]
mod scenario_tests;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

use switchback_domain::{ReleaseId, Split, Timestamp};

use crate::effect::outstanding;
use crate::event::{Event, EventKind, Note, NoteKind, Rejection, Transition};
use crate::rollout::{EndedRollout, Ending, Phase, Rollout, RolloutId};
use crate::service::Service;
use crate::words::{describe_phase, describe_split};

/// Applies an event. A rejection leaves the state as it is; events about rollouts or steps that
/// are over change nothing.
pub fn step(service: &Service, event: &Event, now: Timestamp) -> Result<Transition, Rejection> {
    let mut work = Work { service: service.clone(), now, notes: Vec::new() };
    work.apply(event)?;
    work.proceed();
    work.service.retire_unneeded();
    work.service.forget_unneeded();
    let before = outstanding(service);
    let mut effects = outstanding(&work.service);
    effects.retain(|effect| !before.contains(effect));
    Ok(Transition { service: work.service, effects, notes: work.notes })
}

/// A transition in the making.
struct Work {
    service: Service,
    now: Timestamp,
    notes: Vec<Note>,
}

impl Work {
    fn apply(&mut self, event: &Event) -> Result<(), Rejection> {
        if let (Some(counts), Some(rollout)) = (event.counts, &mut self.service.rollout) {
            rollout.counts = counts;
        }
        match &event.kind {
            EventKind::Requested(request) => self.request(request),
            EventKind::Commanded(command) => self.command(command),
            EventKind::PoolObserved { release, instances } => {
                self.pool_observed(release, instances);
                Ok(())
            }
            EventKind::TrafficAcknowledged { shift } => {
                self.traffic_acknowledged(*shift);
                Ok(())
            }
            EventKind::WayBackChecked { rollout, obstacles } => {
                self.way_back_checked(*rollout, obstacles);
                Ok(())
            }
            EventKind::HookFinished { rollout, position, passed, detail } => {
                self.hook_finished(*rollout, *position, *passed, detail);
                Ok(())
            }
            EventKind::Judged { rollout, position, verdict } => {
                self.judged(*rollout, *position, verdict);
                Ok(())
            }
            EventKind::Operated(operation) => {
                self.operate(operation);
                Ok(())
            }
            EventKind::Ticked => Ok(()),
        }
    }

    /// Goes on until nothing more follows from what is known. Every round either moves the
    /// position, the phase, the split or the queue, so it ends.
    fn proceed(&mut self) {
        loop {
            let moved = match &self.service.rollout {
                None => self.start_next(),
                Some(rollout) if rollout.is_forward() => {
                    self.fail_if_broken() || self.advance() || self.fail_if_due()
                }
                Some(_) => self.retreat(),
            };
            if !moved {
                break;
            }
        }
    }

    fn start_next(&mut self) -> bool {
        if self.service.queue.is_empty() {
            return false;
        }
        let request = self.service.queue.remove(0);
        let stable = self.service.stable().map(|stable| &stable.release);
        if stable == Some(&request.release.id) {
            self.end_unstarted(request);
        } else {
            self.start(request);
        }
        true
    }

    /// The active rollout, when it is this one.
    fn active(&mut self, id: RolloutId) -> Option<&mut Rollout> {
        self.service.rollout.as_mut().filter(|rollout| rollout.request.id == id)
    }

    fn note(&mut self, kind: NoteKind, text: impl Into<String>) {
        let rollout = self.service.rollout.as_ref().map(|rollout| rollout.request.id);
        self.notes.push(Note { rollout, kind, text: text.into() });
    }

    fn set_phase(&mut self, phase: Phase) {
        let Some(rollout) = &mut self.service.rollout else { return };
        if rollout.phase == phase {
            return;
        }
        rollout.phase = phase;
        let text = describe_phase(&rollout.phase).to_owned();
        self.note(NoteKind::Phase, text);
    }

    fn set_split(&mut self, split: Split<ReleaseId>) {
        if self.service.traffic.split == split {
            return;
        }
        self.service.traffic.split = split;
        self.service.traffic.shift += 1;
        self.note(NoteKind::Weight, describe_split(&self.service));
    }

    fn set_desired(&mut self, release: &ReleaseId, replicas: u32) {
        let pool = self.service.pools.entry(release.clone()).or_default();
        pool.desired = replicas;
    }

    fn end(&mut self, ending: Ending, text: impl Into<String>) {
        self.note(NoteKind::Ended, text);
        let Some(rollout) = self.service.rollout.take() else { return };
        let asked = &rollout.request;
        let passed = self.now.since(asked.asked_at).as_millis();
        let ended_wall_ms = asked.wall_ms.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX));
        let ended_at = self.now;
        let ended = EndedRollout { rollout, ending, ended_at, ended_wall_ms };
        self.service.ended.push(Arc::new(ended));
    }
}
