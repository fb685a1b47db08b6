//! One control plane per state directory. The kernel holds the lock, so that it goes with its
//! process: a lock file left behind by a dead one is no lock.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::Error;

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
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Who has it is for people; the lock itself is what counts.
            let _ = file.read_to_string(&mut pid);
            let directory = state_dir.to_owned();
            return Err(Error::Locked { pid: pid.trim().to_owned(), directory });
        }
        Err(std::fs::TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
    }
    let write = |file: &mut File| -> std::io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(failed("write", &path))?;
    Ok(file)
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
}
