//! HTTP/2 on both sides: its frames are the `h2` library's, its limits are ours. A stream becomes
//! a request like any other; what is decided about it lies above.

mod client;
mod meter;
mod pump;
mod server;

pub(crate) use client::{Failed, Link, Sending, answered};
pub(crate) use server::serve;
