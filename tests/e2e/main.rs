//! End-to-end tests: the built binary with its three kinds of processes, under load on the
//! loopback address. Every test has a site of its own, and a site that leaves an orphan fails.

mod acme;
mod authority;
mod clock;
mod commands;
mod configuration;
mod contention;
mod crash_matrix;
mod crashes;
mod disk;
mod exact;
mod examples;
mod faults;
mod metrics;
mod older_journal;
mod operations;
mod printed;
mod process;
mod recipe;
mod rollback;
mod running;
mod site;
mod steering;
mod storm;
mod upgrade;
mod versions;
