//! From `SQLite`'s errors to the journal's: is it full, is it damaged, or did it just fail.

use std::io;

use rusqlite::ErrorCode;
use switchback_ports::journal::{Error, Sequence};

use super::file::{self, JournalFile};

/// Why an operation did not succeed, before it is known what it was.
#[derive(Debug)]
pub(super) enum Failure {
    /// Decided by the journal itself.
    Journal(Error),
    /// `SQLite`'s words.
    Sqlite(rusqlite::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Journal(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Failure {
    /// The bad record at `at`, and what is wrong with it.
    pub(super) fn damaged(at: Sequence, why: impl Into<String>) -> Self {
        Self::Journal(Error::Damaged { at, why: why.into() })
    }

    /// The journal's error for it, where `at` is the record that was worked on, 0 if none was.
    pub(super) fn explain(
        self,
        operation: &'static str,
        at: Sequence,
        file: &JournalFile,
    ) -> Error {
        let error = match self {
            Self::Journal(error) => return error,
            Self::Sqlite(error) => error,
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Error::Full,
            Some(ErrorCode::SystemIoFailure) if file.lacks_room() => Error::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Error::Damaged { at, why: error.to_string() }
            }
            None if is_bad_value(&error) => Error::Damaged { at, why: error.to_string() },
            _ => Error::failed(operation, error),
        }
    }
}

/// A stored value that no journal could have written.
fn is_bad_value(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, QueryReturnedNoRows,
        Utf8Error,
    };
    matches!(
        error,
        FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | QueryReturnedNoRows
            | Utf8Error(..)
    )
}

/// The journal's error for one of the file system.
pub(super) fn from_io(operation: &'static str, error: io::Error) -> Error {
    if file::is_full(&error) { Error::Full } else { Error::failed(operation, error) }
}
