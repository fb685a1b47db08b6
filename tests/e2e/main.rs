//! End-to-end tests: the built binary with its three kinds of processes, under load on the
//! loopback address. Every test has a site of its own, and a site that leaves an orphan fails.

mod clock;
mod contention;
mod crashes;
mod disk;
mod faults;
mod process;
mod recipe;
mod site;
mod versions;
