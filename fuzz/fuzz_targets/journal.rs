//! What the journal decodes leads the engine somewhere, or nowhere.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| switchback_hostile::journal(bytes));
