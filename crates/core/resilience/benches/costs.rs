//! What the machines cost a request: prints the median of several rounds, in nanoseconds.
//! `cargo bench -p switchback-resilience`.
#![allow(clippy::print_stdout, reason = "its output is the point")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use switchback_domain::resilience::{AdaptivePolicy, BreakerPolicy, Rate, RetryPolicy};
use switchback_resilience::{
    Breaker, Bucket, ClientBuckets, Gradient, Moment, PeakEwma, RetryBudget,
};

const ROUNDS: usize = 15;
const CALLS: u64 = 200_000;

fn main() {
    let at = |n: u64| Moment::from_nanos(1_000_000_000 + n * 50_000);
    let took = Duration::from_micros(900);

    let mut bits = PeakEwma::new(at(0)).to_bits();
    print("peak EWMA, an observation", |n| {
        let ewma = PeakEwma::from_bits(bits.0, bits.1);
        bits = ewma.observed(at(n), Duration::from_nanos(900_000 - n)).to_bits();
    });
    let ewma = PeakEwma::new(at(0)).observed(at(0), took);
    print("peak EWMA, a comparison of two", |n| {
        let now = at(n % 1_000);
        black_box(ewma.load(now, 3) < ewma.load(now, n & 7));
    });
    let rate = Rate { requests: 1_000_000, per: Duration::from_secs(1), burst: 100 };
    let (bucket, mut full_at) = (Bucket::new(&rate), Moment::default());
    print("bucket, a request", |n| full_at = bucket.take(full_at, at(n)).unwrap_or(full_at));
    let mut clients = ClientBuckets::new(bucket, 65_536);
    print("buckets of clients, a request", |n| {
        black_box(clients.take(n.wrapping_mul(0x9E37_79B9_7F4A_7C15), at(n)).is_ok());
    });
    let mut breaker = Breaker::new(BreakerPolicy::default());
    print("breaker, a good end", |n| breaker.observe(at(n), true, false));
    let mut budget = RetryBudget::new(&RetryPolicy::default(), 1);
    print("retry budget, a request", |n| budget.deposit(at(n)));
    let mut gradient = Gradient::new(AdaptivePolicy::default());
    print("adaptive limit, an observation", |n| {
        gradient.observe(Duration::from_nanos(900_000 + n % 1_000), 60);
    });
}

fn print(what: &str, mut call: impl FnMut(u64)) {
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..CALLS).for_each(|n| call(black_box(n)));
            start.elapsed()
        })
        .collect();
    rounds.sort_unstable();
    let nanos =
        rounds[ROUNDS / 2].as_secs_f64() * 1e9 / f64::from(u32::try_from(CALLS).unwrap_or(1));
    println!("{what:32} {nanos:6.1} ns");
}
