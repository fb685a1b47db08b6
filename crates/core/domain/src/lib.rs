//! The words of Switchback: types that cannot hold nonsense.
//!
//! Pure values only: no clock, no files, no randomness. Every other crate speaks in these types.

pub mod acme;
pub mod causes;
pub mod certificate;
pub mod condition;
pub mod generation;
pub mod histogram;
pub mod instance;
pub mod metric;
pub mod name;
pub mod network;
pub mod probe;
pub mod release;
pub mod resilience;
pub mod route;
pub mod seeded;
pub mod socket;
pub mod stats;
pub mod strategy;
pub mod template;
pub mod time;
pub mod timing;
pub mod tls;
pub mod trigger;
pub mod verdict;
pub mod weight;
pub mod workload;

pub use causes::with_causes;
pub use generation::{Epoch, Generation};
pub use histogram::Histogram;
pub use instance::{InstanceHealth, InstanceId, InstanceReport};
pub use name::{EnvironmentName, ProjectName, ServiceKey, ServiceName, Version};
pub use release::{Release, ReleaseId};
pub use socket::socket_path;
pub use stats::ArmStats;
pub use time::Timestamp;
pub use timing::Timing;
pub use verdict::{Finding, Outcome, Verdict};
pub use weight::{Split, Weight};
pub use workload::Workload;
