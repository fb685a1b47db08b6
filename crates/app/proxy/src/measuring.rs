//! What it costs to count a request, in the code that does it: for a trial alone in `bench judge`,
//! with all that is counted in `bench proxy`. Never part of what is shipped.

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchback_analysis::cohort::Arm as Side;
use switchback_domain::{Generation, Histogram, ReleaseId, Split, Weight};
use switchback_ports::data_plane::conformance::{sample_arm, sample_table};
use switchback_ports::data_plane::{Cursor, TrialId};
use switchback_routing::{Candidate, Table};

use crate::batches::Batches;
use crate::cohorts::{Cohorts, Enrolled, Part, TICK, Trial};
use crate::compiled::{Compiled, HeldArm, Visit};
use crate::counters::{Outcome, Ticket};
use crate::registry::Registry;
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

/// Bytes of an answer's body.
const BODY: usize = 1024;

/// Accounts for so many requests as a worker does, every tenth of them the candidate's, and gives
/// how long that took, and how many of them were found in the batches and the counters.
pub fn accounting(requests: u32) -> (Duration, u64, u64) {
    let (mut batches, mut registry, table) = (Batches::default(), Registry::new(1), table());
    let parts = batches.parts(&table, |_| Histogram::default());
    let arms = registry.arms(&table, &Compiled::default(), &parts);
    let arms: Vec<HeldArm> = arms.into_iter().map(Rc::new).collect();
    let began = Instant::now();
    let cohorts = Cohorts::new(began);
    let mut collected = began;
    for request in 0..requests {
        let arm = &arms[usize::from(request % 10 == 0)];
        let at = account(arm, &cohorts);
        if at.saturating_duration_since(collected) > TICK {
            collected = at;
            batches.add(at, vec![cohorts.collect(at)]);
        }
    }
    let took = began.elapsed();
    batches.add(Instant::now(), vec![cohorts.collect(began + took + 2 * TICK)]);
    let found = batches.after("", &Cursor::default()).batches;
    let found = found.iter().map(|it| it.candidate.requests() + it.baseline.requests()).sum();
    let answered = registry.report().into_iter().map(|arm| arm.stats.answered()).sum();
    (took, found, answered)
}

/// One request with its whole answer in one read, in the order of the own codec; gives when its
/// head came.
fn account(arm: &HeldArm, cohorts: &Rc<Cohorts>) -> Instant {
    let mut ticket = Ticket::accept(Rc::clone(arm), 0);
    ticket.enroll(cohorts, None);
    let visit = Visit::begin(Rc::clone(arm), 0, 0);
    ticket.head_came();
    ticket.answered(200, &visit);
    ticket.sent(BODY);
    let head_at = ticket.head_at();
    ticket.settle_at(Outcome::Answered(1), || head_at);
    drop(visit);
    drop(ticket);
    head_at
}

/// Two versions, of which a coin chooses one.
fn table() -> Table {
    let address = ([127, 0, 0, 1], 1).into();
    let arms = ["v1", "v2"].map(|version| sample_arm(version, &[address])).to_vec();
    let mut table = sample_table(Generation::default(), address, arms);
    let [old, new] = ["v1", "v2"].map(ReleaseId::from_stored);
    table.routes[0].split = Split::between(old, new.clone(), Weight::from_percent(10));
    table.routes[0].steering.candidate =
        Some(Candidate { release: new, salt: String::new(), open: true });
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_accounted_for_once() {
        let (_, in_batches, in_counters) = accounting(10_000);
        assert_eq!((in_batches, in_counters), (10_000, 10_000));
    }

    #[test]
    fn both_parts_cost_something() {
        let Counting { in_place, closing } = round(10_000);
        assert!(in_place > 0.0 && closing > 0.0, "{in_place} {closing}");
    }
}
