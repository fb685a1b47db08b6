//! Processes as `/proc` shows them: who is who without PID-reuse mistakes, and who belongs to a
//! shim. A process is named by its id and its start time; signals go through a pidfd that was
//! opened before the start time was checked.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// Environment variable by which a process is known as started by one life of one shim, even
/// when it left the shim's session.
pub(crate) const MARK: &str = "SWITCHBACK_SUPERVISOR";
/// Pause between two looks at whether killed processes are gone.
const KILL_POLL: Duration = Duration::from_millis(5);

/// A process: its id alone may name another one a moment later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Process id.
    pub(crate) pid: i32,
    /// When it started, in clock ticks since boot.
    pub(crate) start_ticks: u64,
    /// Of which boot.
    pub(crate) boot_id: String,
}

/// The fields of `/proc/PID/stat` that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: i32,
    state: u8,
    session: i32,
    /// User and system time of the process itself, in clock ticks.
    pub(crate) own_ticks: u64,
    /// The same of its children that ended and were waited for.
    pub(crate) children_ticks: u64,
    start_ticks: u64,
    /// Resident pages.
    pub(crate) resident_pages: u64,
}

impl Stat {
    /// Zombies hold nothing any more.
    fn is_dead(self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// Reads a line of `/proc/PID/stat`. The name, in parentheses, may hold anything.
fn parse_stat(line: &str) -> Option<Stat> {
    let (pid, rest) = line.split_once(' ')?;
    let (_, rest) = rest.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // Children's times are signed in the kernel's format, and never negative.
    Some(Stat {
        pid: pid.parse().ok()?,
        state: *fields.first()?.as_bytes().first()?,
        session: fields.get(3)?.parse().ok()?,
        own_ticks: number(11)? + number(12)?,
        children_ticks: number(13)? + number(14)?,
        start_ticks: number(19)?,
        resident_pages: number(21)?,
    })
}

/// The process with this id now; `None` when there is none.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Every process now. One that ends meanwhile is left out.
fn all() -> io::Result<impl Iterator<Item = Stat>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| stat(entry.file_name().to_str()?.parse().ok()?)))
}

impl Identity {
    /// The calling process.
    pub(crate) fn of_self() -> io::Result<Self> {
        Self::of(i32::try_from(std::process::id()).unwrap_or_default())
    }

    /// The process that has this id now.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        let now = stat(pid).ok_or_else(|| io::Error::other("/proc does not show the process"))?;
        Ok(Self { pid: now.pid, start_ticks: now.start_ticks, boot_id: boot_id()? })
    }

    /// A handle on exactly this process; `None` when it ended, whoever has its id now.
    pub(crate) fn open(&self) -> io::Result<Option<OwnedFd>> {
        if boot_id()? != self.boot_id {
            return Ok(None);
        }
        open(self.pid, self.start_ticks)
    }

    /// Whether exactly this process lives.
    pub(crate) fn is_alive(&self) -> bool {
        self.open().is_ok_and(|handle| handle.is_some())
    }

    /// What a process started by this shim has in its environment.
    pub(crate) fn mark(&self) -> String {
        format!("{}:{}:{}", self.boot_id, self.pid, self.start_ticks)
    }

    /// The living processes of this shim's session, without the shim.
    pub(crate) fn session(&self) -> io::Result<Vec<Stat>> {
        Ok(all()?.filter(self.in_session()?).collect())
    }

    /// The living processes of this shim: of its session, and those that left it but carry its
    /// mark. Without the shim.
    pub(crate) fn members(&self) -> io::Result<Vec<Stat>> {
        let in_session = self.in_session()?;
        let mark = format!("{MARK}={}", self.mark());
        let marked = |process: &Stat| {
            let environment = fs::read(format!("/proc/{}/environ", process.pid));
            let environment = environment.unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        let living = all()?.filter(|process| !process.is_dead());
        Ok(living.filter(|process| in_session(process) || marked(process)).collect())
    }

    /// Whether a living process is in the session of this shim. The kernel gives nobody the id
    /// of a session that has members, so the session is ours as long as its id is not somebody
    /// else's now and its members are younger than the shim.
    fn in_session(&self) -> io::Result<impl Fn(&Stat) -> bool + use<>> {
        let same_boot = boot_id()? == self.boot_id;
        let taken = stat(self.pid).is_some_and(|now| now.start_ticks != self.start_ticks);
        let (pid, start_ticks) = (self.pid, self.start_ticks);
        Ok(move |process: &Stat| {
            let ours = process.session == pid && process.start_ticks >= start_ticks;
            same_boot && !taken && ours && process.pid != pid && !process.is_dead()
        })
    }

    /// Kills every member, also those that fork meanwhile; an error when some are still there
    /// after `within`.
    pub(crate) fn kill_members(&self, within: Duration) -> io::Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let members = self.members()?;
            if members.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let pids: Vec<i32> = members.iter().map(|member| member.pid).collect();
                return Err(io::Error::other(format!("processes {pids:?} cannot be killed")));
            }
            for member in members {
                kill(member);
            }
            thread::sleep(KILL_POLL);
        }
    }
}

fn open(pid: i32, start_ticks: u64) -> io::Result<Option<OwnedFd>> {
    let Some(raw) = Pid::from_raw(pid) else { return Ok(None) };
    let handle = match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Checked after opening: from here on the handle cannot come to mean another process.
    let same = stat(pid).is_some_and(|now| now.start_ticks == start_ticks && !now.is_dead());
    Ok(same.then_some(handle))
}

fn kill(process: Stat) {
    // It may have ended, or belong to somebody else: both show when the members are listed again.
    if let Ok(Some(handle)) = open(process.pid, process.start_ticks) {
        let _ = pidfd_send_signal(&handle, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_a_hostile_name_is_read() {
        let line = "42 (a) b (c) R 1) S 7 8 9 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 \
                    123456 1000000 77 18446744073709551615 1";
        let read = parse_stat(line).unwrap();
        assert_eq!((read.pid, read.state, read.session), (42, b'S', 9));
        assert_eq!((read.own_ticks, read.children_ticks), (30, 70));
        assert_eq!((read.start_ticks, read.resident_pages), (123_456, 77));
        for broken in ["", "42", "42 (x", "42 (x) S 1", "x (y) S 1 2 3"] {
            assert_eq!(parse_stat(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn only_the_very_process_is_alive() {
        let own = Identity::of_self().unwrap();
        assert!(own.is_alive());
        let earlier = Identity { start_ticks: own.start_ticks - 1, ..own.clone() };
        let other_boot = Identity { boot_id: "another".to_owned(), ..own.clone() };
        let nobody = Identity { pid: i32::MAX, ..own };
        assert!(!earlier.is_alive() && !other_boot.is_alive() && !nobody.is_alive());
        assert!(earlier.members().unwrap().is_empty());
    }
}
