//! Whole rollouts, told as events.
