//! What it costs to count a request for a trial, in the code that does it: for `bench judge`, never
//! part of what is shipped.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchback_analysis::cohort::Arm as Side;
use switchback_domain::Weight;
use switchback_ports::data_plane::TrialId;
use switchback_ports::data_plane::conformance::sample_arm;

use crate::cohorts::{Cohorts, Enrolled, Part, Trial};
use crate::counters::Outcome;
use crate::sessions::Sessions;

/// Requests that are counted, of a worker that serves a thousand a second.
const REQUESTS: u32 = 1_000_000;
/// Requests on their way at the same time; cohorts are collected as often.
const IN_FLIGHT: usize = 100;
/// One in so many is the candidate's.
const CANDIDATE_EACH: usize = 20;
/// The loop is run so often; the fastest counts, the others were disturbed.
const ROUNDS: u32 = 7;

/// Nanoseconds per request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counting {
    /// While it is served: its arrival and its end.
    pub in_place: f64,
    /// Its part of closing its cohort, which happens between requests.
    pub closing: f64,
}

/// Measures; takes a second.
pub fn counting() -> Counting {
    let least = |of: fn(&Counting) -> f64, rounds: &[Counting]| {
        rounds.iter().map(of).fold(f64::INFINITY, f64::min)
    };
    let rounds: Vec<Counting> = (0..ROUNDS).map(|_| round(REQUESTS)).collect();
    let in_place = least(|it| it.in_place, &rounds);
    Counting { in_place, closing: least(|it| it.closing, &rounds) }
}

fn round(requests: u32) -> Counting {
    let of = sample_arm("v2", &[]).id;
    let (service, candidate, salt) = (of.service, of.release, "r1".to_owned());
    let id = TrialId { service, candidate, salt };
    let cap_age = Duration::from_secs(1);
    let trial = Arc::new(Trial { number: 1, id, cap_age, sessions: Sessions::default() });
    let part = |side| Part { trial: Arc::clone(&trial), side, weight: Weight::from_percent(5) };
    let parts = [part(Side::Candidate), part(Side::Baseline)];
    let mut now = Instant::now();
    let cohorts = Cohorts::new(now);
    let mut open: [Option<Enrolled>; IN_FLIGHT] = std::array::from_fn(|_| None);
    let (mut micros, mut closing) = (1_u64, Duration::ZERO);
    let start = Instant::now();
    for _ in 0..requests / u32::try_from(IN_FLIGHT).unwrap_or(1) {
        for (at, slot) in open.iter_mut().enumerate() {
            now += Duration::from_millis(1);
            // Latencies all over the place, at the price of one multiplication.
            micros = micros.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            let part = &parts[usize::from(at % CANDIDATE_EACH > 0)];
            if let Some(oldest) = slot.replace(cohorts.arrive(part, now, None)) {
                oldest.end(Outcome::Answered(1), micros >> 47);
            }
        }
        let start = Instant::now();
        black_box(cohorts.collect(now));
        closing += start.elapsed();
    }
    let all = start.elapsed();
    let each = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(requests);
    Counting { in_place: each(all.saturating_sub(closing)), closing: each(closing) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parts_cost_something() {
        let Counting { in_place, closing } = round(10_000);
        assert!(in_place > 0.0 && closing > 0.0, "{in_place} {closing}");
    }
}
