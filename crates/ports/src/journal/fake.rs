//! A journal in memory, for tests: the same promises as a real one, and faults on demand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use switchback_domain::Epoch;

use super::chain::{self, GENESIS};
use super::{Error, Journal, NewRecord, Record, Sequence, Snapshot};

/// How an append goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The disk is full; nothing was written.
    Full,
    /// The append failed and nothing was written.
    FailedBeforeDurable,
    /// Everything was written, but the caller is told that it failed.
    FailedAfterDurable,
}

#[derive(Debug, Default)]
struct State {
    epoch: Epoch,
    records: Vec<Record>,
    snapshots: BTreeMap<String, Snapshot>,
    /// Counts calls of `append`, from 1.
    appends: u64,
    /// The calls that go wrong.
    faults: BTreeMap<u64, Fault>,
}

/// A journal in memory. A clone is another handle on the same records, as if the file had been
/// opened once more: drop one and go on with the other to play a crash.
#[derive(Debug, Clone, Default)]
pub struct FakeJournal {
    state: Arc<Mutex<State>>,
}

impl FakeJournal {
    /// An empty journal.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an append to come go wrong: 1 is the next one. A later call for the same append
    /// replaces the earlier one.
    pub fn fail_append(&self, nth: u64, fault: Fault) {
        let mut state = self.state();
        let call = state.appends.saturating_add(nth);
        state.faults.insert(call, fault);
    }

    /// How often `append` was called, also in vain.
    pub fn appends(&self) -> u64 {
        self.state().appends
    }

    /// Changes the body of a record behind the journal's back; without effect when there is no
    /// such record.
    pub fn tamper(&self, at: Sequence) {
        let mut state = self.state();
        if let Some(record) = state.records.iter_mut().find(|record| record.sequence == at) {
            record.content.body.push(b'!');
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self, epoch: Epoch, sequence: Sequence, snapshots: &[Snapshot]) -> Result<(), Error> {
        if epoch != self.epoch {
            return Err(Error::Fenced { given: epoch, current: self.epoch });
        }
        let dangling = |snapshot: &&Snapshot| stamp(snapshot, sequence).0 > sequence.0;
        match snapshots.iter().find(dangling) {
            Some(snapshot) => Err(unknown_record(snapshot)),
            None if sequence.0 == 0 && !snapshots.is_empty() => Err(unknown_record(&snapshots[0])),
            None => Ok(()),
        }
    }

    fn write(&mut self, epoch: Epoch, records: &[NewRecord], snapshots: &[Snapshot]) -> Sequence {
        for content in records {
            let sequence = Sequence(self.records.len() as u64 + 1);
            let previous = self.records.last().map_or(GENESIS, |record| &record.hash);
            let hash = chain::link(previous, sequence, epoch, content);
            self.records.push(Record { sequence, epoch, content: content.clone(), hash });
        }
        let last = Sequence(self.records.len() as u64);
        for snapshot in snapshots {
            let stamped = Snapshot { sequence: stamp(snapshot, last), ..snapshot.clone() };
            self.snapshots.insert(stamped.scope.clone(), stamped);
        }
        last
    }
}

fn stamp(snapshot: &Snapshot, last: Sequence) -> Sequence {
    if snapshot.sequence.0 == 0 { last } else { snapshot.sequence }
}

fn unknown_record(snapshot: &Snapshot) -> Error {
    let Snapshot { scope, sequence, .. } = snapshot;
    Error::failed("append to", format!("the snapshot of {scope} has no record {}", sequence.0))
}

impl Journal for FakeJournal {
    fn begin_epoch(&mut self) -> Result<Epoch, Error> {
        let mut state = self.state();
        state.epoch = state.epoch.next();
        Ok(state.epoch)
    }

    fn append(
        &mut self,
        epoch: Epoch,
        records: &[NewRecord],
        snapshots: &[Snapshot],
    ) -> Result<Sequence, Error> {
        let mut state = self.state();
        state.appends += 1;
        let call = state.appends;
        let fault = state.faults.remove(&call);
        match fault {
            Some(Fault::Full) => return Err(Error::Full),
            Some(Fault::FailedBeforeDurable) => {
                return Err(Error::failed("append to", "a fault before the write, on demand"));
            }
            Some(Fault::FailedAfterDurable) | None => {}
        }
        let last = Sequence((state.records.len() + records.len()) as u64);
        state.check(epoch, last, snapshots)?;
        let sequence = state.write(epoch, records, snapshots);
        if fault.is_some() {
            return Err(Error::failed("append to", "a fault after the write, on demand"));
        }
        Ok(sequence)
    }

    fn read(
        &self,
        scope: Option<&str>,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<Record>, Error> {
        let state = self.state();
        let wanted = |record: &&Record| {
            record.sequence > after && scope.is_none_or(|scope| record.content.scope == scope)
        };
        Ok(state.records.iter().filter(wanted).take(limit).cloned().collect())
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>, Error> {
        Ok(self.state().snapshots.values().cloned().collect())
    }

    fn verify(&self) -> Result<u64, Error> {
        let state = self.state();
        let mut previous = GENESIS;
        for record in &state.records {
            if chain::link(previous, record.sequence, record.epoch, &record.content) != record.hash
            {
                let why = "its content does not match its hash".to_owned();
                return Err(Error::Damaged { at: record.sequence, why });
            }
            previous = &record.hash;
        }
        Ok(state.records.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{self, Place, record};
    use super::*;

    impl Place for FakeJournal {
        fn open(&self) -> Box<dyn Journal> {
            Box::new(self.clone())
        }

        fn tamper(&self, at: Sequence) {
            Self::tamper(self, at);
        }
    }

    #[test]
    fn keeps_the_promises_of_a_journal() {
        conformance::check(|| Box::new(FakeJournal::new()));
    }

    #[test]
    fn faults_strike_the_append_they_were_meant_for() {
        let mut journal = FakeJournal::new();
        let epoch = journal.begin_epoch().unwrap();
        journal.fail_append(2, Fault::Full);
        journal.fail_append(3, Fault::FailedBeforeDurable);
        journal.fail_append(4, Fault::FailedAfterDurable);
        let mut append = |n| journal.append(epoch, &[record("a", n)], &[]);
        assert_eq!(append(1).unwrap(), Sequence(1));
        assert!(matches!(append(2), Err(Error::Full)));
        assert!(matches!(append(3), Err(Error::Failed { .. })));
        assert!(matches!(append(4), Err(Error::Failed { .. })));
        assert_eq!(append(5).unwrap(), Sequence(3));
        assert_eq!((journal.appends(), journal.verify().unwrap()), (5, 3));
    }
}
