//! The thread that writes the access log, and the file's size and name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::Tally;
use crate::limits::{ACCESS_LOG_BATCHES_MAX, ACCESS_LOG_FILE_BYTES_MAX, ACCESS_LOG_FILES_MAX};
use crate::log;

/// What the writer gets.
#[derive(Debug)]
pub(super) enum Batch {
    /// So many whole lines.
    Lines(Vec<u8>, u64),
    /// Tell that everything before is written.
    Flush(SyncSender<()>),
}

/// Starts the thread; it ends when nobody can send any more.
pub(super) fn start(path: PathBuf, tally: Arc<Tally>) -> SyncSender<Batch> {
    let (batches, inbox) = sync_channel(ACCESS_LOG_BATCHES_MAX);
    let work = move || write_all(Target { path, open: None, is_torn: false }, &inbox, &tally);
    // Without a thread nobody receives: then every line is dropped and counted.
    if let Err(error) = std::thread::Builder::new().name("access-log".to_owned()).spawn(work) {
        log::note(&format!("cannot write an access log: {error}"));
    }
    batches
}

fn write_all(mut target: Target, inbox: &Receiver<Batch>, tally: &Tally) {
    let mut was_fine = true;
    for batch in inbox {
        let (text, lines) = match batch {
            Batch::Lines(text, lines) => (text, lines),
            Batch::Flush(done) => {
                // Nobody waits any more.
                let _ = done.send(());
                continue;
            }
        };
        match target.write(&text) {
            Ok(()) => {
                tally.written.fetch_add(lines, Ordering::Relaxed);
                if !was_fine {
                    tally.set_trouble(None);
                }
                was_fine = true;
            }
            Err(error) => {
                tally.add_dropped(lines);
                let reason = format!("cannot write {}: {error}", target.path.display());
                if was_fine {
                    log::note(&reason);
                }
                tally.set_trouble(Some(reason));
                was_fine = false;
            }
        }
    }
}

/// The file.
#[derive(Debug)]
struct Target {
    path: PathBuf,
    open: Option<File>,
    /// The last line in it may lack its end.
    is_torn: bool,
}

impl Target {
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        self.look()?;
        let Some(file) = &mut self.open else { return Err(io::ErrorKind::NotFound.into()) };
        let written = if self.is_torn { file.write_all(b"\n") } else { Ok(()) };
        let written = written.and_then(|()| file.write_all(text));
        self.is_torn = written.is_err();
        written
    }

    /// Opens the file of this name, which somebody else may have taken away meanwhile: a process
    /// that took over, or whoever rotates logs here.
    fn look(&mut self) -> io::Result<()> {
        let named = fs::metadata(&self.path).ok();
        let own = self.open.as_ref().and_then(|file| file.metadata().ok());
        let is_ours = match (&named, &own) {
            (Some(named), Some(own)) => (named.dev(), named.ino()) == (own.dev(), own.ino()),
            (_, _) => false,
        };
        if !is_ours {
            self.open = None;
        }
        if named.is_some_and(|named| named.is_file() && named.len() >= ACCESS_LOG_FILE_BYTES_MAX) {
            rotate(&self.path)?;
            self.open = None;
        }
        if self.open.is_none() {
            self.is_torn = false;
            let mut options = OpenOptions::new();
            self.open = Some(options.create(true).append(true).mode(0o600).open(&self.path)?);
        }
        Ok(())
    }
}

/// `access.log` becomes `access.log.1`, that becomes `.2`, and the oldest goes.
fn rotate(path: &Path) -> io::Result<()> {
    let numbered = |number: usize| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    for number in (1..ACCESS_LOG_FILES_MAX).rev() {
        match fs::rename(numbered(number), numbered(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    fs::rename(path, numbered(1))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_full_file_makes_room_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let mut target = Target { path: path.clone(), open: None, is_torn: false };
        for round in 0..ACCESS_LOG_FILES_MAX + 2 {
            target.write(format!("{round}\n").as_bytes()).unwrap();
            // As long as a full one, without its bytes.
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(ACCESS_LOG_FILE_BYTES_MAX).unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(directory.path()).unwrap().flatten().collect();
        names.sort_by_key(fs::DirEntry::path);
        assert_eq!(names.len(), ACCESS_LOG_FILES_MAX + 1);
        let first = |path: &Path| io::read_to_string(io::Read::take(File::open(path).unwrap(), 2));
        assert_eq!(first(&names[1].path()).unwrap(), format!("{ACCESS_LOG_FILES_MAX}\n"));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_was_taken_away_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let mut target = Target { path: path.clone(), open: None, is_torn: false };
        target.write(b"one\n").unwrap();
        fs::rename(&path, directory.path().join("away")).unwrap();
        target.write(b"two\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two\n");
    }

    #[test]
    fn what_cannot_be_written_is_dropped_and_told_until_it_can() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        fs::create_dir(&path).unwrap();
        let tally = Arc::new(Tally::default());
        let batches = start(path.clone(), Arc::clone(&tally));
        let flush = || {
            let (done, waits) = sync_channel(1);
            batches.send(Batch::Flush(done)).unwrap();
            waits.recv().unwrap();
        };
        batches.send(Batch::Lines(b"one\ntwo\n".to_vec(), 2)).unwrap();
        flush();
        assert_eq!(tally.dropped.load(Ordering::Relaxed), 2);
        assert!(tally.trouble.lock().unwrap().as_ref().unwrap().contains("access.log"));
        fs::remove_dir(&path).unwrap();
        batches.send(Batch::Lines(b"three\n".to_vec(), 1)).unwrap();
        flush();
        assert_eq!(tally.written.load(Ordering::Relaxed), 1);
        assert_eq!(*tally.trouble.lock().unwrap(), None);
        assert_eq!(fs::read(&path).unwrap(), b"three\n");
    }
}
