//! The router as the data plane uses it, in examples and against matchers without cleverness.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod choice;
mod encryption;
mod paths;
mod rules;
mod support;
