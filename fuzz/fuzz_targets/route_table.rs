//! A route table is compiled, or refused with a reason.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| switchback_hostile::route_table(bytes));
