//! The bundled test service and the load generator behind `switchback demo` and the tests.
//!
//! The service misbehaves on request; the load generator counts every consequence.

pub mod load;
pub mod service;

pub use load::{Load, LoadHandle, LoadOptions, LoadReport};
pub use service::{Service, ServiceOptions};
