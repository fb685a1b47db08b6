//! Outcomes in, verdict and evidence out: the judge of a candidate.
//!
//! Pure: the caller takes the looks (when, from where, how often) and hands them in; nothing here
//! knows a clock, a socket or a file. What each rule means is written at [`Judge`].

mod judge;
mod measure;
mod sample;
mod streak;
mod text;
mod traffic;
mod trail;

pub use judge::Judge;
pub use sample::{Rules, Sample};
