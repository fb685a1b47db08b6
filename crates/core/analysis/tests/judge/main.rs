//! The judge as its callers see it: looks in, verdicts out.

mod gaps;
mod properties;
mod steps;
mod triggers;
mod world;
