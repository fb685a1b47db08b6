//! The rollout state machine: state and event in, state and effects out.
//!
//! Pure: no clock, no I/O, no randomness. [`step`] decides; the driver writes the transition to
//! the journal and then sees to it that the world matches [`outstanding`] of the new state.

mod effect;
mod event;
mod invariant;
mod plan;
mod rollout;
mod service;
mod step;
mod words;

pub use effect::{Effect, outstanding, wakes_at};
pub use event::{Command, Counts, Event, EventKind, Note, NoteKind, Rejection, Transition};
pub use invariant::{Violation, violations};
pub use plan::{PlanStep, plan};
pub use rollout::{
    Cause, CauseKind, EndedRollout, Ending, Paused, Phase, Request, RequestKind, Rollout, RolloutId,
};
pub use service::{
    ENDED_MAX, OPERATIONS_MAX, Operation, Pool, QUEUE_MAX, Revision, Service, Traffic,
};
pub use step::step;
pub use words::{describe_mode, describe_phase, describe_step};
