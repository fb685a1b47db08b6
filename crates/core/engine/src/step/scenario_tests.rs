//! Whole rollouts, told as events.

mod alarms;
mod backward;
mod busy;
mod forward;
mod operators;
