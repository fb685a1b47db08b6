//! Where the runtime's files are, and how they are replaced: never half-written.
//!
//! ```text
//! state_dir/generation.json, generation.lock    the newest writer
//! state_dir/instances/ID/                       spec, limits, log/, work/ ({{dir}})
//! state_dir/supervision/ID.json, ID.lock        what the shim says; held while it lives
//! state_dir/stopped/ID/                         spec and log of a stopped instance
//! ```

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;
use switchback_domain::InstanceId;
use switchback_ports::crash_point;

/// Longest instance id, in bytes: leaves room for the suffixes in a file name of 255.
const ID_LENGTH_MAX: usize = 200;

/// The runtime's directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes the directories that are missing.
    pub(crate) fn create(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let layout = Self { root: root.canonicalize()? };
        for directory in [layout.instances(), layout.supervision(), layout.stopped()] {
            fs::create_dir_all(directory)?;
        }
        Ok(layout)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn instances(&self) -> PathBuf {
        self.root.join("instances")
    }

    pub(crate) fn supervision(&self) -> PathBuf {
        self.root.join("supervision")
    }

    pub(crate) fn stopped(&self) -> PathBuf {
        self.root.join("stopped")
    }

    /// The files of one instance; refuses ids that are no plain file name.
    pub(crate) fn instance(&self, id: &InstanceId) -> io::Result<InstancePaths> {
        let name = id.as_str();
        let plain = name.chars().all(|found| !found.is_control() && found != '/');
        if name.is_empty() || name.len() > ID_LENGTH_MAX || name.starts_with('.') || !plain {
            let text = "an instance id must be a file name of at most 200 bytes";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(InstancePaths::new(&self.root, name))
    }
}

/// The files of one instance.
#[derive(Debug, Clone)]
pub(crate) struct InstancePaths {
    /// `instances/ID`
    pub(crate) directory: PathBuf,
    /// `supervision/ID.json`
    pub(crate) state: PathBuf,
    /// `supervision/ID.lock`
    pub(crate) lock: PathBuf,
    /// `stopped/ID`
    pub(crate) stopped: PathBuf,
}

impl InstancePaths {
    fn new(root: &Path, name: &str) -> Self {
        Self {
            directory: root.join("instances").join(name),
            state: root.join("supervision").join(format!("{name}.json")),
            lock: root.join("supervision").join(format!("{name}.lock")),
            stopped: root.join("stopped").join(name),
        }
    }

    /// From the only argument of the shim: the instance's directory.
    pub(crate) fn from_directory(directory: &Path) -> io::Result<Self> {
        let directory = directory.canonicalize()?;
        let name = directory.file_name().and_then(|name| name.to_str());
        let root = directory.parent().and_then(Path::parent);
        let not_ours = || io::Error::new(io::ErrorKind::InvalidInput, "not an instance directory");
        Ok(Self::new(root.ok_or_else(not_ours)?, name.ok_or_else(not_ours)?))
    }

    pub(crate) fn spec(&self) -> PathBuf {
        self.directory.join("spec.json")
    }

    pub(crate) fn limits(&self) -> PathBuf {
        self.directory.join("limits.json")
    }

    /// `{{dir}}`
    pub(crate) fn work(&self) -> PathBuf {
        self.directory.join("work")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// There while the instance is being stopped: it must not be taken for a running one again.
    pub(crate) fn stopping(&self) -> PathBuf {
        self.directory.join("stopping")
    }

    /// Why the last restart was asked for.
    pub(crate) fn restart_reason(&self) -> PathBuf {
        self.directory.join("restart-reason")
    }

    /// Why the command could not be executed.
    pub(crate) fn exec_error(&self) -> PathBuf {
        self.directory.join("exec-error")
    }

    /// The shim's own standard error: empty unless it could not start, or panicked.
    pub(crate) fn shim_errors(&self) -> PathBuf {
        self.directory.join("shim-errors")
    }
}

/// Whether a replaced file must survive a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// After a power failure nothing it speaks of is left anyway.
    Process,
    /// Synced to disk, its directory too.
    Disk,
}

/// Replaces a file at once: readers see the old content or the new, and of two writers that race
/// one comes last.
pub(crate) fn replace(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    static REPLACEMENTS: AtomicU64 = AtomicU64::new(0);
    let mut name = replacement_prefix(path);
    let count = REPLACEMENTS.fetch_add(1, Ordering::Relaxed);
    name.push(format!("{}.{count}", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = write_new(&temporary, content, durability);
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    crash_point(format_args!("before file {file}"));
    let replaced = written.and_then(|()| fs::rename(&temporary, path));
    crash_point(format_args!("after file {file}"));
    if replaced.is_err() {
        // A full disk: do not keep the half-written file on it.
        let _ = fs::remove_file(&temporary);
        return replaced;
    }
    match (durability, path.parent()) {
        (Durability::Disk, Some(parent)) => File::open(parent)?.sync_all(),
        (Durability::Process, _) | (_, None) => Ok(()),
    }
}

/// Removes what killed writers of a file left beside it.
pub(crate) fn remove_replacements(path: &Path) -> io::Result<()> {
    let prefix = replacement_prefix(path);
    let Some(parent) = path.parent() else { return Ok(()) };
    for entry in fs::read_dir(parent)?.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn replacement_prefix(path: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".new-");
    prefix
}

fn write_new(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    if durability == Durability::Disk { file.sync_all() } else { Ok(()) }
}

/// Writes JSON over that of an existing file, in its place: that takes no room on a full disk.
/// A reader may, at worst, meet a mixture that is no JSON.
pub(crate) fn overwrite_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    let mut content = serde_json::to_vec(value)?;
    let earlier = usize::try_from(file.metadata()?.len()).unwrap_or_default();
    // Blanks over the end of a longer one.
    content.resize(content.len().max(earlier), b' ');
    file.write_all_at(&content, 0)
}

/// [`replace`] with JSON.
pub(crate) fn replace_json<T: Serialize>(
    path: &Path,
    value: &T,
    durability: Durability,
) -> io::Result<()> {
    replace(path, &serde_json::to_vec(value)?, durability)
}

/// Reads JSON; `None` when there is no such file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(serde_json::from_slice(&content)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file or a directory with all it holds; one that is not there is removed already.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_lead_elsewhere_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        for id in ["", ".", "..", "../x", "a/b", "a\0b", ".hidden", &"x".repeat(201)] {
            assert!(layout.instance(&InstanceId::from_stored(id)).is_err(), "{id:?}");
        }
        let paths = layout.instance(&InstanceId::from_stored("dev.web.1a.0")).unwrap();
        fs::create_dir(&paths.directory).unwrap();
        let again = InstancePaths::from_directory(&paths.directory).unwrap();
        assert_eq!((again.state, again.lock), (paths.state, paths.lock));
    }

    #[test]
    fn a_replaced_file_is_the_only_one_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        replace_json(&path, &1, Durability::Disk).unwrap();
        overwrite_json(&path, &"a longer one").unwrap();
        overwrite_json(&path, &1).unwrap();
        assert_eq!(read_json::<u32>(&path).unwrap(), Some(1));
        fs::write(directory.path().join(".state.json.new-7.7"), "half").unwrap();
        let full = directory.path().join("none").join("state.json");
        assert!(replace_json(&full, &2, Durability::Process).is_err());
        remove_replacements(&path).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(read_json::<u32>(&path).unwrap(), Some(1));
    }
}
