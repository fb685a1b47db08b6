//! Outcomes in, verdict and evidence out: the judge of a candidate.
//!
//! Pure: the caller takes the looks (when, from where, how often) and hands them in; nothing here
//! knows a clock, a socket or a file. The same inputs give the same bits on every machine.
#![doc = include_str!("guide.md")]

pub mod budget;
pub mod burn;
pub mod cohort;
pub mod gauge;
pub mod guarantee;
pub mod hold;
mod judge;
pub mod label;
mod math;
mod measure;
pub mod metric;
pub mod plan;
pub mod ratio_guard;
pub mod safe;
mod sample;
pub mod scraped;
pub mod sticky;
mod streak;
mod text;
mod traffic;
mod trail;
pub mod warmup;

pub use guarantee::Guarantee;
pub use judge::Judge;
pub use label::{ArmBatch, Batch, Settings, Trial};
pub use sample::{Rules, Sample};
