//! Switchback's own HTTP/1.1 core: strict in what it takes, one canonical message in what it sends.
//!
//! One task per client connection. While it rests it holds no buffer and no timer; while a request
//! is in flight it owns a [`Scratch`] of its worker's. Parsing and framing (`head`, `response`,
//! `fields`, `chunked`, `inbound`, `outbound`) do no I/O; `flight` and `relay` do nothing else.

mod chunked;
mod connection;
mod fields;
mod flight;
mod head;
mod inbound;
mod link;
mod outbound;
mod relay;
mod response;
mod roster;
mod scratch;
mod tunnel;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;

pub(crate) use connection::serve;
pub(crate) use link::Link;
pub(crate) use roster::{Leaving, Roster};
pub(crate) use scratch::Scratches;
