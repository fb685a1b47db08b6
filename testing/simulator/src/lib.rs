//! The whole engine on one thread under seeded faults.
