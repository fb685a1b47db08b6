//! What the workers and the control thread share: the table in force and a few counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::compiled::Compiled;

/// Shared by all threads.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) table: Arc<ArcSwap<Compiled>>,
    /// The moment that ticks are counted from.
    pub(crate) born: Instant,
    lanes: Box<[Lane]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane {
    unrouted: AtomicU64,
    refused: AtomicU64,
    connections: AtomicUsize,
}

/// One open client connection or tunnel; counted until dropped.
#[derive(Debug)]
pub(crate) struct Open(Arc<Shared>, usize);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lanes[self.1].connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub(crate) fn new(workers: usize) -> Self {
        let table = Arc::new(ArcSwap::from_pointee(Compiled::default()));
        Self { table, born: Instant::now(), lanes: (0..workers).map(|_| Lane::default()).collect() }
    }

    pub(crate) fn workers(&self) -> usize {
        self.lanes.len()
    }

    /// A request was refused before routing.
    pub(crate) fn refused(&self, worker: usize) {
        self.lanes[worker].refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A request found no route, or a route without a split.
    pub(crate) fn unrouted(&self, worker: usize) {
        self.lanes[worker].unrouted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused_sum(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.refused.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn unrouted_sum(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.unrouted.load(Ordering::Relaxed)).sum()
    }

    /// Counts a connection of a worker until the guard is dropped.
    pub(crate) fn connection_opened(self: &Arc<Self>, worker: usize) -> Open {
        self.lanes[worker].connections.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self), worker)
    }

    /// Connections of one worker.
    pub(crate) fn connections(&self, worker: usize) -> usize {
        self.lanes[worker].connections.load(Ordering::Relaxed)
    }

    /// The worker with the fewest connections, and how many all have together.
    pub(crate) fn idlest(&self) -> (usize, usize) {
        let counts = (0..self.workers()).map(|worker| (self.connections(worker), worker));
        let idlest = counts.clone().min().map_or(0, |(_, worker)| worker);
        (idlest, counts.map(|(count, _)| count).sum())
    }
}
