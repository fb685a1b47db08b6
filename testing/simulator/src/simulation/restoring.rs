//! An older copy of the journal in its place: what is forgotten, and what must hold all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use switchback_domain::route::RouteMode;
use switchback_domain::{InstanceHealth, InstanceId, ReleaseId, ServiceKey};
use switchback_engine::{Rollout, Service};
use switchback_routing::{Arm, Endpoint, Table};

use super::Simulation;
use super::lives::{Dead, States};
use crate::nature::Condition;
use crate::runtime::Running;
use crate::witness::Witness;

/// So long, by its clock, a life waits for somebody to ask for what it knows nothing of, said a
/// second time.
const UNKNOWN_MAX: Duration = Duration::from_mins(2);

/// What was there before the journal was restored.
pub(super) struct Restored {
    /// What the data plane served then.
    table: Table,
    /// The last life then. Whatever it had sent has arrived by now, or never will.
    life: u64,
    /// Who answered when the present life began, each with its stamp.
    answering: BTreeMap<InstanceId, u64>,
    /// Services of which something else was served since.
    taken_over: BTreeSet<ServiceKey>,
}

impl Simulation {
    /// Somebody puts an older copy of the journal in its place, perhaps an empty one.
    pub(super) fn restore_any(&mut self) {
        let copies = self.disk.copies();
        let length = *self.random.pick(&copies);
        self.restore(length);
    }

    /// Somebody puts a copy of this length in the journal's place.
    pub(super) fn restore(&mut self, length: usize) {
        self.disk.restore(length);
        self.restored = Some(Restored {
            table: self.plane.table.clone(),
            life: self.lives,
            answering: BTreeMap::new(),
            taken_over: BTreeSet::new(),
        });
        self.witness.get().forget();
        let records = self.disk.open(self.lives).records_after(0);
        let states = self.follow(States::new(), &records, Witness::recall);
        let active = states.values().filter_map(|service| service.rollout.as_ref());
        self.plane.ledger.distrust_all_but(&active.map(|it| it.request.id.to_string()).collect());
        self.dead = Some(Dead { states });
    }

    /// Whether a life ended before the journal was restored.
    pub(super) fn is_past(&self, life: u64) -> bool {
        self.restored.as_ref().is_some_and(|restored| life <= restored.life)
    }

    /// Whether the data plane still serves of a service what the journal may know nothing of.
    pub(super) fn is_foreign(&self, key: &ServiceKey) -> bool {
        self.restored.as_ref().is_some_and(|restored| !restored.taken_over.contains(key))
    }

    /// Takes down who answers when a life begins that may not know them.
    pub(super) fn note_answering(&mut self) {
        let ready = |(id, found): (&InstanceId, &Running)| {
            (found.condition == Condition::Ready).then(|| (id.clone(), found.stamp))
        };
        if let Some(restored) = &mut self.restored {
            restored.answering = self.runtime.instances.iter().filter_map(ready).collect();
        }
    }

    /// Another table is in force: where it has something else, that came from the copy.
    pub(super) fn note_taken_over(&mut self) {
        let Some(restored) = &mut self.restored else { return };
        for key in &self.keys {
            let is_same = asked(&self.plane.table, key).eq(asked(&restored.table, key));
            if !is_same && restored.taken_over.insert(key.clone()) {
                self.witness.get().trace.mark("journal", "an older copy was gone on from");
            }
        }
    }

    /// A table that a life sends leaves nobody out who is answered since before the journal was
    /// restored, unless the copy says so.
    pub(super) fn check_spared(&self, table: &Table) {
        let (Some(life), Some(restored)) = (&self.life, &self.restored) else { return };
        let answers = |endpoint: &&Endpoint| {
            let stamp = restored.answering.get(&endpoint.instance);
            let found = self.runtime.instances.get(&endpoint.instance);
            found.is_some_and(|it| Some(&it.stamp) == stamp && it.address == endpoint.address)
        };
        for key in self.keys.iter().filter(|key| self.is_foreign(key)) {
            let service = self.service(key);
            let is_given_up = is_unknown(&service) && life.began + UNKNOWN_MAX <= self.since_boot();
            let was = asked(&restored.table, key).filter(answers).map(|end| &end.instance);
            let was: Vec<_> = was.collect();
            if was.is_empty() || is_meant(&service) || is_given_up {
                continue;
            }
            let comes = |id: &&InstanceId| {
                was.contains(id) || life.control.health_of(id) == Some(InstanceHealth::Ready)
            };
            let coming = asked(table, key).map(|end| &end.instance).filter(comes).count();
            let wants = |id: &InstanceId| {
                let mut pools = service.pools.iter().filter(|(_, pool)| pool.desired > 0);
                pools.any(|(release, _)| id.as_str().contains(&format!(".{release}.")))
            };
            let releases = shares(table, key);
            let desired: u32 = releases.iter().map(|release| service.pool(release).desired).sum();
            let enough = if was.iter().all(|id| wants(id)) { 1 } else { was.len() };
            if coming < enough.min(desired.max(1) as usize) {
                let was = was.len();
                self.fail(format!("{key} was answered by {was} and is by {coming} after a copy"));
            }
        }
    }
}

/// Whether the copy itself wants nobody to answer, or somebody else.
fn is_meant(service: &Arc<Service>) -> bool {
    let is_coming = service.rollout.as_ref().is_some_and(Rollout::is_forward);
    let asks_nobody = service.traffic.split.shares().is_empty();
    service.mode() != RouteMode::Serve || asks_nobody && !is_coming && !is_unknown(service)
}

fn is_unknown(service: &Arc<Service>) -> bool {
    service.revisions.is_empty() && service.ended.is_empty() && service.rollout.is_none()
}

fn arms<'a>(table: &'a Table, key: &ServiceKey) -> impl Iterator<Item = &'a Arm> {
    table.arms.iter().filter(move |arm| arm.id.service == *key)
}

/// The versions that get requests.
fn shares(table: &Table, key: &ServiceKey) -> Vec<ReleaseId> {
    let serves = |mode: &RouteMode| *mode == RouteMode::Serve;
    let route = table.routes.iter().find(|route| route.service == *key);
    let route = route.filter(|route| serves(&route.steering.mode));
    let shares = route.map_or(&[][..], |route| route.split.shares());
    shares.iter().map(|(release, _)| release.clone()).collect()
}

/// The instances that get requests.
fn asked<'a>(table: &'a Table, key: &ServiceKey) -> impl Iterator<Item = &'a Endpoint> {
    let releases = shares(table, key);
    let arms = arms(table, key).filter(move |arm| releases.contains(&arm.id.release));
    arms.flat_map(|arm| &arm.endpoints)
}
