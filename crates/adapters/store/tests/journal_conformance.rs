//! The `SQLite` journal keeps the promises that every journal makes.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::path::PathBuf;

use switchback_ports::journal::conformance::{self, Place};
use switchback_ports::journal::{Journal, Sequence};
use switchback_store::SqliteJournal;

struct Directory(tempfile::TempDir);

impl Directory {
    fn path(&self) -> PathBuf {
        self.0.path().join("journal.sqlite")
    }
}

impl Place for Directory {
    fn open(&self) -> Box<dyn Journal> {
        Box::new(SqliteJournal::open(&self.path()).unwrap())
    }

    fn tamper(&self, at: Sequence) {
        let connection = rusqlite::Connection::open(self.path()).unwrap();
        let sql = "UPDATE record SET body = CAST(body || x'21' AS BLOB) WHERE sequence = ?1";
        assert_eq!(connection.execute(sql, [i64::try_from(at.0).unwrap()]).unwrap(), 1);
    }
}

#[test]
fn sqlite_keeps_the_promises_of_a_journal() {
    conformance::check(|| Box::new(Directory(tempfile::tempdir().unwrap())));
}
