//! Which backend gets this request.
//!
//! A [`Table`] is the whole truth about traffic, immutable and numbered; the data plane swaps it
//! in one step. Finding a route and a version in it is pure; sockets, and the dice, are the data
//! plane's: it asks [`Router::find_for`] for the route, does what the route's mode says, and asks
//! [`RouteEntry::choose_for`] for the version.

mod check;
mod cohort;
mod condition;
pub mod entry;
mod host;
mod index;
pub mod pattern;
pub mod request;
pub mod router;
mod selection;
pub mod table;

pub use check::{Claim, Invalid, contested, places, tls_conflict};
pub use entry::{Assignment, Reason, RouteEntry};
pub use host::bare_host;
pub use pattern::{Pattern, PatternError};
pub use request::{Headers, RequestView};
pub use router::Router;
pub use table::{Arm, ArmId, Candidate, Endpoint, Route, Steered, Steering, Table};
