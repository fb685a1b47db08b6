//! Records and snapshots as rows. Unsigned numbers that may use all 64 bits are stored as the
//! signed number of the same bits.

use rusqlite::{Connection, Row, named_params};
use switchback_domain::{Epoch, Timestamp};
use switchback_ports::journal::{NewRecord, Record, Sequence, Snapshot, chain};

use super::failure::Failure;

/// A place as `SQLite` stores it; those that no journal reaches are one.
pub(super) fn integer(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

/// The place in a row; a negative one was not written by a journal.
pub(super) fn sequence(row: &Row<'_>) -> rusqlite::Result<Sequence> {
    let stored: i64 = row.get("sequence")?;
    let place = u64::try_from(stored);
    place.map(Sequence).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, stored))
}

pub(super) fn insert_record(
    connection: &Connection,
    sequence: Sequence,
    epoch: Epoch,
    content: &NewRecord,
    hash: &str,
) -> Result<(), Failure> {
    let sql = "INSERT INTO record
        (sequence, epoch, scope, kind, version, at_ms, wall_ms, body, consequences, hash)
        VALUES (:sequence, :epoch, :scope, :kind, :version, :at_ms, :wall_ms, :body,
                :consequences, :hash)";
    connection.prepare_cached(sql)?.execute(named_params! {
        ":sequence": integer(sequence.0),
        ":epoch": epoch.0,
        ":scope": content.scope,
        ":kind": content.kind,
        ":version": content.version,
        ":at_ms": content.at.as_millis().cast_signed(),
        ":wall_ms": content.wall_ms.cast_signed(),
        ":body": content.body,
        ":consequences": content.consequences,
        ":hash": hash,
    })?;
    Ok(())
}

pub(super) fn replace_snapshot(
    connection: &Connection,
    snapshot: &Snapshot,
) -> Result<(), Failure> {
    let sql = "INSERT INTO snapshot (scope, sequence, version, body, hash)
        VALUES (:scope, :sequence, :version, :body, :hash)
        ON CONFLICT (scope) DO UPDATE SET sequence = excluded.sequence,
            version = excluded.version, body = excluded.body, hash = excluded.hash";
    connection.prepare_cached(sql)?.execute(named_params! {
        ":scope": snapshot.scope,
        ":sequence": integer(snapshot.sequence.0),
        ":version": snapshot.version,
        ":body": snapshot.body,
        ":hash": chain::seal(snapshot),
    })?;
    Ok(())
}

pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        sequence: sequence(row)?,
        epoch: Epoch(row.get("epoch")?),
        content: NewRecord {
            scope: row.get("scope")?,
            kind: row.get("kind")?,
            version: row.get("version")?,
            at: Timestamp::from_millis(row.get::<_, i64>("at_ms")?.cast_unsigned()),
            wall_ms: row.get::<_, i64>("wall_ms")?.cast_unsigned(),
            body: row.get("body")?,
            consequences: row.get("consequences")?,
        },
        hash: row.get("hash")?,
    })
}

/// Reads a page; a failure comes with the record it struck.
pub(super) fn read_records(
    connection: &Connection,
    scope: Option<&str>,
    after: Sequence,
    limit: i64,
) -> Result<Vec<Record>, (Sequence, Failure)> {
    let sql = match scope {
        None => "SELECT * FROM record WHERE sequence > :after ORDER BY sequence LIMIT :limit",
        Some(_) => {
            "SELECT * FROM record WHERE scope = :scope AND sequence > :after
             ORDER BY sequence LIMIT :limit"
        }
    };
    let mut records: Vec<Record> = Vec::new();
    let read = || -> Result<(), Failure> {
        let mut statement = connection.prepare_cached(sql)?;
        let after = integer(after.0);
        let mut rows = match scope {
            None => statement.query(named_params! { ":after": after, ":limit": limit })?,
            Some(scope) => statement
                .query(named_params! { ":scope": scope, ":after": after, ":limit": limit })?,
        };
        while let Some(row) = rows.next()? {
            records.push(record(row)?);
        }
        Ok(())
    };
    let result = { read }();
    match result {
        Ok(()) => Ok(records),
        Err(failure) => {
            let last = records.last().map_or(after, |record| record.sequence);
            Err((Sequence(last.0.saturating_add(1)), failure))
        }
    }
}

/// Reads every snapshot, and refuses one that is not what was written.
pub(super) fn read_snapshots(connection: &Connection) -> Result<Vec<Snapshot>, Failure> {
    let mut statement = connection.prepare_cached("SELECT * FROM snapshot ORDER BY scope")?;
    let mut rows = statement.query(())?;
    let mut snapshots = Vec::new();
    while let Some(row) = rows.next()? {
        let snapshot = Snapshot {
            scope: row.get("scope")?,
            sequence: sequence(row)?,
            version: row.get("version")?,
            body: row.get("body")?,
        };
        if chain::seal(&snapshot) != row.get::<_, String>("hash")? {
            let why = format!("the snapshot of {} does not match its hash", snapshot.scope);
            return Err(Failure::damaged(snapshot.sequence, why));
        }
        snapshots.push(snapshot);
    }
    Ok(snapshots)
}
