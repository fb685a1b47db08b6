//! The hash chain of the journal: what a record's hash covers.
//!
//! Every field is preceded by its length, so that no two different contents hash the same bytes.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use switchback_domain::Epoch;

use super::{NewRecord, Sequence, Snapshot};

/// Kept apart from every other use of SHA-256; the number changes with the rules below.
const RECORD_RULES: &[u8] = b"switchback journal record 1";
const SNAPSHOT_RULES: &[u8] = b"switchback journal snapshot 1";

/// The hash the first record is linked to.
pub const GENESIS: &str = "";

/// The hash of a record, in hexadecimal, linked to the hash of the record before it.
pub fn link(previous: &str, sequence: Sequence, epoch: Epoch, content: &NewRecord) -> String {
    digest(&[
        RECORD_RULES,
        previous.as_bytes(),
        &sequence.0.to_be_bytes(),
        &epoch.0.to_be_bytes(),
        content.scope.as_bytes(),
        content.kind.as_bytes(),
        &content.version.to_be_bytes(),
        &content.at.as_millis().to_be_bytes(),
        &content.wall_ms.to_be_bytes(),
        &content.body,
        &content.consequences,
    ])
}

/// The hash of a snapshot, in hexadecimal. Snapshots are replaced, so they are not chained.
pub fn seal(snapshot: &Snapshot) -> String {
    digest(&[
        SNAPSHOT_RULES,
        snapshot.scope.as_bytes(),
        &snapshot.sequence.0.to_be_bytes(),
        &snapshot.version.to_be_bytes(),
        &snapshot.body,
    ])
}

fn digest(fields: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for field in fields {
        hasher.update((field.len() as u64).to_be_bytes());
        hasher.update(field);
    }
    hasher.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(scope: &str, kind: &str, body: &[u8], consequences: &[u8]) -> NewRecord {
        NewRecord {
            scope: scope.to_owned(),
            kind: kind.to_owned(),
            version: 1,
            at: switchback_domain::Timestamp::from_millis(5),
            wall_ms: 7,
            body: body.to_vec(),
            consequences: consequences.to_vec(),
        }
    }

    fn hash(content: &NewRecord) -> String {
        link(GENESIS, Sequence(1), Epoch(1), content)
    }

    #[test]
    fn moving_a_byte_from_one_field_to_the_next_changes_the_hash() {
        assert_ne!(hash(&record("ab", "c", b"", b"")), hash(&record("a", "bc", b"", b"")));
        assert_ne!(hash(&record("a", "b", b"xy", b"")), hash(&record("a", "b", b"x", b"y")));
    }

    #[test]
    fn every_field_counts() {
        let content = record("a", "b", b"c", b"d");
        let base = hash(&content);
        let changed = [
            NewRecord { scope: "z".into(), ..content.clone() },
            NewRecord { kind: "z".into(), ..content.clone() },
            NewRecord { version: 2, ..content.clone() },
            NewRecord { at: switchback_domain::Timestamp::from_millis(6), ..content.clone() },
            NewRecord { wall_ms: 8, ..content.clone() },
            NewRecord { body: b"z".to_vec(), ..content.clone() },
            NewRecord { consequences: b"z".to_vec(), ..content.clone() },
        ];
        assert!(changed.iter().all(|other| hash(other) != base));
        assert_ne!(link(&base, Sequence(1), Epoch(1), &content), base);
        assert_ne!(link(GENESIS, Sequence(2), Epoch(1), &content), base);
        assert_ne!(link(GENESIS, Sequence(1), Epoch(2), &content), base);
    }

    #[test]
    fn the_rules_do_not_change_by_accident() {
        assert_eq!(
            hash(&record("a", "b", b"c", b"d")),
            "4ebc7527fd7ff28ba9ab7dd4f97ad0d3583868618a1b79f5bf240ec180b631af"
        );
    }
}
