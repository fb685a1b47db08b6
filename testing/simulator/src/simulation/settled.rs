//! The end: when everything is as it should stay, and what must be true then.

use switchback_domain::{InstanceHealth, Split, Weight};

use super::Simulation;

impl Simulation {
    pub(super) fn is_settled(&self) -> bool {
        self.repaired_at.is_some() && self.control.up && self.unsettled().is_empty()
    }

    /// What is still under way.
    pub(super) fn unsettled(&self) -> String {
        let service = &self.control.service;
        if let Some(rollout) = &service.rollout {
            return format!("{} is {:?}, {:?}", rollout.request.id, rollout.phase, rollout.paused);
        }
        let pools = service.pools.values();
        let open = [
            (!service.queue.is_empty(), "requests wait"),
            (!service.traffic.is_acknowledged(), "the traffic is not acknowledged"),
            (self.control.settled_table().is_none(), "the table is not served"),
            (self.is_table_behind(), "the table is behind the instances"),
            (pools.clone().any(|pool| pool.desired != pool.present()), "instances too many or few"),
            (pools.clone().any(|pool| pool.desired != pool.ready()), "instances are not ready"),
            (self.is_told_less(), "instances were not looked at"),
        ];
        open.iter()
            .filter(|(is_open, _)| *is_open)
            .map(|(_, what)| *what)
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn is_table_behind(&self) -> bool {
        let wanted = self.control.wanted_table();
        self.control.sent.as_ref().is_none_or(|sent| !sent.says_the_same(&wanted))
    }

    fn is_told_less(&self) -> bool {
        let pools = &self.control.service.pools;
        self.world.releases().iter().any(|release| {
            let seen = pools.get(release).map(|pool| &pool.instances);
            seen != Some(&self.world.report(&self.key, release))
        })
    }

    /// Nothing is left over and everything that was asked for has an end.
    pub(super) fn check_settled(&mut self) -> Result<(), String> {
        let service = &self.control.service;
        let ended = self.oracle.ended();
        if ended != self.accepted {
            return Err(format!("asked for {:?}, ended {ended:?}", self.accepted));
        }
        let stable = service.stable();
        let split = stable.map_or_else(Split::none, |stable| Split::all(stable.release.clone()));
        if self.world.plane.table.split != split {
            return Err(format!("the data plane serves {:?}", self.world.plane.table.split));
        }
        let wanted = stable.map_or(0, |stable| stable.policy.replicas);
        let serving = self.world.instances.iter().filter(|((release, _), instance)| {
            split.weight_of(release) == Weight::ALL && instance.health == InstanceHealth::Ready
        });
        let (serving, all) = (serving.count(), self.world.instances.len());
        if serving != wanted as usize || all != serving {
            return Err(format!("{serving} of {wanted} serve, {all} run"));
        }
        let replayed = self.journal.replay()?;
        if replayed != *service {
            return Err("the journal replays to another state".to_owned());
        }
        self.trace.mark("settled", if stable.is_some() { "serving" } else { "empty" });
        Ok(())
    }
}
