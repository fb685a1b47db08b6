//! Whole rollouts, told as events.

mod backward;
mod busy;
mod forward;
mod operators;
