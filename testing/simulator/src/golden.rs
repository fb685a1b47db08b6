//! Golden journals: what a build wrote, as lines of JSON, and the states it led to. Every later
//! build has to come to the same states.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use switchback_control::{Headless, Reading};
use switchback_domain::{EnvironmentName, Epoch, ProjectName, Timestamp};
use switchback_ports::journal::fake::FakeJournal;
use switchback_ports::journal::{Journal, NewRecord, Record, Sequence, Snapshot};

/// A journal and its states, as they are kept: one line per record, one per snapshot, and one with
/// the states.
pub(crate) fn write(records: &[Record], snapshots: &[Snapshot], states: &Value) -> String {
    let record = |record: &Record| {
        let content = &record.content;
        json!({
            "record": record.sequence.0, "epoch": record.epoch.0, "scope": content.scope,
            "kind": content.kind, "version": content.version, "at": content.at.as_millis(),
            "wall_ms": content.wall_ms, "body": readable(&content.body),
            "consequences": readable(&content.consequences), "hash": record.hash,
        })
    };
    let snapshot = |snapshot: &Snapshot| {
        json!({
            "snapshot": snapshot.sequence.0, "scope": snapshot.scope,
            "version": snapshot.version, "body": readable(&snapshot.body),
        })
    };
    let lines = records.iter().map(record).chain(snapshots.iter().map(snapshot));
    let lines: Vec<_> = lines.chain([json!({ "states": states })]).collect();
    lines.iter().map(|line| line.to_string() + "\n").collect()
}

/// The states of a control plane, by service.
pub(crate) fn states(control: &Headless) -> Value {
    let states = control.services().iter();
    let states: BTreeMap<_, _> = states.map(|(key, s)| (key.to_string(), json!(**s))).collect();
    json!(states)
}

/// Opens a golden journal with this build. Gives the states it comes to, and those that were
/// written down.
pub fn replay_golden(golden: &str) -> Result<(Value, Value), String> {
    let (mut journal, mut expected) = (FakeJournal::new(), Value::Null);
    let (mut hashes, mut snapshots, mut epoch) = (Vec::new(), Vec::new(), Epoch(0));
    for line in golden.lines() {
        let line: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if line.get("record").is_some() {
            let given = Epoch(u32::try_from(number(&line, "epoch")?).unwrap_or(u32::MAX));
            while epoch < given {
                epoch = journal.begin_epoch().map_err(|error| error.to_string())?;
            }
            let appended = journal.append(epoch, &[record(&line)?], &[]);
            appended.map_err(|error| error.to_string())?;
            hashes.push(word(&line, "hash")?);
        } else if line.get("snapshot").is_some() {
            snapshots.push(Snapshot {
                scope: word(&line, "scope")?,
                sequence: Sequence(number(&line, "snapshot")?),
                version: u16::try_from(number(&line, "version")?).unwrap_or(u16::MAX),
                body: bytes(&line, "body")?,
            });
        } else {
            expected = line["states"].clone();
        }
    }
    journal.append(epoch, &[], &snapshots).map_err(|error| error.to_string())?;
    let read = journal.read(None, Sequence(0), hashes.len()).map_err(|error| error.to_string())?;
    let other = read.iter().zip(&hashes).find(|(record, hash)| record.hash != **hash);
    if let Some((record, _)) = other {
        return Err(format!("record {} has another hash than it had", record.sequence.0));
    }
    Headless::set_clocks(Reading { boot: "later".to_owned(), since_boot_ms: 1, wall_ms: 1 });
    let name = "sim";
    let project = ProjectName::new(name).map_err(|error| error.to_string())?;
    let environment = EnvironmentName::new(name).map_err(|error| error.to_string())?;
    let control = Headless::open(Box::new(journal), project, environment);
    let control = control.map_err(|error| switchback_domain::with_causes(&error))?;
    Ok((states(&control), expected))
}

fn record(line: &Value) -> Result<NewRecord, String> {
    Ok(NewRecord {
        scope: word(line, "scope")?,
        kind: word(line, "kind")?,
        version: u16::try_from(number(line, "version")?).unwrap_or(u16::MAX),
        at: Timestamp::from_millis(number(line, "at")?),
        wall_ms: number(line, "wall_ms")?,
        body: bytes(line, "body")?,
        consequences: bytes(line, "consequences")?,
    })
}

/// Text as it is; batches of an exact test are none.
fn readable(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| json!(bytes), |text| json!(text))
}

fn bytes(line: &Value, name: &str) -> Result<Vec<u8>, String> {
    let byte = |number: &Value| number.as_u64().and_then(|number| u8::try_from(number).ok());
    let Some(numbers) = line[name].as_array() else {
        return word(line, name).map(String::into_bytes);
    };
    let read: Option<Vec<u8>> = numbers.iter().map(byte).collect();
    read.ok_or_else(|| format!("{name} is no list of bytes in {line}"))
}

fn word(line: &Value, name: &str) -> Result<String, String> {
    line[name].as_str().map(ToOwned::to_owned).ok_or_else(|| format!("no {name} in {line}"))
}

fn number(line: &Value, name: &str) -> Result<u64, String> {
    line[name].as_u64().ok_or_else(|| format!("no {name} in {line}"))
}
