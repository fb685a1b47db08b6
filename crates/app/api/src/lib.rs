//! The control plane's HTTP API: versioned records, error codes, and a client over a Unix socket.
//!
//! Records are types of their own: what the engine looks like inside is free to change.

pub mod client;
pub mod code;
pub mod exit;
pub mod records;
pub mod trial;

pub use client::Client;
pub use code::Code;
pub use records::*;
pub use trial::{TrialRecord, TrialVerdict};
