//! The data plane with real sockets on loopback: instances, clients and the proxy in one process,
//! except where the process itself is what is tested.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod failures;
mod lifecycle;
mod messages;
mod support;
mod switching;
