//! What every journal has to keep, real or fake: run [`check`] from a test of the adapter.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "called by tests only")]

use switchback_domain::{Epoch, Timestamp};

use super::chain::{self, GENESIS};
use super::{Error, Journal, NewRecord, Sequence, Snapshot};

/// One journal's storage, from which it can be opened again and again.
pub trait Place {
    /// Opens the journal, also while it is open already.
    fn open(&self) -> Box<dyn Journal>;

    /// Changes the body of a record behind the journal's back.
    fn tamper(&self, at: Sequence);
}

/// Runs every case, each on a place of its own; panics at the first broken promise.
pub fn check(new_place: impl Fn() -> Box<dyn Place>) {
    let cases: [fn(&dyn Place); 10] = [
        begins_empty,
        gives_back_what_was_appended,
        appends_all_or_nothing,
        survives_reopening,
        fences_earlier_and_unknown_epochs,
        reads_pages_and_scopes,
        replaces_and_stamps_snapshots,
        a_write_without_an_answer_is_found,
        chains_hashes,
        finds_a_changed_record,
    ];
    for case in cases {
        case(&*new_place());
    }
}

/// A record that can be told from others by its number.
pub fn record(scope: &str, number: u64) -> NewRecord {
    NewRecord {
        scope: scope.to_owned(),
        kind: "event.tick".to_owned(),
        version: u16::try_from(number % 7).unwrap_or_default(),
        at: Timestamp::from_millis(number),
        wall_ms: u64::MAX - number,
        body: number.to_be_bytes().to_vec(),
        consequences: format!("effects of {number}\0").into_bytes(),
    }
}

fn snapshot(scope: &str, sequence: u64, body: &[u8]) -> Snapshot {
    let scope = scope.to_owned();
    Snapshot { scope, sequence: Sequence(sequence), version: 3, body: body.to_vec() }
}

fn begins_empty(place: &dyn Place) {
    let journal = place.open();
    assert_eq!(journal.verify().unwrap(), 0);
    assert!(journal.read(None, Sequence(0), 10).unwrap().is_empty());
    assert!(journal.snapshots().unwrap().is_empty());
}

fn gives_back_what_was_appended(place: &dyn Place) {
    let mut journal = place.open();
    let epoch = journal.begin_epoch().unwrap();
    let empty = NewRecord { body: Vec::new(), consequences: Vec::new(), ..record("", 2) };
    let written = [record("production/api", 1), empty, record("käse\0'\"", u64::MAX)];
    assert_eq!(journal.append(epoch, &written[..2], &[]).unwrap(), Sequence(2));
    assert_eq!(journal.append(epoch, &written[2..], &[]).unwrap(), Sequence(3));
    assert_eq!(journal.append(epoch, &[], &[]).unwrap(), Sequence(3));
    let read = journal.read(None, Sequence(0), 10).unwrap();
    assert!(read.iter().map(|record| &record.content).eq(written.iter()));
    assert!(read.iter().map(|record| record.sequence.0).eq(1..=3));
    assert!(read.iter().all(|record| record.epoch == epoch));
}

fn appends_all_or_nothing(place: &dyn Place) {
    let mut journal = place.open();
    let epoch = journal.begin_epoch().unwrap();
    let refused = journal.append(epoch, &[record("a", 1)], &[snapshot("a", 9, b"of nothing")]);
    assert!(matches!(refused, Err(Error::Failed { .. })), "{refused:?}");
    let refused = journal.append(epoch, &[], &[snapshot("a", 0, b"of nothing")]);
    assert!(matches!(refused, Err(Error::Failed { .. })), "{refused:?}");
    assert_eq!(journal.verify().unwrap(), 0);
    assert!(journal.snapshots().unwrap().is_empty());
    assert_eq!(journal.append(epoch, &[record("a", 2)], &[]).unwrap(), Sequence(1));
}

fn survives_reopening(place: &dyn Place) {
    let mut journal = place.open();
    let first = journal.begin_epoch().unwrap();
    journal.append(first, &[record("a", 1)], &[snapshot("a", 0, b"one")]).unwrap();
    drop(journal);
    let mut journal = place.open();
    assert_eq!(journal.begin_epoch().unwrap(), first.next());
    assert_eq!(journal.append(first.next(), &[record("a", 2)], &[]).unwrap(), Sequence(2));
    assert_eq!(journal.snapshots().unwrap(), [snapshot("a", 1, b"one")]);
    assert_eq!(journal.verify().unwrap(), 2);
}

fn fences_earlier_and_unknown_epochs(place: &dyn Place) {
    let (mut old, mut new) = (place.open(), place.open());
    let before = old.begin_epoch().unwrap();
    old.append(before, &[record("a", 1)], &[]).unwrap();
    let current = new.begin_epoch().unwrap();
    assert!(current > before);
    for given in [before, Epoch(0), current.next()] {
        let refused = old.append(given, &[record("a", 2)], &[snapshot("a", 0, b"stale")]);
        let Err(Error::Fenced { given: said, current: newest }) = refused else {
            panic!("{given:?} was not fenced: {refused:?}");
        };
        assert_eq!((said, newest), (given, current));
    }
    assert_eq!(new.append(current, &[record("a", 3)], &[]).unwrap(), Sequence(2));
    assert!(new.snapshots().unwrap().is_empty());
}

fn reads_pages_and_scopes(place: &dyn Place) {
    let mut journal = place.open();
    let epoch = journal.begin_epoch().unwrap();
    let scope_of = |number| if number % 3 == 0 { "c" } else { "ab" };
    let records: Vec<_> = (1..=20).map(|number| record(scope_of(number), number)).collect();
    journal.append(epoch, &records, &[]).unwrap();
    let read = |scope, after, limit| -> Vec<u64> {
        let page = journal.read(scope, Sequence(after), limit).unwrap();
        page.iter().map(|record| record.sequence.0).collect()
    };
    assert_eq!(read(None, 4, 3), [5, 6, 7]);
    assert_eq!(read(None, 18, usize::MAX), [19, 20]);
    assert_eq!(read(Some("c"), 3, 2), [6, 9]);
    for empty in [read(None, 0, 0), read(None, u64::MAX, 5), read(Some("a"), 0, 5)] {
        assert!(empty.is_empty());
    }
}

fn replaces_and_stamps_snapshots(place: &dyn Place) {
    let mut journal = place.open();
    let epoch = journal.begin_epoch().unwrap();
    let both = [snapshot("a", 0, b"a2"), snapshot("b", 1, b"b1")];
    journal.append(epoch, &[record("b", 1), record("a", 2)], &both).unwrap();
    journal.append(epoch, &[record("a", 3)], &[snapshot("a", 0, b"a3")]).unwrap();
    assert_eq!(journal.snapshots().unwrap(), [snapshot("a", 3, b"a3"), snapshot("b", 1, b"b1")]);
    assert_eq!(journal.append(epoch, &[], &[snapshot("b", 0, b"b3")]).unwrap(), Sequence(3));
    assert_eq!(journal.snapshots().unwrap()[1], snapshot("b", 3, b"b3"));
}

/// The answer to a write may be lost: whoever reads from where it last knew finds out, also through
/// a journal that was open before.
fn a_write_without_an_answer_is_found(place: &dyn Place) {
    let (mut writer, reader) = (place.open(), place.open());
    let epoch = writer.begin_epoch().unwrap();
    let last = writer.append(epoch, &[record("a", 1)], &[]).unwrap();
    let _ = writer.append(epoch, &[record("a", 2), record("b", 3)], &[]);
    drop(writer);
    let found = reader.read(None, last, 10).unwrap();
    assert!(found.iter().map(|record| record.sequence.0).eq([2, 3]));
    assert!(found.iter().all(|record| record.epoch == epoch));
}

fn chains_hashes(place: &dyn Place) {
    let mut journal = place.open();
    let epoch = journal.begin_epoch().unwrap();
    journal.append(epoch, &[record("a", 1), record("b", 1)], &[]).unwrap();
    journal.append(epoch, &[record("a", 1)], &[]).unwrap();
    let mut previous = GENESIS.to_owned();
    for record in journal.read(None, Sequence(0), 10).unwrap() {
        let expected = chain::link(&previous, record.sequence, record.epoch, &record.content);
        assert_eq!(record.hash, expected);
        previous = expected;
    }
    assert_eq!(journal.verify().unwrap(), 3);
}

fn finds_a_changed_record(place: &dyn Place) {
    let mut journal = place.open();
    let epoch = journal.begin_epoch().unwrap();
    let records: Vec<_> = (1..=5).map(|number| record("a", number)).collect();
    journal.append(epoch, &records, &[]).unwrap();
    place.tamper(Sequence(3));
    let found = journal.verify();
    assert!(matches!(found, Err(Error::Damaged { at: Sequence(3), .. })), "{found:?}");
}
