//! A table ready to serve: the router, and for each version its counters and instances.
//!
//! Built and dropped away from the workers, who hold it through an `Arc`.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use switchback_domain::Version;
use switchback_domain::resilience::Balance;
use switchback_domain::route::RouteMode;
use switchback_domain::tls::UpstreamSpec;
use switchback_routing::{ArmId, Route, Router, Table};

use crate::cohorts::Part;
use crate::counters::Counters;
pub(crate) use crate::endpoint::{Endpoint, Visit};
use crate::pool::ByNumber;
use crate::resilience::{Guard, SharedBreaker};
use crate::tls::Book;

/// One table in the form the workers use.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    pub(crate) table: Table,
    pub(crate) router: Router,
    /// In the order of `table.arms`.
    pub(crate) arms: Vec<Arc<Arm>>,
    /// In the order of `table.routes`, or empty: what each does about trouble.
    guards: Guards,
    pub(crate) tls: Arc<Book>,
    /// Addresses with routes whose instances are not spoken to in plain HTTP/1.1.
    special: HashSet<SocketAddr>,
    directory: Arc<Directory>,
}

/// What the routes of a table do about trouble, in its order; empty if none of them does anything.
pub(crate) type Guards = Vec<Option<Arc<Guard>>>;

/// Where versions and instances are found by name.
#[derive(Debug, Default)]
struct Directory {
    arms: HashMap<ArmId, usize>,
    endpoints: HashSet<u64, ByNumber>,
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
    /// As its users call it.
    pub(crate) version: Version,
    pub(crate) counters: Arc<Counters>,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    /// Its part in a trial, while a coin chooses between it and another version.
    pub(crate) part: Option<Part>,
    pub(crate) balance: Balance,
    pub(crate) health: Arc<Health>,
    pub(crate) breaker: Option<Arc<SharedBreaker>>,
    /// How the instances are spoken to.
    pub(crate) upstream: UpstreamSpec,
}

/// A version in the hands of one worker: counting who holds it costs the other workers nothing.
pub(crate) type HeldArm = Rc<Arc<Arm>>;

impl Compiled {
    /// The form of the table that comes after this one.
    pub(crate) fn next(
        &self,
        table: Table,
        router: Router,
        arms: Vec<Arc<Arm>>,
        guards: Guards,
        tls: Arc<Book>,
    ) -> Self {
        let same = table.arms == self.table.arms;
        let directory = if same { Arc::clone(&self.directory) } else { Directory::of(&arms) };
        let special = special(&table);
        Self { table, router, arms, guards, tls, special, directory }
    }

    /// Whether all instances behind this address are spoken to in plain HTTP/1.1.
    pub(crate) fn is_plain(&self, listen: SocketAddr) -> bool {
        !self.special.contains(&listen)
    }

    /// What stands at this place in the table, if it is the same as `arm`.
    pub(crate) fn same_arm(&self, index: usize, arm: &switchback_routing::Arm) -> Option<Arc<Arm>> {
        self.table.arms.get(index).filter(|own| *own == arm)?;
        self.arms.get(index).cloned()
    }

    /// What a route does about trouble, by its place in the table.
    pub(crate) fn guard(&self, route: usize) -> Option<&Arc<Guard>> {
        self.guards.get(route)?.as_ref()
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

fn special(table: &Table) -> HashSet<SocketAddr> {
    let special = table.arms.iter().filter(|arm| !arm.upstream.is_default());
    let services: HashSet<_> = special.map(|arm| &arm.id.service).collect();
    if services.is_empty() {
        return HashSet::new();
    }
    // Requests that are diverted may reach such a service by any address.
    let diverts = |route: &&Route| matches!(route.steering.mode, RouteMode::Divert { .. });
    let routes = table.routes.iter();
    let some = routes.filter(|route| services.contains(&route.service) || diverts(route));
    some.flat_map(Route::serving_addresses).collect()
}

/// What all instances of a version share, whatever table names it.
#[derive(Debug, Default)]
pub(crate) struct Health {
    ejections: Mutex<u64>,
}

impl Health {
    /// Ejections so far.
    pub(crate) fn ejections(&self) -> u64 {
        self.ejecting(|ejections| *ejections)
    }

    /// Nobody else ejects an instance of the version meanwhile.
    pub(crate) fn ejecting<T>(&self, change: impl FnOnce(&mut u64) -> T) -> T {
        change(&mut self.ejections.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
