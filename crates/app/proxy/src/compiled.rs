//! A table ready to serve: the router, and for each version its counters and instances.
//!
//! Built and dropped away from the workers, who hold it through an `Arc`.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use switchback_domain::InstanceId;
use switchback_routing::{ArmId, Router, Table};

use crate::cohorts::Part;
use crate::counters::Counters;
use crate::limits::EJECTION;

/// One table in the form the workers use.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    pub(crate) table: Table,
    pub(crate) router: Router,
    /// In the order of `table.arms`.
    pub(crate) arms: Vec<Arc<Arm>>,
    directory: Arc<Directory>,
}

/// Where versions and instances are found by name.
#[derive(Debug, Default)]
struct Directory {
    arms: HashMap<ArmId, usize>,
    endpoints: HashSet<u64>,
}

impl Directory {
    fn of(all: &[Arc<Arm>]) -> Arc<Self> {
        let arms = all.iter().enumerate().map(|(index, arm)| (arm.id.clone(), index)).collect();
        let endpoints = all.iter().flat_map(|arm| &arm.endpoints);
        Arc::new(Self { arms, endpoints: endpoints.map(|endpoint| endpoint.id).collect() })
    }
}

/// One version.
#[derive(Debug)]
pub(crate) struct Arm {
    pub(crate) id: ArmId,
    pub(crate) counters: Arc<Counters>,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    /// Its part in a trial, while a coin chooses between it and another version.
    pub(crate) part: Option<Part>,
}

impl Compiled {
    /// The form of the table that comes after this one.
    pub(crate) fn next(&self, table: Table, router: Router, arms: Vec<Arc<Arm>>) -> Self {
        let same = table.arms == self.table.arms;
        let directory = if same { Arc::clone(&self.directory) } else { Directory::of(&arms) };
        Self { table, router, arms, directory }
    }

    /// What stands at this place in the table, if it is the same as `arm`.
    pub(crate) fn same_arm(&self, index: usize, arm: &switchback_routing::Arm) -> Option<Arc<Arm>> {
        self.table.arms.get(index).filter(|own| *own == arm)?;
        self.arms.get(index).cloned()
    }

    /// The version's present instances, if the table still names it.
    pub(crate) fn arm(&self, id: &ArmId) -> Option<&Arc<Arm>> {
        self.arms.get(*self.directory.arms.get(id)?)
    }

    /// Whether the table names this instance.
    pub(crate) fn has_endpoint(&self, id: u64) -> bool {
        self.directory.endpoints.contains(&id)
    }
}

/// One instance at one address; the same object as long as some table names it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Unique in this process; never used again.
    pub(crate) id: u64,
    pub(crate) instance: InstanceId,
    pub(crate) address: SocketAddr,
    in_flight: Box<[Lane]>,
    born: Instant,
    /// Milliseconds since `born` until which it is passed over.
    ejected_until: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane(AtomicU64);

impl Endpoint {
    pub(crate) fn new(id: u64, instance: InstanceId, address: SocketAddr, workers: usize) -> Self {
        let in_flight = (0..workers).map(|_| Lane::default()).collect();
        let ejected_until = AtomicU64::new(0);
        Self { id, instance, address, in_flight, born: Instant::now(), ejected_until }
    }

    /// Requests of one worker on their way to it.
    pub(crate) fn load(&self, worker: usize) -> u64 {
        self.in_flight[worker].0.load(Ordering::Relaxed)
    }

    /// Requests of all workers on their way to it.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.iter().map(|lane| lane.0.load(Ordering::Acquire)).sum()
    }

    /// It just refused a connection: pass it over for a while.
    pub(crate) fn eject(&self) {
        let until = self.age_ms() + u64::try_from(EJECTION.as_millis()).unwrap_or(u64::MAX);
        self.ejected_until.store(until, Ordering::Relaxed);
    }

    /// It took a connection: use it again.
    pub(crate) fn readmit(&self) {
        if self.ejected_until.load(Ordering::Relaxed) != 0 {
            self.ejected_until.store(0, Ordering::Relaxed);
        }
    }

    /// Whether it is passed over now.
    pub(crate) fn is_ejected(&self) -> bool {
        let until = self.ejected_until.load(Ordering::Relaxed);
        until != 0 && until > self.age_ms()
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// One request on its way to one instance.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) endpoint: Arc<Endpoint>,
    worker: usize,
}

impl Visit {
    pub(crate) fn begin(endpoint: Arc<Endpoint>, worker: usize) -> Self {
        endpoint.in_flight[worker].0.fetch_add(1, Ordering::Relaxed);
        Self { endpoint, worker }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.endpoint.in_flight[self.worker].0.fetch_sub(1, Ordering::Release);
    }
}
