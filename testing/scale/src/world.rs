//! The simulated neighbours: instances that run at once and are always well, a data plane that
//! takes every table and counts some requests of each version on trial. Not here: what neighbours
//! do wrong; that is the simulator's.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use switchback_domain::acme::AcmeSpec;
use switchback_domain::probe::{Probe, ProbeResult};
use switchback_domain::{ArmStats, Generation, InstanceId};
use switchback_ports::certificates::{Certificates, NotOrdered, Stage};
use switchback_ports::data_plane::{
    self, ArmReport, ArmTrouble, Batches, Cursor, DataPlane, ListenerReport, Report,
};
use switchback_ports::runtime::fake::FakeRuntime;
use switchback_ports::runtime::{self, Instance, InstanceSpec, LogPage, LogQuery, Runtime, Usage};
use switchback_ports::supervision::{NotReplaced, Replaced};
use switchback_ports::{Prober, Supervision};
use switchback_resilience::{Failures, Validity};
use switchback_routing::Table;

use crate::counting::{Counting, incarnation, trials_of};
use crate::process::now_ms;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The fake runtime of the ports, and a file with the moment of every start.
pub(crate) struct SimulatedRuntime {
    fake: FakeRuntime,
    starts: Mutex<File>,
}

impl SimulatedRuntime {
    /// Writes down starts at the end of a file.
    pub(crate) fn new(starts: &Path) -> std::io::Result<Self> {
        let starts = File::options().create(true).append(true).open(starts)?;
        Ok(Self { fake: FakeRuntime::default(), starts: Mutex::new(starts) })
    }

    /// Runs what ran before the control plane began.
    pub(crate) async fn adopt(&self, spec: &InstanceSpec) -> Result<(), runtime::Error> {
        self.fake.ensure_running(spec, Generation::default()).await
    }

    /// Writes a word and the present time down.
    pub(crate) fn note(&self, word: &str) {
        // A line less is one start less, which is found out.
        let _ = writeln!(locked(&self.starts), "{} {word}", now_ms());
    }
}

#[async_trait]
impl Runtime for SimulatedRuntime {
    async fn take_charge(&self, generation: Generation) -> Result<(), runtime::Error> {
        self.fake.take_charge(generation).await
    }

    async fn ensure_running(
        &self,
        spec: &InstanceSpec,
        generation: Generation,
    ) -> Result<(), runtime::Error> {
        self.note(spec.id.as_str());
        self.fake.ensure_running(spec, generation).await
    }

    async fn ensure_stopped(
        &self,
        id: &InstanceId,
        generation: Generation,
    ) -> Result<(), runtime::Error> {
        self.fake.ensure_stopped(id, generation).await
    }

    async fn restart(&self, id: &InstanceId, reason: &str) -> Result<(), runtime::Error> {
        self.fake.restart(id, reason).await
    }

    async fn list(&self) -> Result<Vec<Instance>, runtime::Error> {
        self.fake.list().await
    }

    async fn changed(&self) {
        self.fake.changed().await;
    }

    async fn execute(
        &self,
        id: &InstanceId,
        argv: &[String],
        timeout: Duration,
    ) -> Result<ProbeResult, runtime::Error> {
        self.fake.execute(id, argv, timeout).await
    }

    async fn usage(&self, id: &InstanceId) -> Result<Usage, runtime::Error> {
        self.fake.usage(id).await
    }

    async fn logs(&self, id: &InstanceId, query: LogQuery) -> Result<LogPage, runtime::Error> {
        self.fake.logs(id, query).await
    }
}

/// Every instance is well.
pub(crate) struct Well;

#[async_trait]
impl Prober for Well {
    async fn probe(&self, _: &InstanceId, _: std::net::SocketAddr, _: &Probe) -> ProbeResult {
        ProbeResult { passed: true, detail: "200 OK".to_owned() }
    }
}

/// Takes each newer table, reports its versions, and counts a batch for each rollout in it now and
/// then.
#[derive(Default)]
pub(crate) struct SimulatedDataPlane(Mutex<Counting>);

#[async_trait]
impl DataPlane for SimulatedDataPlane {
    async fn publish(&self, table: &Table) -> Result<Generation, data_plane::Error> {
        let mut counting = locked(&self.0);
        let (given, seen) = (table.generation, counting.report.generation);
        if given < seen {
            return Err(data_plane::Error::Fenced { given, seen });
        }
        (counting.report, counting.trials) = (report_of(table), trials_of(table));
        Ok(given)
    }

    async fn serving(&self) -> Result<Table, data_plane::Error> {
        let generation = locked(&self.0).report.generation;
        Ok(Table { generation, ..Table::default() })
    }

    async fn report(&self) -> Result<Report, data_plane::Error> {
        Ok(locked(&self.0).report.clone())
    }

    async fn batches(&self, _after: &Cursor) -> Result<Batches, data_plane::Error> {
        let mut counting = locked(&self.0);
        let batches = counting.count();
        Ok(Batches { next: Cursor { incarnation: incarnation(), place: counting.place }, batches })
    }
}

fn report_of(table: &Table) -> Report {
    let arms = table.arms.iter().map(|arm| ArmReport {
        arm: arm.id.clone(),
        version: arm.version.clone(),
        in_flight: 0,
        in_flight_by_instance: std::collections::BTreeMap::new(),
        stats: ArmStats::default(),
        trouble: ArmTrouble::default(),
    });
    let addresses: std::collections::BTreeSet<_> =
        table.routes.iter().map(|route| route.listen).collect();
    let listeners = addresses.into_iter().map(|address| ListenerReport { address, error: None });
    Report {
        incarnation: incarnation(),
        generation: table.generation,
        arms: arms.collect(),
        listeners: listeners.collect(),
        ..Report::default()
    }
}

#[async_trait]
impl Supervision for SimulatedDataPlane {
    async fn ensure_started(&self) -> Result<u32, data_plane::Error> {
        Ok(1)
    }

    async fn upgrade(&self, _executable: Option<&Path>) -> Result<Replaced, NotReplaced> {
        Err(NotReplaced("it is simulated".to_owned()))
    }

    async fn stop(&self) -> Result<(), data_plane::Error> {
        Ok(())
    }
}

/// Nobody orders certificates here.
pub(crate) struct NoCertificates;

#[async_trait]
impl Certificates for NoCertificates {
    async fn kept(&self, _spec: &AcmeSpec) -> Option<Validity> {
        None
    }

    async fn failures(&self, _spec: &AcmeSpec) -> Failures {
        Failures::default()
    }

    async fn remember(&self, _spec: &AcmeSpec, _failures: &Failures) {}

    async fn order(&self, _spec: &AcmeSpec, _stage: &dyn Stage) -> Result<Validity, NotOrdered> {
        Err(NotOrdered::because("there is no authority here"))
    }
}
