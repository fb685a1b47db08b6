//! An older copy of the journal in its place: what is forgotten, and what must hold all the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use switchback_domain::{Generation, InstanceId, ServiceKey};
use switchback_engine::Service;
use switchback_routing::Table;

use super::Simulation;
use super::lives::{Dead, States};
use crate::nature::Condition;
use crate::runtime::Running;
use crate::witness::Witness;

/// So long, by its clock, a life leaves alone what serves and is unknown to it, said a second time.
const SPARED: Duration = Duration::from_mins(2);

/// What was there before the journal was restored.
pub(super) struct Restored {
    /// The data plane's last table then.
    newest: Generation,
    /// The last life then. Whatever it had sent has arrived by now, or never will.
    life: u64,
    /// Who answered when the present life began, each with its stamp.
    answering: BTreeMap<InstanceId, u64>,
    /// By the boot clock.
    spared_until: Duration,
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
            newest: self.plane.table.generation,
            life: self.lives,
            answering: BTreeMap::new(),
            spared_until: Duration::ZERO,
        });
        self.plane.ledger.distrust();
        self.witness.get().forget();
        let records = self.disk.open(self.lives).records_after(0);
        let states = self.follow(States::new(), &records, Witness::recall);
        self.dead = Some(Dead { states });
    }

    /// Whether a life ended before the journal was restored.
    pub(super) fn is_past(&self, life: u64) -> bool {
        self.restored.as_ref().is_some_and(|restored| life <= restored.life)
    }

    /// Whether the data plane still serves a table that the journal may know nothing of.
    pub(super) fn is_foreign(&self) -> bool {
        let newest = self.restored.as_ref().map(|restored| restored.newest);
        newest.is_some_and(|newest| self.plane.table.generation <= newest)
    }

    /// Takes down who answers when a life begins that may not know them.
    pub(super) fn note_strangers(&mut self) {
        let ready = |(id, found): (&InstanceId, &Running)| {
            (found.condition == Condition::Ready).then(|| (id.clone(), found.stamp))
        };
        let (is_foreign, since_boot) = (self.is_foreign(), self.since_boot());
        if is_foreign && let Some(restored) = &mut self.restored {
            restored.answering = self.runtime.instances.iter().filter_map(ready).collect();
            restored.spared_until = since_boot + SPARED;
        }
    }

    /// The first table of a life after a restoration leaves nobody out who was answered, unless
    /// that life has waited long enough.
    pub(super) fn check_taken_over(&self, life: u64, was: &Table) {
        let (Some(current), Some(restored)) = (&self.life, &self.restored) else { return };
        if current.number != life || was.generation > restored.newest {
            return;
        }
        self.mark("journal", "an older copy was gone on from");
        if self.since_boot() >= restored.spared_until {
            return self.mark("journal", "what an older copy did not know was given up");
        }
        let still_answers = |id: &InstanceId| {
            restored.answering.get(id).is_some_and(|stamp| self.runtime.is_current(id, *stamp))
        };
        for key in &self.keys {
            let was_answered = endpoints(was, key).any(still_answers);
            let is_known = |it: &Arc<Service>| !(it.revisions.is_empty() && it.ended.is_empty());
            let knows = current.control.services().get(key).is_some_and(is_known);
            let is_routed = self.plane.table.routes.iter().any(|route| route.service == *key);
            let is_answered = endpoints(&self.plane.table, key).next().is_some();
            if was_answered && !is_answered && (is_routed || !knows) {
                self.fail(format!(
                    "{key} was answered, and is not since an older copy is in force"
                ));
            }
        }
    }
}

fn endpoints<'a>(table: &'a Table, key: &ServiceKey) -> impl Iterator<Item = &'a InstanceId> {
    let arms = table.arms.iter().filter(move |arm| arm.id.service == *key);
    arms.flat_map(|arm| &arm.endpoints).map(|endpoint| &endpoint.instance)
}
