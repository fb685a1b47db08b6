//! The engine, a driver and a world on one thread, under faults drawn from a seed.
//!
//! Everything that happens follows from the seed, so a failure found once is found again. The real
//! driver and the real neighbours are not here: they have conformance and end-to-end tests.

mod agenda;
mod check;
mod control;
mod faults;
mod journal;
mod operator;
mod plane;
mod random;
mod simulation;
mod trace;
mod transitions;
mod world;

pub use simulation::{retell, simulate};
pub use trace::{Failure, Mark, Trace};
pub use transitions::transitions_table;
