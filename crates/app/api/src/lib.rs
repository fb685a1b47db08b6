//! The control plane's HTTP API: versioned records and a client over a Unix socket.
//!
//! Records are types of their own: what the engine looks like inside is free to change.

pub mod records;

pub use records::*;
