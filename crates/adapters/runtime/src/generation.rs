//! The fence: the newest generation seen, kept on disk; older writers are turned away.

use std::fs::File;
use std::io;

use switchback_domain::Generation;

use crate::layout::{Durability, Layout, read_json, replace_json};

/// What the fence says to a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Nobody newer was seen.
    Open,
    /// This one was.
    Fenced(Generation),
}

/// Admits a generation that is not older than any seen so far, and remembers it durably.
pub(crate) fn admit(layout: &Layout, given: Generation) -> io::Result<Passage> {
    let path = layout.root().join("generation.json");
    // Several control planes may share the directory: compare and store as one.
    let lock = File::create(layout.root().join("generation.lock"))?;
    lock.lock()?;
    let seen = read_json::<Generation>(&path)?;
    match seen {
        Some(seen) if seen > given => return Ok(Passage::Fenced(seen)),
        Some(seen) if seen == given => {}
        Some(_) | None => replace_json(&path, &given, Durability::Disk)?,
    }
    Ok(Passage::Open)
}

#[cfg(test)]
mod tests {
    use switchback_domain::Epoch;

    use super::*;

    #[test]
    fn the_newest_writer_is_remembered_over_restarts() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (Generation::first(Epoch(1)), Generation::first(Epoch(2)));
        let layout = Layout::create(directory.path()).unwrap();
        assert_eq!(admit(&layout, old).unwrap(), Passage::Open);
        assert_eq!(admit(&layout, new).unwrap(), Passage::Open);
        let layout = Layout::create(directory.path()).unwrap();
        assert_eq!(admit(&layout, old).unwrap(), Passage::Fenced(new));
        assert_eq!(admit(&layout, new).unwrap(), Passage::Open);
    }
}
