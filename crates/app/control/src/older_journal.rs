//! What a life does about a world that its journal may not know: it was restored from a copy, or lost
//! and begun anew, and what the data plane serves was decided by lives of which nothing is written.
//!
//! A life asks what is served before it publishes anything, and goes beyond whoever made it. Services
//! whose own part of the table would leave out who answers keep what they had, until those that their
//! states want can take over, or somebody says otherwise. What no state knows and nobody asks for stays
//! for two minutes. Nothing is stopped that is in the table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use switchback_domain::route::RouteMode;
use switchback_domain::seeded::bug;
use switchback_domain::{Epoch, InstanceHealth, InstanceId, ServiceKey};
use switchback_engine::{Rollout, Service};
use switchback_ports::journal;
use switchback_ports::runtime::ProcessState;
use switchback_routing::{Endpoint, Table};

use crate::clock::Instant;
use crate::driver::Driver;
use crate::record::{Deed, ITSELF};
use crate::table::{self, Part};

/// So long somebody may take to ask for a service of which the journal knows nothing but instances.
const UNKNOWN_MAX: Duration = Duration::from_mins(2);

/// What the data plane served when this life began.
#[derive(Default)]
pub(crate) struct Found {
    /// Whose table it was and when this life was told, once it was.
    met: Option<(Epoch, Instant)>,
    /// What it had for services of which this life has had nothing served yet.
    parts: BTreeMap<ServiceKey, Arc<Part>>,
    /// Something is there that the journal does not know.
    is_older: bool,
    /// That is written down.
    is_told: bool,
}

impl Driver {
    /// Takes in what is served before this life has published anything. `None` when the data plane
    /// does not tell.
    pub(crate) fn meet(&mut self, table: Option<Box<Table>>) {
        if self.found.met.is_none() {
            let table = table.map_or_else(Table::default, |table| *table);
            self.found.met = Some((table.generation.epoch, Instant::now()));
            let parts = table::parts_of(table).into_iter();
            self.found.parts = parts.map(|(key, part)| (key, Arc::new(part))).collect();
        }
    }

    /// A neighbour has seen a later life than this one. If the journal is still ours, the
    /// neighbour's memory is better than the journal's: goes beyond it.
    pub(crate) fn overtake(&mut self, seen: Epoch) {
        match self.book.overtake(seen) {
            Ok(epoch) => {
                self.publisher.begin(epoch);
                self.found.is_older = true;
            }
            Err(journal::Error::Fenced { .. }) => self.fenced = true,
            Err(_) => {}
        }
    }

    /// Whether this life's tables come after the one that is served, as far as is known.
    pub(crate) fn comes_after_what_is_served(&mut self) -> bool {
        let Some((life, _)) = self.found.met else { return false };
        if life >= self.book.epoch() {
            self.overtake(life);
        }
        // What could not be written is tried again.
        life < self.book.epoch()
    }

    /// Has services that would be left out keep what they had.
    pub(crate) fn spare(&mut self) {
        self.tell_of_older_journal();
        if self.publisher.is_waiting() || self.found.parts.is_empty() {
            return;
        }
        self.publisher.freshen(self.book.services());
        if bug("older-journal-believed") {
            self.found.parts.clear();
        }
        let left_out = self.found.parts.iter().filter(|(key, part)| self.leaves_out(key, part));
        let spared: BTreeMap<_, _> =
            left_out.map(|(key, part)| (key.clone(), part.clone())).collect();
        let is_unknown = |(key, part): (&ServiceKey, &Arc<Part>)| {
            let service = self.book.service(key);
            part.asked().iter().any(|release| !service.releases.contains_key(*release))
        };
        self.found.is_older |= spared.iter().any(is_unknown);
        self.publisher.spare(spared);
    }

    /// A table of this life is in force: who was not spared in it needs that no more.
    pub(crate) fn took_over(&mut self) {
        let spared = self.publisher.spared();
        self.found.parts.retain(|key, _| spared.contains_key(key));
    }

    fn leaves_out(&self, key: &ServiceKey, found: &Part) -> bool {
        let runs = |endpoint: &Endpoint| {
            self.fleet.instance(&endpoint.instance).is_some_and(|instance| {
                matches!(instance.process, ProcessState::Running { .. })
                    && instance.address == Some(endpoint.address)
            })
        };
        let (service, nothing) = (self.book.service(key), Part::default());
        let is_over = self.found.met.is_some_and(|(_, at)| at.elapsed() >= UNKNOWN_MAX);
        if is_new(&service) && is_over {
            return false;
        }
        leaves_out(&service, self.publisher.part(key).unwrap_or(&nothing), found, runs)
    }

    fn tell_of_older_journal(&mut self) {
        if self.found.is_older && !self.found.is_told {
            let text = "the journal is older than what runs: it was restored from a copy, or lost. \
                        What was decided since is forgotten";
            let deed = Deed { by: ITSELF.to_owned(), text: text.to_owned(), failed: true };
            self.found.is_told = self.book.note_deed(deed).is_ok();
        }
    }
}

/// Whether requests that somebody answers now would find nobody, or too few, if the service's own
/// part were served.
fn leaves_out(
    service: &Service,
    own: &Part,
    found: &Part,
    runs: impl Fn(&Endpoint) -> bool,
) -> bool {
    let answering = found.endpoints().filter(|endpoint| runs(endpoint));
    let answering: BTreeSet<_> = answering.map(|endpoint| &endpoint.instance).collect();
    if answering.is_empty() || is_meant(service, own) {
        return false;
    }
    let pools = || own.asked().into_iter().filter_map(|release| service.pools.get(release));
    let is_ready = |id: &InstanceId| {
        let mut instances = pools().flat_map(|pool| &pool.instances);
        instances.any(|found| found.id == *id && found.health == InstanceHealth::Ready)
    };
    // The state may not have been told yet who is gone.
    let coming = own.endpoints().filter(|endpoint| runs(endpoint)).map(|found| &found.instance);
    let coming = coming.filter(|id| is_ready(id) || answering.contains(id)).count();
    let strength: u32 = pools().map(|pool| pool.desired).sum();
    let enough = answering.len().min(usize::try_from(strength).unwrap_or(usize::MAX)).max(1);
    let is_unknown = |id: &&InstanceId| !is_wanted(service, id);
    coming == 0 || coming < enough && answering.iter().any(is_unknown)
}

/// Whether the journal itself says that nobody is to be asked, or somebody else.
fn is_meant(service: &Service, own: &Part) -> bool {
    let is_coming = service.rollout.as_ref().is_some_and(Rollout::is_forward);
    match &own.route {
        None => !is_new(service),
        Some(route) if route.steering.mode != RouteMode::Serve => true,
        Some(route) => route.split.shares().is_empty() && !is_coming,
    }
}

/// Whether the journal knows nothing of a service but its instances.
fn is_new(service: &Service) -> bool {
    service.revisions.is_empty() && service.ended.is_empty() && service.rollout.is_none()
}

fn is_wanted(service: &Service, id: &InstanceId) -> bool {
    service.pools.iter().any(|(release, pool)| {
        InstanceId::wanted(&service.key, release, pool.desired).any(|wanted| wanted == *id)
    })
}

#[cfg(test)]
mod tests {
    use switchback_domain::{EnvironmentName, Generation, InstanceReport, ProjectName, Split};
    use switchback_engine::{Command, EventKind, Pool, RolloutId};
    use switchback_ports::data_plane::conformance::sample_route;
    use switchback_ports::journal::fake::FakeJournal;
    use switchback_ports::runtime::Instance;
    use switchback_routing::{Arm, ArmId, Route};

    use crate::clock::Reading;
    use crate::headless::Headless;
    use crate::order::Order;
    use crate::testing::{instance, request, revision, serving};

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

    /// A table that leads to these instances.
    fn leading_to(instances: &[Instance], generation: Generation) -> Table {
        let spec = &instances[0].spec;
        let endpoint =
            |it: &Instance| Endpoint { instance: it.spec.id.clone(), address: it.address.unwrap() };
        let arm = Arm {
            id: ArmId { service: spec.key.clone(), release: spec.release.clone() },
            version: spec.version.clone(),
            endpoints: instances.iter().map(endpoint).collect(),
            upstream: spec.workload.route.as_ref().unwrap().upstream.clone(),
        };
        let split = Split::all(spec.release.clone());
        let route = sample_route("127.0.0.1:8080".parse().unwrap(), split);
        let routes = vec![Route { service: spec.key.clone(), ..route }];
        Table { generation, routes, arms: vec![arm], ..Table::default() }
    }

    /// Some instances of a version, as the runtime lists them.
    fn instances_of(version: &str, count: u32) -> Vec<Instance> {
        let release = crate::testing::release(version);
        let of = |ordinal| {
            let mut found = instance();
            found.spec.id = InstanceId::new(&release.key, &release.id, ordinal);
            (found.spec.release, found.spec.version) =
                (release.id.clone(), release.version.clone());
            found.address.as_mut().unwrap().set_port(20_000 + u16::try_from(ordinal).unwrap());
            found
        };
        (0..count).map(of).collect()
    }

    /// The table that is to be published now.
    fn published(control: &mut Headless) -> Option<Table> {
        control.settle().into_iter().find_map(|order| {
            if let Order::Publish { table, .. } = order { Some(table) } else { None }
        })
    }

    fn endpoints(table: &Table) -> usize {
        table.arms.iter().map(|arm| arm.endpoints.len()).sum()
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
    fn who_answers_unknown_to_the_journal_stays_for_two_minutes() {
        let mut control = begun();
        let stranger = instances_of("v1", 1);
        control.listed(Ok(stranger.clone()));
        let found = leading_to(&stranger, Generation::first(Epoch(9)));
        control.met(found.clone());
        let first = published(&mut control).unwrap();
        assert_eq!((&first.routes, &first.arms), (&found.routes, &found.arms));
        let generation = first.generation;
        control.published(first, BTreeMap::new(), Ok(generation));
        at(219);
        assert_eq!(published(&mut control), None);
        at(220);
        assert_eq!(endpoints(&published(&mut control).unwrap()), 0);
    }

    #[test]
    fn who_runs_no_more_or_elsewhere_is_not_kept() {
        let mut lost = instances_of("v1", 1);
        let found = leading_to(&lost, Generation::first(Epoch(9)));
        let mut elsewhere = lost.clone();
        elsewhere[0].address.as_mut().unwrap().set_port(1);
        lost[0].process = ProcessState::Lost;
        for list in [lost, elsewhere] {
            let mut control = begun();
            control.listed(Ok(list));
            control.met(found.clone());
            assert_eq!(endpoints(&published(&mut control).unwrap()), 0);
        }
    }

    /// Whether somebody in `found` would be left out, with so many ready instances of v1 of which
    /// three are wanted.
    fn is_left_out(ready: usize, found: &Table) -> bool {
        let mut service = serving(&[("v1", InstanceHealth::Ready)]);
        let release = crate::testing::release("v1").id;
        service.revisions.push(Arc::new(revision(&release)));
        service.traffic.split = Split::all(release.clone());
        let reports = instances_of("v1", 3).into_iter().enumerate().map(|(n, found)| {
            let health = if n < ready { InstanceHealth::Ready } else { InstanceHealth::Starting };
            let (id, address) = (found.spec.id, found.address);
            InstanceReport { id, address, health, restarts: 0, reason: None }
        });
        let pool = Pool { desired: 3, instances: reports.collect() };
        service.pools.insert(release, pool);
        let parts = table::parts_of(found.clone());
        leaves_out(&service, &Part::of(&service), &parts[&service.key], |_| true)
    }

    #[test]
    fn strangers_stay_until_as_many_as_they_are_or_are_wanted_can_take_over() {
        let found = |count| leading_to(&instances_of("v2", count), Generation::default());
        for (ready, strangers, wanted) in [
            (0, 1, true),
            (1, 1, false),
            (1, 2, true),
            (2, 2, false),
            (2, 10, true),
            (3, 10, false),
        ] {
            assert_eq!(is_left_out(ready, &found(strangers)), wanted, "{ready} for {strangers}");
        }
    }

    #[test]
    fn one_of_its_own_that_is_not_ready_is_left_out_if_another_one_is() {
        let found = leading_to(&instances_of("v1", 3), Generation::default());
        assert!(!is_left_out(2, &found) && is_left_out(0, &found));
    }

    #[test]
    fn what_the_journal_decided_itself_is_done_at_once() {
        let mut control = begun();
        let first = instances_of("v1", 1);
        let key = first[0].spec.key.clone();
        let request = request(RolloutId(1), crate::testing::release("v1"));
        control.ask(&key, EventKind::Requested(Box::new(request))).unwrap();
        let abort = Command::Abort { by: "ada".to_owned(), reason: None };
        control.ask(&key, EventKind::Commanded(abort)).unwrap();
        control.listed(Ok(first.clone()));
        control.met(leading_to(&first, Generation::default()));
        assert_eq!(endpoints(&published(&mut control).unwrap()), 0);
    }
}
