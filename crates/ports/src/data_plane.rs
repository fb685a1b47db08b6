//! Who carries the traffic: takes whole tables in order, and counts.

pub mod admin;
pub mod batches;
pub mod conformance;
pub mod fake;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use switchback_domain::{ArmStats, Generation, InstanceId, ServiceKey, Version};
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
    /// What was counted per service, whatever its versions; services without any are left out.
    #[serde(default)]
    pub routes: Vec<RouteReport>,
    /// What goes wrong without harm to traffic: the table cannot be written to disk, for instance.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The version of the binary that serves; empty when it is older than this field.
    #[serde(default)]
    pub version: String,
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

/// What a circuit breaker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerReport {
    /// It lets everything through.
    Closed,
    /// It lets nothing through.
    Open,
    /// It lets one request through at a time.
    HalfOpen,
}

/// What the data plane does about slow, failing and new instances of a version: what the numbers
/// of a comparison may be discounted by.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ArmTrouble {
    /// How often an instance was ejected for failing again and again.
    pub ejections: u64,
    /// How often its circuit breaker has opened.
    pub breaker_opened: u64,
    /// What that does now, if it has one: `closed`, `open` or `half-open`.
    pub breaker: Option<BreakerReport>,
    /// Those that are ejected now.
    pub ejected: Vec<InstanceId>,
    /// Those that are new and get fewer requests than the others.
    pub warming: Vec<InstanceId>,
}

/// One service's counts of what no version has to do with, since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteReport {
    /// Whose.
    pub service: ServiceKey,
    /// Requests answered with the maintenance page.
    pub maintenance: u64,
    /// Requests refused because the service is isolated.
    pub isolated: u64,
    /// Requests held back now.
    pub held: u64,
    /// Held requests that went on when the pause ended.
    pub released: u64,
    /// Requests refused because too many were held back already.
    pub hold_full: u64,
    /// Requests refused after they were held back for as long as allowed.
    pub hold_expired: u64,
    /// Held requests whose clients left.
    pub hold_left: u64,
    /// Requests refused because the route gets more than its rate.
    #[serde(default)]
    pub rate_limited: u64,
    /// Requests refused because their client sends more than its rate.
    #[serde(default)]
    pub client_limited: u64,
    /// Requests without room: too many on their way, and too many or too long waiting.
    #[serde(default)]
    pub bulkhead_full: u64,
    /// Requests whose clients left while they waited for room.
    #[serde(default)]
    pub pending_left: u64,
    /// Requests above the limit that response times have set.
    #[serde(default)]
    pub overloaded: u64,
    /// Repetitions that the budget did not allow.
    #[serde(default)]
    pub unrepeated: u64,
    /// Requests that the baseline was asked in the candidate's place.
    #[serde(default)]
    pub rescued: u64,
    /// Requests answered with the last good answer.
    #[serde(default)]
    pub stale: u64,
    /// Requests answered with the configured answer.
    #[serde(default)]
    pub canned: u64,
    /// Copies for the candidate that it answered.
    pub mirrored: u64,
    /// Copies that were not sent: too many on their way already, or a body too large to keep.
    pub mirror_dropped: u64,
    /// Copies that the candidate did not answer properly or in time.
    pub mirror_failed: u64,
}

impl RouteReport {
    /// Nothing counted yet.
    pub fn new(service: ServiceKey) -> Self {
        Self {
            service,
            maintenance: 0,
            isolated: 0,
            held: 0,
            released: 0,
            hold_full: 0,
            hold_expired: 0,
            hold_left: 0,
            rate_limited: 0,
            client_limited: 0,
            bulkhead_full: 0,
            pending_left: 0,
            overloaded: 0,
            unrepeated: 0,
            rescued: 0,
            stale: 0,
            canned: 0,
            mirrored: 0,
            mirror_dropped: 0,
            mirror_failed: 0,
        }
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.maintenance += other.maintenance;
        self.isolated += other.isolated;
        self.held += other.held;
        self.released += other.released;
        self.hold_full += other.hold_full;
        self.hold_expired += other.hold_expired;
        self.hold_left += other.hold_left;
        self.rate_limited += other.rate_limited;
        self.client_limited += other.client_limited;
        self.bulkhead_full += other.bulkhead_full;
        self.pending_left += other.pending_left;
        self.overloaded += other.overloaded;
        self.unrepeated += other.unrepeated;
        self.rescued += other.rescued;
        self.stale += other.stale;
        self.canned += other.canned;
        self.mirrored += other.mirrored;
        self.mirror_dropped += other.mirror_dropped;
        self.mirror_failed += other.mirror_failed;
    }
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

    /// Whether a table could be served, as far as its routes and the files they name tell. Nothing
    /// is changed; [`Error::Refused`] names what is wrong.
    async fn check(&self, _table: &Table) -> Result<(), Error> {
        Ok(())
    }

    /// The newest table that it took, in whatever life; an empty one if it never had any.
    async fn serving(&self) -> Result<Table, Error>;

    /// What it counts now.
    async fn report(&self) -> Result<Report, Error>;

    /// What it counted of rollouts' requests since a cursor; of another life's, everything it
    /// still has. Reading takes nothing away.
    async fn batches(&self, after: &Cursor) -> Result<Batches, Error>;
}
