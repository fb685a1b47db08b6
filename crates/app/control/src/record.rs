//! What the journal holds: versioned envelopes around events, so that a newer build can tell what
//! an older one wrote and translate it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use switchback_api::{RolloutEvent, RolloutSummary};
use switchback_domain::{Timestamp, Verdict};
use switchback_engine::{Effect, Event, EventKind, Note, NoteKind, RolloutId, Service, Transition};
use switchback_ports::journal::{NewRecord, Record, Sequence, Snapshot};

use crate::clock::Anchor;
use crate::views;

/// The form of the bodies written by this build. A change of the events that older bodies do not
/// fit raises it and adds a translation in [`read_event`].
pub(crate) const VERSION: u16 = 1;
/// Scope of records about the control plane itself.
pub(crate) const CONTROL: &str = "control";
const EVENT: &str = "event";
const STARTED: &str = "started";
const CONFIGURED: &str = "configured";
const DEED: &str = "deed";
/// Scope of records about what was done to the whole: no state follows from them.
pub(crate) const DEEDS: &str = "deeds";

/// Who does what nobody asked for, in the audit.
pub(crate) const ITSELF: &str = "switchback";

/// Why a record could not be understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("record {sequence} has form {found}; this build knows up to {VERSION}")]
    TooNew { sequence: u64, found: u16 },
    #[error("record {sequence} cannot be read")]
    Unreadable {
        sequence: u64,
        #[source]
        source: serde_json::Error,
    },
}

/// What follows from an event, written beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Consequences {
    pub(crate) notes: Vec<Note>,
    pub(crate) effects: Vec<Effect>,
    /// The rollouts that the notes are about, as they are after the event.
    pub(crate) rollouts: BTreeMap<RolloutId, RolloutSummary>,
}

impl Consequences {
    pub(crate) fn of(transition: &Transition) -> Self {
        let service = &transition.service;
        let ids = transition.notes.iter().filter_map(|note| note.rollout);
        let summary = |id| Some((id, views::find(service, id)?));
        Self {
            notes: transition.notes.clone(),
            effects: transition.effects.clone(),
            rollouts: ids.filter_map(summary).collect(),
        }
    }
}

fn envelope(scope: &str, kind: &str, at: Timestamp, body: &impl Serialize) -> NewRecord {
    NewRecord {
        scope: scope.to_owned(),
        kind: kind.to_owned(),
        version: VERSION,
        at,
        wall_ms: crate::clock::wall_ms(),
        body: serde_json::to_vec(body).unwrap_or_default(),
        consequences: Vec::new(),
    }
}

pub(crate) fn event(
    scope: &str,
    at: Timestamp,
    event: &Event,
    consequences: &Consequences,
) -> NewRecord {
    let consequences = serde_json::to_vec(consequences).unwrap_or_default();
    NewRecord { consequences, ..envelope(scope, EVENT, at, event) }
}

pub(crate) fn started(at: Timestamp, anchor: &Anchor) -> NewRecord {
    envelope(CONTROL, STARTED, at, anchor)
}

/// The versions that `switchback up` last brought up, by service key.
pub(crate) fn configured(at: Timestamp, versions: &BTreeMap<String, String>) -> NewRecord {
    envelope(CONTROL, CONFIGURED, at, versions)
}

/// Something that was done, and is about no service: for the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deed {
    pub(crate) by: String,
    pub(crate) text: String,
    #[serde(default)]
    pub(crate) failed: bool,
}

pub(crate) fn deed(at: Timestamp, deed: &Deed) -> NewRecord {
    envelope(DEEDS, DEED, at, deed)
}

/// A deed and when it was done; what another build has written differently is nothing to stop for.
pub(crate) fn read_deed(record: &Record) -> Option<(u64, Deed)> {
    Some((record.content.wall_ms, read(record, DEED)?.ok()?))
}

/// Something about a rollout's exact test, under a scope of its own: replay has no need of it.
pub(crate) fn of_trial(rollout: RolloutId, kind: &str, at: Timestamp, body: Vec<u8>) -> NewRecord {
    NewRecord { body, ..envelope(&trial_scope(rollout), kind, at, &()) }
}

/// The scope of records about a rollout's exact test.
pub(crate) fn trial_scope(rollout: RolloutId) -> String {
    format!("trial {rollout}")
}

fn read<T: serde::de::DeserializeOwned>(record: &Record, kind: &str) -> Option<Result<T, Error>> {
    if record.content.kind != kind {
        return None;
    }
    let sequence = record.sequence.0;
    if record.content.version > VERSION {
        return Some(Err(Error::TooNew { sequence, found: record.content.version }));
    }
    let parsed = serde_json::from_slice(&record.content.body);
    Some(parsed.map_err(|source| Error::Unreadable { sequence, source }))
}

pub(crate) fn read_event(record: &Record) -> Option<Result<Event, Error>> {
    read(record, EVENT)
}

pub(crate) fn read_started(record: &Record) -> Option<Result<Anchor, Error>> {
    read(record, STARTED)
}

pub(crate) fn read_configured(record: &Record) -> Option<Result<BTreeMap<String, String>, Error>> {
    read(record, CONFIGURED)
}

pub(crate) fn snapshot(service: &Service) -> Snapshot {
    Snapshot {
        scope: service.key.to_string(),
        sequence: Sequence(0),
        version: VERSION,
        body: serde_json::to_vec(service).unwrap_or_default(),
    }
}

pub(crate) fn read_snapshot(snapshot: &Snapshot) -> Result<Service, Error> {
    let sequence = snapshot.sequence.0;
    if snapshot.version > VERSION {
        return Err(Error::TooNew { sequence, found: snapshot.version });
    }
    serde_json::from_slice(&snapshot.body).map_err(|source| Error::Unreadable { sequence, source })
}

/// The lines of a record that are about one rollout, for `events` and `explain`.
pub(crate) fn lines(record: &Record, rollout: RolloutId) -> Vec<RolloutEvent> {
    let Ok(consequences) = serde_json::from_slice::<Consequences>(&record.content.consequences)
    else {
        return Vec::new();
    };
    let verdict = read_event(record).and_then(Result::ok).and_then(verdict_of);
    to_lines(record.sequence, record.content.wall_ms, &consequences, rollout, verdict.as_ref())
}

/// The judge's words in an event, if it is about them.
pub(crate) fn verdict_of(event: Event) -> Option<Verdict> {
    match event.kind {
        EventKind::Judged { verdict, .. } => Some(*verdict),
        EventKind::Requested(_)
        | EventKind::Commanded(_)
        | EventKind::PoolObserved { .. }
        | EventKind::TrafficAcknowledged { .. }
        | EventKind::WayBackChecked { .. }
        | EventKind::HookFinished { .. }
        | EventKind::Operated(_)
        | EventKind::Ticked => None,
    }
}

pub(crate) fn to_lines(
    sequence: Sequence,
    at_ms: u64,
    consequences: &Consequences,
    rollout: RolloutId,
    verdict: Option<&Verdict>,
) -> Vec<RolloutEvent> {
    let Some(summary) = consequences.rollouts.get(&rollout) else { return Vec::new() };
    let about = consequences.notes.iter().filter(|note| note.rollout == Some(rollout));
    about
        .map(|note| RolloutEvent {
            sequence: sequence.0,
            at_ms,
            kind: kind_word(note.kind).to_owned(),
            text: note.text.clone(),
            summary: summary.clone(),
            verdict: verdict.filter(|_| note.kind == NoteKind::Verdict).cloned(),
        })
        .collect()
}

fn kind_word(kind: NoteKind) -> &'static str {
    match kind {
        NoteKind::Phase => "phase",
        NoteKind::Step => "step",
        NoteKind::Weight => "weight",
        NoteKind::Probe => "probe",
        NoteKind::Verdict => "verdict",
        NoteKind::Command => "command",
        NoteKind::Note => "note",
        NoteKind::Ended => "ended",
    }
}
