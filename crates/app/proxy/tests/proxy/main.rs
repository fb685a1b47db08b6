//! The data plane with real sockets on loopback: instances, clients and the proxy in one process,
//! except where the process itself is what is tested.

mod failures;
mod lifecycle;
mod messages;
mod support;
mod switching;
