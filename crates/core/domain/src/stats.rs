//! What the data plane counted for one version of one service.

use serde::{Deserialize, Serialize};

use crate::seeded::bug;
use crate::{Histogram, Timing};

/// Monotone counters of one version since the data plane started counting it. Subtract two
/// snapshots with [`ArmStats::since`] to get a window.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ArmStats {
    /// Requests assigned to this version.
    pub accepted: u64,
    /// Responses passed to clients, by status class: index 0 is 1xx, 4 is 5xx.
    pub responses: [u64; 5],
    /// The instance refused or reset the connection before a response head, and no retry helped.
    pub connect_failed: u64,
    /// The instance broke off or answered garbage after the request was sent.
    pub broken: u64,
    /// The instance did not answer in time.
    pub timed_out: u64,
    /// The client went away before the response was complete.
    pub client_gone: u64,
    /// Attempts repeated on another connection or instance, safe ones only.
    pub retried: u64,
    /// Requests that its circuit breaker turned away.
    pub breaker_open: u64,
    /// Requests that found no instance to go to: dropped by us.
    pub dropped: u64,
    /// Requests that were cut by us: the data plane ended, or their instance was stopped, when
    /// their time to finish was over. Nobody else's fault, and no fault of the version.
    pub cut: u64,
    /// Tunnels (upgraded connections) that were cut the same way. Each counts as answered too.
    pub tunnels_cut: u64,
    /// Bytes of request bodies that came from clients, without their framing.
    pub bytes_in: u64,
    /// Bytes of response bodies for clients, without their framing; tunnels are not counted.
    pub bytes_out: u64,
    /// How long new connections to instances took to open; those used again take nothing.
    pub connect: Timing,
    /// Time from the acceptance of a request to the head of its response.
    pub first_byte: Timing,
    /// Time to the end of the response, in microseconds, of answered requests.
    pub latency: Histogram,
}

impl ArmStats {
    /// Requests that got a response head from this version.
    pub fn answered(&self) -> u64 {
        self.responses.iter().sum()
    }

    /// Requests that failed because of this version: 5xx, refused, broken off, timed out, turned
    /// away because it failed too often.
    pub fn failed(&self) -> u64 {
        let errors = if bug("errors-uncounted") { 0 } else { self.responses[4] };
        errors + self.unanswered()
    }

    /// Requests with a known end that say something about the version.
    pub fn finished(&self) -> u64 {
        self.answered() + self.unanswered()
    }

    fn unanswered(&self) -> u64 {
        self.connect_failed + self.broken + self.timed_out + self.breaker_open
    }

    /// Share of finished requests that failed, 0 to 1; `None` without any.
    #[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub fn error_rate(&self) -> Option<f64> {
        let finished = self.finished();
        (finished > 0).then(|| self.failed() as f64 / finished as f64)
    }

    /// What was counted after `earlier`, a snapshot of the same counters. When a counter went
    /// back (the data plane restarted), everything counted since the restart.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        if self.accepted < earlier.accepted || self.finished() < earlier.finished() {
            return self.clone();
        }
        self.zip(earlier, u64::saturating_sub, self.latency.since(&earlier.latency))
    }

    /// Both together.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_add, self.latency.merge(&other.latency))
    }

    fn zip(&self, other: &Self, operation: fn(u64, u64) -> u64, latency: Histogram) -> Self {
        let mut responses = self.responses;
        for (mine, theirs) in responses.iter_mut().zip(other.responses) {
            *mine = operation(*mine, theirs);
        }
        Self {
            accepted: operation(self.accepted, other.accepted),
            responses,
            connect_failed: operation(self.connect_failed, other.connect_failed),
            broken: operation(self.broken, other.broken),
            timed_out: operation(self.timed_out, other.timed_out),
            client_gone: operation(self.client_gone, other.client_gone),
            retried: operation(self.retried, other.retried),
            breaker_open: operation(self.breaker_open, other.breaker_open),
            dropped: operation(self.dropped, other.dropped),
            cut: operation(self.cut, other.cut),
            tunnels_cut: operation(self.tunnels_cut, other.tunnels_cut),
            bytes_in: operation(self.bytes_in, other.bytes_in),
            bytes_out: operation(self.bytes_out, other.bytes_out),
            connect: self.connect.zip(&other.connect, operation),
            first_byte: self.first_byte.zip(&other.first_byte, operation),
            latency,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_a_difference_and_a_restart_starts_anew() {
        let early = ArmStats { accepted: 10, responses: [0, 9, 0, 0, 1], ..ArmStats::default() };
        let late = ArmStats {
            accepted: 25,
            responses: [0, 20, 0, 0, 3],
            timed_out: 1,
            ..ArmStats::default()
        };
        let window = late.since(&early);
        assert_eq!((window.accepted, window.failed(), window.finished()), (15, 3, 14));
        assert_eq!(early.since(&late), early);
        assert_eq!(early.merge(&window).failed(), late.failed());
        assert_eq!(ArmStats::default().error_rate(), None);
    }
}
