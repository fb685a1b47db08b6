//! What a route does about trouble, around the pure machines of `core/resilience`: atomics, locks
//! and waiting. A route that asks for none of it never comes here.

mod breaker;
mod guard;
mod guarded;
mod pace;
mod stale;

pub(crate) use breaker::SharedBreaker;
pub(crate) use guard::{Guard, Permit};
pub(crate) use guarded::guarded;
pub(crate) use pace::{Pace, Turn};
pub(crate) use stale::Capture;
