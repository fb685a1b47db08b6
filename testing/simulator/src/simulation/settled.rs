//! The end: when everything is as it should stay, and what must be true then.

use switchback_domain::route::RouteMode;
use switchback_domain::{ServiceKey, Split};
use switchback_engine::Service;
use switchback_ports::Journal;

use super::Simulation;

impl Simulation {
    /// What is still under way.
    pub(super) fn unsettled(&self) -> String {
        let Some(life) = &self.life else { return "nobody is in charge".to_owned() };
        if self.frozen.is_some() {
            return "a former one has not ended".to_owned();
        }
        let states = life.control.services();
        for service in states.values() {
            let open = unsettled_service(service);
            if !open.is_empty() {
                return format!("{}: {open}", service.key);
            }
        }
        if let Some(reason) = life.control.degraded() {
            return reason.to_owned();
        }
        let wanted: u32 = states.values().flat_map(|s| s.pools.values()).map(|p| p.desired).sum();
        if self.runtime.instances.len() != wanted as usize {
            return format!("{} of {wanted} instances run", self.runtime.instances.len());
        }
        let mut running = self.runtime.instances.keys();
        if let Some(id) = running.find(|id| !self.plane.serves(id) || !self.runtime.is_ready(id)) {
            return format!("{id} does not serve");
        }
        match states.keys().find(|key| self.plane.split(key) != split_of(&states[*key])) {
            Some(key) => format!("{key}: the data plane serves something else"),
            None => String::new(),
        }
    }

    /// Nothing is left over and everything that was asked for has an end.
    pub(super) fn check_settled(&mut self) -> Result<(), String> {
        let open = self.witness.get().open();
        if !open.is_empty() {
            return Err(format!("asked for and never ended: {open:?}"));
        }
        let Some(life) = &self.life else { return Ok(()) };
        let states = life.control.services();
        for (key, service) in states {
            self.check_service(key, service)?;
        }
        let journal = self.disk.open(0);
        journal.verify().map_err(|error| format!("the chain of hashes is broken: {error}"))?;
        let is_empty = states.values().all(|service| service.stable().is_none());
        self.mark("settled", if is_empty { "empty" } else { "serving" });
        Ok(())
    }

    fn check_service(&self, key: &ServiceKey, service: &Service) -> Result<(), String> {
        let wanted = service.stable().map_or(0, |stable| stable.policy.replicas);
        let of = self.runtime.instances.values().filter(|found| found.spec.key == *key);
        let (all, serving) = (of.clone().count(), of.clone());
        let serving = serving.filter(|found| {
            self.runtime.is_ready(&found.spec.id) && self.plane.serves(&found.spec.id)
        });
        let serving = serving.count();
        if serving != wanted as usize || all != serving {
            return Err(format!("{key}: {serving} of {wanted} serve, {all} run"));
        }
        Ok(())
    }
}

fn split_of(service: &Service) -> Split<switchback_domain::ReleaseId> {
    service.stable().map_or_else(Split::none, |stable| Split::all(stable.release.clone()))
}

fn unsettled_service(service: &Service) -> String {
    if let Some(rollout) = &service.rollout {
        return format!("{} is {:?}, {:?}", rollout.request.id, rollout.phase, rollout.paused);
    }
    let pools = service.pools.values();
    let open = [
        (!service.queue.is_empty(), "requests wait"),
        (service.mode() != RouteMode::Serve, "the route does something else than serve"),
        (!service.traffic.is_acknowledged(), "the traffic is not acknowledged"),
        (pools.clone().any(|pool| pool.desired != pool.present()), "instances too many or few"),
        (pools.clone().any(|pool| pool.desired != pool.ready()), "instances are not ready"),
    ];
    let open = open.iter().filter(|(is_open, _)| *is_open).map(|(_, what)| *what);
    open.collect::<Vec<_>>().join(", ")
}
