//! The decision engine as a whole: what its mathematics promises, by enumeration, and what it does
//! in simulated rollouts with fixed seeds.
#![allow(clippy::unwrap_used, reason = "helpers of tests, not only tests")]

mod delays;
mod enumeration;
mod faults;
mod random;
mod simulation;
mod words;
mod world;
