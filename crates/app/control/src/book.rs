//! The states of all services and the journal they are written to: journal first, act second.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use switchback_api::RolloutEvent;
use switchback_domain::seeded::bug;
use switchback_domain::{Epoch, ServiceKey, Timestamp};
use switchback_engine::{
    Event, EventKind, Note, NoteKind, Rejection, RolloutId, Service, Transition, step, violations,
};
use switchback_ports::journal::{self, NewRecord, Record, Sequence};
use switchback_ports::{Journal, crash_point};
use tokio::sync::broadcast;

use crate::clock::{self, Anchor};
use crate::record::{self, Consequences, Deed};
use crate::{Error, views};

/// Records between two snapshots of a service: replay stays short, the journal small.
const SNAPSHOT_EVERY: u32 = 100;
/// Records read in one go.
const PAGE: usize = 500;
/// Events a slow listener may lag behind before it has to read the journal again.
const BACKLOG: usize = 1024;

/// Deeds that are told of; the journal has them all.
const DEEDS_TOLD: usize = 200;

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

/// All states, and the journal behind them.
pub(crate) struct Book {
    journal: Box<dyn Journal>,
    epoch: Epoch,
    anchor: Anchor,
    services: BTreeMap<ServiceKey, Arc<Service>>,
    /// The services with a rollout.
    active: BTreeSet<ServiceKey>,
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
        let active = replayed.services.iter().filter(|(_, service)| service.rollout.is_some());
        let mut book = Self {
            journal,
            epoch,
            anchor,
            active: active.map(|(key, _)| key.clone()).collect(),
            changed: replayed.services.keys().cloned().collect(),
            changes: 0,
            services: replayed.services.into_iter().map(|(key, s)| (key, Arc::new(s))).collect(),
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
        self.active.iter().filter_map(|key| self.services.get_key_value(key))
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
        if service.rollout.is_none() {
            self.active.remove(&key);
        } else if !self.active.contains(&key) {
            self.active.insert(key.clone());
        }
        self.changes += 1;
        self.changed.insert(key.clone());
        self.services.insert(key, Arc::new(service));
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

    pub(crate) fn set_configured(
        &mut self,
        versions: BTreeMap<String, String>,
    ) -> Result<(), ApplyError> {
        if self.configured != versions {
            self.catch_up().map_err(ApplyError::Journal)?;
            let record = record::configured(self.now(), &versions);
            self.append("configured", &[record], &[]).map_err(ApplyError::Journal)?;
            self.configured = versions;
        }
        Ok(())
    }

    /// Steps a service's machine, writes what happened and only then takes the new state over.
    /// An event from which nothing follows is not written.
    pub(crate) fn apply(&mut self, key: &ServiceKey, event: Event) -> Result<(), ApplyError> {
        self.catch_up().map_err(ApplyError::Journal)?;
        let now = self.now();
        let before = self.service(key);
        let transition = step(&before, &event, now)?;
        if transition.service == *before && transition.notes.is_empty() {
            return Ok(());
        }
        let consequences = Consequences::of(&transition);
        let record = record::event(&key.to_string(), now, &event, &consequences);
        let wall_ms = record.wall_ms;
        let snapshots = if self.is_snapshot_due(key, &transition.notes) {
            let service = if bug("snapshot-of-before") { &*before } else { &transition.service };
            vec![record::snapshot(service)]
        } else {
            Vec::new()
        };
        let sequence = self.append(event.kind.name(), &[record], &snapshots);
        let sequence = match sequence {
            Err(_) if bug("act-before-persist") => self.last,
            written => written.map_err(ApplyError::Journal)?,
        };
        let count = self.since_snapshot.entry(key.clone()).or_default();
        *count = if snapshots.is_empty() { *count + 1 } else { 0 };
        if let Some(watcher) = &mut self.watcher {
            watcher(&before, &event, &transition, now);
        }
        self.violations += violations(&transition.service).len() as u64;
        self.put(key.clone(), transition.service);
        self.announce(sequence, wall_ms, &consequences, event);
        Ok(())
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
            self.configured = versions;
        }
        if let Some(deed) = record::read_deed(record) {
            remember(&mut self.deeds, deed);
        }
        let Some(Ok(event)) = record::read_event(record) else { return };
        let Some(key) = self.key_of(&event, record) else { return };
        let (before, at) = (self.service(&key), record.content.at);
        let Ok(transition) = step(&before, &event, at) else { return };
        if let Some(watcher) = &mut self.watcher {
            watcher(&before, &event, &transition, at);
        }
        let consequences = Consequences::of(&transition);
        self.put(key, transition.service);
        self.announce(record.sequence, record.content.wall_ms, &consequences, event);
    }

    /// Whose event a record is; the first one of a service names it only in its request.
    fn key_of(&self, event: &Event, record: &Record) -> Option<ServiceKey> {
        let known = self.services.keys().find(|key| key.to_string() == record.content.scope);
        if let (None, EventKind::Requested(request)) = (known, &event.kind) {
            return Some(request.release.key.clone());
        }
        known.cloned()
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

fn remember(deeds: &mut VecDeque<(u64, Deed)>, deed: (u64, Deed)) {
    if deeds.len() == DEEDS_TOLD {
        deeds.pop_front();
    }
    deeds.push_back(deed);
}

fn each_record(
    journal: &dyn Journal,
    scope: Option<&str>,
    mut after: Sequence,
    mut visit: impl FnMut(&Record),
) -> Result<(), journal::Error> {
    loop {
        let page = journal.read(scope, after, PAGE)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.sequence;
        page.iter().for_each(&mut visit);
    }
}

/// What was read back.
struct Replayed {
    services: BTreeMap<ServiceKey, Service>,
    anchor: Option<Anchor>,
    configured: BTreeMap<String, String>,
    deeds: VecDeque<(u64, Deed)>,
    last: Timestamp,
}

/// Rebuilds every state from its newest snapshot and the events after it.
fn replay(journal: &dyn Journal) -> Result<Replayed, Error> {
    let read = |source| Error::Journal { operation: "read", source };
    let mut replayed = Replayed {
        services: BTreeMap::new(),
        anchor: None,
        configured: BTreeMap::new(),
        deeds: VecDeque::new(),
        last: Timestamp::default(),
    };
    each_record(journal, Some(record::DEEDS), Sequence(0), |found| {
        replayed.last = replayed.last.max(found.content.at);
        if let Some(deed) = record::read_deed(found) {
            remember(&mut replayed.deeds, deed);
        }
    })
    .map_err(read)?;
    for snapshot in journal.snapshots().map_err(read)? {
        let service = record::read_snapshot(&snapshot).map_err(unreadable)?;
        let key = service.key.to_string();
        let service = replay_service(journal, service, snapshot.sequence, &mut replayed.last)?;
        debug_assert_eq!(key, snapshot.scope);
        replayed.services.insert(service.key.clone(), service);
    }
    let mut failed = None;
    each_record(journal, Some(record::CONTROL), Sequence(0), |found| {
        replayed.last = replayed.last.max(found.content.at);
        let anchor = record::read_started(found).transpose();
        let configured = record::read_configured(found).transpose();
        match (anchor, configured) {
            (Err(error), _) | (_, Err(error)) => failed = Some(error),
            (Ok(anchor), Ok(configured)) => {
                replayed.anchor = anchor.or_else(|| replayed.anchor.take());
                replayed.configured =
                    configured.unwrap_or_else(|| std::mem::take(&mut replayed.configured));
            }
        }
    })
    .map_err(read)?;
    failed.map_or(Ok(replayed), |error| Err(unreadable(error)))
}

fn unreadable(error: record::Error) -> Error {
    Error::Record(Box::new(error))
}

fn replay_service(
    journal: &dyn Journal,
    mut service: Service,
    after: Sequence,
    last: &mut Timestamp,
) -> Result<Service, Error> {
    let mut failed = None;
    let scope = service.key.to_string();
    // The record that the snapshot was taken at is read too, for its time alone: there may be no
    // later one, and the journal's time must not go back behind it.
    let from = Sequence(after.0.saturating_sub(u64::from(!bug("clock-set-back"))));
    each_record(journal, Some(&scope), from, |found| {
        *last = (*last).max(found.content.at);
        if found.sequence <= after {
            return;
        }
        match record::read_event(found) {
            Some(Ok(event)) => {
                // What was written was accepted then; a rejection now would be another build's
                // opinion, and the state simply stays.
                if let Ok(transition) = step(&service, &event, found.content.at) {
                    service = transition.service;
                }
            }
            Some(Err(error)) => failed = Some(error),
            None => {}
        }
    })
    .map_err(|source| Error::Journal { operation: "read", source })?;
    failed.map_or(Ok(service), |error| Err(unreadable(error)))
}

fn highest_id(service: &Service) -> u64 {
    let ended = service.ended.iter().map(|ended| ended.rollout.request.id.0);
    let active = service.rollout.iter().map(|rollout| rollout.request.id.0);
    let waiting = service.queue.iter().map(|request| request.id.0);
    ended.chain(active).chain(waiting).max().unwrap_or(0)
}
