//! A configuration file is read, or refused with reasons.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| switchback_hostile::configuration(bytes));
