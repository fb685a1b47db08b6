//! Several control planes that open one journal at the same moment: each gets an epoch of its own,
//! and only the newest one writes.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::path::Path;
use std::sync::Barrier;

use switchback_domain::Epoch;
use switchback_ports::journal::conformance::record;
use switchback_ports::journal::{Error, Journal, Sequence};
use switchback_store::SqliteJournal;

const WRITERS: u32 = 8;
const ROUNDS: u32 = 10;

/// Opens the journal when all are ready to, begins an epoch, and writes until fenced.
fn lead(path: &Path, all_ready: &Barrier) -> (Epoch, u64) {
    all_ready.wait();
    let mut journal = SqliteJournal::open(path).unwrap();
    let epoch = journal.begin_epoch().unwrap();
    for written in 0..5 {
        match journal.append(epoch, &[record("a", written)], &[]) {
            Ok(_) => {}
            Err(Error::Fenced { given, current }) => {
                assert!(given == epoch && current > epoch);
                return (epoch, written);
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    (epoch, 5)
}

#[test]
fn epochs_are_given_once_and_records_follow_their_order() {
    for round in 0..ROUNDS {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.sqlite");
        let all_ready = Barrier::new(WRITERS as usize);
        let mut leaders: Vec<(Epoch, u64)> = std::thread::scope(|scope| {
            let start = |_| scope.spawn(|| lead(&path, &all_ready));
            let threads: Vec<_> = (0..WRITERS).map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        leaders.sort_unstable();
        let epochs = leaders.iter().map(|(epoch, _)| epoch.0);
        assert!(epochs.eq(1..=WRITERS), "round {round}: {leaders:?}");
        assert_eq!(leaders.last().unwrap().1, 5, "nobody fences the last one");
        let journal = SqliteJournal::open(&path).unwrap();
        let written: u64 = leaders.iter().map(|(_, written)| written).sum();
        assert_eq!(journal.verify().unwrap(), written);
        let records = journal.read(None, Sequence(0), usize::MAX).unwrap();
        assert!(records.is_sorted_by_key(|record| record.epoch));
    }
}
