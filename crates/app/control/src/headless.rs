//! The control plane without hands, for the simulator: the real book, the real driver and all that
//! it concludes, while the clocks, the neighbours and the order of messages are the caller's.

use std::collections::BTreeMap;
use std::sync::Arc;

use switchback_domain::metric::Answer;
use switchback_domain::probe::ProbeResult;
use switchback_domain::{
    EnvironmentName, Epoch, Generation, InstanceHealth, InstanceId, ProjectName, ServiceKey,
    Timestamp,
};
use switchback_engine::{Counts, Event, EventKind, Rejection, RolloutId, Service, Transition};
use switchback_ports::data_plane::{self, Batches, Report};
use switchback_ports::journal::{self, Journal};
use switchback_ports::runtime::{self, Instance, Usage};
use switchback_routing::Table;

use crate::Error;
use crate::book::{ApplyError, Book};
use crate::clock::{self, Reading};
use crate::configuration::Settings;
use crate::driver::{Driver, Message};
use crate::metrics::MetricId;
use crate::order::Order;
use crate::traffic::Shifts;
use crate::vitals::{ProbeRole, Vitals};

/// Why an event that somebody asked for was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The engine says no.
    #[error(transparent)]
    Rejected(Rejection),
    /// It could not be written: nothing has happened.
    #[error("the journal cannot be written")]
    Journal(#[source] journal::Error),
}

/// One life of the control plane.
pub struct Headless {
    driver: Driver,
}

impl Headless {
    /// Sets what every control plane on this thread takes for the machine's clocks from now on.
    pub fn set_clocks(reading: Reading) {
        clock::substitute(reading);
    }

    /// Takes charge of a journal, as `switchback up` does.
    pub fn open(
        journal: Box<dyn Journal>,
        project: ProjectName,
        environment: EnvironmentName,
    ) -> Result<Self, Error> {
        let book = Book::open(journal)?;
        Ok(Self { driver: Driver::new(book, Settings::fixed(project, environment)) })
    }

    /// Shows every event to `watcher` once it is written and before anything is done about it.
    pub fn watch(
        &mut self,
        watcher: impl FnMut(&Service, &Event, &Transition, Timestamp) + Send + 'static,
    ) {
        self.driver.book.watch(Box::new(watcher));
    }

    /// Which life of the control plane this is.
    pub fn epoch(&self) -> Epoch {
        self.driver.book.epoch()
    }

    /// What its writes to the runtime carry. It takes charge there before its first list.
    pub fn generation(&self) -> Generation {
        self.driver.generation()
    }

    /// The journal's present time.
    pub fn now(&self) -> Timestamp {
        self.driver.now()
    }

    /// All states.
    pub fn services(&self) -> &BTreeMap<ServiceKey, Arc<Service>> {
        self.driver.book.services()
    }

    /// How many broken invariants the control plane noticed itself.
    pub fn violation_count(&self) -> u64 {
        self.driver.book.violation_count()
    }

    /// Why nothing is written at present.
    pub fn degraded(&self) -> Option<&str> {
        self.driver.book.degraded()
    }

    /// Whether it found out that another one is in charge: it ends.
    pub fn is_fenced(&self) -> bool {
        self.driver.fenced
    }

    /// A number for a rollout that somebody asks for.
    pub fn take_id(&mut self) -> RolloutId {
        self.driver.book.take_id()
    }

    /// Takes in what somebody asks for.
    pub fn ask(&mut self, key: &ServiceKey, kind: EventKind) -> Result<(), Refusal> {
        self.driver.try_apply(key, kind).map_err(|error| match error {
            ApplyError::Rejected(rejection) => Refusal::Rejected(rejection),
            ApplyError::Journal(error) => Refusal::Journal(error),
        })
    }

    /// Settles what follows from all messages so far, and says what is to be done about it.
    pub fn settle(&mut self) -> Vec<Order> {
        self.driver.settle();
        std::mem::take(&mut self.driver.orders)
    }

    /// When it wants to look again although no message came, if ever.
    pub fn wakes_at(&self) -> Option<Timestamp> {
        self.driver.wakeups().min()
    }

    /// The runtime's instances. Orders about probing come with the next [`Self::settle`].
    pub fn listed(&mut self, list: Result<Vec<Instance>, runtime::Error>) {
        self.driver.take_in(Message::Listed(list));
    }

    /// A probe's result.
    pub fn probed(&mut self, id: &InstanceId, role: ProbeRole, result: ProbeResult) {
        self.driver.take_in(Message::Probed(id.clone(), role, result));
    }

    /// The health concluded from an instance's process and probes.
    pub fn health_of(&self, id: &InstanceId) -> Option<InstanceHealth> {
        self.driver.fleet.vitals(id).map(Vitals::health)
    }

    /// A start ended.
    pub fn started(&mut self, id: &InstanceId, result: Result<(), String>) {
        self.driver.take_in(Message::Started(id.clone(), result));
    }

    /// A stop ended; whether the instance is gone.
    pub fn stopped(&mut self, id: &InstanceId, gone: bool) {
        self.driver.take_in(Message::Stopped(id.clone(), gone));
    }

    /// A publication ended.
    pub fn published(
        &mut self,
        table: Table,
        shifts: Shifts,
        result: Result<Generation, data_plane::Error>,
    ) {
        self.driver.take_in(Message::Published(table, shifts, result));
    }

    /// What the data plane serves when this life begins.
    pub fn met(&mut self, found: Table) {
        self.driver.take_in(Message::Met(Some(Box::new(found))));
    }

    /// The data plane's figures.
    pub fn reported(&mut self, report: Result<Report, data_plane::Error>) {
        self.driver.take_in(Message::Reported(report));
    }

    /// What the data plane counted of rollouts' requests.
    pub fn counted(&mut self, batches: Batches) {
        self.driver.take_in(Message::Counted(batches));
    }

    /// Whose requests a service's exact test counts, and how many of the candidate's it has.
    pub fn tested(&self, key: &ServiceKey) -> Option<(RolloutId, Counts)> {
        self.driver.exacts.get(key).map(|exact| (exact.rollout, exact.counts()))
    }

    /// A hook ended.
    pub fn hook_done(
        &mut self,
        key: &ServiceKey,
        rollout: RolloutId,
        position: usize,
        result: ProbeResult,
    ) {
        let key = key.clone();
        self.driver.take_in(Message::HookDone { key, rollout, position, result });
    }

    /// What an instance uses.
    pub fn used(&mut self, key: &ServiceKey, id: &InstanceId, usage: Usage) {
        self.driver.take_in(Message::Used(key.clone(), id.clone(), usage));
    }

    /// A custom metric's value.
    pub fn measured(&mut self, key: &ServiceKey, name: &str, value: Option<f64>) {
        self.driver.take_in(Message::Measured(key.clone(), name.to_owned(), value));
    }

    /// What a metric's source said, and when by the wall clock it was asked.
    pub fn answered(
        &mut self,
        key: &ServiceKey,
        id: MetricId,
        asked_at: Timestamp,
        answers: Vec<Answer>,
    ) {
        self.driver.take_in(Message::Answered(key.clone(), id, asked_at, answers));
    }
}

#[cfg(test)]
mod tests {
    use switchback_ports::journal::fake::FakeJournal;

    use super::*;

    fn open(journal: &FakeJournal) -> Headless {
        let (project, environment) = (ProjectName::new("shop"), EnvironmentName::new("test"));
        Headless::open(Box::new(journal.clone()), project.unwrap(), environment.unwrap()).unwrap()
    }

    fn refused_by(control: &mut Headless, epoch: u32) {
        let (given, seen) = (control.generation(), Generation::first(Epoch(epoch)));
        control.listed(Err(runtime::Error::Fenced { given, seen }));
    }

    #[test]
    fn a_runtime_that_remembers_a_later_life_is_overtaken_while_the_journal_is_ours() {
        let mut control = open(&FakeJournal::new());
        refused_by(&mut control, 9);
        assert!(control.epoch() > Epoch(9) && !control.is_fenced(), "the journal was restored");
    }

    #[test]
    fn one_that_is_turned_away_by_its_successors_runtime_ends() {
        let journal = FakeJournal::new();
        let (mut former, heir) = (open(&journal), open(&journal));
        refused_by(&mut former, heir.epoch().0);
        assert!(former.is_fenced());
    }
}
