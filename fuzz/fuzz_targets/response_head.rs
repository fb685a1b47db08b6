//! A response's head is read and written on as one message, for every kind of client.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| switchback_proxy::fuzzing::response_head(bytes));
