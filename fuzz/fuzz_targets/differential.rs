//! The own codec never sees another message than hyper.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| switchback_proxy::fuzzing::differential(bytes));
