//! A journal that is older than the world: it was restored from a copy, or lost and begun anew. The
//! neighbours remember what it does not know.
//!
//! What the data plane serves then may be unknown to the states, and what they want not there yet. So
//! the first table of a life waits until every service that is answered stays so. Nothing is stopped
//! that the data plane may serve, so until then all stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use switchback_domain::seeded::bug;
use switchback_domain::{Epoch, InstanceHealth, InstanceId, ServiceKey};
use switchback_engine::Service;
use switchback_ports::journal;
use switchback_ports::runtime::ProcessState;
use switchback_routing::Table;

use crate::clock::Instant;
use crate::driver::Driver;
use crate::record::{Deed, ITSELF};
use crate::table;

/// The longest time that what serves is left alone: most services start in less.
const SPARE_MAX: Duration = Duration::from_mins(2);

/// What the data plane served when this life began.
pub(crate) struct Found {
    /// Whose table it was.
    life: Epoch,
    served: BTreeMap<ServiceKey, BTreeSet<InstanceId>>,
    spared_until: Instant,
    /// A service that is left alone for now: it is answered, and would not be.
    pub(crate) spared: Option<ServiceKey>,
}

impl Found {
    fn new(table: Table) -> Self {
        let mut served = BTreeMap::<_, BTreeSet<_>>::new();
        for arm in table.arms {
            let ids = arm.endpoints.into_iter().map(|endpoint| endpoint.instance);
            served.entry(arm.id.service).or_default().extend(ids);
        }
        let (life, spared_until) = (table.generation.epoch, Instant::now() + SPARE_MAX);
        Self { life, served, spared_until, spared: None }
    }
}

impl Driver {
    /// A neighbour has seen a later life than this one. If the journal is still ours, the
    /// neighbour's memory is better than the journal's: goes beyond it.
    pub(crate) fn overtake(&mut self, seen: Epoch) {
        match self.book.overtake(seen) {
            Ok(epoch) => {
                self.publisher.begin(epoch);
                self.note_overtaking(seen);
            }
            Err(journal::Error::Fenced { .. }) => self.fenced = true,
            Err(_) => {}
        }
    }

    /// Takes in what is served before this life has published anything: an earlier life's table.
    /// `None` when the data plane does not tell.
    pub(crate) fn meet(&mut self, table: Option<Box<Table>>) {
        self.found.get_or_insert_with(|| Found::new(table.map_or_else(Table::default, |it| *it)));
    }

    /// Whether it is known what is served, and nobody is left out by what comes in its place.
    pub(crate) fn may_publish(&mut self) -> bool {
        let Some(life) = self.found.as_ref().map(|found| found.life) else { return false };
        if life >= self.book.epoch() {
            self.overtake(life);
        }
        if life >= self.book.epoch() {
            // That could not be written, and is tried again.
            return false;
        }
        let spared = self.left_out();
        let is_none = spared.is_none();
        if let Some(found) = &mut self.found {
            found.spared = spared;
        }
        is_none
    }

    /// A service that would be left out, if there is still something to wait for. The one that was
    /// waited for is asked about first: there may be thousands.
    fn left_out(&self) -> Option<ServiceKey> {
        let found = self.found.as_ref().filter(|found| Instant::now() < found.spared_until)?;
        if self.publisher.has_begun() || bug("older-journal-believed") {
            return None;
        }
        let of = |key: &ServiceKey| found.served.get_key_value(key);
        let mut candidates = found.spared.iter().filter_map(of).chain(&found.served);
        let left_out = candidates.find(|(key, ids)| {
            ids.iter().any(|id| self.runs(id)) && self.would_leave_out(key, ids)
        });
        left_out.map(|(key, _)| key.clone())
    }

    fn runs(&self, id: &InstanceId) -> bool {
        let instance = self.fleet.instance(id);
        instance.is_some_and(|found| matches!(found.process, ProcessState::Running { .. }))
    }

    /// Whether nobody would answer a service's requests who is ready or answers them now.
    fn would_leave_out(&self, key: &ServiceKey, served: &BTreeSet<InstanceId>) -> bool {
        let service = self.book.service(key);
        let ready = |id: &InstanceId| {
            self.fleet.vitals(id).is_some_and(|vitals| vitals.health() == InstanceHealth::Ready)
        };
        let answers = |id: &InstanceId| served.contains(id) || ready(id);
        is_new(&service) || !table::is_answered(&service, answers)
    }

    fn note_overtaking(&mut self, seen: Epoch) {
        let text = format!(
            "the journal is older than what runs: it was restored from a copy, or lost. Goes on from \
             it; what lives up to {} decided that it does not know is forgotten",
            seen.0
        );
        // The world is as it is, whether this can be written now or not.
        let _ = self.book.note_deed(Deed { by: ITSELF.to_owned(), text, failed: true });
    }
}

/// Whether the journal knows nothing of a service but its instances.
fn is_new(service: &Service) -> bool {
    service.revisions.is_empty() && service.ended.is_empty() && service.rollout.is_none()
}

#[cfg(test)]
mod tests {
    use switchback_domain::{EnvironmentName, Generation, ProjectName};
    use switchback_ports::data_plane::conformance::sample_table;
    use switchback_ports::journal::fake::FakeJournal;
    use switchback_ports::runtime::Instance;
    use switchback_routing::{Arm, ArmId, Endpoint};

    use crate::clock::Reading;
    use crate::headless::Headless;
    use crate::order::Order;
    use crate::testing::instance;

    use super::*;

    fn at(second: u64) {
        let since_boot_ms = second * 1_000;
        Headless::set_clocks(Reading { boot: "one".to_owned(), since_boot_ms, wall_ms: 0 });
    }

    fn begun() -> Headless {
        at(100);
        let (project, environment) = (ProjectName::new("shop"), EnvironmentName::new("test"));
        let journal = Box::new(FakeJournal::new());
        Headless::open(journal, project.unwrap(), environment.unwrap()).unwrap()
    }

    /// A table that leads to an instance.
    fn leading_to(instance: &Instance, generation: Generation) -> Table {
        let spec = &instance.spec;
        let arm = Arm {
            id: ArmId { service: spec.key.clone(), release: spec.release.clone() },
            version: spec.version.clone(),
            endpoints: vec![Endpoint {
                instance: spec.id.clone(),
                address: instance.address.unwrap(),
            }],
            upstream: spec.workload.route.as_ref().unwrap().upstream.clone(),
        };
        Table { arms: vec![arm], ..sample_table(generation, instance.address.unwrap(), Vec::new()) }
    }

    /// The table that is to be published now.
    fn published(control: &mut Headless) -> Option<Table> {
        control.settle().into_iter().find_map(|order| {
            if let Order::Publish { table, .. } = order { Some(table) } else { None }
        })
    }

    #[test]
    fn nothing_is_published_before_it_is_known_what_is_served() {
        let mut control = begun();
        control.listed(Ok(Vec::new()));
        assert_eq!(published(&mut control), None);
        control.met(Table::default());
        assert!(published(&mut control).is_some());
    }

    #[test]
    fn a_table_of_the_same_life_is_overtaken() {
        let mut control = begun();
        let own = control.epoch();
        control.listed(Ok(Vec::new()));
        let generation = Generation { epoch: own, counter: 7 };
        control.met(Table { generation, ..Table::default() });
        assert!(published(&mut control).unwrap().generation.epoch > own);
    }

    #[test]
    fn who_serves_unknown_to_the_journal_is_left_alone_for_two_minutes() {
        let mut control = begun();
        control.listed(Ok(vec![instance()]));
        control.met(leading_to(&instance(), Generation::first(Epoch(9))));
        for second in [100, 160, 219] {
            at(second);
            assert_eq!(published(&mut control), None, "at {second} s");
        }
        at(220);
        assert!(published(&mut control).is_some());
    }

    #[test]
    fn once_a_table_of_this_life_is_in_force_nothing_is_left_alone() {
        let mut control = begun();
        control.listed(Ok(Vec::new()));
        control.met(leading_to(&instance(), Generation::first(Epoch(9))));
        let table = published(&mut control).unwrap();
        let generation = table.generation;
        control.published(table, BTreeMap::new(), Ok(generation));
        control.listed(Ok(vec![instance()]));
        let _ = control.settle();
        // It has had the time of a drain.
        at(131);
        let orders = control.settle();
        assert!(orders.iter().any(|order| matches!(order, Order::Stop { .. })), "{orders:?}");
    }

    #[test]
    fn who_runs_no_more_is_waited_for_by_nobody() {
        let mut control = begun();
        let lost = Instance { process: ProcessState::Lost, ..instance() };
        control.listed(Ok(vec![lost]));
        control.met(leading_to(&instance(), Generation::first(Epoch(9))));
        assert!(published(&mut control).is_some());
    }
}
