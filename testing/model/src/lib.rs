//! A model of how the data plane swaps tables and drains versions: the files of the proxy as they
//! stand, on loom's atomics instead of the processor's. `world` plays requests and tables on them;
//! `weakness` takes away, one at a time, what they rely on. See README.md.

#[path = "../../../crates/app/proxy/src/counters.rs"]
#[allow(dead_code, reason = "the model counts no bytes and no durations")]
mod counters;
#[path = "../../../crates/app/proxy/src/endpoint.rs"]
#[allow(dead_code, reason = "in the model, instances have no trouble")]
mod endpoint;
#[path = "../../../crates/app/proxy/src/ledger.rs"]
#[allow(dead_code, reason = "no process takes over from another")]
mod ledger;
mod surroundings;
mod sync;
#[path = "../../../crates/app/proxy/src/view.rs"]
mod view;
pub mod weakness;
pub mod world;

use surroundings::{access_log, clock, cohorts, compiled, resilience, upload};
