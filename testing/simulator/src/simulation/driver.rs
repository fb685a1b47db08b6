//! The control plane around the engine: journal first, act second, and die at any point.

use switchback_domain::{Epoch, Finding, InstanceHealth, Outcome, ReleaseId, Timestamp, Verdict};
use switchback_engine::{
    Effect, Ending, Event, EventKind, RolloutId, Service, Transition, describe_phase, outstanding,
    step,
};

use super::Simulation;
use super::names::{cause_name, detail, ending_name, event_name, rejection_name};
use crate::agenda::Happening;
use crate::check::Moment;
use crate::control::Control;
use crate::plane::Table;
use crate::trace::Trace;

impl Simulation {
    /// Hands an event to the engine. Says whether it was taken in.
    pub(super) fn tell(&mut self, kind: EventKind) -> Result<bool, String> {
        if !self.control.up {
            return Ok(false);
        }
        if self.random.chance(self.faults.clock) {
            self.ahead += self.random.millis(1_000, 3_600_000);
            self.trace.mark("clock", "stepped forward");
        }
        if self.random.chance(self.faults.crash / 3) {
            self.crash("before the append");
            return Ok(false);
        }
        let (now, event) = (self.now(), Event::from(kind));
        let next = match step(&self.control.service, &event, now) {
            Ok(next) => next,
            Err(rejection) => {
                self.trace.line(now, || format!("{} refused: {rejection}", event_name(&event)));
                self.trace.mark("refused", rejection_name(&rejection));
                return Ok(false);
            }
        };
        self.check(&event, &next, now)?;
        self.record(&event, &next, now);
        self.journal.append(&event, now, &next.service);
        self.control.service = next.service;
        if self.random.chance(self.faults.crash / 3) {
            self.crash("before the effects");
        } else {
            self.perform(next.effects);
        }
        self.heal();
        Ok(true)
    }

    fn check(&mut self, event: &Event, next: &Transition, now: Timestamp) -> Result<(), String> {
        let served = &self.world.plane.table.split;
        let moment = Moment { before: &self.control.service, event, next, now, served };
        let checked = self.oracle.check(&moment);
        if checked.is_err() {
            self.record(event, next, now);
            return checked;
        }
        if !self.trace.events.is_multiple_of(4) {
            return Ok(());
        }
        let again = step(&next.service, &EventKind::Ticked.into(), now);
        if again.is_ok_and(|again| again.service == next.service) {
            return Ok(());
        }
        self.record(event, next, now);
        Err("one more look at the clock moved it: the step before stopped short".to_owned())
    }

    fn record(&mut self, event: &Event, next: &Transition, now: Timestamp) {
        let (before, after) = (&self.control.service, &next.service);
        let (from, to) = (phase(before), came_to(before, after));
        let name = event_name(event);
        self.trace.events += 1;
        let shape: u64 =
            after.pools.values().map(|pool| u64::from(pool.desired * 16 + pool.ready())).sum();
        self.trace.fold(&[now.as_millis(), after.traffic.shift, shape, to.len() as u64]);
        if from != to {
            self.trace.transitions.entry((from, name)).or_default().insert(to);
        }
        self.trace.line(now, || format!("{name} {}", detail(event)));
        for note in &next.notes {
            self.trace.line(now, || format!("  {}", note.text));
        }
        for ended in after.ended.iter().skip(before.ended.len()) {
            let id = ended.rollout.request.id;
            let ending = ending_name(ended.ending);
            self.trace.mark("ending", ending);
            if self.crashed.contains_key(&id) {
                self.trace.mark("ending after a crash", ending);
            }
            if ended.ending == Ending::Promoted && !ended.rollout.promoted {
                self.trace.mark("queue", "what waited served already");
            }
            if let Some(cause) = &ended.rollout.cause {
                self.trace.mark("cause", cause_name(cause.kind));
            }
        }
        mark_way_back(&mut self.trace, before, after);
    }

    /// Sees to new effects, unless it dies in the middle of that.
    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            if self.random.chance(self.faults.crash / 12) {
                return self.crash("amid the effects");
            }
            self.see_to(effect);
        }
        self.publish();
        self.stop_surplus();
    }

    fn see_to(&mut self, effect: Effect) {
        let epoch = self.control.epoch;
        match effect {
            Effect::KeepPool { release, replicas } => self.keep_pool(&release, replicas),
            // `publish` keeps the table up to date anyway: instances come and go.
            Effect::Publish { .. } => {}
            Effect::CheckWayBack { rollout, .. } => {
                let blocked = self.random.chance(self.faults.obstacle);
                let obstacles = if blocked { vec!["no room".to_owned()] } else { Vec::new() };
                let kind = EventKind::WayBackChecked { rollout, obstacles };
                self.soon(10, 2_000, Happening::Answer { epoch, kind });
            }
            Effect::RunHook { rollout, position, hook } => {
                let fails = self.random.chance(self.faults.hook);
                if fails && self.random.chance(300) {
                    return;
                }
                let detail = String::new();
                let kind = EventKind::HookFinished { rollout, position, passed: !fails, detail };
                let most = u32::try_from(hook.timeout.as_millis()).unwrap_or(u32::MAX);
                self.soon(10, most, Happening::Answer { epoch, kind });
            }
            Effect::Judge { rollout, position, .. } => {
                self.control.judging = Some((rollout, position, self.time));
                if !self.control.judge_is_awake {
                    self.control.judge_is_awake = true;
                    self.soon(500, 5_000, Happening::Judge { epoch });
                }
            }
            Effect::WakeAt(at) => {
                let delay = at.since(self.now());
                self.after(delay, Happening::Wake { epoch });
            }
        }
    }

    fn keep_pool(&mut self, release: &ReleaseId, replicas: u32) {
        for ordinal in 0..replicas {
            if self.world.start(release, ordinal) {
                self.plan_change(release, ordinal);
                self.notice(release);
            }
        }
    }

    /// Publishes a new table when the engine or the instances ask for one.
    fn publish(&mut self) {
        let wanted = self.control.wanted_table();
        if self.control.sent.as_ref().is_none_or(|sent| !sent.says_the_same(&wanted)) {
            self.control.sent = Some(wanted.clone());
            self.send(&wanted);
        }
    }

    pub(super) fn republish(&mut self) {
        if let Some(sent) = self.control.sent.clone()
            && self.control.settled_table().is_none()
        {
            self.send(&sent);
        }
    }

    fn send(&mut self, table: &Table) {
        let epoch = self.control.epoch;
        let arrive = || Happening::Arrive { epoch, table: table.clone() };
        if self.random.chance(self.faults.outage) {
            self.outage_until = self.time + self.random.millis(60_000, 600_000);
            self.trace.line(self.time, || "    the data plane cannot be reached".to_owned());
            self.trace.mark("data plane", "could not be reached for minutes");
        }
        if self.random.chance(self.faults.publish_lost) {
            self.trace.mark("data plane", "a table was lost");
        } else {
            let late = self.random.chance(self.faults.publish_late);
            self.soon(1, if late { 60_000 } else { 300 }, arrive());
        }
        if self.random.chance(self.faults.publish_twice) {
            self.soon(1, 90_000, arrive());
        }
        self.soon(2_000, 4_000, Happening::Republish { epoch });
    }

    pub(super) fn acknowledge(&mut self, table: Table) -> Result<(), String> {
        let shift = table.shift;
        let is_newer =
            self.control.served.as_ref().is_none_or(|served| served.generation < table.generation);
        if is_newer {
            self.control.served = Some(table);
        }
        let is_news = shift > self.control.service.traffic.acknowledged;
        if is_news || self.random.chance(self.faults.told_twice) {
            self.tell(EventKind::TrafficAcknowledged { shift })?;
        }
        self.stop_surplus();
        Ok(())
    }

    /// Stops what is not wanted any more, once the data plane serves a table without it and its
    /// last request has ended.
    fn stop_surplus(&mut self) {
        let (true, Some(table)) = (self.control.up, self.control.settled_table().cloned()) else {
            return;
        };
        let places: Vec<_> = self.world.instances.keys().cloned().collect();
        for (release, ordinal) in places {
            let Some(pool) = self.control.service.pools.get(&release) else { continue };
            let place = (release, ordinal);
            if ordinal < pool.desired || table.endpoints.contains(&place) {
                continue;
            }
            let Some(instance) = self.world.instances.get(&place) else { continue };
            let (epoch, busy_until) = (self.control.epoch, instance.busy_until);
            let (release, ordinal) = place;
            if instance.health == InstanceHealth::Stopping {
                continue;
            }
            if self.time < busy_until {
                self.agenda.enter(busy_until, Happening::Observe { epoch, release });
                continue;
            }
            self.stop(release, ordinal);
        }
    }

    fn stop(&mut self, release: ReleaseId, ordinal: u32) {
        self.world.set(&release, ordinal, InstanceHealth::Stopping);
        let most = self.world.natures.get(&release).map_or(100, |nature| nature.stop);
        let place = (release.clone(), ordinal);
        let life = self.world.instances.get(&place).map_or(0, |instance| instance.life);
        self.notice(&release);
        self.soon(10, most, Happening::Gone { release, ordinal, life });
    }

    pub(super) fn observe(&mut self, release: &ReleaseId) -> Result<(), String> {
        self.control.looks.remove(release);
        let instances = self.world.report(&self.key, release);
        let is_news = self.control.told.get(release) != Some(&instances);
        if is_news || self.random.chance(self.faults.told_twice) {
            self.control.told.insert(release.clone(), instances.clone());
            let release = release.clone();
            self.tell(EventKind::PoolObserved { release, instances })?;
        }
        if self.control.up {
            let desired = self.control.service.pool(release).desired;
            self.keep_pool(release, desired);
            self.publish();
            self.stop_surplus();
        }
        Ok(())
    }

    pub(super) fn judge(&mut self) {
        let asked =
            outstanding(&self.control.service).into_iter().find_map(|effect| match effect {
                Effect::Judge { rollout, position, step, .. } => Some((rollout, position, step)),
                Effect::KeepPool { .. }
                | Effect::Publish { .. }
                | Effect::CheckWayBack { .. }
                | Effect::RunHook { .. }
                | Effect::WakeAt(_) => None,
            });
        let Some((rollout, position, step)) = asked else {
            self.control.judge_is_awake = false;
            return;
        };
        let since = match self.control.judging {
            Some((about, at, since)) if (about, at) == (rollout, position) => since,
            _ => self.time,
        };
        let looked = self.time.since(since).as_millis();
        let is_over = step.is_some_and(|(_, millis)| looked >= u128::from(millis));
        if let Some(outcome) = self.finding(is_over) {
            self.answer(rollout, position, outcome);
        }
        let epoch = self.control.epoch;
        self.soon(3_000, 12_000, Happening::Judge { epoch });
    }

    fn finding(&mut self, is_over: bool) -> Option<Outcome> {
        let rollout = self.control.service.rollout.as_ref()?;
        let last = rollout.verdict.as_ref().map(|verdict| verdict.outcome);
        let quality = self.world.natures.get(rollout.candidate())?.quality?;
        let found = match quality {
            Outcome::Safe if is_over => Outcome::Safe,
            Outcome::Regressed if self.random.chance(300) => Outcome::Regressed,
            Outcome::Safe | Outcome::Regressed | Outcome::Undecided => Outcome::Undecided,
        };
        (found != Outcome::Undecided || last != Some(found)).then_some(found)
    }

    fn answer(&mut self, rollout: RolloutId, position: usize, outcome: Outcome) {
        let finding = Finding {
            rule: "error_rate".to_owned(),
            outcome,
            observed: Some(0.05),
            limit: 0.01,
            baseline: None,
            summary: "by the numbers".to_owned(),
        };
        let verdict = Box::new(Verdict {
            outcome,
            findings: vec![finding],
            candidate_requests: 100,
            candidate_failed: 5,
            baseline_requests: 300,
            baseline_failed: 0,
        });
        let (epoch, kind) = (self.control.epoch, EventKind::Judged { rollout, position, verdict });
        self.soon(10, 6_000, Happening::Answer { epoch, kind });
    }

    pub(super) fn wake(&mut self) -> Result<(), String> {
        let now = self.now();
        let is_due = outstanding(&self.control.service)
            .iter()
            .any(|effect| matches!(effect, Effect::WakeAt(at) if *at <= now));
        if is_due { self.tell(EventKind::Ticked).map(|_| ()) } else { Ok(()) }
    }

    pub(super) fn poll(&mut self) -> Result<(), String> {
        if self.random.chance(self.faults.crash / 3) {
            self.crash("between events");
            return Ok(());
        }
        self.look_at_everything();
        let epoch = self.control.epoch;
        self.soon(20_000, 40_000, Happening::Poll { epoch });
        self.wake()
    }

    fn look_at_everything(&mut self) {
        let epoch = self.control.epoch;
        let mut releases = self.world.releases();
        releases.extend(self.control.service.pools.keys().cloned());
        releases.sort();
        releases.dedup();
        for release in releases {
            self.soon(10, 500, Happening::Observe { epoch, release });
        }
    }

    fn crash(&mut self, point: &'static str) {
        let now = self.now();
        self.trace.line(now, || format!("*** the control plane dies {point}"));
        self.trace.mark("crash", point);
        self.trace.mark("crash in", phase(&self.control.service));
        if let Some(rollout) = &self.control.service.rollout {
            *self.crashed.entry(rollout.request.id).or_default() += 1;
        }
        self.control.up = false;
        let is_long = self.random.chance(100);
        self.soon(100, if is_long { 3_600_000 } else { 20_000 }, Happening::Restart);
    }

    /// Replays the journal, issues what is outstanding again, and looks at the world anew.
    pub(super) fn restart(&mut self) -> Result<(), String> {
        let service = self.journal.replay()?;
        if service != self.control.service {
            return Err("the journal replays to another state".to_owned());
        }
        let epoch = Epoch(self.control.epoch.0 + 1);
        self.trace.line(self.time, || format!("*** life {} begins", epoch.0));
        let effects = outstanding(&service);
        self.control = Control::new(epoch, service);
        self.look_at_everything();
        self.soon(20_000, 40_000, Happening::Poll { epoch });
        self.perform(effects);
        Ok(())
    }
}

fn mark_way_back(trace: &mut Trace, before: &Service, after: &Service) {
    let (Some(was), Some(is)) = (&before.rollout, &after.rollout) else { return };
    if was.request.id != is.request.id {
        return;
    }
    if was.is_forward() && !is.is_forward() {
        trace.mark("taken back in", describe_phase(&was.phase));
    }
    if describe_phase(&was.phase) == "Stuck" && describe_phase(&is.phase) != "Stuck" {
        trace.mark("stuck", "healed");
    }
    if was.paused.is_none() && is.paused.is_some() {
        trace.mark("paused in", describe_phase(&is.phase));
    }
    let partial = after.traffic.split.shares().len() == 2;
    if !was.is_forward() && before.traffic.split != after.traffic.split && partial {
        trace.mark("way back", "in parts, as capacity came");
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
