//! One data plane process takes over from another without a gap. How, step by step:
//!
//! ```text
//!  new  Hello       ─►  old   refuses another protocol; from here on it takes no new table
//!       ◄─ Offer, Listeners   lock and listeners (descriptors), table, incarnation, ticket keys
//!       Ready       ─►        the table is compiled, the sockets are bound under other names
//!                             accepts nothing more, freezes its counts
//!       ◄─ Commit             what it and those before it have counted
//!       Serving     ─►        opens the listeners, takes the sockets' names; the old one lets go
//!       ◄─ Links              what rests of its connections to instances, if it takes them
//!       ◄─ Connections        each connection between two requests, with what it has not read
//!       ◄─ Counted            what the old one still counts, gathers and has on its way
//!       Follow      ─►        the next table: the old one follows it, for its last requests too
//!       ◄─ Followed, ... Done
//!       Farewell    ─►        its counts are the new one's now, and it ends
//! ```
//!
//! Until it has read `Serving`, the old process has everything it needs to go on: whatever goes
//! wrong before, it accepts again, and makes sure by a signal that the other one is gone. After
//! it, the new one has. Should the new one die later, or be replaced itself, the old one joins
//! whoever comes next (`Elder`, answered by `Welcome`). The kernel passes descriptors on as they
//! are: accept queues, the lock, bytes nobody has read. Nothing here runs on a worker's thread.

mod doors;
mod elders;
mod give;
mod retire;
mod take;
mod wire;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use switchback_domain::{Generation, InstanceId};
use switchback_ports::data_plane::{ArmReport, Batches, ListenerReport, Report};
use switchback_routing::{ArmId, Table};

pub(crate) use doors::{Doors, Until, remove};
pub(crate) use elders::{Elders, Legacy};
pub(crate) use give::serve;
pub(crate) use retire::{LeavingLink, retire};
pub(crate) use take::{Estate, take};

use crate::batches::Gathered;
use crate::tls::TicketKeys;

/// What both ends must speak. Fields may be added to messages without a new number: they are
/// ignored where they are not known, and have defaults where they are missing.
const PROTOCOL: u32 = 1;

/// The first word of whoever connects.
#[derive(Debug, Serialize, Deserialize)]
enum First {
    /// A new process wants to take over.
    Hello {
        protocol: u32,
        version: String,
        /// It understands [`FromOld::Links`].
        #[serde(default)]
        takes_links: bool,
    },
    /// A process that was replaced has lost its successor.
    Elder { protocol: u32, past: Box<Past> },
}

/// What the old process says.
#[derive(Debug, Serialize, Deserialize)]
enum FromOld {
    /// It goes on serving.
    Refused { reason: String },
    /// With the lock. So many [`FromOld::Listener`]s follow as `listeners` names without an error.
    Offer(Box<Offer>),
    /// With listeners, in the order of the offer.
    Listeners,
    /// The word to take over.
    Commit {
        past: Vec<Past>,
        /// What has been gathered of rollouts' requests since the offer.
        #[serde(default)]
        gathered: Gathered,
    },
    /// With as many connections to instances.
    Links { to: Vec<Bound> },
    /// With as many connections.
    Connections { from: Vec<Place> },
    /// What has changed since it was told last: whole entries, sums of their own.
    Counted {
        report: Box<Report>,
        /// Of rollouts' requests; also what it may have told before.
        #[serde(default)]
        batches: Batches,
    },
    /// It serves its last requests by this table, or cannot.
    Followed { generation: Generation, failed: Option<String> },
    /// This was all, and nothing is on its way any more. It waits for the farewell.
    Done,
}

/// What the new process says.
#[derive(Debug, Serialize, Deserialize)]
enum FromNew {
    /// To an [`First::Elder`]: it is listened to. What is sent to a process that was just replaced
    /// itself is never read, and a connection among it is closed.
    Welcome,
    /// It has all it needs.
    Ready,
    /// It cannot take over.
    Refused { reason: String },
    /// It serves.
    Serving,
    /// A new table for the last requests.
    Follow { table: Box<Table> },
    /// The whole data plane is to end.
    Stop,
    /// Nothing is needed any more.
    Farewell,
}

/// What a process is that serves, as its successor needs to know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Offer {
    pub(crate) version: String,
    pub(crate) incarnation: String,
    pub(crate) acknowledged: Generation,
    /// The newest table on disk.
    pub(crate) saved: Generation,
    /// As the process that is to read it understands it.
    pub(crate) table: serde_json::Value,
    pub(crate) listeners: Vec<ListenerReport>,
    /// What has been gathered of rollouts' requests up to here.
    #[serde(default)]
    pub(crate) gathered: Gathered,
    /// What the tickets of TLS sessions are sealed with.
    #[serde(default)]
    pub(crate) ticket_keys: TicketKeys,
}

/// What one process has counted in its life; the newest word replaces the one before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Past {
    /// Unique among all processes.
    pub(crate) id: String,
    pub(crate) report: Report,
    /// What counts no more of it; see [`Elders`].
    #[serde(default)]
    pub(crate) before: Vec<ArmReport>,
    /// Up to which place its batches are known, counted by itself.
    #[serde(default)]
    pub(crate) batches_read: u64,
}

/// Where a connection came in, and from whom.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) listen: SocketAddr,
    pub(crate) client: SocketAddr,
}

/// Where a connection to an instance leads, and how long it has rested.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) arm: ArmId,
    pub(crate) instance: InstanceId,
    pub(crate) address: SocketAddr,
    pub(crate) rested_ms: u64,
    /// How long it may.
    pub(crate) rest_max_ms: u64,
}
