//! What the process runtime is told when it is made, and the limits it hands to its shims.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use switchback_domain::time::millis;

/// Where the runtime keeps its files and what it starts.
#[derive(Debug, Clone)]
pub struct Options {
    /// Instances, their logs and the newest generation live below this directory; it is made if
    /// it is missing. Two control planes on one directory are fenced against each other.
    pub state_dir: PathBuf,
    /// The binary whose hidden subcommands `shim` and `shim-exec` call this crate;
    /// `/proc/self/exe` is the running one, also after its file was replaced by an upgrade.
    pub executable: PathBuf,
    /// Usually [`Limits::default`]; tests shrink them.
    pub limits: Limits,
}

impl Options {
    /// Options with the default limits.
    pub fn new(state_dir: impl Into<PathBuf>, executable: impl Into<PathBuf>) -> Self {
        let (state_dir, executable) = (state_dir.into(), executable.into());
        Self { state_dir, executable, limits: Limits::default() }
    }
}

/// The limits of one instance. Stored with it: a shim keeps those it was started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// A log file is closed before it grows beyond this many bytes, or half as many and one line
    /// if that is more. 4 MiB: read whole in a few
    /// milliseconds when somebody asks for the tail.
    pub log_file_bytes: u64,
    /// Log files kept per instance, at least 1. With 4 files an instance holds at most 16 MiB.
    pub log_files: u64,
    /// Output kept per second in the long run, in bytes; more is dropped and counted. 4 MiB is
    /// 20,000 lines of 200 bytes, and no disk is kept busy by it.
    pub log_bytes_per_second: u64,
    /// Output kept at once after a quiet time, in bytes.
    pub log_burst_bytes: u64,
    /// The first pause before a process that ended is started again.
    #[serde(with = "millis")]
    pub backoff_min: Duration,
    /// The longest pause.
    #[serde(with = "millis")]
    pub backoff_max: Duration,
    /// A process that ran this long was stable: its end starts the count and the pauses anew.
    #[serde(with = "millis")]
    pub stable_after: Duration,
    /// Ends in a row without a stable run in between that make a crash loop.
    pub crash_loop_ends: u32,
    /// The first port given to instances. The default range lies below the ports the kernel
    /// hands out by itself; where they overlap, the kernel's are left out as
    /// long as any others are left.
    pub port_first: u16,
    /// The last port given to instances.
    pub port_last: u16,
    /// Directory of the port leases: the same for every runtime of one user on the machine, or
    /// two of them may choose the same port. `None`: one below `/tmp` named after the user.
    pub port_directory: Option<PathBuf>,
    /// Logs of stopped instances kept per service. 20: the instances of the last few releases.
    pub stopped_kept: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            log_file_bytes: 4 << 20,
            log_files: 4,
            log_bytes_per_second: 4 << 20,
            log_burst_bytes: 8 << 20,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            stable_after: Duration::from_secs(10),
            crash_loop_ends: 3,
            port_first: 20_000,
            port_last: 29_999,
            port_directory: None,
            stopped_kept: 20,
        }
    }
}

impl Limits {
    /// The ports to choose from.
    pub(crate) fn ports(&self) -> RangeInclusive<u16> {
        self.port_first..=self.port_last
    }

    /// Where the leases are. Not `TMPDIR`: it may differ between two shells of one user.
    pub(crate) fn lease_directory(&self) -> PathBuf {
        let user = rustix::process::geteuid().as_raw();
        let default = || PathBuf::from(format!("/tmp/switchback-ports-{user}"));
        self.port_directory.clone().unwrap_or_else(default)
    }
}
