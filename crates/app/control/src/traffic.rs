//! Publishing route tables: one at a time, in order, until the data plane serves what is wanted.

use std::collections::BTreeMap;
use std::time::Duration;

use switchback_domain::route::RouteMode;
use switchback_domain::{Epoch, Generation, InstanceId, ServiceKey};
use switchback_engine::Service;
use switchback_ports::data_plane::{Error, Report};
use switchback_routing::Table;

use crate::clock::Instant;
use crate::table;

/// Pause before a refused or unanswered table is published again.
const PUBLISH_AGAIN: Duration = Duration::from_millis(500);

/// The decisions that a table carries, by service.
pub type Shifts = BTreeMap<ServiceKey, u64>;

/// What is served, and what is on its way to be.
pub(crate) struct Publisher {
    epoch: Epoch,
    generation: Generation,
    served: Option<(Table, Instant)>,
    on_its_way: bool,
    failed: Option<(String, Instant)>,
    incarnation: Option<String>,
}

/// What to do about traffic.
pub(crate) enum Next {
    /// Publish this; it carries these decisions.
    Publish(Table, Shifts),
    /// The data plane serves what is wanted; these decisions hold.
    Served(Shifts),
    /// Something is on its way, or the next try is not due.
    Wait,
}

impl Publisher {
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            generation: Generation::first(epoch),
            served: None,
            on_its_way: false,
            failed: None,
            incarnation: None,
        }
    }

    /// Goes on in a later epoch.
    pub(crate) fn begin(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Compares what the states want with what is served.
    pub(crate) fn next(&mut self, services: &BTreeMap<ServiceKey, Service>) -> Next {
        let waits = self.failed.as_ref().is_some_and(|(_, at)| at.elapsed() < PUBLISH_AGAIN);
        if self.on_its_way || waits {
            return Next::Wait;
        }
        let shifts = services.iter().map(|(key, s)| (key.clone(), s.traffic.shift)).collect();
        let wanted = table::build(services, self.generation);
        if self.served.as_ref().is_some_and(|(served, _)| same_content(served, &wanted)) {
            return Next::Served(shifts);
        }
        self.generation = self.generation.next_in(self.epoch);
        self.on_its_way = true;
        Next::Publish(Table { generation: self.generation, ..wanted }, shifts)
    }

    /// A publication ended. Returns whether the table is served now.
    pub(crate) fn published(&mut self, table: Table, result: &Result<Generation, Error>) -> bool {
        self.on_its_way = false;
        match result {
            Ok(_) => {
                self.served = Some((table, Instant::now()));
                self.failed = None;
            }
            Err(error) => {
                self.failed = Some((error.to_string(), Instant::now()));
            }
        }
        result.is_ok()
    }

    /// Takes in a report: a data plane that was started anew serves what it saved, which may be
    /// older than what it had acknowledged.
    pub(crate) fn reported(&mut self, report: &Report) {
        let restarted = self.incarnation.as_ref().is_some_and(|old| *old != report.incarnation);
        self.incarnation = Some(report.incarnation.clone());
        let behind =
            self.served.as_ref().is_some_and(|(table, _)| report.generation < table.generation);
        if restarted || behind {
            self.served = None;
        }
    }

    /// Whether the served table sends nothing to an instance.
    pub(crate) fn excludes(&self, id: &InstanceId) -> bool {
        self.served.as_ref().is_some_and(|(table, _)| {
            !table.arms.iter().any(|arm| arm.endpoints.iter().any(|e| e.instance == *id))
        })
    }

    /// Whether a report was made after the served table took effect.
    pub(crate) fn is_current(&self, report: &Report, received: Instant) -> bool {
        self.served.as_ref().is_some_and(|(table, since)| {
            report.generation >= table.generation && received >= *since
        })
    }

    /// Whether nothing is on its way to the data plane, and nothing failed.
    pub(crate) fn is_settled(&self) -> bool {
        self.served.is_some() && !self.on_its_way && self.failed.is_none()
    }

    /// Why the last table was not taken.
    pub(crate) fn error(&self) -> Option<&str> {
        self.failed.as_ref().map(|(why, _)| why.as_str())
    }

    /// Whether every worker has the service's route do this.
    pub(crate) fn is_in_mode(&self, service: &ServiceKey, mode: &RouteMode) -> bool {
        self.served.as_ref().is_some_and(|(table, _)| {
            let route = table.routes.iter().find(|route| route.service == *service);
            route.is_some_and(|route| route.steering.mode == *mode)
        })
    }

    /// Whether an address is being listened on by the served table.
    pub(crate) fn listens_on(&self, address: std::net::SocketAddr) -> bool {
        self.served.as_ref().is_some_and(|(table, _)| {
            table.routes.iter().any(|route| route.addresses().any(|own| own == address))
        })
    }
}

fn same_content(one: &Table, other: &Table) -> bool {
    one.routes == other.routes && one.arms == other.arms
}
