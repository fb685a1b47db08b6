//! Files that are not, or not any more, what the journal wrote: found, said, never a panic.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::error::Error as _;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use switchback_ports::journal::conformance::record;
use switchback_ports::journal::{Error, Journal, Sequence, Snapshot};
use switchback_store::SqliteJournal;

fn journal_of(directory: &Path, records: u64) -> PathBuf {
    let path = directory.join("journal.sqlite");
    let mut journal = SqliteJournal::open(&path).unwrap();
    let epoch = journal.begin_epoch().unwrap();
    for number in 1..=records {
        let scope = "production/api".to_owned();
        let body = number.to_be_bytes().to_vec();
        let snapshot = Snapshot { scope, sequence: Sequence(0), version: 1, body };
        journal.append(epoch, &[record("production/api", number)], &[snapshot]).unwrap();
    }
    path
}

fn verify_after(sql: &str) -> Result<u64, Error> {
    let directory = tempfile::tempdir().unwrap();
    let path = journal_of(directory.path(), 9);
    let journal = SqliteJournal::open(&path).unwrap();
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "foreign_keys", "off").unwrap();
    connection.execute_batch(sql).unwrap();
    journal.verify()
}

#[test]
fn every_change_by_hand_is_found_at_its_record() {
    let cases = [
        ("UPDATE record SET kind = 'event.other' WHERE sequence = 4", 4),
        ("UPDATE record SET consequences = x'' WHERE sequence = 1", 1),
        ("UPDATE record SET wall_ms = wall_ms + 1 WHERE sequence = 9", 9),
        ("UPDATE record SET epoch = 0 WHERE sequence = 5", 5),
        ("UPDATE record SET epoch = -1 WHERE sequence = 5", 5),
        ("UPDATE record SET version = 70000 WHERE sequence = 2", 2),
        ("UPDATE record SET hash = upper(hash) WHERE sequence = 3", 3),
        ("DELETE FROM record WHERE sequence = 6", 6),
        ("DELETE FROM record WHERE sequence = 1", 1),
        ("DELETE FROM record WHERE sequence > 7", 8),
        ("DELETE FROM record", 1),
        ("UPDATE record SET sequence = 20 WHERE sequence = 9", 9),
        ("UPDATE snapshot SET body = x'00'", 9),
    ];
    assert_eq!(verify_after("").unwrap(), 9);
    for (sql, first_bad) in cases {
        let found = verify_after(sql);
        let expected = Sequence(first_bad);
        assert!(
            matches!(&found, Err(Error::Damaged { at, .. }) if *at == expected),
            "{sql}: {found:?}"
        );
    }
}

#[test]
fn a_missing_end_is_found_when_the_journal_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = journal_of(directory.path(), 3);
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "foreign_keys", "off").unwrap();
    connection.execute("DELETE FROM record WHERE sequence = 3", ()).unwrap();
    let refused = SqliteJournal::open(&path).map(drop);
    assert!(matches!(refused, Err(Error::Damaged { at: Sequence(3), .. })), "{refused:?}");
}

/// Reads everything there is to read; fails as soon as one of the ways fails.
fn read_everything(path: &Path) -> Result<u64, Error> {
    let journal = SqliteJournal::open(path)?;
    let verified = journal.verify()?;
    journal.read(None, Sequence(0), 1000)?;
    journal.read(Some("production/api"), Sequence(0), 1000)?;
    journal.snapshots()?;
    Ok(verified)
}

#[test]
fn garbage_anywhere_in_the_file_is_an_error_and_never_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    let path = journal_of(directory.path(), 200);
    assert_eq!(read_everything(&path).unwrap(), 200);
    let pristine = fs::read(&path).unwrap();
    assert!(pristine.len() > 10 * 4096, "{} bytes", pristine.len());
    let mut found = 0;
    for (page, start) in (0..pristine.len()).step_by(4096).enumerate() {
        for (offset, bytes) in [(0, 64), (100, 16), (2048, 2048), (0, 4096)] {
            let mut broken = pristine.clone();
            broken[start + offset..start + offset + bytes].fill(0xA5);
            fs::write(&path, &broken).unwrap();
            let _ = fs::remove_file(directory.path().join("journal.sqlite-wal"));
            let _ = fs::remove_file(directory.path().join("journal.sqlite-shm"));
            let error = match read_everything(&path) {
                Ok(holds) => {
                    assert_eq!(holds, 200, "only space that is not in use may be lost unnoticed");
                    continue;
                }
                Err(error) => error,
            };
            found += 1;
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            assert!(
                matches!(
                    error,
                    Error::Damaged { .. } | Error::Failed { .. } | Error::TooNew { .. }
                ),
                "page {page}: {error:?}"
            );
            assert!(!error.to_string().is_empty() && !error.to_string().contains("  "), "{cause}");
        }
    }
    assert!(found > pristine.len() / 4096 * 2, "{found}");
}

#[test]
fn a_file_of_somebody_else_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.sqlite");
    fs::write(&path, "all my notes\n".repeat(1000)).unwrap();
    let refused = SqliteJournal::open(&path).map(drop).unwrap_err();
    assert_eq!(refused.to_string(), "the journal is damaged at record 0: file is not a database");
    assert_eq!(fs::read_to_string(&path).unwrap(), "all my notes\n".repeat(1000));

    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE recipe (name TEXT)").unwrap();
    let before = fs::read(&path).unwrap();
    let refused = SqliteJournal::open(&path).map(drop).unwrap_err();
    assert_eq!(refused.to_string(), "cannot open the journal");
    assert_eq!(refused.source().unwrap().to_string(), "the file is a database, but not a journal");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_journal_of_a_newer_build_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = journal_of(directory.path(), 1);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let refused = SqliteJournal::open(&path).map(drop);
    assert!(matches!(refused, Err(Error::TooNew { found: 7, known: 1 })), "{refused:?}");
}

#[test]
fn places_where_no_journal_can_be_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().to_path_buf(), directory.path().join("missing/journal")] {
        let refused = SqliteJournal::open(&path).map(drop);
        assert!(matches!(refused, Err(Error::Failed { operation: "open", .. })), "{refused:?}");
    }
}

#[test]
fn only_the_owner_can_read_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.sqlite");
    let mut journal = SqliteJournal::open(&path).unwrap();
    journal.begin_epoch().unwrap();
    for name in ["journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"] {
        let mode = fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_journal_that_was_removed_under_its_writer_takes_no_more_records() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.sqlite");
    let mut journal = SqliteJournal::open(&path).unwrap();
    let epoch = journal.begin_epoch().unwrap();
    fs::rename(&path, directory.path().join("elsewhere")).unwrap();
    let refused = journal.append(epoch, &[record("a", 1)], &[]);
    assert!(matches!(refused, Err(Error::Failed { operation: "append to", .. })), "{refused:?}");
    fs::write(&path, "").unwrap();
    let refused = journal.append(epoch, &[record("a", 1)], &[]);
    assert!(matches!(refused, Err(Error::Failed { operation: "append to", .. })), "{refused:?}");
}

#[test]
fn a_torn_write_ahead_log_loses_no_earlier_record() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("journal.sqlite");
    let mut writer = SqliteJournal::open(&source).unwrap();
    let epoch = writer.begin_epoch().unwrap();
    let wal = directory.path().join("journal.sqlite-wal");
    let mut durable = Vec::new();
    for number in 1..=20 {
        writer.append(epoch, &[record("a", number)], &[]).unwrap();
        durable.push(fs::metadata(&wal).unwrap().len());
    }
    // What a power cut leaves: the log up to some byte, then nonsense.
    for (index, end) in durable.iter().enumerate() {
        let copy = tempfile::tempdir().unwrap();
        let path = copy.path().join("journal.sqlite");
        fs::copy(&source, &path).unwrap();
        let torn = copy.path().join("journal.sqlite-wal");
        fs::copy(&wal, &torn).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&torn).unwrap();
        file.write_all_at(&[0x5A; 300], *end + 50).unwrap();
        assert_eq!(SqliteJournal::open(&path).unwrap().verify().unwrap(), index as u64 + 1);
    }
}
