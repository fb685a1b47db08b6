//! The targets of `fuzz/`: functions of any bytes that panic where a rule is broken.

pub use crate::codec::own::fuzz::{chunked_body, differential, request_head, response_head};
