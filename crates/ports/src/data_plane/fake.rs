//! A data plane without sockets: keeps the table, and counts what a test tells it to have counted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use switchback_domain::{ArmStats, Generation, InstanceId, Version};
use switchback_routing::{ArmId, Router, Table};

use super::{
    ArmReport, ArmTrouble, Batches, Counted, Cursor, DataPlane, Error, ListenerReport, Report,
};

/// The in-memory data plane. Tables behave as the port demands; traffic is what [`Self::count`]
/// and [`Self::set_in_flight`] say.
#[derive(Debug, Default)]
pub struct FakeDataPlane {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    starts: u32,
    down: bool,
    table: Table,
    published: Vec<Table>,
    taken: BTreeSet<SocketAddr>,
    arms: BTreeMap<ArmId, Figures>,
    batches: Vec<Counted>,
}

#[derive(Debug)]
struct Figures {
    version: Version,
    in_flight: BTreeMap<InstanceId, u64>,
    stats: ArmStats,
}

impl FakeDataPlane {
    /// A data plane with an empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// The table in force.
    pub fn table(&self) -> Table {
        self.state().table.clone()
    }

    /// Every table that was taken, oldest first.
    pub fn published(&self) -> Vec<Table> {
        self.state().published.clone()
    }

    /// Stops (`true`) or starts answering again; while down every call fails as unavailable.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// Ends and starts it: the table stays, every counter begins anew.
    pub fn restart(&self) {
        let mut state = self.state();
        state.starts += 1;
        state.arms.clear();
        state.batches.clear();
        let table = state.table.clone();
        state.take(table);
    }

    /// An address that somebody else listens on.
    pub fn occupy(&self, address: SocketAddr) {
        self.state().taken.insert(address);
    }

    /// Adds traffic to an arm that some table named; `false` when none did.
    pub fn count(&self, arm: &ArmId, more: &ArmStats) -> bool {
        let mut state = self.state();
        let Some(counted) = state.arms.get_mut(arm) else { return false };
        counted.stats = counted.stats.merge(more);
        true
    }

    /// Adds a batch to what it has counted of a rollout; its number follows the trial's last one.
    pub fn count_batch(&self, mut batch: Counted) {
        let mut state = self.state();
        let of_trial = state.batches.iter().filter(|known| known.trial == batch.trial);
        batch.sequence = 1 + of_trial.map(|known| known.sequence).max().unwrap_or(0);
        state.batches.push(batch);
    }

    /// Sets the requests on their way to an instance of an arm that some table named; `false`
    /// when none did.
    pub fn set_in_flight(&self, arm: &ArmId, instance: &InstanceId, in_flight: u64) -> bool {
        let mut state = self.state();
        let Some(counted) = state.arms.get_mut(arm) else { return false };
        counted.in_flight.insert(instance.clone(), in_flight);
        counted.in_flight.retain(|_, on_their_way| *on_their_way > 0);
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn available(&self) -> Result<(), Error> {
        if self.down {
            return Err(Error::Unavailable(std::io::ErrorKind::ConnectionRefused.into()));
        }
        Ok(())
    }

    fn publish(&mut self, table: &Table) -> Result<Generation, Error> {
        let seen = self.table.generation;
        if table.generation < seen {
            return Err(Error::Fenced { given: table.generation, seen });
        }
        if *table == self.table {
            return Ok(seen);
        }
        if table.generation == seen {
            return Err(Error::Refused(format!("generation {seen} is another table")));
        }
        Router::new(table).map_err(|invalid| Error::Refused(invalid.to_string()))?;
        if let Some(route) = table.routes.iter().find(|route| self.taken.contains(&route.listen)) {
            let (address, service) = (route.listen, &route.service);
            return Err(Error::Refused(format!("{address} of {service} is in use")));
        }
        self.published.push(table.clone());
        self.take(table.clone());
        Ok(table.generation)
    }

    fn take(&mut self, table: Table) {
        for arm in &table.arms {
            let version = arm.version.clone();
            let (in_flight, stats) = (BTreeMap::new(), ArmStats::default());
            let fresh = Figures { version, in_flight, stats };
            self.arms.entry(arm.id.clone()).or_insert(fresh);
        }
        self.table = table;
    }

    fn incarnation(&self) -> String {
        format!("fake-{}", self.starts)
    }

    fn batches(&self, after: &Cursor) -> Batches {
        let incarnation = self.incarnation();
        let read = if after.incarnation == incarnation { after.place } else { 0 };
        let unread = usize::try_from(read).unwrap_or(usize::MAX).min(self.batches.len());
        let place = self.batches.len() as u64;
        Batches { next: Cursor { incarnation, place }, batches: self.batches[unread..].to_vec() }
    }

    fn report(&self) -> Report {
        let arm = |(id, counted): (&ArmId, &Figures)| ArmReport {
            arm: id.clone(),
            version: counted.version.clone(),
            in_flight: counted.in_flight.values().sum(),
            in_flight_by_instance: counted.in_flight.clone(),
            stats: counted.stats.clone(),
            trouble: ArmTrouble::default(),
        };
        let addresses: BTreeSet<_> = self.table.routes.iter().map(|route| route.listen).collect();
        Report {
            incarnation: self.incarnation(),
            generation: self.table.generation,
            arms: self.arms.iter().map(arm).collect(),
            listeners: addresses
                .into_iter()
                .map(|address| ListenerReport { address, error: None })
                .collect(),
            ..Report::default()
        }
    }
}

#[async_trait]
impl DataPlane for FakeDataPlane {
    async fn publish(&self, table: &Table) -> Result<Generation, Error> {
        let mut state = self.state();
        state.available()?;
        state.publish(table)
    }

    async fn serving(&self) -> Result<Table, Error> {
        let state = self.state();
        state.available()?;
        Ok(state.table.clone())
    }

    async fn report(&self) -> Result<Report, Error> {
        let state = self.state();
        state.available()?;
        Ok(state.report())
    }

    async fn batches(&self, after: &Cursor) -> Result<Batches, Error> {
        let state = self.state();
        state.available()?;
        Ok(state.batches(after))
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{Addresses, conforms, sample_arm};
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn the_fake_conforms() {
        let fake = FakeDataPlane::new();
        let [first, second, taken] = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        fake.occupy(taken);
        conforms(&fake, Addresses { first, second, taken }).await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_restart_keeps_the_table_and_forgets_the_counts() {
        let fake = FakeDataPlane::new();
        let arm = sample_arm("v1", &[]);
        let generation = Generation::default().next_in(switchback_domain::Epoch(1));
        let table = Table { generation, arms: vec![arm.clone()], ..Table::default() };
        fake.publish(&table).await.unwrap();
        assert!(fake.count(&arm.id, &ArmStats { accepted: 3, ..ArmStats::default() }));
        let before = fake.report().await.unwrap();
        fake.restart();
        let after = fake.report().await.unwrap();
        assert_ne!(before.incarnation, after.incarnation);
        assert_eq!((before.arms[0].stats.accepted, after.arms[0].stats.accepted), (3, 0));
        assert_eq!(fake.table(), table);
        fake.set_down(true);
        assert!(matches!(fake.report().await, Err(Error::Unavailable(_))));
    }
}
