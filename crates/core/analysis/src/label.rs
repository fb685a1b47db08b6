//! Tests on labels: given that something bad happened, was it the candidate's request?
//!
//! The proxy drew the label by a coin of known bias, so under "the candidate is no worse" the
//! label is a coin flip whatever the traffic does. [`Trial`] is what a control plane uses; the
//! parts stand alone.

mod alternatives;
pub mod batch;
pub mod bins;
pub mod errors;
pub mod evidence_cap;
pub mod isotonic;
pub mod latency;
pub mod odds;
mod rungs;
mod settings;
pub mod stakes;
pub mod trial;
mod words;

pub use batch::{ArmBatch, Batch};
pub use settings::{Direction, Invalid, Settings};
pub use trial::{Evidence, Fed, Fired, Trial};
