//! Closing the gap between the instances that the states want and those there are: orders to
//! start and to stop, for the services that may need them.

use std::collections::HashSet;
use std::time::Duration;

use switchback_domain::{InstanceId, ServiceKey};
use switchback_ports::runtime::{Instance, InstanceSpec};

use crate::driver::Driver;
use crate::order::Order;

/// Time given to stop a service that nobody knows any more.
const DRAIN_UNKNOWN: Duration = Duration::from_secs(30);

impl Driver {
    pub(super) fn settle_instances(&mut self) {
        self.note_changed();
        let mut keys = std::mem::take(&mut self.unsettled);
        keys.extend(self.fleet.take_unsettled());
        for key in keys {
            self.settle_instances_of(&key);
        }
        self.stop_unwanted();
    }

    fn settle_instances_of(&mut self, key: &ServiceKey) {
        let mut wanted = HashSet::new();
        let mut to_start = Vec::new();
        let service = self.book.service(key);
        for (release, pool) in &service.pools {
            wanted.extend(InstanceId::wanted(key, release, pool.desired));
            let Some(known) = service.releases.get(release) else { continue };
            for id in self.fleet.missing(key, release, pool.desired) {
                to_start.push(InstanceSpec {
                    id,
                    project: self.settings.project.clone(),
                    key: key.clone(),
                    release: release.clone(),
                    version: known.version.clone(),
                    workload: known.workload.clone(),
                });
            }
        }
        for spec in to_start {
            self.start(spec);
        }
        self.fleet.settle(key, &wanted);
    }

    fn start(&mut self, spec: InstanceSpec) {
        self.fleet.start_ordered(&spec.key, &spec.id);
        let generation = self.generation();
        self.orders.push(Order::Start { spec: Box::new(spec), generation });
    }

    fn stop_unwanted(&mut self) {
        let (publisher, heard) = (&self.publisher, self.heard.as_ref());
        let states = self.book.services();
        let drain_timeout = |instance: &Instance| {
            let service = states.get(&instance.spec.key);
            let policy = service.and_then(|service| {
                let active = service.rollout.as_ref().map(|rollout| &rollout.request.policy);
                active.or_else(|| service.stable().map(|stable| &stable.policy))
            });
            policy.map_or(DRAIN_UNKNOWN, |policy| policy.drain_timeout)
        };
        let in_flight = |id: &InstanceId| {
            let heard = heard.filter(|h| publisher.is_current(&h.report, h.received))?;
            Some(heard.in_flight(id))
        };
        let due = self.fleet.due_stops(|id| publisher.excludes(id), in_flight, drain_timeout);
        for (id, cut) in due {
            self.stop(id, cut);
        }
    }

    fn stop(&mut self, id: InstanceId, cut: u64) {
        if cut > 0 {
            self.note_cut(&id, cut);
        }
        let generation = self.generation();
        self.orders.push(Order::Stop { id, generation });
    }

    /// Requests that did not end within the drain timeout are cut, and that is said.
    fn note_cut(&self, id: &InstanceId, cut: u64) {
        let Some(instance) = self.fleet.instance(id) else { return };
        let Some(service) = self.book.services().get(&instance.spec.key) else { return };
        let Some(rollout) = &service.rollout else { return };
        let text = format!("{id}: {cut} requests still on their way after the drain timeout");
        self.announce(service, rollout, "note", text);
    }
}
