//! What a metric source answers is a number or has a name.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| switchback_metrics::fuzzing::metrics_answer(bytes));
