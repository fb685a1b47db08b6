//! The body of a call is understood the same twice.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| switchback_hostile::api_body(bytes));
