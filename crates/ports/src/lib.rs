//! One trait per kind of neighbour, each with an in-memory fake and a conformance suite that the
//! fake and every real adapter pass.

pub mod data_plane;
pub mod journal;
pub mod runtime;

pub use data_plane::DataPlane;
pub use journal::Journal;
pub use runtime::Runtime;
