//! The journal's file as the file system sees it: who may read it, is it still there, is there
//! room. What is in it is not looked at here.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// What a probe for room asks for: more than one append takes, little enough to be there unless
/// the disk is full.
const ROOM_BYTES: usize = 64 << 10;

/// A file that was there when the journal was opened.
#[derive(Debug)]
pub(super) struct JournalFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl JournalFile {
    /// Creates the file, for its owner only, unless it exists.
    ///
    /// A file that exists is not opened here: closing it again would drop the locks that `SQLite`
    /// holds on it elsewhere in this process.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if !path.try_exists()? {
            create(path)?;
        }
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let path = path.to_path_buf();
        Ok(Self { path, device: metadata.dev(), inode: metadata.ino() })
    }

    /// Makes the file's name durable, not only its content.
    pub(super) fn sync_directory(&self) -> io::Result<()> {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }

    /// Fails when the file was removed or replaced: `SQLite` would go on writing to a file that
    /// nobody will ever find again.
    pub(super) fn check_in_place(&self) -> io::Result<()> {
        let metadata = std::fs::metadata(&self.path)?;
        if (metadata.dev(), metadata.ino()) == (self.device, self.inode) {
            return Ok(());
        }
        Err(io::Error::other("its file was replaced while it was open"))
    }

    /// Whether a failed write failed for lack of room. `SQLite` does not say: a quota or a file size
    /// limit is any I/O error to it. So write as far out as the journal reaches, and see.
    pub(super) fn lacks_room(&self) -> bool {
        let probe = self.beside("-room");
        let written = self.write_probe(&probe);
        // A leftover is harmless: the next probe overwrites it.
        let _ = std::fs::remove_file(&probe);
        written.is_err_and(|error| is_full(&error))
    }

    fn write_probe(&self, probe: &Path) -> io::Result<()> {
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let end = length(&self.path).max(length(&self.beside("-wal")));
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(probe)?;
        file.write_all_at(&vec![1; ROOM_BYTES], end)?;
        file.sync_all()
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        beside(&self.path, suffix)
    }
}

/// Creates an empty file under another name and gives it its own when it is closed, so that
/// nobody can have locked it in between. Somebody else's file of that name stays.
fn create(path: &Path) -> io::Result<()> {
    static CREATED: AtomicU32 = AtomicU32::new(0);
    let number = CREATED.fetch_add(1, Ordering::Relaxed);
    let new = beside(path, &format!("-new-{}-{number}", std::process::id()));
    let _ = std::fs::remove_file(&new);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let linked = std::fs::hard_link(&new, path);
    std::fs::remove_file(&new)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_path_buf().into_os_string();
    name.push(suffix);
    name.into()
}

/// Whether an I/O error says that there is no room: disk, quota or file size limit.
pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
