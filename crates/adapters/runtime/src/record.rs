//! What a shim says about its instance, in `supervision/ID.json`. Written by the shim alone.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use switchback_ports::runtime::ProcessState;

use crate::proc_fs::Identity;

/// A shim's record. Fields may be added with a default: a newer control plane reads the records
/// of older shims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Who wrote it. Whether that process still lives says whether the rest is still true.
    pub(crate) shim: Identity,
    /// The port given to the instance.
    #[serde(default)]
    pub(crate) port: Option<u16>,
    /// Where the process is in its life.
    pub(crate) phase: Phase,
    /// How often it was started again.
    #[serde(default)]
    pub(crate) restarts: u32,
    /// How it ended last.
    #[serde(default)]
    pub(crate) last_exit: Option<String>,
}

/// Where the process is in its life, as the shim stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub(crate) enum Phase {
    /// No process yet, or one is ended to be started again at once.
    Starting,
    /// A process runs.
    Running {
        /// Its process id.
        pid: u32,
    },
    /// Waiting for the next start.
    BackingOff {
        /// When, in milliseconds of the machine's monotonic clock.
        next_start_at_ms: u64,
        /// Ended too often.
        crash_loop: bool,
    },
    /// Being stopped.
    Stopping,
}

impl Record {
    /// Where the instance answers, once that is known.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// The phase as the port reports it.
    pub(crate) fn process(&self, now_ms: u64) -> ProcessState {
        match self.phase {
            Phase::Starting => ProcessState::Starting,
            Phase::Running { pid } => ProcessState::Running { pid },
            Phase::BackingOff { next_start_at_ms, crash_loop } => {
                let left = next_start_at_ms.saturating_sub(now_ms);
                let next_start_in = Duration::from_millis(left);
                ProcessState::BackingOff { next_start_in, crash_loop }
            }
            Phase::Stopping => ProcessState::Stopping,
        }
    }
}

/// Milliseconds of the machine's monotonic clock: the same in every process, and it does not jump
/// when somebody sets the wall clock.
pub(crate) fn monotonic_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let millis = now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000);
    u64::try_from(millis).unwrap_or_default()
}
