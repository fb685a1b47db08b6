//! Sees every event that the control plane takes in, at the moment it is written: checks it, and
//! keeps the marks and the timeline.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use switchback_domain::{Outcome, ReleaseId, ServiceKey, Split, Timestamp};
use switchback_engine::{
    Ending, Event, EventKind, RolloutId, Service, Transition, describe_phase, step,
};

use crate::check::{Moment, Oracle};
use crate::names::{cause_name, detail, ending_name, event_name};
use crate::trace::Trace;

/// Every so many events it is asked whether the engine stopped short.
const ASK_AGAIN_EVERY: u64 = 8;

/// What is remembered about one service.
pub(crate) struct Seen {
    oracle: Oracle,
    /// Whom the data plane serves.
    pub(crate) served: Split<ReleaseId>,
    /// A version has lent its share to the other one, because it had nobody to answer.
    pub(crate) is_lent: bool,
    /// Requests that the control plane was told of, by version, since the simulation began.
    pub(crate) heard: BTreeMap<ReleaseId, u64>,
    /// Requests that fail in truth, in per mille, by version.
    pub(crate) errors: BTreeMap<ReleaseId, u32>,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            oracle: Oracle::default(),
            served: Split::none(),
            is_lent: false,
            heard: BTreeMap::new(),
            errors: BTreeMap::new(),
        }
    }
}

/// See the module.
pub(crate) struct Witness {
    pub(crate) services: BTreeMap<ServiceKey, Seen>,
    pub(crate) trace: Trace,
    /// The first thing that did not hold.
    pub(crate) failure: Option<String>,
    crashed: BTreeSet<RolloutId>,
    last: Timestamp,
}

/// A witness that several hold.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Witness>>);

impl Shared {
    pub(crate) fn new(trace: Trace) -> Self {
        let witness = Witness {
            services: BTreeMap::new(),
            trace,
            failure: None,
            crashed: BTreeSet::new(),
            last: Timestamp::default(),
        };
        Self(Arc::new(Mutex::new(witness)))
    }

    pub(crate) fn get(&self) -> MutexGuard<'_, Witness> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Witness {
    pub(crate) fn seen(&mut self, key: &ServiceKey) -> &mut Seen {
        self.services.entry(key.clone()).or_default()
    }

    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        self.failure.get_or_insert_with(|| what.into());
    }

    /// Rollouts that were taken in and have not ended.
    pub(crate) fn open(&self) -> BTreeSet<RolloutId> {
        self.services.values().flat_map(|seen| seen.oracle.open()).collect()
    }

    /// An older copy of the journal was restored: what it does not know has not happened.
    pub(crate) fn forget(&mut self) {
        for seen in self.services.values_mut() {
            (seen.oracle, seen.served) = (Oracle::default(), Split::none());
        }
        self.last = Timestamp::default();
    }

    /// An event that the copy knows was seen once before.
    pub(crate) fn recall(
        &mut self,
        before: &Service,
        event: &Event,
        next: &Transition,
        now: Timestamp,
    ) {
        let (served, is_lent, errors) = (&Split::none(), false, 0);
        let candidate = next.service.rollout.as_ref().map(|rollout| rollout.candidate().clone());
        let heard = &self.seen(&before.key).heard;
        let heard = candidate.and_then(|release| heard.get(&release)).copied().unwrap_or(0);
        let moment = Moment { before, event, next, now, served, is_lent, heard, errors };
        self.seen(&before.key).oracle.recall(&moment);
        self.last = now;
    }

    /// An event was written.
    pub(crate) fn see(
        &mut self,
        before: &Service,
        event: &Event,
        next: &Transition,
        now: Timestamp,
    ) {
        self.record(before, event, next, now);
        if now < self.last {
            self.fail(format!("the journal's time went back from {} to {now}", self.last));
        }
        self.last = now;
        let checked = self.check(before, event, next, now);
        if let Err(what) = checked {
            self.fail(format!("{}: {what}", before.key));
        }
    }

    fn check(
        &mut self,
        before: &Service,
        event: &Event,
        next: &Transition,
        now: Timestamp,
    ) -> Result<(), String> {
        let candidate = next.service.rollout.as_ref().or(before.rollout.as_ref());
        let candidate = candidate.map(|rollout| rollout.candidate().clone());
        let seen = self.services.entry(before.key.clone()).or_default();
        let of = |map: &BTreeMap<ReleaseId, u64>| {
            candidate.as_ref().and_then(|id| map.get(id)).copied().unwrap_or(0)
        };
        let (heard, served, is_lent) = (of(&seen.heard), seen.served.clone(), seen.is_lent);
        let errors = candidate.as_ref().and_then(|id| seen.errors.get(id)).copied().unwrap_or(0);
        let moment = Moment { before, event, next, now, served: &served, is_lent, heard, errors };
        seen.oracle.check(&moment)?;
        if !self.trace.events.is_multiple_of(ASK_AGAIN_EVERY) {
            return Ok(());
        }
        let again = step(&next.service, &EventKind::Ticked.into(), now);
        if again.is_ok_and(|again| again.service == next.service) {
            return Ok(());
        }
        Err("one more look at the clock moved it: the step before stopped short".to_owned())
    }

    /// The control plane died while a rollout was in this state.
    pub(crate) fn note_crash(&mut self, service: &Service) {
        self.trace.mark("crash in", phase(service));
        self.crashed.extend(service.rollout.as_ref().map(|rollout| rollout.request.id));
    }

    fn record(&mut self, before: &Service, event: &Event, next: &Transition, now: Timestamp) {
        let after = &next.service;
        let (from, to) = (phase(before), came_to(before, after));
        let name = event_name(event);
        self.trace.events += 1;
        let shape: u64 =
            after.pools.values().map(|pool| u64::from(pool.desired * 16 + pool.ready())).sum();
        self.trace.fold(&[now.as_millis(), after.traffic.shift, shape, to.len() as u64]);
        if from != to {
            self.trace.transitions.entry((from, name)).or_default().insert(to);
        }
        let service = &before.key.service;
        self.trace.line(now, || format!("{service}: {name} {}", detail(event)));
        if let EventKind::Judged { verdict, .. } = &event.kind
            && verdict.outcome == Outcome::Regressed
            && verdict.findings.first().is_some_and(|finding| finding.rule == "errors")
        {
            self.trace.mark("exact test", "found a candidate worse");
        }
        for note in &next.notes {
            self.trace.line(now, || format!("  {}", note.text));
        }
        for ended in after.ended.iter().skip(before.ended.len()) {
            let id = ended.rollout.request.id;
            let ending = ending_name(ended.ending);
            self.trace.mark("ending", ending);
            if self.crashed.contains(&id) {
                self.trace.mark("ending after a crash", ending);
            }
            if ended.ending == Ending::Promoted && !ended.rollout.promoted {
                self.trace.mark("queue", "what waited served already");
            }
            if let Some(cause) = &ended.rollout.cause {
                self.trace.mark("cause", cause_name(cause.kind));
            }
        }
        self.mark_way_back(before, after);
    }

    fn mark_way_back(&mut self, before: &Service, after: &Service) {
        let (Some(was), Some(is)) = (&before.rollout, &after.rollout) else { return };
        if was.request.id != is.request.id {
            return;
        }
        let (was_in, is_in) = (describe_phase(&was.phase), describe_phase(&is.phase));
        if was.is_forward() && !is.is_forward() {
            self.trace.mark("taken back in", was_in);
        }
        if was_in == "Stuck" && is_in != "Stuck" {
            self.trace.mark("stuck", "healed");
        }
        if was.paused.is_none() && is.paused.is_some() {
            self.trace.mark("paused in", is_in);
        }
        let partial = after.traffic.split.shares().len() == 2;
        if !was.is_forward() && before.traffic.split != after.traffic.split && partial {
            self.trace.mark("way back", "in parts, as capacity came");
        }
    }
}

fn phase(service: &Service) -> &'static str {
    service.rollout.as_ref().map_or("Idle", |rollout| describe_phase(&rollout.phase))
}

/// Where the rollout is after the event, or how it ended.
fn came_to(before: &Service, after: &Service) -> &'static str {
    let Some(was) = &before.rollout else { return phase(after) };
    let is = after.rollout.as_ref().map(|rollout| rollout.request.id);
    let ended = after.ended.iter().rev().find(|ended| ended.rollout.request.id == was.request.id);
    match ended {
        Some(ended) if is != Some(was.request.id) => ending_name(ended.ending),
        _ => phase(after),
    }
}
