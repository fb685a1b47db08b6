//! `kill -9` of a writer at any moment: what was acknowledged is there, what was not is there as a
//! whole or not at all.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use switchback_ports::journal::conformance::record;
use switchback_ports::journal::{Journal, Sequence, Snapshot};
use switchback_store::SqliteJournal;

const JOURNAL: &str = "JOURNAL_TEST_PATH";
const KILLS: u64 = 60;

/// How many records the append with this number has: 1, 2 or 3.
fn size_of(append: u64) -> u64 {
    append % 3 + 1
}

/// How many records the first `appends` appends have.
fn total(appends: u64) -> u64 {
    (1..=appends).map(size_of).sum()
}

#[test]
fn part_of_a_writer_that_is_killed() {
    let Some(path) = std::env::var_os(JOURNAL).map(PathBuf::from) else { return };
    let mut journal = SqliteJournal::open(&path).unwrap();
    let epoch = journal.begin_epoch().unwrap();
    let first = appends_in(&journal) + 1;
    let mut out = std::io::stdout();
    for append in first.. {
        let records: Vec<_> = (0..size_of(append)).map(|_| record("a", append)).collect();
        let body = append.to_be_bytes().to_vec();
        let snapshot = Snapshot { scope: "a".into(), sequence: Sequence(0), version: 1, body };
        journal.append(epoch, &records, &[snapshot]).unwrap();
        writeln!(out, "acknowledged {append}").unwrap();
    }
}

/// Checks the journal whole and returns how many appends it holds.
fn appends_in(journal: &SqliteJournal) -> u64 {
    let records = journal.verify().unwrap();
    let snapshots = journal.snapshots().unwrap();
    let Some(snapshot) = snapshots.first() else {
        assert_eq!(records, 0);
        return 0;
    };
    let appends = u64::from_be_bytes(snapshot.body.as_slice().try_into().unwrap());
    assert_eq!((snapshot.sequence, records), (Sequence(total(appends)), total(appends)));
    appends
}

/// Starts a writer, kills it, and returns the last append that was acknowledged, by it or before.
/// In every fifth round it is killed while it starts and opens the journal.
fn write_and_kill(path: &Path, round: u64, held: u64) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "part_of_a_writer_that_is_killed", "--nocapture"]);
    command.env(JOURNAL, path).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let number = |line: &str| line.split_once("acknowledged ")?.1.parse::<u64>().ok();
    let acknowledged = lines.by_ref().map_while(Result::ok).filter_map(|line| number(&line));
    let mut last = acknowledged.take(usize::try_from(round % 5).unwrap()).last().unwrap_or(held);
    // Another moment of an append in every round.
    let spread = if round.is_multiple_of(5) { 12_000 } else { 3_000 };
    // sleep: the kill is meant to hit a random moment of an append.
    std::thread::sleep(Duration::from_micros(round * 397 % spread));
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines.map_while(Result::ok) {
        last = number(&line).unwrap_or(last);
    }
    last
}

#[test]
fn what_was_acknowledged_survives_and_the_rest_is_all_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.sqlite");
    let (mut held, mut unacknowledged) = (0, 0);
    for round in 0..KILLS {
        let last = write_and_kill(&path, round, held);
        let journal = SqliteJournal::open(&path).unwrap();
        held = appends_in(&journal);
        assert!(held == last || held == last + 1, "round {round}: {last} of {held}");
        unacknowledged += held - last;
        let read = journal.read(None, Sequence(0), usize::MAX).unwrap();
        assert!(read.iter().map(|record| record.sequence.0).eq(1..=total(held)));
        let bodies = (1..=held).flat_map(|append| (0..size_of(append)).map(move |_| append));
        assert!(
            read.iter()
                .map(|record| &record.content)
                .eq(&bodies.map(|append| record("a", append)).collect::<Vec<_>>())
        );
    }
    println!("{KILLS} kills, {unacknowledged} appends were durable but not acknowledged");
}
