//! What follows from what is known: tells the engine the news, then brings the world closer to
//! what the states call for. Level-triggered: after a crash the same code finds the same gaps.

mod instances;

use std::collections::BTreeSet;
use std::time::Duration;

use switchback_api::RolloutEvent;
use switchback_domain::seeded::bug;
use switchback_domain::strategy::Hook;
use switchback_domain::template::{Variables, render};
use switchback_domain::{InstanceHealth, InstanceReport, ReleaseId, ServiceKey, Timestamp, Weight};
use switchback_engine::{
    Counts, Effect, Event, EventKind, Pool, Rollout, RolloutId, Service, outstanding, wakes_at,
};
use switchback_ports::journal;
use switchback_ports::runtime::Instance;

use crate::book::ApplyError;
use crate::clock::Instant;
use crate::driver::Driver;
use crate::fleet::News;
use crate::judging::{self, Look, Tally, Task, Trial};
use crate::order::Order;
use crate::traffic::Next;
use crate::{clock, tasks, views};

/// Pause before a journal that refused a record is tried again.
const JOURNAL_RESTS: Duration = Duration::from_secs(1);
/// Time between two looks at what instances use.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// Time between two lines of live figures.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Rounds of consequences settled in one go; each round moves something, so few are needed.
const ROUNDS_MAX: usize = 20;

impl Driver {
    /// Settles everything that can be settled now.
    pub(crate) fn settle(&mut self) {
        if !self.fleet.is_listed() || self.journal_rests() || !self.journal_recovered() {
            return;
        }
        for _ in 0..ROUNDS_MAX {
            let told = self.tell_pools() | self.tick();
            let published = self.settle_traffic();
            if !told && !published {
                break;
            }
        }
        self.settle_instances();
        if self.settle_effects() {
            // A bad version is not left in the traffic until the next look.
            self.settle_traffic();
            self.settle_instances();
        }
        self.keep_trials();
        self.show_progress();
    }

    fn journal_rests(&mut self) -> bool {
        let rests = self.journal_rests_until.is_some_and(|until| Instant::now() < until);
        if !rests {
            self.journal_rests_until = None;
        }
        rests
    }

    /// Whether the journal can be written, as far as is known; tries it after it could not.
    fn journal_recovered(&mut self) -> bool {
        if self.book.degraded().is_none() || bug("degraded-for-ever") {
            return true;
        }
        let result = self.book.recover();
        if let Err(error) = &result {
            self.journal_failed(error);
        }
        result.is_ok()
    }

    /// Applies an event; says whether it was taken (or was no news).
    pub(crate) fn apply(&mut self, key: &ServiceKey, kind: EventKind) -> bool {
        self.try_apply(key, kind).is_ok()
    }

    /// Applies an event with the candidate's figures. When the journal does not take it, nothing
    /// has happened, and the news will be noticed again later.
    pub(crate) fn try_apply(
        &mut self,
        key: &ServiceKey,
        kind: EventKind,
    ) -> Result<(), ApplyError> {
        let event = self.counted_event(key, kind);
        let result = self.book.apply(key, event);
        if let Err(ApplyError::Journal(error)) = &result {
            self.journal_failed(error);
        }
        result
    }

    /// Applies events in their order, many in one write. Says whether all were taken (or no news).
    pub(crate) fn apply_all(&mut self, events: Vec<(ServiceKey, EventKind)>) -> bool {
        let event = |(key, kind): (ServiceKey, EventKind)| {
            let event = self.counted_event(&key, kind);
            (key, event)
        };
        let events = events.into_iter().map(event).collect();
        let result = self.book.apply_all(events);
        if let Err(error) = &result {
            self.journal_failed(error);
        }
        result.is_ok()
    }

    /// The event with the candidate's figures; where only time has passed, they are no news.
    fn counted_event(&mut self, key: &ServiceKey, kind: EventKind) -> Event {
        let counts = if matches!(kind, EventKind::Ticked) { None } else { self.counts(key) };
        Event { kind, counts }
    }

    fn journal_failed(&mut self, error: &journal::Error) {
        self.journal_rests_until = Some(Instant::now() + JOURNAL_RESTS);
        self.fenced |= matches!(error, journal::Error::Fenced { .. });
    }

    /// What the active candidate has answered so far.
    fn counts(&mut self, key: &ServiceKey) -> Option<Counts> {
        let report = &self.heard.as_ref()?.report;
        let rollout = self.book.services().get(key)?.rollout.as_ref()?;
        let now = judging::arm(report, key, rollout.candidate());
        let known = self.tallies.get(key).is_some_and(|t| t.rollout == rollout.request.id);
        if !known {
            let tally = Tally::new(rollout, &report.incarnation, now.clone());
            self.tallies.insert(key.clone(), tally);
        }
        Some(self.tallies.get_mut(key)?.count(&report.incarnation, &now))
    }

    /// Tells the engine about instances it does not know this of. Says whether there was news.
    fn tell_pools(&mut self) -> bool {
        let (now, before) = (self.now(), self.book.changes());
        let mut keys = self.fleet.untold().clone();
        keys.extend(self.due(now));
        let (mut events, mut told) = (Vec::new(), Vec::new());
        for key in keys {
            let is_all = self.collect_news(&key, now, &mut events);
            told.extend(is_all.then_some(key));
        }
        if self.apply_all(events) {
            for key in &told {
                self.fleet.told(key);
            }
        }
        self.book.changes() != before && !self.journal_rests()
    }

    /// What the engine does not know about a service's instances. Says whether that is all there
    /// is to tell.
    fn collect_news(
        &mut self,
        key: &ServiceKey,
        now: Timestamp,
        events: &mut Vec<(ServiceKey, EventKind)>,
    ) -> bool {
        let service = self.book.service(key);
        let at_once = is_due(&service, now);
        let mut releases: BTreeSet<ReleaseId> = self.fleet.releases_of(key);
        releases.extend(service.pools.keys().cloned());
        let mut is_all = true;
        for release in releases {
            match self.fleet.news(&service, &release, at_once) {
                News::Known => {}
                News::Later => is_all = false,
                News::Now(instances) => {
                    events.push((key.clone(), EventKind::PoolObserved { release, instances }));
                }
            }
        }
        is_all
    }

    /// When states want to be looked at again.
    pub(crate) fn wakeups(&self) -> impl Iterator<Item = Timestamp> {
        self.book.wakes().map(|(_, at)| at)
    }

    /// The services whose time has come.
    fn due(&self, now: Timestamp) -> Vec<ServiceKey> {
        let due = self.book.wakes().filter(|(_, at)| *at <= now);
        due.map(|(key, _)| key.clone()).collect()
    }

    /// Tells services whose time has come. Says whether that moved one.
    pub(crate) fn tick(&mut self) -> bool {
        let before = self.book.changes();
        let due = self.due(self.now()).into_iter();
        self.apply_all(due.map(|key| (key, EventKind::Ticked)).collect());
        self.book.changes() != before
    }

    /// Publishes what is wanted. Says whether the engine learned of an acknowledgement.
    fn settle_traffic(&mut self) -> bool {
        self.note_changed();
        if !self.comes_after_what_is_served() {
            return false;
        }
        self.spare();
        match self.publisher.next(self.book.services()) {
            Next::Wait => false,
            Next::Served(shifts) => {
                let before = self.book.changes();
                self.acknowledge(&shifts);
                self.book.changes() != before
            }
            Next::Publish(table, shifts) => {
                self.orders.push(Order::Publish { table, shifts });
                false
            }
        }
    }

    /// Takes over which services' states have changed.
    fn note_changed(&mut self) {
        let changed = self.book.take_changed();
        self.publisher.changed(changed.iter().cloned());
        self.unattended.extend(changed.iter().cloned());
        self.unsettled.extend(changed);
    }

    /// Sees to the effects that are neither instances nor traffic, where the state or the figures
    /// are new. Says whether a verdict was told.
    fn settle_effects(&mut self) -> bool {
        let mut told = false;
        self.note_changed();
        let mut keys = std::mem::take(&mut self.unattended);
        if std::mem::take(&mut self.attend_all) {
            keys.extend(self.book.active().map(|(key, _)| key.clone()));
        }
        if keys.is_empty() {
            return false;
        }
        let measure = self.measured_at.is_none_or(|at| at.elapsed() >= MEASURE_EVERY);
        if measure {
            self.measured_at = Some(Instant::now());
        }
        for key in keys {
            let service = self.book.service(&key);
            let effects = outstanding(&service);
            for effect in &effects {
                match effect {
                    Effect::CheckWayBack { rollout, baseline } => {
                        self.check_way_back(&service, *rollout, baseline);
                    }
                    Effect::RunHook { rollout, position, hook } => {
                        self.run_hook(&service, *rollout, *position, hook);
                    }
                    Effect::KeepPool { .. }
                    | Effect::Publish { .. }
                    | Effect::Judge { .. }
                    | Effect::WakeAt(_) => {}
                }
            }
            match effects.iter().find_map(Task::from_effect) {
                Some(task) => told |= self.judge(&service, &task, measure),
                None => {
                    self.trials.remove(&key);
                }
            }
        }
        told
    }

    /// A rollout may only begin when it could be taken back: the baseline is known, complete and
    /// can be started again, and the data plane listens.
    fn check_way_back(&mut self, service: &Service, rollout: RolloutId, baseline: &ReleaseId) {
        let Some(heard) = &self.heard else { return };
        let mut obstacles = Vec::new();
        match service.releases.get(baseline) {
            None => obstacles.push("the baseline's release is not kept any more".to_owned()),
            Some(release) => {
                let program = release.workload.command.first().map_or("", String::as_str);
                obstacles.extend(tasks::missing_program(program, &release.workload.working_dir));
                let pool = service.pool(baseline);
                let required = service.stable().map_or(1, |stable| stable.policy.replicas);
                if pool.ready() < required && comes_up(&pool, required) {
                    // As after `down`: it is asked again when more is known, within the deadline.
                    return;
                }
                if pool.ready() < required {
                    let (ready, version) = (pool.ready(), &release.version);
                    obstacles.push(format!(
                        "only {ready} of {required} instances of {version} are ready"
                    ));
                }
            }
        }
        obstacles.extend(heard.report.listeners.iter().filter_map(|listener| {
            let why = listener.error.as_ref()?;
            Some(format!("the data plane does not listen on {}: {why}", listener.address))
        }));
        self.apply(&service.key, EventKind::WayBackChecked { rollout, obstacles });
    }

    fn run_hook(&mut self, service: &Service, rollout: RolloutId, position: usize, hook: &Hook) {
        let Some(active) = &service.rollout else { return };
        if !self.hooks.insert((rollout, position)) {
            return;
        }
        let key = service.key.clone();
        let instance = self.first_ready(service, active.candidate());
        let argv = instance.as_ref().map(|i| self.render_hook(&hook.argv, active, i));
        let (on, argv) = (instance.map(|i| i.spec.id), argv.unwrap_or_default());
        let timeout = hook.timeout;
        self.orders.push(Order::RunHook { key, rollout, position, on, argv, timeout });
    }

    fn render_hook(&self, argv: &[String], rollout: &Rollout, instance: &Instance) -> Vec<String> {
        let release = &rollout.request.release;
        let address = instance.address.map_or_else(String::new, |address| address.to_string());
        let variables = Variables::from([
            ("address", address),
            ("rollout", rollout.request.id.to_string()),
            ("version", release.version.to_string()),
            ("environment", release.key.environment.to_string()),
            ("service", release.key.service.to_string()),
            ("project", self.settings.project.to_string()),
        ]);
        argv.iter().map(|word| render(word, &variables)).collect()
    }

    fn first_ready(&self, service: &Service, release: &ReleaseId) -> Option<Instance> {
        let pool = service.pools.get(release)?;
        let ready = pool.instances.iter().find(|i| i.health == InstanceHealth::Ready)?;
        self.fleet.instance(&ready.id).cloned()
    }

    /// Says whether the engine was told a verdict.
    fn judge(&mut self, service: &Service, task: &Task<'_>, measure: bool) -> bool {
        let (Some(rollout), Some(heard)) = (&service.rollout, &self.heard) else { return false };
        let now = self.book.now();
        let key = &service.key;
        let candidate = service.pool(rollout.candidate());
        let instances: Vec<_> = candidate.instances.iter().map(|i| i.id.clone()).collect();
        let mut trial = Trial::resume(self.trials.remove(key), task, now);
        let weight = service.weight_of(rollout.candidate());
        let is_drawn = weight != Weight::ZERO && weight != Weight::ALL;
        let exact = self.exacts.get_mut(key).filter(|exact| exact.rollout == rollout.request.id);
        if let Some(exact) = exact.filter(|exact| exact.was_heard() && rollout.paused.is_none()) {
            exact.begin_again(now);
        }
        let exact = self.exacts.get(key).filter(|exact| exact.rollout == rollout.request.id);
        let verdict = trial.look(&Look {
            at: now,
            report: &heard.report,
            key,
            rollout,
            instances: instances.clone(),
            failed_probes: self.fleet.failed_probes(key, rollout.candidate()),
            exact,
            is_drawn,
        });
        let position = trial.position();
        let due = due_metrics(&mut trial, task);
        let asks = trial.watch.asks(now).filter(|_| rollout.paused.is_none());
        self.ask_metrics(service, rollout, &mut trial, now);
        self.trials.insert(key.clone(), trial);
        if measure && task.triggers.ask_for_usage() {
            let measures = instances.into_iter().map(|id| Order::Measure { key: key.clone(), id });
            self.orders.extend(measures);
        }
        self.run_metrics(service, rollout, due);
        if let Some(reason) = asks {
            self.ask_somebody(key, reason);
        }
        let Some(verdict) = verdict else { return false };
        let (rollout, outcome, verdict) = (rollout.request.id, verdict.outcome, Box::new(verdict));
        let taken = self.apply(key, EventKind::Judged { rollout, position, verdict });
        match (taken, self.trials.get_mut(key), self.exacts.get_mut(key)) {
            (true, _, Some(exact)) if exact.rollout == rollout => exact.judged(now, outcome),
            (false, Some(trial), _) => trial.speak_again(),
            (true | false, _, _) => {}
        }
        taken
    }

    fn run_metrics(
        &mut self,
        service: &Service,
        rollout: &Rollout,
        due: Vec<switchback_domain::trigger::CustomMetric>,
    ) {
        let Some(instance) = self.first_ready(service, rollout.candidate()) else { return };
        for metric in due {
            let argv = self.render_hook(&metric.argv, rollout, &instance);
            let (key, on) = (service.key.clone(), instance.spec.id.clone());
            let (name, timeout) = (metric.name, metric.interval);
            self.orders.push(Order::ReadMetric { key, name, on, argv, timeout });
        }
    }

    /// Live figures for whoever follows; not worth the journal.
    fn show_progress(&mut self) {
        if self.progress_at.is_some_and(|at| at.elapsed() < PROGRESS_EVERY) {
            return;
        }
        self.progress_at = Some(Instant::now());
        let keys: Vec<_> = self.book.active().map(|(key, _)| key.clone()).collect();
        for key in keys {
            let counts = self.counts(&key).unwrap_or_default();
            let Some(service) = self.book.services().get(&key) else { continue };
            let Some(rollout) = &service.rollout else { continue };
            let text = format!("{} requests, {} failed", counts.requests, counts.failed);
            let mut shown = rollout.clone();
            shown.counts = counts;
            self.announce(service, &shown, "progress", text);
        }
    }

    fn announce(&self, service: &Service, rollout: &Rollout, kind: &str, text: String) {
        let event = RolloutEvent {
            sequence: 0,
            at_ms: clock::wall_ms(),
            kind: kind.to_owned(),
            text,
            summary: views::active(service, rollout),
            verdict: None,
        };
        self.book.announce_progress(rollout.request.id, event);
    }
}

/// Whether what is missing is on its way: nothing of it has failed.
fn comes_up(pool: &Pool, required: u32) -> bool {
    let is_well =
        |i: &InstanceReport| matches!(i.health, InstanceHealth::Ready | InstanceHealth::Starting);
    pool.desired >= required && pool.instances.iter().all(is_well)
}

/// Whether a service wanted to be looked at by now.
fn is_due(service: &Service, now: Timestamp) -> bool {
    wakes_at(service).is_some_and(|at| at <= now)
}

/// Custom metrics whose next run is due.
fn due_metrics(
    trial: &mut Trial,
    task: &Task<'_>,
) -> Vec<switchback_domain::trigger::CustomMetric> {
    let mut due = Vec::new();
    for metric in &task.triggers.custom {
        let waits =
            trial.custom_run_at.get(&metric.name).is_some_and(|at| at.elapsed() < metric.interval);
        if !waits {
            trial.custom_run_at.insert(metric.name.clone(), Instant::now());
            due.push(metric.clone());
        }
    }
    due
}
