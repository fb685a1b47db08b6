//! The judge beside others: one simulated world of requests, ours as it stands in the product, and
//! models of how Kayenta, Argo Rollouts, Flagger and the sequential tests of the literature decide.
//!
//! Deterministic by seed, whatever the number of threads. `docs/decision-engine.md` holds what it
//! found; `cargo xtask bench judge` runs it.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::float_cmp,
    reason = "a simulation: counts are far below 2^52, and equal means the same"
)]

pub mod arm;
pub mod cost;
pub mod figures;
pub mod goals;
pub mod grid;
pub mod judges;
pub mod law;
pub mod live;
pub mod page;
pub mod random;
pub mod report;
pub mod scenario;
pub mod scenarios;
pub mod smoke;
pub mod stream;
pub mod tally;
pub mod vectors;
pub mod windows;
