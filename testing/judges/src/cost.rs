//! What the judge costs: time per request and per tick, and bytes per rollout. The only part of the
//! bench that depends on the machine.

use std::hint::black_box;
use std::time::Instant;

use crate::arm::Draws;
use crate::scenario::Scenario;
use crate::stream::{Group, Ours, Run};

/// Costs on this machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Of counting a request in the data plane, if that was built in.
    pub request: Option<Request>,
    /// Microseconds to judge one batch: the median.
    pub tick_micros: f64,
    /// The mean, with the refits of the alternatives.
    pub tick_micros_mean: f64,
    /// What 99 of 100 batches stay below.
    pub tick_micros_p99: f64,
    /// Bytes of a trial.
    pub bytes: usize,
}

/// Nanoseconds per request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Request {
    /// While it is served: its arrival and its end, each in its cohort.
    pub in_place_nanos: f64,
    /// Its part of closing the cohort, between requests.
    pub closing_nanos: f64,
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
        request: request(),
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

/// In the data plane's own code, which the smoke is built without.
#[cfg(feature = "request-cost")]
fn request() -> Option<Request> {
    let found = switchback_proxy::measuring::counting();
    Some(Request { in_place_nanos: found.in_place, closing_nanos: found.closing })
}

#[cfg(not(feature = "request-cost"))]
fn request() -> Option<Request> {
    None
}
