//! One control plane per state directory. The kernel holds the lock, so that it goes with its
//! process: a lock file left behind by a dead one is no lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;

/// A control plane that is killed while it starts an instance leaves its lock with that one, until
/// the new program has taken its place: a dead holder is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two tries.
const TRY_EVERY: Duration = Duration::from_millis(10);

/// Takes the lock, or says who has it. Held until the file is dropped.
pub(crate) fn take(state_dir: &Path) -> Result<File, Error> {
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { operation, path, source }
    };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(state_dir).map_err(failed("create", state_dir))?;
    let path = state_dir.join("control.lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open", &path))?;
    match try_for(PATIENCE, &mut file) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let (pid, directory) = (holder(&mut file), state_dir.to_owned());
            return Err(Error::Locked { pid, directory });
        }
        Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
    }
    let write = |file: &mut File| -> std::io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(failed("write", &path))?;
    Ok(file)
}

fn try_for(patience: Duration, file: &mut File) -> Result<(), TryLockError> {
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline && !is_held_alive(file) => {
                thread::sleep(TRY_EVERY);
            }
            result => return result,
        }
    }
}

/// The process that the file names; nothing if it cannot be read. The lock itself is what counts.
fn holder(file: &mut File) -> String {
    let mut pid = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut pid));
    pid.trim().to_owned()
}

/// Whether the process that the lock file names lives; a zombie does not.
fn is_held_alive(file: &mut File) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", holder(file)));
    let state = stat.ok().and_then(|stat| stat.rsplit_once(") ")?.1.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_left_behind_is_no_lock_and_a_held_one_names_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("control.lock"), "999999\n").unwrap();
        let held = take(directory.path()).unwrap();
        let refused = take(directory.path()).unwrap_err().to_string();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        drop(held);
        assert!(take(directory.path()).is_ok());
    }

    #[test]
    fn a_lock_that_is_let_go_a_moment_later_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let held = take(directory.path()).unwrap();
        // An instance between fork and exec has the lock as well; whoever took it is dead.
        let other = held.try_clone().unwrap();
        std::fs::write(directory.path().join("control.lock"), "999999999\n").unwrap();
        drop(held);
        let late = thread::spawn(move || {
            // sleep: the other process is to let go while this one waits.
            thread::sleep(TRY_EVERY);
            drop(other);
        });
        assert!(take(directory.path()).is_ok());
        late.join().unwrap();
    }
}
