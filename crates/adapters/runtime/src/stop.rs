//! How an instance ends for good: its shim is told, and killed if it does not listen; what is
//! left of its processes is killed; its log is put aside. Every step can be done twice.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};
use switchback_ports::crash_point;
use switchback_ports::runtime::InstanceSpec;

use crate::layout::{InstancePaths, Layout, read_json, remove, remove_replacements};
use crate::proc_fs::Identity;
use crate::record::Record;

/// Time beyond `stop_timeout` after which a shim counts as hung: it kills and reaps by itself.
const SHIM_GRACE: Duration = Duration::from_secs(5);
/// How long killed processes may take to vanish.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// How often to look for a shim that is just coming up.
const LOCK_POLL: Duration = Duration::from_millis(10);

/// Ends an instance that is marked as stopping, whatever state it is in, and keeps its log.
pub(crate) fn stop(
    layout: &Layout,
    paths: &InstancePaths,
    spec: Option<&InstanceSpec>,
    kept: usize,
) -> io::Result<()> {
    let patience = spec.map_or(Duration::ZERO, |spec| spec.workload.stop_timeout) + SHIM_GRACE;
    let lock = end_processes(paths, patience)?;
    crash_point("processes ended");
    put_aside(paths, spec.is_some(), lock)?;
    match spec {
        Some(spec) => prune(layout, spec, kept),
        None => Ok(()),
    }
}

/// Ends the shim and all its processes; returns the lock that keeps others from coming up.
fn end_processes(paths: &InstancePaths, patience: Duration) -> io::Result<File> {
    let deadline = Instant::now() + patience + KILL_PATIENCE;
    loop {
        let record: Option<Record> = read_json(&paths.state).unwrap_or_default();
        if let Some(record) = record {
            end_shim(&record.shim, patience)?;
            record.shim.kill_members(KILL_PATIENCE)?;
        }
        let lock = File::options().write(true).create(true).truncate(false).open(&paths.lock)?;
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(fs::TryLockError::Error(error)) => return Err(error),
            Err(fs::TryLockError::WouldBlock) if Instant::now() > deadline => {
                return Err(io::Error::other("an unknown supervisor holds on to the instance"));
            }
            // A shim comes up right now: it sees the mark and goes, or its record shows up.
            Err(fs::TryLockError::WouldBlock) => thread::sleep(LOCK_POLL),
        }
    }
}

/// SIGTERM, patience, SIGKILL; returns when the shim is gone.
fn end_shim(shim: &Identity, patience: Duration) -> io::Result<()> {
    let Some(handle) = shim.open()? else { return Ok(()) };
    signal(&handle, Signal::TERM)?;
    // One that was stopped hears nothing until it goes on.
    signal(&handle, Signal::CONT)?;
    if ends_within(&handle, patience)? {
        return Ok(());
    }
    signal(&handle, Signal::KILL)?;
    if ends_within(&handle, KILL_PATIENCE)? {
        return Ok(());
    }
    Err(io::Error::other(format!("its supervisor, process {}, cannot be killed", shim.pid)))
}

/// Sends a signal; to a process that is gone, that is no error.
pub(crate) fn signal(handle: &impl AsFd, signal: Signal) -> io::Result<()> {
    match pidfd_send_signal(handle, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits for the end of the process behind a pidfd.
fn ends_within(handle: &impl AsFd, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Leaves nothing of the instance but its description and its log.
fn put_aside(paths: &InstancePaths, described: bool, lock: File) -> io::Result<()> {
    let rest = [paths.work(), paths.limits(), paths.restart_reason(), paths.exec_error()];
    remove(&paths.state)?;
    crash_point("record removed");
    remove_replacements(&paths.state)?;
    rest.iter().try_for_each(|path| remove(path))?;
    remove(&paths.lock)?;
    if !described {
        return remove(&paths.directory);
    }
    remove(&paths.stopped)?;
    crash_point("before directory renamed");
    fs::rename(&paths.directory, &paths.stopped)?;
    crash_point("after directory renamed");
    drop(lock);
    // Now its only trace; it also makes the time of the directory the time of the stop.
    remove(&paths.stopped.join("stopping"))
}

/// Removes the oldest of the service's stopped instances beyond those that are kept.
fn prune(layout: &Layout, spec: &InstanceSpec, kept: usize) -> io::Result<()> {
    let mut stopped: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(layout.stopped())?.flatten() {
        let path = entry.path();
        if is_of_service(&path, spec) {
            stopped.push((entry.metadata()?.modified()?, path));
        }
    }
    stopped.sort_unstable_by(|left, right| right.cmp(left));
    stopped.iter().skip(kept).try_for_each(|(_, path)| remove(path))
}

fn is_of_service(directory: &Path, spec: &InstanceSpec) -> bool {
    let theirs: Option<InstanceSpec> = read_json(&directory.join("spec.json")).unwrap_or_default();
    theirs.is_some_and(|theirs| theirs.key == spec.key && theirs.project == spec.project)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_supervisor_that_does_not_listen_is_killed() {
        let script = "trap '' TERM HUP; echo deaf; while :; do sleep 1; done";
        let mut deaf =
            Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(deaf.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let shim = Identity::of(i32::try_from(deaf.id()).unwrap()).unwrap();
        let started_at = Instant::now();
        end_shim(&shim, Duration::from_millis(100)).unwrap();
        assert!(started_at.elapsed() >= Duration::from_millis(100));
        assert!(!shim.is_alive());
        deaf.wait().unwrap();
    }
}
