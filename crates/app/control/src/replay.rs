//! From the journal back to every service's state: the newest snapshot and the events after it.

use std::collections::{BTreeMap, VecDeque};

use switchback_domain::seeded::bug;
use switchback_domain::{ServiceKey, Timestamp};
use switchback_engine::{Service, step};
use switchback_ports::Journal;
use switchback_ports::journal::{self, Record, Sequence};

use crate::clock::Anchor;
use crate::record::Deed;
use crate::{Error, record};

/// Deeds that are told of; the journal has them all.
const DEEDS_TOLD: usize = 200;
/// Records read in one go.
const PAGE: usize = 500;

/// Adds what was done beside rollouts, and forgets the oldest of too much.
pub(crate) fn remember(deeds: &mut VecDeque<(u64, Deed)>, deed: (u64, Deed)) {
    if deeds.len() == DEEDS_TOLD {
        deeds.pop_front();
    }
    deeds.push_back(deed);
}

/// Shows the records of a scope (of all, if none is named) after a place, in their order.
pub(crate) fn each_record(
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
        if page.len() < PAGE {
            return Ok(());
        }
    }
}

/// What was read back.
pub(crate) struct Replayed {
    pub(crate) services: BTreeMap<ServiceKey, Service>,
    pub(crate) anchor: Option<Anchor>,
    pub(crate) configured: BTreeMap<String, String>,
    /// What was done beside rollouts, the newest of it.
    pub(crate) deeds: VecDeque<(u64, Deed)>,
    /// The newest time.
    pub(crate) last: Timestamp,
}

/// Rebuilds every state from its newest snapshot and the events after it.
pub(crate) fn replay(journal: &dyn Journal) -> Result<Replayed, Error> {
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
                // Each adds to those before it.
                replayed.configured.extend(configured.unwrap_or_default());
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

/// The highest number of a rollout that the service knows.
pub(crate) fn highest_id(service: &Service) -> u64 {
    let ended = service.ended.iter().map(|ended| ended.rollout.request.id.0);
    let active = service.rollout.iter().map(|rollout| rollout.request.id.0);
    let waiting = service.queue.iter().map(|request| request.id.0);
    ended.chain(active).chain(waiting).max().unwrap_or(0)
}
