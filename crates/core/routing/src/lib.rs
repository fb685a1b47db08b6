//! Which backend gets this request.
//!
//! A [`Table`] is the whole truth about traffic, immutable and numbered; the data plane swaps it
//! in one step. Finding a route and an arm in it is pure; sockets are the data plane's.

mod check;
pub mod router;
pub mod table;

pub use check::Invalid;
pub use router::{RouteEntry, Router};
pub use table::{Arm, ArmId, Endpoint, Route, Table};
