//! The states of all services and the journal they are written to: journal first, act second.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use switchback_api::RolloutEvent;
use switchback_domain::seeded::bug;
use switchback_domain::{Epoch, ServiceKey, Timestamp};
use switchback_engine::{
    Event, Note, NoteKind, Rejection, RolloutId, Service, Transition, step, violations, wakes_at,
};
use switchback_ports::journal::{self, NewRecord, Record, Sequence};
use switchback_ports::{Journal, crash_point};
use tokio::sync::broadcast;

use crate::clock::{self, Anchor};
use crate::record::{self, Consequences, Deed};
use crate::replay::{each_record, highest_id, remember, replay};
use crate::{Error, views};

/// Records between two snapshots of a service: replay stays short, the journal small.
const SNAPSHOT_EVERY: u32 = 100;
/// Events written in one go: what one write to the disk costs, many share.
const BATCH_MAX: usize = 256;
/// Events a slow listener may lag behind before it has to read the journal again.
const BACKLOG: usize = 1024;

/// Why an event was not applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error("the journal cannot be written")]
    Journal(#[source] journal::Error),
}

/// A line for whoever follows a rollout.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) rollout: RolloutId,
    pub(crate) event: RolloutEvent,
}

/// Is shown every event that was taken in: the state before it, the event, what follows from it.
pub(crate) type Watcher = Box<dyn FnMut(&Service, &Event, &Transition, Timestamp) + Send>;

/// An event that was stepped and not written yet.
struct Taken {
    key: ServiceKey,
    event: Event,
    before: Arc<Service>,
    transition: Transition,
    consequences: Consequences,
    /// Whether the state after it is written as well.
    snapshot: bool,
}

impl Taken {
    fn record(&self, now: Timestamp) -> NewRecord {
        record::event(&self.key.to_string(), now, &self.event, &self.consequences)
    }

    fn snapshot(&self) -> Option<journal::Snapshot> {
        let after = &self.transition.service;
        let service = if bug("snapshot-of-before") { &*self.before } else { after };
        self.snapshot.then(|| record::snapshot(service))
    }
}

/// All states, and the journal behind them.
pub(crate) struct Book {
    journal: Box<dyn Journal>,
    epoch: Epoch,
    anchor: Anchor,
    services: BTreeMap<ServiceKey, Arc<Service>>,
    /// The services with a rollout, each with when its state wants to be looked at again: asked
    /// after every message, and not to be looked up for each of thousands then.
    active: BTreeMap<ServiceKey, (Arc<Service>, Option<Timestamp>)>,
    /// Whose state is another one since this was last asked.
    changed: BTreeSet<ServiceKey>,
    /// Counts the states taken over.
    changes: u64,
    since_snapshot: BTreeMap<ServiceKey, u32>,
    configured: BTreeMap<String, String>,
    /// When and what, oldest first.
    deeds: VecDeque<(u64, Deed)>,
    next_rollout: u64,
    /// The newest record whose writing was confirmed.
    last: Sequence,
    /// A write failed in a way that leaves open whether it happened.
    in_doubt: bool,
    degraded: Option<String>,
    /// Where lines go; made when somebody follows for the first time.
    lines: Option<broadcast::Sender<Line>>,
    violations: u64,
    watcher: Option<Watcher>,
}

impl Book {
    /// Takes charge of a journal: begins an epoch, replays what was written.
    pub(crate) fn open(mut journal: Box<dyn Journal>) -> Result<Self, Error> {
        let read = |source| Error::Journal { operation: "open", source };
        let epoch = journal.begin_epoch().map_err(read)?;
        let replayed = replay(&*journal)?;
        let anchor = Anchor::resume(replayed.anchor.as_ref(), replayed.last, &clock::read());
        let next_rollout = 1 + replayed.services.values().map(highest_id).max().unwrap_or(0);
        let services = replayed.services.into_iter();
        let services: BTreeMap<_, _> = services.map(|(key, it)| (key, Arc::new(it))).collect();
        let active = services.iter().filter(|(_, service)| service.rollout.is_some());
        let entry = |service: &Arc<Service>| (service.clone(), wakes_at(service));
        let mut book = Self {
            journal,
            epoch,
            anchor,
            active: active.map(|(key, service)| (key.clone(), entry(service))).collect(),
            changed: services.keys().cloned().collect(),
            changes: 0,
            services,
            since_snapshot: BTreeMap::new(),
            configured: replayed.configured,
            deeds: replayed.deeds,
            next_rollout,
            last: Sequence(0),
            in_doubt: false,
            degraded: None,
            lines: None,
            violations: 0,
            watcher: None,
        };
        let started = record::started(book.now(), &book.anchor);
        book.append("started", &[started], &[]).map_err(read)?;
        Ok(book)
    }

    /// Shows every event to `watcher` once it is written and before anything is done about it.
    pub(crate) fn watch(&mut self, watcher: Watcher) {
        self.watcher = Some(watcher);
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Begins epochs until one lies beyond `seen`. Fenced if the journal is another one's by now.
    pub(crate) fn overtake(&mut self, seen: Epoch) -> Result<Epoch, journal::Error> {
        self.catch_up()?;
        let started = record::started(self.now(), &self.anchor);
        self.append("started", &[started], &[])?;
        while self.epoch <= seen {
            self.epoch = self.journal.begin_epoch()?;
        }
        Ok(self.epoch)
    }

    /// The journal's present time.
    pub(crate) fn now(&self) -> Timestamp {
        self.anchor.at(clock::since_boot_ms())
    }

    pub(crate) fn services(&self) -> &BTreeMap<ServiceKey, Arc<Service>> {
        &self.services
    }

    /// The services with a rollout, and their states.
    pub(crate) fn active(&self) -> impl Iterator<Item = (&ServiceKey, &Arc<Service>)> {
        self.active.iter().map(|(key, (service, _))| (key, service))
    }

    /// When states want to be looked at again.
    pub(crate) fn wakes(&self) -> impl Iterator<Item = (&ServiceKey, Timestamp)> {
        self.active.iter().filter_map(|(key, (_, wakes))| Some((key, (*wakes)?)))
    }

    /// Counts the states that were taken over: as long as it stays the same, so do all of them.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The services with another state than when this was last asked; at first, all.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<ServiceKey> {
        std::mem::take(&mut self.changed)
    }

    fn put(&mut self, key: ServiceKey, service: Service) {
        let service = Arc::new(service);
        if service.rollout.is_none() {
            self.active.remove(&key);
        } else {
            let wakes = wakes_at(&service);
            self.active.insert(key.clone(), (service.clone(), wakes));
        }
        self.changes += 1;
        self.changed.insert(key.clone());
        self.services.insert(key, service);
    }

    /// A service's state; an empty one if it was never heard of.
    pub(crate) fn service(&self, key: &ServiceKey) -> Arc<Service> {
        self.services.get(key).cloned().unwrap_or_else(|| Arc::new(Service::new(key.clone())))
    }

    /// Why nothing is written at present.
    pub(crate) fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }

    /// How many broken invariants were seen since the start; 0 if all is well.
    pub(crate) fn violation_count(&self) -> u64 {
        self.violations
    }

    pub(crate) fn follow(&mut self) -> broadcast::Receiver<Line> {
        self.lines.get_or_insert_with(|| broadcast::channel(BACKLOG).0).subscribe()
    }

    /// Where lines go, if anybody follows.
    fn listeners(&self) -> Option<&broadcast::Sender<Line>> {
        self.lines.as_ref().filter(|lines| lines.receiver_count() > 0)
    }

    pub(crate) fn take_id(&mut self) -> RolloutId {
        let id = RolloutId(self.next_rollout);
        self.next_rollout += 1;
        id
    }

    pub(crate) fn configured(&self) -> &BTreeMap<String, String> {
        &self.configured
    }

    /// Remembers that these services were brought to these versions.
    pub(crate) fn add_configured(
        &mut self,
        versions: BTreeMap<String, String>,
    ) -> Result<(), ApplyError> {
        let is_news =
            |(key, version): (&String, &String)| self.configured.get(key) != Some(version);
        if versions.iter().any(is_news) {
            self.catch_up().map_err(ApplyError::Journal)?;
            let record = record::configured(self.now(), &versions);
            self.append("configured", &[record], &[]).map_err(ApplyError::Journal)?;
            self.configured.extend(versions);
        }
        Ok(())
    }

    /// Steps a service's machine, writes what happened and only then takes the new state over.
    /// An event from which nothing follows is not written.
    pub(crate) fn apply(&mut self, key: &ServiceKey, event: Event) -> Result<(), ApplyError> {
        self.catch_up().map_err(ApplyError::Journal)?;
        let now = self.now();
        let taken = self.take(key.clone(), event, now)?;
        self.write(Vec::from_iter(taken), now).map_err(ApplyError::Journal)
    }

    /// The same for many events in their order, several in one write: those are taken over
    /// together or not at all. What the engine refuses is left out.
    pub(crate) fn apply_all(
        &mut self,
        events: Vec<(ServiceKey, Event)>,
    ) -> Result<(), journal::Error> {
        self.catch_up()?;
        let now = self.now();
        let mut batch: Vec<Taken> = Vec::new();
        let mut keys = BTreeSet::new();
        for (key, event) in events {
            // A service's next event is stepped from what its last one has left.
            if batch.len() >= BATCH_MAX || !keys.insert(key.clone()) {
                self.write(std::mem::take(&mut batch), now)?;
                keys = BTreeSet::from([key.clone()]);
            }
            batch.extend(self.take(key, event, now).ok().flatten());
        }
        self.write(batch, now)
    }

    /// What follows from an event; nothing if nothing does.
    fn take(
        &self,
        key: ServiceKey,
        event: Event,
        now: Timestamp,
    ) -> Result<Option<Taken>, Rejection> {
        let before = self.service(&key);
        let transition = step(&before, &event, now)?;
        if transition.service == *before && transition.notes.is_empty() {
            return Ok(None);
        }
        let consequences = Consequences::of(&transition);
        let snapshot = self.is_snapshot_due(&key, &transition.notes);
        Ok(Some(Taken { key, event, before, transition, consequences, snapshot }))
    }

    fn write(&mut self, batch: Vec<Taken>, now: Timestamp) -> Result<(), journal::Error> {
        let Some(first) = batch.first() else { return Ok(()) };
        let what = if batch.len() == 1 { first.event.kind.name() } else { "several" };
        let records: Vec<_> = batch.iter().map(|taken| taken.record(now)).collect();
        let snapshots: Vec<_> = batch.iter().filter_map(Taken::snapshot).collect();
        let last = match self.append(what, &records, &snapshots) {
            Err(_) if bug("act-before-persist") => self.last,
            written => written?,
        };
        let before = last.0.saturating_sub(batch.len() as u64);
        for ((taken, record), number) in batch.into_iter().zip(&records).zip(before + 1..) {
            self.take_over(taken, Sequence(number), now, record.wall_ms);
        }
        Ok(())
    }

    fn take_over(&mut self, taken: Taken, sequence: Sequence, now: Timestamp, wall_ms: u64) {
        let Taken { key, event, before, transition, consequences, snapshot } = taken;
        let count = self.since_snapshot.entry(key.clone()).or_default();
        *count = if snapshot { 0 } else { *count + 1 };
        if let Some(watcher) = &mut self.watcher {
            watcher(&before, &event, &transition, now);
        }
        self.violations += violations(&transition.service).len() as u64;
        self.put(key, transition.service);
        self.announce(sequence, wall_ms, &consequences, event);
    }

    fn is_snapshot_due(&self, key: &ServiceKey, notes: &[Note]) -> bool {
        let ended = notes.iter().any(|note| note.kind == NoteKind::Ended);
        let first = !self.services.contains_key(key);
        ended || first || self.since_snapshot.get(key).is_some_and(|n| *n >= SNAPSHOT_EVERY)
    }

    fn append(
        &mut self,
        what: &str,
        records: &[NewRecord],
        snapshots: &[journal::Snapshot],
    ) -> Result<Sequence, journal::Error> {
        crash_point(format_args!("before journal {what}"));
        let result = self.journal.append(self.epoch, records, snapshots);
        crash_point(format_args!("after journal {what}"));
        match &result {
            Ok(sequence) => (self.last, self.degraded) = (*sequence, None),
            Err(error) => {
                self.in_doubt |= matches!(error, journal::Error::Failed { .. });
                self.degraded = Some(format!("nothing can be deployed: {error}"));
            }
        }
        result
    }

    /// After a failed write: finds out what is there, and whether writing works again.
    pub(crate) fn recover(&mut self) -> Result<(), journal::Error> {
        self.catch_up()?;
        let started = record::started(self.now(), &self.anchor);
        self.append("started", &[started], &[]).map(|_| ())
    }

    /// A write that failed may have happened all the same. What is in the journal counts, so it is
    /// taken in before anything else is: a state beside the journal's would not survive a restart.
    fn catch_up(&mut self) -> Result<(), journal::Error> {
        if !self.in_doubt || bug("doubt-forgotten") {
            return Ok(());
        }
        let mut found = Vec::new();
        each_record(&*self.journal, None, self.last, |record| found.push(record.clone()))?;
        if let Some(other) = found.iter().find(|record| record.epoch != self.epoch) {
            return Err(journal::Error::Fenced { given: self.epoch, current: other.epoch });
        }
        for record in found {
            self.take_in(&record);
            self.last = record.sequence;
        }
        self.in_doubt = false;
        Ok(())
    }

    fn take_in(&mut self, record: &Record) {
        if let Some(Ok(versions)) = record::read_configured(record) {
            self.configured.extend(versions);
        }
        if let Some(deed) = record::read_deed(record) {
            remember(&mut self.deeds, deed);
        }
        let Some(Ok(event)) = record::read_event(record) else { return };
        let Ok(key) = ServiceKey::try_from(record.content.scope.clone()) else { return };
        let (before, at) = (self.service(&key), record.content.at);
        let Ok(transition) = step(&before, &event, at) else { return };
        if let Some(watcher) = &mut self.watcher {
            watcher(&before, &event, &transition, at);
        }
        let consequences = Consequences::of(&transition);
        self.put(key, transition.service);
        self.announce(record.sequence, record.content.wall_ms, &consequences, event);
    }

    fn announce(&self, sequence: Sequence, at_ms: u64, about: &Consequences, event: Event) {
        let Some(listeners) = self.listeners() else { return };
        let verdict = record::verdict_of(event);
        for id in about.rollouts.keys() {
            let lines = record::to_lines(sequence, at_ms, about, *id, verdict.as_ref());
            for event in lines {
                // Nobody following any more is fine.
                let _ = listeners.send(Line { rollout: *id, event });
            }
        }
    }

    /// Sends a line that is not worth the journal: live figures.
    pub(crate) fn announce_progress(&self, rollout: RolloutId, event: RolloutEvent) {
        if let Some(listeners) = self.listeners() {
            let _ = listeners.send(Line { rollout, event });
        }
    }

    /// Everything written about one rollout after a place, oldest first.
    pub(crate) fn lines_of(
        &self,
        key: &ServiceKey,
        rollout: RolloutId,
        after: Sequence,
    ) -> Result<Vec<RolloutEvent>, journal::Error> {
        let mut lines = Vec::new();
        each_record(&*self.journal, Some(&key.to_string()), after, |record| {
            lines.extend(record::lines(record, rollout));
        })?;
        Ok(lines)
    }

    /// Writes down what was done. When the journal does not take it, it was not written.
    pub(crate) fn note_deed(&mut self, deed: Deed) -> Result<(), journal::Error> {
        self.catch_up()?;
        let record = record::deed(self.now(), &deed);
        let wall_ms = record.wall_ms;
        self.append("deed", &[record], &[])?;
        remember(&mut self.deeds, (wall_ms, deed));
        Ok(())
    }

    /// What was done, and when by the wall clock, newest first.
    pub(crate) fn deeds(&self) -> impl Iterator<Item = &(u64, Deed)> {
        self.deeds.iter().rev()
    }

    /// Writes records that no state follows from.
    pub(crate) fn note(&mut self, records: &[NewRecord]) -> Result<Sequence, journal::Error> {
        self.catch_up()?;
        self.append("trial", records, &[])
    }

    /// Everything written about a rollout's exact tests, oldest first.
    pub(crate) fn trial_of(&self, id: RolloutId) -> Result<Vec<Record>, journal::Error> {
        let mut records = Vec::new();
        let scope = record::trial_scope(id);
        each_record(&*self.journal, Some(&scope), Sequence(0), |record| {
            records.push(record.clone());
        })?;
        Ok(records)
    }

    /// Which service a rollout belongs to.
    pub(crate) fn service_of(&self, id: RolloutId) -> Option<&Service> {
        self.services.values().map(|service| &**service).find(|s| views::find(s, id).is_some())
    }
}

#[cfg(test)]
mod tests;
