//! Nanoseconds that accounting for one request takes, the least of some rounds:
//! `cargo run --release -p switchback-proxy --features measuring --example accounting`.
#![allow(clippy::print_stdout, reason = "what it is for")]

use switchback_proxy::measuring::accounting;

const REQUESTS: u32 = 1_000_000;
/// Whatever else the machine does can only add to one.
const ROUNDS: usize = 9;

fn main() {
    let mut nanos = f64::INFINITY;
    for _ in 0..ROUNDS {
        let (took, in_batches, in_counters) = accounting(REQUESTS);
        assert_eq!([in_batches, in_counters], [u64::from(REQUESTS); 2], "some were not counted");
        nanos = nanos.min(took.as_secs_f64() * 1e9 / f64::from(REQUESTS));
    }
    println!("{nanos:.1}");
}
