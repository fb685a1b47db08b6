//! Is the journal what was written? The end at every start, everything on demand.

use rusqlite::Connection;
use switchback_domain::Epoch;
use switchback_ports::journal::{Sequence, chain};

use super::failure::Failure;
use super::{Head, read_head, row};

/// Checks that the last record is the one that was written last: cheap, for every start.
pub(super) fn check_end(connection: &Connection) -> Result<(), Failure> {
    // One view of both, whatever is appended meanwhile.
    let view = connection.unchecked_transaction()?;
    let head = read_head(&view)?;
    let sql = "SELECT sequence, hash FROM record ORDER BY sequence DESC LIMIT 1";
    let mut statement = view.prepare(sql)?;
    let mut rows = statement.query(())?;
    let last = match rows.next()? {
        Some(row) => (row::sequence(row)?, row.get("hash")?),
        None => (Sequence(0), chain::GENESIS.to_owned()),
    };
    compare_end(&head, &last)
}

/// Checks every record, the end, the snapshots and the index; returns how many records hold. A
/// failure comes with the record it struck.
pub(super) fn check_all(connection: &Connection) -> Result<u64, (Sequence, Failure)> {
    // One view of everything, whatever is appended meanwhile.
    let view = connection.unchecked_transaction().map_err(|error| (Sequence(0), error.into()))?;
    let mut last = (Sequence(0), chain::GENESIS.to_owned());
    check_chain(&view, &mut last).map_err(|failure| (Sequence(last.0.0 + 1), failure))?;
    check_rest(&view, &last).map_err(|failure| (last.0, failure))?;
    Ok(last.0.0)
}

/// Walks the chain; `last` is always the last record that holds, and its hash.
fn check_chain(connection: &Connection, last: &mut (Sequence, String)) -> Result<(), Failure> {
    let mut statement = connection.prepare("SELECT * FROM record ORDER BY sequence")?;
    let mut rows = statement.query(())?;
    let mut epoch = Epoch(0);
    while let Some(row) = rows.next()? {
        let record = row::record(row)?;
        let expected = Sequence(last.0.0 + 1);
        if record.sequence != expected {
            return Err(Failure::damaged(expected, "it is missing"));
        }
        if chain::link(&last.1, expected, record.epoch, &record.content) != record.hash {
            return Err(Failure::damaged(expected, "its content does not match its hash"));
        }
        if record.epoch < epoch {
            return Err(Failure::damaged(expected, "its epoch was over already"));
        }
        epoch = record.epoch;
        *last = (expected, record.hash);
    }
    Ok(())
}

fn check_rest(connection: &Connection, last: &(Sequence, String)) -> Result<(), Failure> {
    compare_end(&read_head(connection)?, last)?;
    row::read_snapshots(connection)?;
    let found: String = connection.query_row("PRAGMA integrity_check(1)", (), |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(Failure::damaged(last.0, found)) }
}

fn compare_end(head: &Head, last: &(Sequence, String)) -> Result<(), Failure> {
    let (sequence, hash) = last;
    if sequence < &head.sequence {
        return Err(Failure::damaged(Sequence(sequence.0 + 1), "it is missing"));
    }
    if sequence > &head.sequence || hash != &head.hash {
        return Err(Failure::damaged(*sequence, "it is not what was written last"));
    }
    Ok(())
}
