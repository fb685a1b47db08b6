//! The last table on disk: written whole or not at all, read at the start.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use switchback_ports::crash_point;
use switchback_routing::Table;

const FILE: &str = "proxy-table.json";

/// Where the table lies.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    directory: PathBuf,
}

impl Store {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { directory: state_dir.to_owned() }
    }

    /// Replaces the table on disk; when this fails the former one is still there. The error is a
    /// sentence for people.
    pub(crate) fn save(&self, table: &Table) -> Result<(), String> {
        let path = self.path();
        self.replace(&path, table).map_err(|error| {
            format!("the table is served but not saved to {}: {error}", path.display())
        })
    }

    fn replace(&self, path: &Path, table: &Table) -> io::Result<()> {
        let temporary = path.with_extension("json.new");
        let mut file = BufWriter::new(File::create(&temporary)?);
        serde_json::to_writer(&mut file, table)?;
        file.into_inner()?.sync_all()?;
        crash_point("table before rename");
        fs::rename(&temporary, path)?;
        File::open(&self.directory)?.sync_all()
    }

    /// The table on disk, if there is one. One that cannot be read is set aside; the error is a
    /// sentence for people.
    pub(crate) fn load(&self) -> Result<Option<Table>, String> {
        let content = match fs::read(self.path()) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {}: {error}", self.path().display())),
        };
        match serde_json::from_slice(&content) {
            Ok(table) => Ok(Some(table)),
            Err(error) => Err(self.set_aside(&error.to_string())),
        }
    }

    /// Keeps an unusable table for people to look at, out of the way; gives the sentence about it.
    pub(crate) fn set_aside(&self, reason: &str) -> String {
        let path = self.path();
        let aside = path.with_extension("json.corrupt");
        let place = match fs::rename(&path, &aside) {
            Ok(()) => format!("set aside as {}", aside.display()),
            Err(error) => format!("and cannot be set aside: {error}"),
        };
        format!("the saved table is not usable ({reason}), {place}; waiting for a new one")
    }

    fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_back_and_a_broken_one_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        assert_eq!(store.load(), Ok(None));
        let generation = switchback_domain::Generation::first(switchback_domain::Epoch(1));
        let table = Table { generation, ..Table::default() };
        store.save(&table).unwrap();
        assert_eq!(store.load(), Ok(Some(table)));
        fs::write(store.path(), b"{\"generation\":").unwrap();
        let reason = store.load().unwrap_err();
        assert!(reason.contains("proxy-table.json.corrupt"), "{reason}");
        assert_eq!(store.load(), Ok(None));
    }

    #[test]
    fn a_failed_save_says_where_and_keeps_the_former_table() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        store.save(&Table::default()).unwrap();
        fs::create_dir(directory.path().join("proxy-table.json.new")).unwrap();
        let reason = store.save(&Table::default()).unwrap_err();
        assert!(reason.contains("proxy-table.json"), "{reason}");
        assert_eq!(store.load(), Ok(Some(Table::default())));
    }
}
