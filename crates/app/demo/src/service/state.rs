//! What all connections of the service share.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc;

use super::clock;
use super::metrics::Metrics;
use super::options::ServiceOptions;

/// As a program that panicked.
const CRASH_CODE: u8 = 101;

/// A leak ends here: it shall alarm, not take the machine down.
const LEAK_BYTES_MAX: usize = 1 << 30;

#[derive(Debug)]
pub(super) struct State {
    pub(super) options: ServiceOptions,
    pub(super) metrics: Metrics,
    pub(super) started: Instant,
    /// Requests that are no probes, from 1.
    requests: AtomicU64,
    ready: AtomicBool,
    hung: AtomicBool,
    stopping: AtomicBool,
    leaked: Mutex<Vec<Vec<u8>>>,
    end: mpsc::UnboundedSender<u8>,
}

impl State {
    pub(super) fn new(options: ServiceOptions, end: mpsc::UnboundedSender<u8>) -> Self {
        Self {
            options,
            metrics: Metrics::default(),
            started: Instant::now(),
            requests: AtomicU64::new(0),
            ready: AtomicBool::new(false),
            hung: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            leaked: Mutex::default(),
            end,
        }
    }

    /// The number of the next request.
    pub(super) fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub(super) fn become_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
        log("ready");
    }

    pub(super) fn is_hung(&self) -> bool {
        self.hung.load(Ordering::Relaxed)
    }

    pub(super) fn hang(&self) {
        self.hung.store(true, Ordering::Relaxed);
        log("answers nothing from now on, as configured");
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(super) fn begin_stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        log("stopping: no new connections, finishing what was begun");
    }

    /// Ends the service without another word to its clients.
    pub(super) fn crash(&self, why: &str) {
        log(&format!("crashed {why}, as configured"));
        // No receiver: it is ending already.
        let _ = self.end.send(CRASH_CODE);
    }

    pub(super) fn leak(&self, bytes: usize) {
        let mut leaked = self.leaked.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > 0 && (leaked.len() + 1) * bytes <= LEAK_BYTES_MAX {
            // Not zero: memory that was never written is never resident.
            leaked.push(vec![1; bytes]);
        }
    }
}

/// Writes a line to the log. A log that is closed is no reason to stop serving; one that is full
/// and not read stops this service like any other.
pub(super) fn log(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{} {text}", clock::now());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_grows_up_to_its_limit() {
        let options = ServiceOptions::new(0, "v1", ["leak_kib=16"]).unwrap();
        let state = State::new(options, mpsc::unbounded_channel().0);
        let leaked = || state.leaked.lock().unwrap().iter().map(Vec::len).sum::<usize>();
        (0..3).for_each(|_| state.leak(16 << 10));
        assert_eq!(leaked(), 48 << 10);
        state.leak(LEAK_BYTES_MAX);
        assert_eq!(leaked(), 48 << 10);
    }
}
