//! What the judge costs: time per request and per tick, and bytes per rollout. The only part of the
//! bench that depends on the machine.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use switchback_domain::histogram::{BUCKETS, bucket_of};

use crate::arm::Draws;
use crate::scenario::Scenario;
use crate::stream::{Group, Ours, Run};

/// Requests in the loop that is timed.
const REQUESTS: u64 = 20_000_000;
/// The loop is run so often; the fastest counts, the others were disturbed.
const ROUNDS: u32 = 5;

/// Costs on this machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Nanoseconds to count one request in the data plane: find its bucket, add to two counters.
    pub request_nanos: f64,
    /// Microseconds to judge one batch: the median.
    pub tick_micros: f64,
    /// The mean, with the refits of the alternatives.
    pub tick_micros_mean: f64,
    /// What 99 of 100 batches stay below.
    pub tick_micros_p99: f64,
    /// Bytes of a trial.
    pub bytes: usize,
}

/// Batches that are timed, of 80 ms each.
const BATCHES: usize = 9000;
/// The same batches are judged so often. Of each the fastest counts: the others were disturbed by
/// whoever else uses the machine.
const TIMES: usize = 5;

/// Measures; takes a few seconds.
pub fn measure(scenario: &Scenario) -> Cost {
    let scenario = Scenario { group_millis_max: 100, ..scenario.clone() };
    let (mut nanos, mut bytes) = (vec![f64::INFINITY; BATCHES], 0);
    for _ in 0..TIMES {
        bytes = judge_all(&scenario, &mut nanos);
    }
    let mean = nanos.iter().sum::<f64>() / nanos.len() as f64;
    nanos.sort_unstable_by(f64::total_cmp);
    Cost {
        request_nanos: request_nanos(),
        tick_micros: nanos[nanos.len() / 2] / 1000.0,
        tick_micros_mean: mean / 1000.0,
        tick_micros_p99: nanos[nanos.len() * 99 / 100] / 1000.0,
        bytes,
    }
}

/// Judges them once; the bytes that the trial holds then.
fn judge_all(scenario: &Scenario, fastest: &mut [f64]) -> usize {
    let prepared = scenario.ready();
    let ours = Ours::default();
    let mut trial = ours.trial(&prepared);
    let mut draws = Draws::default();
    let mut run = Run::new(&prepared, &mut draws, 1, 0);
    let mut group = Group::default();
    for (sequence, fastest) in (1..).zip(fastest) {
        run.next(&mut group);
        let batch = ours.batch(&group, run.millis(), sequence);
        let start = Instant::now();
        black_box(trial.feed(&batch));
        *fastest = fastest.min(start.elapsed().as_nanos() as f64);
    }
    trial.bytes()
}

fn request_nanos() -> f64 {
    let buckets: Vec<AtomicU64> = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
    let total = AtomicU64::new(0);
    let round = || {
        let start = Instant::now();
        let mut micros = 12_345_u64;
        for _ in 0..REQUESTS {
            // Latencies all over the place, at the price of one multiplication.
            micros = micros.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            let bucket = &buckets[bucket_of(micros >> 46)];
            bucket.store(bucket.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            total.store(total.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        start.elapsed().as_nanos() as f64 / REQUESTS as f64
    };
    let best = (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min);
    black_box(total.load(Ordering::Relaxed));
    best
}
