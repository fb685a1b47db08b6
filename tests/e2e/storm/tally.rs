//! What clients saw, by the kind of their visits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Losses that are told of one kind; the rest is only counted.
const TOLD_MAX: usize = 10;

/// By kind.
pub(super) type Visits = BTreeMap<&'static str, Tally>;

/// Of one kind of visits.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Requests that were begun.
    pub(super) sent: u64,
    /// Complete answers, all as they should be.
    pub(super) answered: u64,
    /// Answers that the client itself did not wait for.
    pub(super) left: u64,
    /// Answers that were upgrades. They are among the answered ones.
    pub(super) tunnels: u64,
    /// Connections that the other side closed between two requests.
    pub(super) closed: u64,
    /// What was no answer, and how.
    pub(super) lost: Vec<String>,
    lost_count: u64,
}

impl Tally {
    pub(super) fn lose(&mut self, how: String) {
        self.lost_count += 1;
        if self.lost.len() < TOLD_MAX {
            self.lost.push(how);
        }
    }

    /// Whether there were some, and each was answered or given up by the client.
    pub(super) fn is_flawless(&self) -> bool {
        let whole = self.sent > 0 && self.answered + self.left == self.sent;
        whole && (self.lost_count, self.closed) == (0, 0)
    }
}

/// Shared by all visitors.
#[derive(Debug, Clone, Default)]
pub(super) struct Book(Arc<Mutex<Visits>>);

impl Book {
    pub(super) fn note(&self, kind: &'static str, change: impl FnOnce(&mut Tally)) {
        change(self.visits().entry(kind).or_default());
    }

    pub(super) fn visits(&self) -> MutexGuard<'_, Visits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
