//! Every version and instance that was counted since the start, so that ledgers add up.
//!
//! Counters of a version outlive its place in the table; once drained they are kept as plain
//! numbers, and of those only the newest [`RETIRED_ARMS_MAX`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use switchback_domain::resilience::{Balance, BreakerPolicy, Resilience};
use switchback_domain::{Histogram, InstanceId, ServiceKey, Version};
use switchback_ports::data_plane::{ArmReport, ArmTrouble, BreakerReport};
use switchback_resilience::{BreakerState, REST};
use switchback_routing::{ArmId, Route, Table};

use crate::clock;
use crate::cohorts::Part;
use crate::compiled::{Arm, Compiled, Endpoint, Guards, Health};
use crate::ledger::Ledger;
use crate::limits::RETIRED_ARMS_MAX;
use crate::resilience::{Guard, SharedBreaker};

/// See the module.
#[derive(Debug)]
pub(crate) struct Registry {
    workers: usize,
    arms: BTreeMap<ArmId, Entry>,
    /// Counts the versions that left the table, to know which left first.
    leavings: u64,
    endpoints_made: u64,
    guards: BTreeMap<ServiceKey, Arc<Guard>>,
}

#[derive(Debug)]
struct Entry {
    version: Version,
    ledger: Ledger,
    /// Its number among those that left the table; `None` while it is named.
    left: Option<u64>,
    endpoints: BTreeMap<(InstanceId, SocketAddr), Arc<Endpoint>>,
    balance: Balance,
    health: Arc<Health>,
    breaker: Option<Arc<SharedBreaker>>,
    /// Counted by processes that this one has replaced.
    ejections_before: u64,
}

/// The routes that ask for something in trouble.
fn asked(table: &Table) -> impl Iterator<Item = (&Route, &Resilience)> {
    table
        .routes
        .iter()
        .filter_map(|route| Some((route, route.steering.rules.resilience.as_deref()?)))
}

impl Registry {
    pub(crate) fn new(workers: usize) -> Self {
        let (arms, guards) = (BTreeMap::new(), BTreeMap::new());
        Self { workers, arms, leavings: 0, endpoints_made: 0, guards }
    }

    /// The arms of a table in its order, each with the counters and instances it had before and
    /// with its part in a trial; as they stand in the table in force where nothing changed.
    pub(crate) fn arms(
        &mut self,
        table: &Table,
        current: &Compiled,
        parts: &BTreeMap<ArmId, Part>,
    ) -> Vec<Arc<Arm>> {
        let asked: BTreeMap<_, _> = asked(table).map(|(route, of)| (&route.service, of)).collect();
        let of = |(at, arm): (usize, &switchback_routing::Arm)| {
            let part = parts.get(&arm.id);
            let asked = asked.get(&arm.id.service);
            let balance = asked.map(|asked| asked.balance).unwrap_or_default();
            let breaker = asked.and_then(|asked| asked.breaker);
            let same = current.same_arm(at, arm).filter(|own| {
                let policy = own.breaker.as_ref().map(|breaker| breaker.policy);
                own.part.as_ref() == part && own.balance == balance && policy == breaker
            });
            same.unwrap_or_else(|| self.arm(arm, part, balance, breaker))
        };
        table.arms.iter().enumerate().map(of).collect()
    }

    /// What each route of a table does about trouble, the same as before where it is the same.
    pub(crate) fn guards(&mut self, table: &Table) -> Guards {
        let mut guards = Guards::new();
        let mut named = BTreeMap::new();
        for (at, route) in table.routes.iter().enumerate() {
            let Some(policy) = route.steering.rules.resilience.as_deref() else { continue };
            let old = self.guards.get(&route.service).filter(|old| old.policy == *policy);
            let fresh = || Guard::new(&route.service, policy, self.workers).map(Arc::new);
            let Some(guard) = old.cloned().or_else(fresh) else { continue };
            guards.resize(table.routes.len(), None);
            guards[at] = Some(Arc::clone(&guard));
            named.insert(route.service.clone(), guard);
        }
        self.guards = named;
        guards
    }

    /// The latencies of a version so far.
    pub(crate) fn latency(&self, id: &ArmId) -> Histogram {
        self.arms.get(id).map(|entry| entry.report(id).stats.latency).unwrap_or_default()
    }

    fn arm(
        &mut self,
        arm: &switchback_routing::Arm,
        part: Option<&Part>,
        balance: Balance,
        breaker: Option<BreakerPolicy>,
    ) -> Arc<Arm> {
        let workers = self.workers;
        let entry = self.arms.entry(arm.id.clone()).or_insert_with(|| Entry::new(&arm.version));
        entry.balance = balance;
        if entry.breaker.as_ref().map(|breaker| breaker.policy) != breaker {
            entry.breaker = breaker.map(|policy| Arc::new(SharedBreaker::new(policy)));
        }
        let counters = entry.ledger.open(workers);
        let made = &mut self.endpoints_made;
        let endpoints = arm.endpoints.iter().map(|endpoint| {
            let key = (endpoint.instance.clone(), endpoint.address);
            let fresh = || {
                *made += 1;
                Arc::new(Endpoint::new(*made, key.0.clone(), key.1, workers))
            };
            Arc::clone(entry.endpoints.entry(key.clone()).or_insert_with(fresh))
        });
        let (id, part, endpoints) = (arm.id.clone(), part.cloned(), endpoints.collect());
        let (health, breaker) = (Arc::clone(&entry.health), entry.breaker.clone());
        let (version, upstream) = (arm.version.clone(), arm.upstream.clone());
        Arc::new(Arm { id, version, counters, endpoints, part, balance, health, breaker, upstream })
    }

    /// Every worker serves from `table` now: what it does not name gets no new request, so what is
    /// drained of it can be put to rest.
    pub(crate) fn settle(&mut self, table: &Table) {
        let named: BTreeMap<&ArmId, BTreeSet<_>> = table
            .arms
            .iter()
            .map(|arm| (&arm.id, arm.endpoints.iter().map(|e| (&e.instance, e.address)).collect()))
            .collect();
        for (id, entry) in &mut self.arms {
            let endpoints = named.get(id);
            entry.endpoints.retain(|(instance, address), endpoint| {
                endpoints.is_some_and(|kept| kept.contains(&(instance, *address)))
                    || endpoint.in_flight() > 0
            });
            if endpoints.is_some() {
                entry.left = None;
                continue;
            }
            entry.ledger.rest();
            if entry.left.is_none() {
                self.leavings += 1;
                entry.left = Some(self.leavings);
            }
        }
        self.forget();
    }

    /// Adds what a process has counted that this one has replaced, and that has ended.
    pub(crate) fn add(&mut self, past: &ArmReport) {
        let entry = self.arms.entry(past.arm.clone()).or_insert_with(|| Entry::new(&past.version));
        entry.ledger.add(&past.stats);
        entry.ejections_before += past.trouble.ejections;
    }

    /// Drops those that left first, once drained, above the limit.
    fn forget(&mut self) {
        let drained = self.arms.iter().filter(|(_, entry)| entry.ledger.is_at_rest());
        let mut gone: Vec<_> =
            drained.filter_map(|(id, entry)| Some((entry.left?, id.clone()))).collect();
        let surplus = gone.len().saturating_sub(RETIRED_ARMS_MAX);
        if surplus > 0 {
            gone.sort();
            for (_, id) in &gone[..surplus] {
                self.arms.remove(id);
            }
        }
    }

    /// What was counted, ascending by arm.
    pub(crate) fn report(&self) -> Vec<ArmReport> {
        self.arms.iter().map(|(id, entry)| entry.report(id)).collect()
    }
}

impl Entry {
    fn new(version: &Version) -> Self {
        Self {
            version: version.clone(),
            ledger: Ledger::default(),
            left: None,
            endpoints: BTreeMap::new(),
            health: Arc::default(),
            breaker: None,
            ejections_before: 0,
            balance: Balance::default(),
        }
    }

    fn report(&self, id: &ArmId) -> ArmReport {
        let (in_flight, stats) = self.ledger.read();
        let mut in_flight_by_instance = BTreeMap::new();
        for endpoint in self.endpoints.values() {
            let on_their_way = endpoint.in_flight();
            if on_their_way > 0 {
                *in_flight_by_instance.entry(endpoint.instance.clone()).or_default() +=
                    on_their_way;
            }
        }
        let (arm, version) = (id.clone(), self.version.clone());
        let trouble = self.trouble();
        ArmReport { arm, version, in_flight, in_flight_by_instance, stats, trouble }
    }

    fn trouble(&self) -> ArmTrouble {
        let now = clock::now();
        let named = |wanted: &dyn Fn(&Endpoint) -> bool| {
            let found = self.endpoints.values().filter(|endpoint| wanted(endpoint));
            found.map(|endpoint| endpoint.instance.clone()).collect()
        };
        // One alone gets everything, however new it is.
        let is_new = |endpoint: &Endpoint| {
            self.endpoints.len() > 1 && endpoint.readiness(now, self.balance.slow_start) < REST
        };
        let breaker = self.breaker.as_ref().map(|breaker| breaker.state());
        let state = |state| match state {
            BreakerState::Closed => BreakerReport::Closed,
            BreakerState::Open => BreakerReport::Open,
            BreakerState::HalfOpen => BreakerReport::HalfOpen,
        };
        ArmTrouble {
            breaker_opened: breaker.map(|(_, opened)| opened).unwrap_or_default(),
            breaker: breaker.map(|(now, _)| state(now)),
            ejections: self.ejections_before + self.health.ejections(),
            ejected: named(&|endpoint| endpoint.is_ejected(now)),
            warming: named(&is_new),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use switchback_ports::data_plane::conformance::sample_arm;

    use super::*;
    use crate::counters::{Outcome, Ticket};

    fn table(versions: &[&str]) -> Table {
        let arms = versions.iter().map(|version| sample_arm(version, &[])).collect();
        Table { arms, ..Table::default() }
    }

    #[test]
    fn counts_go_on_when_a_version_comes_back() {
        let mut registry = Registry::new(1);
        let arms = registry.arms(&table(&["v1"]), &Compiled::default(), &BTreeMap::new());
        Ticket::accept(Rc::new(Arc::clone(&arms[0])), 0).settle(Outcome::Answered(1));
        registry.settle(&table(&[]));
        assert!(registry.arms.values().all(|entry| entry.ledger.is_at_rest()), "kept as numbers");
        let arms = registry.arms(&table(&["v1"]), &Compiled::default(), &BTreeMap::new());
        let running = Ticket::accept(Rc::new(Arc::clone(&arms[0])), 0);
        registry.settle(&table(&[]));
        let report = registry.report();
        assert_eq!((report[0].stats.accepted, report[0].in_flight), (2, 1), "not drained yet");
        drop(running);
        registry.settle(&table(&[]));
        let report = registry.report();
        assert_eq!((report[0].stats.answered(), report[0].stats.client_gone), (1, 1));
        assert_eq!(report[0].in_flight, 0);
    }

    #[test]
    fn only_the_newest_of_the_gone_are_kept() {
        let mut registry = Registry::new(1);
        for n in 0..RETIRED_ARMS_MAX + 20 {
            let only = table(&[&format!("v{n}")]);
            registry.arms(&only, &Compiled::default(), &BTreeMap::new());
            registry.settle(&only);
        }
        registry.settle(&table(&[]));
        assert_eq!(registry.report().len(), RETIRED_ARMS_MAX);
        let newest = sample_arm(&format!("v{}", RETIRED_ARMS_MAX + 19), &[]).id;
        assert!(registry.arms.contains_key(&newest));
        assert!(!registry.arms.contains_key(&sample_arm("v0", &[]).id));
    }
}
