//! Who carries the traffic: takes whole tables in order, and counts.

pub mod admin;
pub mod batches;
pub mod conformance;
pub mod fake;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use switchback_domain::{ArmStats, Generation, InstanceId, Version};
use switchback_routing::{ArmId, Table};

pub use batches::{Batches, Counted, Cursor, TrialId};
pub use fake::FakeDataPlane;

/// What the data plane says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Changes with every start, so that readers know when counters began anew.
    pub incarnation: String,
    /// The newest table that every worker serves from.
    pub generation: Generation,
    /// One entry per version counted since the start, gone ones included.
    pub arms: Vec<ArmReport>,
    /// Requests that matched no route (404), or a route without a share (503): nobody's fault
    /// but the configuration's.
    pub unrouted: u64,
    /// Requests refused before routing because they were not valid HTTP, too large or too slow.
    pub refused: u64,
    /// Addresses it listens on, and those it could not take, with the reason.
    pub listeners: Vec<ListenerReport>,
    /// What goes wrong without harm to traffic: the table cannot be written to disk, for instance.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// One version's counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmReport {
    /// Which.
    pub arm: ArmId,
    /// As its users call it.
    pub version: Version,
    /// Requests on their way now.
    pub in_flight: u64,
    /// The same per instance; instances without any may be left out. An instance that is not in
    /// the acknowledged table any more and not listed here is drained.
    pub in_flight_by_instance: BTreeMap<InstanceId, u64>,
    /// What was counted.
    pub stats: ArmStats,
    /// What is done about its instances.
    #[serde(default)]
    pub trouble: ArmTrouble,
}

/// What the data plane does about slow, failing and new instances of a version: what the numbers
/// of a comparison may be discounted by.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ArmTrouble {
    /// How often an instance was ejected for failing again and again.
    pub ejections: u64,
    /// Those that are ejected now.
    pub ejected: Vec<InstanceId>,
    /// Those that are new and get fewer requests than the others.
    pub warming: Vec<InstanceId>,
}

/// One listening address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerReport {
    /// Which.
    pub address: std::net::SocketAddr,
    /// Why it is not listening; `None` when it is.
    pub error: Option<String>,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A newer table is there already.
    #[error("refused: generation {given} is older than {seen}")]
    Fenced {
        /// The caller's.
        given: Generation,
        /// The newest seen.
        seen: Generation,
    },
    /// The table cannot be served: an address in use, for instance. Nothing was changed.
    #[error("the data plane refused the table: {0}")]
    Refused(String),
    /// It does not answer.
    #[error("the data plane does not answer")]
    Unavailable(#[source] std::io::Error),
}

/// Who carries the traffic.
#[async_trait]
pub trait DataPlane: Send + Sync {
    /// Swaps the table in and returns when every worker serves from it (or a newer one): from
    /// then on no request starts on what the table left out. The same table again is no change.
    async fn publish(&self, table: &Table) -> Result<Generation, Error>;

    /// What it counts now.
    async fn report(&self) -> Result<Report, Error>;

    /// What it counted of rollouts' requests since a cursor; of another life's, everything it
    /// still has. Reading takes nothing away.
    async fn batches(&self, after: &Cursor) -> Result<Batches, Error>;
}
