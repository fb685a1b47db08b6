//! Publishing route tables: one at a time, in order, until the data plane serves what is wanted.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use switchback_domain::route::RouteMode;
use switchback_domain::seeded::bug;
use switchback_domain::{Epoch, Generation, InstanceId, ServiceKey};
use switchback_engine::Service;
use switchback_ports::certificates::Proof;
use switchback_ports::data_plane::{Error, Report};
use switchback_routing::{Route, Router, Table};

use crate::clock::Instant;
use crate::table::{self, Part};

/// Pause before a refused or unanswered table is published again.
const PUBLISH_AGAIN: Duration = Duration::from_millis(500);

/// The decisions that a table carries and that are not known to hold, by service.
pub type Shifts = BTreeMap<ServiceKey, u64>;

/// What is served, and what is on its way to be.
pub(crate) struct Publisher {
    epoch: Epoch,
    generation: Generation,
    /// What each service adds to the table, as far as it was asked.
    parts: BTreeMap<ServiceKey, Part>,
    /// Counts the changes of the parts.
    revision: u64,
    /// Services whose states have changed since.
    stale: BTreeSet<ServiceKey>,
    /// Services with a decision that is not known to hold.
    open: BTreeSet<ServiceKey>,
    /// What is known to be served; unknown while an answer may have been lost.
    served: Option<Served>,
    /// The revision of the parts that the last table was made of.
    sent: u64,
    /// Instances in the table that was sent and not answered yet: it may be served already.
    on_its_way: Option<HashSet<InstanceId>>,
    failed: Option<(String, Instant)>,
    incarnation: Option<String>,
    /// What an earlier life's table had for services that would be left out by their own parts.
    spared: BTreeMap<ServiceKey, Arc<Part>>,
    /// The directory of ordered certificates, as a table names it.
    certificates: String,
    /// What authorities are answered who ask whether a name leads here.
    challenges: BTreeMap<String, String>,
}

/// A table that is in force.
struct Served {
    table: Table,
    /// It is what the states wanted when the parts had this revision, as far as is known.
    fits: u64,
    instances: HashSet<InstanceId>,
    since: Instant,
}

/// What to do about traffic.
pub(crate) enum Next {
    /// Publish this; it carries these decisions.
    Publish(Table, Shifts),
    /// The data plane serves what is wanted; these decisions hold and are not known to.
    Served(Shifts),
    /// Something is on its way, or the next try is not due, or all is as it was.
    Wait,
}

impl Publisher {
    pub(crate) fn new(epoch: Epoch, certificates: &Path) -> Self {
        Self {
            certificates: certificates.to_string_lossy().into_owned(),
            challenges: BTreeMap::new(),
            epoch,
            generation: Generation::first(epoch),
            parts: BTreeMap::new(),
            revision: 0,
            stale: BTreeSet::new(),
            open: BTreeSet::new(),
            served: None,
            sent: 0,
            on_its_way: None,
            failed: None,
            incarnation: None,
            spared: BTreeMap::new(),
        }
    }

    /// Goes on in a later epoch.
    pub(crate) fn begin(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// The states of these services have changed.
    pub(crate) fn changed(&mut self, keys: impl Iterator<Item = ServiceKey>) {
        self.stale.extend(keys);
    }

    /// Whether a table is on its way: before it is answered nothing else is decided.
    pub(crate) fn is_waiting(&self) -> bool {
        self.on_its_way.is_some()
    }

    /// What a service's state calls for.
    pub(crate) fn part(&self, key: &ServiceKey) -> Option<&Part> {
        self.parts.get(key)
    }

    /// Has these services keep what they had in an earlier life's table, and no others. Where that
    /// is not possible beside what the states call for, none.
    pub(crate) fn spare(&mut self, spared: BTreeMap<ServiceKey, Arc<Part>>) {
        if self.spared == spared {
            return;
        }
        self.spared = spared;
        if !self.spared.is_empty() && Router::new(&self.wanted()).is_err() {
            self.spared.clear();
        }
        self.revision += 1;
    }

    /// Who keeps what an earlier life's table had.
    pub(crate) fn spared(&self) -> &BTreeMap<ServiceKey, Arc<Part>> {
        &self.spared
    }

    /// Looks anew at the services whose states have changed.
    pub(crate) fn freshen(&mut self, services: &BTreeMap<ServiceKey, Arc<Service>>) {
        for key in std::mem::take(&mut self.stale) {
            self.freshen_part(key, services);
        }
    }

    fn wanted(&self) -> Table {
        let own = self.parts.iter().filter(|(key, _)| !self.spared.contains_key(*key));
        let parts = own.map(|(_, part)| part).chain(self.spared.values().map(Arc::as_ref));
        let mut wanted = table::assemble(parts, self.generation);
        let encrypted = wanted.routes.iter_mut().filter_map(|route| route.tls.as_mut());
        encrypted.for_each(|tls| tls.keep_in(&self.certificates));
        wanted.challenges.clone_from(&self.challenges);
        wanted
    }

    /// Compares what the states want with what is served.
    pub(crate) fn next(&mut self, services: &BTreeMap<ServiceKey, Arc<Service>>) -> Next {
        let waits = self.failed.as_ref().is_some_and(|(_, at)| at.elapsed() < PUBLISH_AGAIN);
        if self.on_its_way.is_some() || waits {
            return Next::Wait;
        }
        self.freshen(services);
        let fits = self.served.as_ref().is_some_and(|served| served.fits == self.revision);
        if fits && self.open.is_empty() {
            return Next::Wait;
        }
        let open = self.open.iter().filter(|key| !self.spared.contains_key(*key));
        let open = open.filter_map(|key| services.get_key_value(key));
        let shifts = open.map(|(key, service)| (key.clone(), service.traffic.shift)).collect();
        if fits {
            return Next::Served(shifts);
        }
        let wanted = self.wanted();
        if let Some(served) = self.served.as_mut()
            && same_content(&served.table, &wanted)
        {
            served.fits = self.revision;
            return Next::Served(shifts);
        }
        self.sent = self.revision;
        if !bug("generation-kept") {
            self.generation = self.generation.next_in(self.epoch);
        }
        self.on_its_way = Some(instances(&wanted));
        Next::Publish(Table { generation: self.generation, ..wanted }, shifts)
    }

    /// Looks anew at what a service adds to the table.
    fn freshen_part(&mut self, key: ServiceKey, services: &BTreeMap<ServiceKey, Arc<Service>>) {
        let Some(service) = services.get(&key) else { return };
        if service.traffic.is_acknowledged() {
            self.open.remove(&key);
        } else {
            self.open.insert(key.clone());
        }
        let part = Part::of(service);
        if self.parts.get(&key) != Some(&part) {
            self.revision += 1;
            self.parts.insert(key, part);
        }
    }

    /// A publication ended. Returns whether the table is served now. Without an answer nobody knows
    /// what is: the table may have come into force and only its acknowledgement been lost.
    pub(crate) fn published(&mut self, table: Table, result: &Result<Generation, Error>) -> bool {
        let now = Instant::now();
        // One that comes late, or twice, is about an earlier table and says nothing about this one.
        let is_awaited = table.generation == self.generation || bug("any-answer-taken");
        let Some(instances) = self.on_its_way.take_if(|_| is_awaited) else { return false };
        self.failed = result.as_ref().err().map(|error| (error.to_string(), now));
        match result {
            Ok(_) => {
                self.served = Some(Served { table, fits: self.sent, instances, since: now });
            }
            Err(Error::Refused(_)) => {}
            Err(_) if bug("unanswered-is-unserved") => {}
            Err(Error::Unavailable(_) | Error::Fenced { .. }) => self.served = None,
        }
        result.is_ok()
    }

    /// Takes in a report: a data plane that was started anew serves what it saved, which may be
    /// older than what it had acknowledged.
    pub(crate) fn reported(&mut self, report: &Report) {
        let restarted = self.incarnation.as_ref().is_some_and(|old| *old != report.incarnation);
        self.incarnation = Some(report.incarnation.clone());
        let behind =
            self.served.as_ref().is_some_and(|served| report.generation < served.table.generation);
        if restarted || behind {
            self.served = None;
        }
    }

    /// Whether an instance gets nothing new, by the served table and by the one on its way.
    pub(crate) fn excludes(&self, id: &InstanceId) -> bool {
        let comes = self.on_its_way.as_ref().is_some_and(|instances| instances.contains(id));
        let comes = comes && !bug("on-its-way-forgotten");
        !comes && self.served.as_ref().is_some_and(|served| !served.instances.contains(id))
    }

    /// Whether a report was made after the served table took effect.
    pub(crate) fn is_current(&self, report: &Report, received: Instant) -> bool {
        self.served.as_ref().is_some_and(|served| {
            bug("old-figures-taken")
                || (report.generation >= served.table.generation && received >= served.since)
        })
    }

    /// Whether nothing is on its way to the data plane, and nothing failed.
    pub(crate) fn is_settled(&self) -> bool {
        self.served.is_some() && self.on_its_way.is_none() && self.failed.is_none()
    }

    /// Why the last table was not taken.
    pub(crate) fn error(&self) -> Option<&str> {
        self.failed.as_ref().map(|(why, _)| why.as_str())
    }

    /// Whether every worker has the service's route do this.
    pub(crate) fn is_in_mode(&self, service: &ServiceKey, mode: &RouteMode) -> bool {
        self.served.as_ref().is_some_and(|served| {
            let route = served.table.routes.iter().find(|route| route.service == *service);
            route.is_some_and(|route| route.steering.mode == *mode)
        })
    }

    /// Has the data plane answer authorities.
    pub(crate) fn prove(&mut self, proofs: Vec<Proof>) {
        self.challenges.extend(proofs.into_iter().map(|proof| (proof.token, proof.answer)));
        self.look_again();
    }

    /// Whether it does, in every worker.
    pub(crate) fn proves(&self, proofs: &[Proof]) -> bool {
        self.served.as_ref().is_some_and(|served| {
            let shown = &served.table.challenges;
            proofs.iter().all(|proof| shown.get(&proof.token) == Some(&proof.answer))
        })
    }

    /// The authorities have been.
    pub(crate) fn withdraw_proofs(&mut self) {
        self.challenges.clear();
        self.look_again();
    }

    /// Something else than a state calls for another table.
    fn look_again(&mut self) {
        self.revision += 1;
    }

    /// Whether somebody who comes in plain text is answered.
    pub(crate) fn serves_plain(&self) -> bool {
        let plain =
            |route: &Route| route.tls.as_ref().is_none_or(|tls| tls.redirect_from.is_some());
        self.is_settled()
            && self.served.as_ref().is_some_and(|served| served.table.routes.iter().any(plain))
    }

    /// Whether an address is being listened on by the served table.
    pub(crate) fn listens_on(&self, address: std::net::SocketAddr) -> bool {
        self.served.as_ref().is_some_and(|served| {
            let mut routes = served.table.routes.iter();
            routes.any(|route| route.addresses().any(|own| own == address))
        })
    }
}

fn instances(table: &Table) -> HashSet<InstanceId> {
    let endpoints = table.arms.iter().flat_map(|arm| &arm.endpoints);
    endpoints.map(|endpoint| endpoint.instance.clone()).collect()
}

fn same_content(one: &Table, other: &Table) -> bool {
    (one.routes == other.routes || bug("weights-not-compared"))
        && one.arms == other.arms
        && one.challenges == other.challenges
}

#[cfg(test)]
mod tests {
    use switchback_domain::InstanceHealth;

    use super::*;
    use crate::testing::serving;

    #[test]
    fn an_answer_about_an_earlier_table_says_nothing_about_the_one_on_its_way() {
        let mut publisher = Publisher::new(Epoch(1), Path::new("/certificates"));
        let mut service = serving(&[("v1", InstanceHealth::Ready)]);
        let id = service.pools.values().next().unwrap().instances[0].id.clone();
        let next = |publisher: &mut Publisher, service: &Service| {
            publisher.changed([service.key.clone()].into_iter());
            let services = BTreeMap::from([(service.key.clone(), Arc::new(service.clone()))]);
            match publisher.next(&services) {
                Next::Publish(table, _) => Some(table),
                Next::Served(_) | Next::Wait => None,
            }
        };
        let with = next(&mut publisher, &service).unwrap();
        assert!(publisher.published(with.clone(), &Ok(with.generation)));
        service.pools.values_mut().for_each(|pool| pool.desired = 0);
        let without = next(&mut publisher, &service).unwrap();
        // Told a second time that the first one is served.
        publisher.published(with.clone(), &Ok(with.generation));
        assert!(!publisher.excludes(&id), "the second one is not served yet");
        assert!(next(&mut publisher, &service).is_none(), "it is still on its way");
        publisher.published(without.clone(), &Ok(without.generation));
        assert!(publisher.excludes(&id));
    }
}
