//! The whole control plane on one thread, under faults drawn from a seed: the real book, driver,
//! fleet, publisher, judge and router; a simulated disk, runtime, data plane, clocks and people.
//!
//! Everything that happens follows from the seed, so a failure found once is found again. What is
//! not here: sockets, processes, `SQLite`. They have conformance, crash and end-to-end tests.

mod agenda;
pub mod bugs;
mod campaign;
mod check;
mod disk;
mod faults;
mod golden;
mod ledger;
mod names;
mod nature;
mod operator;
mod plane;
mod random;
mod reduce;
mod runtime;
mod simulation;
mod sometimes;
mod trace;
mod transitions;
mod witness;

pub use campaign::{Tally, find_failures, run_many, timed};
pub use golden::replay_golden;
pub use reduce::{Reduced, reduce};
pub use simulation::{play, record_golden, retell, simulate};
pub use sometimes::SOMETIMES;
pub use trace::{Failure, Mark, Trace};
pub use transitions::transitions_table;
