//! How the data plane copes with instances that are slow or fail, and with too many requests; and
//! when an authority is asked for a certificate.
//!
//! Small machines of values: the time is a [`Moment`] that the caller hands in, chance a number it
//! has drawn. No clock, no dice, no atomics: the data plane wraps them as each needs it.

mod backoff;
mod breaker;
mod bucket;
mod budget;
mod clients;
mod ejection;
mod ewma;
mod gradient;
mod moment;
mod renewal;
mod slow_start;
mod stale;

pub use backoff::backoff;
pub use breaker::{Admission, Breaker, BreakerState};
pub use bucket::Bucket;
pub use budget::RetryBudget;
pub use clients::ClientBuckets;
pub use ejection::{Ejection, may_eject};
pub use ewma::PeakEwma;
pub use gradient::Gradient;
pub use moment::Moment;
pub use renewal::{Failures, Validity, order_due};
pub use slow_start::{REST, readiness, turns_away};
pub use stale::{Kept, StaleStore};
