//! A request's head is read and written on as one message.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| switchback_proxy::fuzzing::request_head(bytes));
