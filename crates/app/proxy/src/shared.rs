//! What the workers and the control thread share: the table in force and a few counters.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use switchback_domain::ServiceKey;
use switchback_ports::data_plane::RouteReport;

use crate::access_log::{self, AccessLog};
use crate::compiled::Compiled;
use crate::peers::Admitted;
use crate::route_counts::RouteCounts;
use crate::sync::{ArcSwap, AtomicU64, Ordering};

/// Shared by all threads.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) table: Arc<ArcSwap<Compiled>>,
    /// The moment that ticks are counted from.
    pub(crate) born: Instant,
    /// How many requests of each service are held back.
    held: Mutex<BTreeMap<ServiceKey, u32>>,
    pub(crate) access_log: Arc<AccessLog>,
    lanes: Box<[Lane]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane {
    unrouted: AtomicU64,
    refused: AtomicU64,
    connections: AtomicUsize,
    routes: RouteCounts,
}

/// One open client connection or tunnel; counted until dropped.
#[derive(Debug)]
pub(crate) struct Open {
    shared: Arc<Shared>,
    worker: usize,
    /// Its place among those of its address.
    _admitted: Option<Admitted>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.lanes[self.worker].connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub(crate) fn new(workers: usize, state_dir: &Path) -> Self {
        let table = Arc::new(ArcSwap::from_pointee(Compiled::default()));
        let (born, held) = (Instant::now(), Mutex::default());
        let lanes = (0..workers).map(|_| Lane::default()).collect();
        let access_log = AccessLog::new(state_dir.join(access_log::FILE));
        Self { table, born, held, access_log, lanes }
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

    /// One worker's counts by service.
    pub(crate) fn routes(&self, worker: usize) -> &RouteCounts {
        &self.lanes[worker].routes
    }

    /// All workers' counts by service.
    pub(crate) fn route_reports(&self) -> Vec<RouteReport> {
        let mut sums: BTreeMap<ServiceKey, RouteReport> = BTreeMap::new();
        for counts in self.lanes.iter().flat_map(|lane| lane.routes.report()) {
            let fresh = || RouteReport::new(counts.service.clone());
            sums.entry(counts.service.clone()).or_insert_with(fresh).add(&counts);
        }
        sums.into_values().collect()
    }

    /// Takes one of `cap` places for held requests; false when all are taken.
    pub(crate) fn take_hold(&self, service: &ServiceKey, cap: u32) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = held.entry(service.clone()).or_default();
        let free = *taken < cap;
        *taken += u32::from(free);
        free
    }

    /// Gives one back.
    pub(crate) fn free_hold(&self, service: &ServiceKey) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = held.get_mut(service) {
            *taken = taken.saturating_sub(1);
        }
    }

    pub(crate) fn refused_sum(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.refused.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn unrouted_sum(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.unrouted.load(Ordering::Relaxed)).sum()
    }

    /// Counts a connection of a worker until the guard is dropped.
    pub(crate) fn connection_opened(
        self: &Arc<Self>,
        worker: usize,
        admitted: Option<Admitted>,
    ) -> Open {
        self.lanes[worker].connections.fetch_add(1, Ordering::Relaxed);
        Open { shared: Arc::clone(self), worker, _admitted: admitted }
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
