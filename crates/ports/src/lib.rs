//! One trait per kind of neighbour, each with an in-memory fake and a conformance suite that the
//! fake and every real adapter pass.

pub mod certificates;
pub mod crash_point;
pub mod data_plane;
pub mod journal;
pub mod metrics;
pub mod prober;
pub mod runtime;
pub mod supervision;

pub use certificates::Certificates;
pub use crash_point::crash_point;
pub use data_plane::DataPlane;
pub use journal::Journal;
pub use metrics::Metrics;
pub use prober::Prober;
pub use runtime::Runtime;
pub use supervision::{NotReplaced, Replaced, Supervision};
