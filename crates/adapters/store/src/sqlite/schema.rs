//! The tables, their version, and how a connection to them is set up.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use switchback_ports::journal::Error;

use super::failure::Failure;

/// The format this build reads and writes. A change of the tables is a new number and a step
/// that brings the older ones here.
pub(super) const VERSION: u32 = 1;

/// `SWBJ`: tells a journal from any other `SQLite` file.
const APPLICATION_ID: u32 = 0x5357_424A;

/// How long a writer waits for another one to finish.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Together as long as [`BUSY_TIMEOUT`].
const SWITCH_ATTEMPTS_MAX: u32 = 500;
const SWITCH_PAUSE: Duration = Duration::from_millis(10);

/// To what the write-ahead log is cut back once its content is in the main file.
const WAL_BYTES_KEPT: u32 = 4 << 20;

const TABLES: &str = "
CREATE TABLE head (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    epoch     INTEGER NOT NULL,
    sequence  INTEGER NOT NULL,
    hash      TEXT    NOT NULL
) STRICT;
INSERT INTO head (id, epoch, sequence, hash) VALUES (1, 0, 0, '');

CREATE TABLE record (
    sequence      INTEGER PRIMARY KEY,
    epoch         INTEGER NOT NULL,
    scope         TEXT    NOT NULL,
    kind          TEXT    NOT NULL,
    version       INTEGER NOT NULL,
    at_ms         INTEGER NOT NULL,
    wall_ms       INTEGER NOT NULL,
    body          BLOB    NOT NULL,
    consequences  BLOB    NOT NULL,
    hash          TEXT    NOT NULL
) STRICT;
CREATE INDEX record_by_scope ON record (scope, sequence);

CREATE TABLE snapshot (
    scope     TEXT    PRIMARY KEY,
    sequence  INTEGER NOT NULL REFERENCES record (sequence),
    version   INTEGER NOT NULL,
    body      BLOB    NOT NULL,
    hash      TEXT    NOT NULL
) STRICT;
";

/// Connects to an existing file, and makes a journal of it if it is empty.
pub(super) fn connect(path: &Path, bytes_max: u64) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Before anything is written: a file of somebody else's must stay as it is.
    check_format(&connection)?;
    set_up(&connection, bytes_max)?;
    create_once(&mut connection)?;
    Ok(connection)
}

/// Whether the file holds a journal already; an error when it holds something else.
fn check_format(connection: &Connection) -> Result<bool, Failure> {
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    if tables == 0 {
        return Ok(false);
    }
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
    if number("application_id")? != APPLICATION_ID {
        return Err(Error::failed("open", "the file is a database, but not a journal").into());
    }
    let found = number("user_version")?;
    if found > VERSION {
        return Err(Error::TooNew { found, known: VERSION }.into());
    }
    Ok(true)
}

fn set_up(connection: &Connection, bytes_max: u64) -> Result<(), Failure> {
    if switch_to_log(connection)? != "wal" {
        let why = "its file system cannot share memory, which the write-ahead log needs";
        return Err(Error::failed("open", why).into());
    }
    // A prepared statement stays as it was planned: else each service's replay is planned anew, which
    // takes longer than reading it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", "on")?;
    connection.pragma_update(None, "trusted_schema", "off")?;
    connection.pragma_update(None, "cell_size_check", "on")?;
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_KEPT, |_| Ok(()))?;
    let page: u32 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let pages = u32::try_from(bytes_max / u64::from(page.max(1))).unwrap_or(u32::MAX - 1).max(1);
    connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    Ok(())
}

/// Switches to the write-ahead log and returns the mode. Here, other than everywhere else, `SQLite`
/// does not wait for others who open the same new file.
fn switch_to_log(connection: &Connection) -> rusqlite::Result<String> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let mode =
            connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0));
        let code = mode.as_ref().err().and_then(rusqlite::Error::sqlite_error_code);
        if code != Some(ErrorCode::DatabaseBusy) || attempts == SWITCH_ATTEMPTS_MAX {
            return mode;
        }
        std::thread::sleep(SWITCH_PAUSE);
    }
}

fn create_once(connection: &mut Connection) -> Result<(), Failure> {
    if check_format(connection)? {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Asked again inside: another process may have been faster.
    if check_format(&transaction)? {
        return Ok(());
    }
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(transaction.commit()?)
}
