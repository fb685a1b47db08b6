//! Where decisions are written down before they are carried out.
//!
//! The journal sees kinds, versions and bytes, never an engine type: a newer build must read what
//! an older one wrote.

pub mod chain;
pub mod conformance;
pub mod fake;

use serde::{Deserialize, Serialize};
use switchback_domain::{Epoch, Timestamp};

/// A record's place, from 1, without gaps.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Sequence(pub u64);

/// A record to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// Whose: a service key as text, or `control` for the control plane itself.
    pub scope: String,
    /// What it is: `event.deploy`, ...
    pub kind: String,
    /// Version of the body's form.
    pub version: u16,
    /// When, on the journal's clock.
    pub at: Timestamp,
    /// When, on the wall clock, milliseconds since the Unix epoch: for people only.
    pub wall_ms: u64,
    /// The event.
    pub body: Vec<u8>,
    /// What follows from it: effects, transition, words for people.
    pub consequences: Vec<u8>,
}

/// A record as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place.
    pub sequence: Sequence,
    /// The life of the control plane that wrote it.
    pub epoch: Epoch,
    /// What was written.
    pub content: NewRecord,
    /// SHA-256 over the previous record's hash and this record's content, hexadecimal.
    pub hash: String,
}

/// The state of one scope after a record: replay goes on from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Whose.
    pub scope: String,
    /// The last record it contains.
    pub sequence: Sequence,
    /// Version of the body's form.
    pub version: u16,
    /// The state.
    pub body: Vec<u8>,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A newer epoch was opened: the caller is not in charge any more.
    #[error("refused: epoch {given:?} is over, {current:?} is in charge")]
    Fenced {
        /// The caller's.
        given: Epoch,
        /// The newest.
        current: Epoch,
    },
    /// No room: nothing was written.
    #[error("the disk is full")]
    Full,
    /// The hash chain is broken: the journal was damaged or changed by hand.
    #[error("the journal is damaged at record {}: {why}", at.0)]
    Damaged {
        /// The first bad record; 0 when the file as a whole cannot be read.
        at: Sequence,
        /// What is wrong with it.
        why: String,
    },
    /// Written by a newer build.
    #[error("the journal has format {found}, this build knows up to {known}")]
    TooNew {
        /// What is there.
        found: u32,
        /// What this build knows.
        known: u32,
    },
    /// Reading or writing failed.
    #[error("cannot {operation} the journal")]
    Failed {
        /// `open`, `append to`, `read`.
        operation: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// [`Error::Failed`] with its cause.
    pub fn failed(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed { operation, source: source.into() }
    }
}

/// Where decisions are written down. One writer at a time; calls block until durable.
pub trait Journal: Send {
    /// Begins a new life: takes the next epoch durably. Appends of earlier epochs are refused
    /// from now on, and so are those of epochs that never began.
    fn begin_epoch(&mut self) -> Result<Epoch, Error>;

    /// Writes the records and replaces the snapshots, all or nothing, durable on return.
    /// Snapshots with sequence 0 are stamped with the last record written here. Returns the
    /// place of the last record, also when nothing but snapshots was given. A snapshot of a
    /// record that does not exist is refused.
    fn append(
        &mut self,
        epoch: Epoch,
        records: &[NewRecord],
        snapshots: &[Snapshot],
    ) -> Result<Sequence, Error>;

    /// Records after a place, oldest first, at most `limit`; of one scope if given. Fewer are all
    /// there are.
    fn read(
        &self,
        scope: Option<&str>,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<Record>, Error>;

    /// The newest snapshot of every scope.
    fn snapshots(&self) -> Result<Vec<Snapshot>, Error>;

    /// Checks the hash chain from the first record to the last, and the snapshots; returns how
    /// many records hold. A missing end is found too.
    fn verify(&self) -> Result<u64, Error>;
}
