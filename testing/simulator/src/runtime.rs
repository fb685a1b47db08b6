//! The simulated runtime: instances by id, each write checked for its generation as the real ones
//! do it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use switchback_domain::{Generation, InstanceId};
use switchback_ports::runtime::{Error, Instance, InstanceSpec, ProcessState};

use crate::nature::{Condition, Place};

/// One instance.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) spec: InstanceSpec,
    pub(crate) condition: Condition,
    pub(crate) restarts: u32,
    /// Counts changes: one that was planned before another came is void.
    pub(crate) stamp: u64,
    pub(crate) address: SocketAddr,
}

impl Running {
    pub(crate) fn place(&self) -> Place {
        let ordinal = self.spec.id.as_str().rsplit('.').next();
        let ordinal = ordinal.and_then(|text| text.parse().ok()).unwrap_or(0);
        Place { ordinal, restarts: self.restarts }
    }

    fn listed(&self) -> Instance {
        let process = match self.condition {
            Condition::Starting | Condition::Ready | Condition::Unready => {
                ProcessState::Running { pid: u32::from(self.address.port()) }
            }
            Condition::Exited => {
                ProcessState::BackingOff { next_start_in: Duration::ZERO, crash_loop: false }
            }
            Condition::CrashLoop => {
                ProcessState::BackingOff { next_start_in: Duration::ZERO, crash_loop: true }
            }
            Condition::Stopping => ProcessState::Stopping,
            Condition::Lost => ProcessState::Lost,
        };
        Instance {
            spec: self.spec.clone(),
            address: Some(self.address),
            process,
            restarts: self.restarts,
            last_exit: (self.restarts > 0).then(|| "exit code 1".to_owned()),
        }
    }
}

/// Everything that runs.
#[derive(Debug, Default)]
pub(crate) struct Runtime {
    pub(crate) instances: BTreeMap<InstanceId, Running>,
    seen: Generation,
    stamps: u64,
    ports: u16,
}

impl Runtime {
    /// Takes the generation of a write as the newest, or refuses it.
    pub(crate) fn admit(&mut self, given: Generation) -> Result<(), Error> {
        if given.epoch < self.seen.epoch {
            return Err(Error::Fenced { given, seen: self.seen });
        }
        self.seen = self.seen.max(given);
        Ok(())
    }

    /// Sees to it that the instance runs. Says whether it was started.
    pub(crate) fn start(&mut self, spec: InstanceSpec) -> bool {
        let runs =
            |found: &Running| !matches!(found.condition, Condition::Lost | Condition::Stopping);
        if self.instances.get(&spec.id).is_some_and(runs) {
            return false;
        }
        self.stamps += 1;
        self.ports += 1;
        let address = SocketAddr::from(([127, 0, 0, 1], 20_000 + self.ports % 20_000));
        let (condition, restarts, stamp) = (Condition::Starting, 0, self.stamps);
        let id = spec.id.clone();
        let running = Running { spec, condition, restarts, stamp, address };
        self.instances.insert(id, running);
        true
    }

    pub(crate) fn set(&mut self, id: &InstanceId, to: Condition) {
        self.stamps += 1;
        let stamp = self.stamps;
        if let Some(instance) = self.instances.get_mut(id) {
            instance.restarts += u32::from(to == Condition::Starting);
            (instance.condition, instance.stamp) = (to, stamp);
        }
    }

    pub(crate) fn is_current(&self, id: &InstanceId, stamp: u64) -> bool {
        self.instances.get(id).is_some_and(|found| found.stamp == stamp)
    }

    pub(crate) fn is_ready(&self, id: &InstanceId) -> bool {
        self.instances.get(id).is_some_and(|found| found.condition == Condition::Ready)
    }

    pub(crate) fn list(&self) -> Vec<Instance> {
        self.instances.values().map(Running::listed).collect()
    }
}
