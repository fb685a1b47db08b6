//! The test service and the load generator against each other, and against servers that drop
//! requests on purpose.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

mod load;
mod process;
mod service;
mod support;
