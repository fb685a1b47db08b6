//! The journal's clock: moves forward only, at the pace of the machine's boot clock, whatever
//! somebody does to the wall clock, and goes on where it was after a restart.

use std::cell::RefCell;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use switchback_domain::Timestamp;

/// What the machine's clocks say at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Identifies the boot that `since_boot_ms` counts from.
    pub boot: String,
    /// Milliseconds since boot, time asleep included.
    pub since_boot_ms: u64,
    /// Milliseconds since the Unix epoch, as far as anybody knows.
    pub wall_ms: u64,
}

thread_local! {
    /// What this thread takes for the machine's clocks, if not those.
    static SUBSTITUTE: RefCell<Option<Reading>> = const { RefCell::new(None) };
}

/// Has this thread read these clocks from now on: the simulator's. Everything in this crate that
/// decides by time asks here.
pub(crate) fn substitute(reading: Reading) {
    SUBSTITUTE.set(Some(reading));
}

fn substituted<T>(part: impl FnOnce(&Reading) -> T) -> Option<T> {
    SUBSTITUTE.with_borrow(|reading| reading.as_ref().map(part))
}

/// A moment on the boot clock, for pauses and ages within one life of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        Self(substituted(|now| Duration::from_millis(now.since_boot_ms)).unwrap_or_else(since_boot))
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::now().duration_since(self)
    }

    /// Zero when `earlier` is later.
    pub(crate) fn duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Instant {
    type Output = Self;
    fn add(self, pause: Duration) -> Self {
        Self(self.0 + pause)
    }
}

/// Ties the journal's time to a boot's; kept in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Anchor {
    boot: String,
    since_boot_ms: u64,
    journal_ms: u64,
}

impl Anchor {
    /// Goes on from an earlier anchor of the same boot; after a reboot from the last record's time
    /// or the wall clock, whichever is later.
    pub(crate) fn resume(earlier: Option<&Self>, last: Timestamp, now: &Reading) -> Self {
        let journal_ms = match earlier {
            Some(anchor) if anchor.boot == now.boot => anchor.at(now.since_boot_ms).as_millis(),
            Some(_) | None => now.wall_ms,
        };
        Self {
            boot: now.boot.clone(),
            since_boot_ms: now.since_boot_ms,
            journal_ms: journal_ms.max(last.as_millis()),
        }
    }

    /// The journal's time at a moment of the same boot.
    pub(crate) fn at(&self, since_boot_ms: u64) -> Timestamp {
        let passed = since_boot_ms.saturating_sub(self.since_boot_ms);
        Timestamp::from_millis(self.journal_ms + passed)
    }
}

/// Reads the machine's clocks.
pub(crate) fn read() -> Reading {
    if let Some(reading) = substituted(Reading::clone) {
        return reading;
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Reading { boot: boot.trim().to_owned(), since_boot_ms: since_boot_ms(), wall_ms: wall_ms() }
}

/// Milliseconds since boot.
pub(crate) fn since_boot_ms() -> u64 {
    let real = || u64::try_from(since_boot().as_millis()).unwrap_or(u64::MAX);
    substituted(|now| now.since_boot_ms).unwrap_or_else(real)
}

fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Milliseconds since the Unix epoch: for people only.
pub(crate) fn wall_ms() -> u64 {
    substituted(|now| now.wall_ms).unwrap_or_else(real_wall_ms)
}

fn real_wall_ms() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_epoch.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(boot: &str, since_boot_ms: u64, wall_ms: u64) -> Reading {
        Reading { boot: boot.to_owned(), since_boot_ms, wall_ms }
    }

    #[test]
    fn a_wall_clock_that_jumps_moves_nothing() {
        let hour = 3_600_000;
        let start = Anchor::resume(None, Timestamp::default(), &reading("a", 5_000, 10 * hour));
        assert_eq!(start.at(6_000).as_millis(), 10 * hour + 1_000);
        for jumped in [9 * hour, 11 * hour] {
            let last = start.at(7_000);
            let resumed = Anchor::resume(Some(&start), last, &reading("a", 8_000, jumped));
            assert_eq!(resumed.at(8_500).as_millis(), 10 * hour + 3_500);
        }
    }

    #[test]
    fn after_a_reboot_time_does_not_go_back() {
        let start = Anchor::resume(None, Timestamp::default(), &reading("a", 5_000, 1_000_000));
        let last = start.at(65_000);
        let resumed = Anchor::resume(Some(&start), last, &reading("b", 100, 900_000));
        assert!(resumed.at(100) >= last);
        let later = Anchor::resume(Some(&start), last, &reading("b", 100, 2_000_000));
        assert_eq!(later.at(100).as_millis(), 2_000_000);
    }
}
