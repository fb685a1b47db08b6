//! Records to text. Pure: no clock, no terminal, no files; how it looks is an argument.

pub(crate) mod chart;
pub(crate) mod explain;
pub(crate) mod history;
pub(crate) mod ledger;
pub(crate) mod logs;
pub(crate) mod look;
pub(crate) mod number;
pub(crate) mod outcome;
pub(crate) mod plan;
pub(crate) mod problem;
pub(crate) mod progress;
#[cfg(test)]
pub(crate) mod samples;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod trial;
pub(crate) mod verdict;
pub(crate) mod when;
