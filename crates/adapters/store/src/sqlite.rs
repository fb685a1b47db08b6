//! The journal in one `SQLite` file: an append is one transaction, durable on return.
//!
//! What records mean is the caller's business; here they are kinds, versions and bytes.

mod failure;
mod file;
mod row;
mod schema;
mod verify;

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior, named_params};
use switchback_domain::Epoch;
use switchback_ports::journal::chain;
use switchback_ports::journal::{Error, Journal, NewRecord, Record, Sequence, Snapshot};

use failure::Failure;
use file::JournalFile;

/// Largest journal in bytes: decades of rollouts. Past it, appends report [`Error::Full`], so
/// that a runaway writer cannot take the whole disk.
pub const JOURNAL_BYTES_MAX: u64 = 16 << 30;

/// The journal in one `SQLite` file, beside its `-wal` and `-shm` files.
#[derive(Debug)]
pub struct SqliteJournal {
    connection: Connection,
    file: JournalFile,
}

impl SqliteJournal {
    /// Opens the journal, or creates it readable and writable for its owner only.
    ///
    /// Fails with [`Error::TooNew`] when a newer build wrote it, with [`Error::Damaged`] when the
    /// file cannot be read or its end is missing, and never changes a file that is not a journal.
    /// The whole chain is not checked: that is what [`Journal::verify`] is for.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_limited(path, JOURNAL_BYTES_MAX)
    }

    /// As [`SqliteJournal::open`], with another largest size in bytes. A journal that is larger
    /// already is opened, and full.
    pub fn open_limited(path: &Path, bytes_max: u64) -> Result<Self, Error> {
        let file = JournalFile::open(path).map_err(|error| failure::from_io("open", error))?;
        let opened = schema::connect(path, bytes_max);
        let connection = opened.map_err(|failure| failure.explain("open", Sequence(0), &file))?;
        file.sync_directory().map_err(|error| failure::from_io("open", error))?;
        let journal = Self { connection, file };
        verify::check_end(&journal.connection)
            .map_err(|failure| failure.explain("open", Sequence(0), &journal.file))?;
        Ok(journal)
    }

    /// Runs a change as one transaction that is written to disk on return, or not at all.
    fn change<T>(
        &mut self,
        operation: &'static str,
        body: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let in_place = self.file.check_in_place();
        in_place.map_err(|error| failure::from_io(operation, error))?;
        let connection = &mut self.connection;
        let run = || {
            // Immediate: the epoch read inside is still the newest when the change commits.
            let begin = TransactionBehavior::Immediate;
            let transaction = connection.transaction_with_behavior(begin)?;
            let value = body(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        let result: Result<T, Failure> = run();
        result.map_err(|failure| failure.explain(operation, Sequence(0), &self.file))
    }
}

/// The journal's last word: in charge is `epoch`, and `hash` is what the next record links to.
struct Head {
    epoch: Epoch,
    sequence: Sequence,
    hash: String,
}

fn read_head(connection: &Connection) -> Result<Head, Failure> {
    let mut statement = connection.prepare_cached("SELECT epoch, sequence, hash FROM head")?;
    Ok(statement.query_row((), |row| {
        let epoch = Epoch(row.get("epoch")?);
        Ok(Head { epoch, sequence: row::sequence(row)?, hash: row.get("hash")? })
    })?)
}

fn write_head(connection: &Connection, head: &Head) -> Result<(), Failure> {
    let sql = "UPDATE head SET epoch = :epoch, sequence = :sequence, hash = :hash";
    connection.prepare_cached(sql)?.execute(named_params! {
        ":epoch": head.epoch.0,
        ":sequence": row::integer(head.sequence.0),
        ":hash": head.hash,
    })?;
    Ok(())
}

impl Journal for SqliteJournal {
    fn begin_epoch(&mut self) -> Result<Epoch, Error> {
        self.change("begin an epoch in", |transaction| {
            let mut head = read_head(transaction)?;
            let next = head.epoch.0.checked_add(1).ok_or_else(|| {
                Error::failed("begin an epoch in", "there is no number after the last epoch's")
            })?;
            head.epoch = Epoch(next);
            write_head(transaction, &head)?;
            Ok(head.epoch)
        })
    }

    fn append(
        &mut self,
        epoch: Epoch,
        records: &[NewRecord],
        snapshots: &[Snapshot],
    ) -> Result<Sequence, Error> {
        self.change("append to", |transaction| {
            let mut head = read_head(transaction)?;
            if epoch != head.epoch {
                return Err(Error::Fenced { given: epoch, current: head.epoch }.into());
            }
            for content in records {
                let sequence = Sequence(head.sequence.0 + 1);
                let hash = chain::link(&head.hash, sequence, epoch, content);
                row::insert_record(transaction, sequence, epoch, content, &hash)?;
                head = Head { epoch, sequence, hash };
            }
            for snapshot in snapshots {
                let given = snapshot.sequence;
                let sequence = if given == Sequence(0) { head.sequence } else { given };
                row::replace_snapshot(transaction, &Snapshot { sequence, ..snapshot.clone() })?;
            }
            if !records.is_empty() {
                write_head(transaction, &head)?;
            }
            Ok(head.sequence)
        })
    }

    fn read(
        &self,
        scope: Option<&str>,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<Record>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = row::read_records(&self.connection, scope, after, limit);
        read.map_err(|(at, failure)| failure.explain("read", at, &self.file))
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>, Error> {
        let read = row::read_snapshots(&self.connection);
        read.map_err(|failure| failure.explain("read", Sequence(0), &self.file))
    }

    fn verify(&self) -> Result<u64, Error> {
        verify::check_all(&self.connection)
            .map_err(|(at, failure)| failure.explain("verify", at, &self.file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_append_is_flushed_to_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let journal = SqliteJournal::open(&directory.path().join("journal")).unwrap();
        let pragma = |name| journal.connection.pragma_query_value(None, name, |row| row.get(0));
        let full: i64 = pragma("synchronous").unwrap();
        let foreign_keys: i64 = pragma("foreign_keys").unwrap();
        assert_eq!((full, foreign_keys), (2, 1));
        let mode: String =
            journal.connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
    }
}
