//! The measured process: started, its memory and processor time read from /proc, killed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

/// Milliseconds on the machine's monotonic clock, the same in every process.
pub(crate) fn now_ms() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of some weeks")]
    let (seconds, nanos) = (time.tv_sec as f64, time.tv_nsec as f64);
    seconds * 1e3 + nanos / 1e6
}

/// A control plane that is measured; killed when dropped.
pub(crate) struct Measured(Child);

impl Measured {
    /// Starts one on a prepared directory, in whose world instances of a version may be gone.
    pub(crate) fn start(dir: &Path, without: Option<&str>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("control").arg(dir).stdin(Stdio::null()).stdout(Stdio::null());
        if let Some(version) = without {
            command.args(["--without", version]);
        }
        Ok(Self(command.spawn().context("cannot start the control plane")?))
    }

    /// Kills it as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended by itself; what it was to do then is missing from the figures.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// The most memory it ever had resident, in MiB.
    pub(crate) fn memory_peak_mib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.context("no VmHWM in /proc")? / 1024.0)
    }

    /// Processor time used so far.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let fields = stat.rsplit(')').next().context("no name in /proc")?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        Ok(Duration::from_millis(ticks * 1_000 / per_second))
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.end();
    }
}
