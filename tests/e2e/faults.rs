//! Faults around a rollout.
