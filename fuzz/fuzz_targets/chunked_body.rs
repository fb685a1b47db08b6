//! A chunked body is the same however it is cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| switchback_proxy::fuzzing::chunked_body(bytes));
