//! Arrival cohorts: requests are judged together with those that arrived with them, and what has
//! not ended at the cap age has failed. So neither slow nor hung requests are late evidence.
//!
//! For whoever sees requests begin and end; the result is what [`crate::Trial`] takes.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use switchback_domain::{Timestamp, Weight};

use crate::label::{ArmBatch, Batch};

/// Open cohorts, at most: ten seconds of 100 ms ticks and some room. The oldest is closed early.
const OPEN_MAX: usize = 128;

/// Who a request was assigned to, on its first attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arm {
    /// The version on trial.
    Candidate,
    /// The version that serves.
    Baseline,
}

/// Where a request that arrived is counted. Not to be used twice.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    cohort: u64,
    arm: Arm,
    arrived: Timestamp,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With an answer, after so many microseconds; `true` if it was a failure.
    Answered(u64, bool),
    /// Without an answer.
    Unanswered,
    /// The client went away first: says nothing about the version.
    ClientGone,
}

/// The cohorts of one rollout in one data plane.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cohorts {
    source: String,
    tick: Duration,
    cap_age: Duration,
    open: VecDeque<Cohort>,
    next: u64,
    sequence: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Cohort {
    number: u64,
    opened: Timestamp,
    weight: Weight,
    running: [u64; 2],
    ended: [ArmBatch; 2],
}

impl Cohorts {
    /// Begins. `tick` is how long a cohort takes new requests (100 to 250 ms), `cap_age` the age
    /// at which a request counts as not ended.
    pub fn new(source: String, tick: Duration, cap_age: Duration) -> Self {
        Self { source, tick, cap_age, open: VecDeque::new(), next: 0, sequence: 0 }
    }

    /// A request came in and was assigned. A change of the weight opens a new cohort.
    pub fn arrive(&mut self, now: Timestamp, weight: Weight, arm: Arm) -> Ticket {
        let tick = self.tick;
        let fits = |cohort: &Cohort| cohort.weight == weight && now.since(cohort.opened) < tick;
        if !self.open.back().is_some_and(fits) {
            let number = self.next;
            self.next += 1;
            let (running, ended) = ([0; 2], Default::default());
            self.open.push_back(Cohort { number, opened: now, weight, running, ended });
        }
        let cohort = self.next - 1;
        if let Some(newest) = self.open.back_mut() {
            newest.running[index(arm)] += 1;
        }
        Ticket { cohort, arm, arrived: now }
    }

    /// A request ended. One whose cohort is closed was counted as unfinished, and stays so.
    pub fn end(&mut self, ticket: &Ticket, now: Timestamp, end: End) {
        let Some(oldest) = self.open.front().map(|cohort| cohort.number) else { return };
        let at = ticket.cohort.checked_sub(oldest).and_then(|at| usize::try_from(at).ok());
        let Some(cohort) = at.and_then(|at| self.open.get_mut(at)) else { return };
        let arm = index(ticket.arm);
        cohort.running[arm] = cohort.running[arm].saturating_sub(1);
        let ended = &mut cohort.ended[arm];
        let cap = u64::try_from(self.cap_age.as_micros()).unwrap_or(u64::MAX);
        match end {
            End::Answered(micros, _) if micros > cap => ended.unfinished += 1,
            End::Answered(micros, is_failure) => {
                ended.latency.record(micros);
                ended.failed_answers += u64::from(is_failure);
            }
            End::Unanswered if now.since(ticket.arrived) > self.cap_age => ended.unfinished += 1,
            End::Unanswered => ended.unanswered += 1,
            End::ClientGone => {}
        }
    }

    /// The cohorts that are complete or old enough, oldest first and in order: a complete one
    /// waits for those before it.
    pub fn close(&mut self, now: Timestamp) -> Vec<Batch> {
        let mut closed = Vec::new();
        while let Some(oldest) = self.open.front() {
            let age = now.since(oldest.opened);
            let is_complete = age >= self.tick && oldest.running == [0, 0];
            let is_old = age >= self.tick + self.cap_age || self.open.len() > OPEN_MAX;
            if !is_complete && !is_old {
                break;
            }
            closed.extend(self.open.pop_front().map(|cohort| (cohort, now)));
        }
        closed.into_iter().map(|(cohort, at)| self.batch(cohort, at)).collect()
    }

    fn batch(&mut self, cohort: Cohort, at: Timestamp) -> Batch {
        self.sequence += 1;
        let [mut candidate, mut baseline] = cohort.ended;
        candidate.unfinished += cohort.running[index(Arm::Candidate)];
        baseline.unfinished += cohort.running[index(Arm::Baseline)];
        let (source, sequence, weight) = (self.source.clone(), self.sequence, cohort.weight);
        Batch { at, source, sequence, weight, candidate, baseline }
    }
}

const fn index(arm: Arm) -> usize {
    match arm {
        Arm::Candidate => 0,
        Arm::Baseline => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn cohorts() -> Cohorts {
        Cohorts::new("one".to_owned(), Duration::from_millis(100), Duration::from_millis(500))
    }

    #[test]
    fn a_hung_request_fails_at_the_cap_age_and_ends_only_once() {
        let (mut cohorts, five) = (cohorts(), Weight::from_percent(5));
        let hung = cohorts.arrive(at(0), five, Arm::Candidate);
        let quick = cohorts.arrive(at(50), five, Arm::Baseline);
        cohorts.end(&quick, at(60), End::Answered(10_000, false));
        assert!(cohorts.close(at(599)).is_empty(), "the cohort waits for its slowest");
        let closed = cohorts.close(at(600));
        assert_eq!((closed[0].candidate.unfinished, closed[0].candidate.failed()), (1, 1));
        assert_eq!((closed[0].baseline.requests(), closed[0].baseline.failed()), (1, 0));
        cohorts.end(&hung, at(700), End::Answered(700_000, false));
        assert!(cohorts.close(at(2000)).is_empty());
    }

    #[test]
    fn slower_than_the_cap_is_unfinished_even_if_its_cohort_is_still_open() {
        let (mut cohorts, five) = (cohorts(), Weight::from_percent(5));
        let slow = cohorts.arrive(at(0), five, Arm::Candidate);
        cohorts.end(&slow, at(550), End::Answered(550_000, false));
        assert_eq!(cohorts.close(at(560))[0].candidate.unfinished, 1);
    }

    #[test]
    fn a_cohort_takes_requests_for_one_tick() {
        let (mut cohorts, five) = (cohorts(), Weight::from_percent(5));
        for millis in [0, 99, 100] {
            let ticket = cohorts.arrive(at(millis), five, Arm::Candidate);
            cohorts.end(&ticket, at(millis), End::Answered(1, false));
        }
        let requests = |batch: &Batch| batch.candidate.requests();
        assert_eq!(cohorts.close(at(300)).iter().map(requests).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn without_an_answer_the_cap_age_decides_what_it_was() {
        let (mut cohorts, five) = (cohorts(), Weight::from_percent(5));
        let [quick, last, late, later, gone] =
            [(); 5].map(|()| cohorts.arrive(at(0), five, Arm::Candidate));
        cohorts.end(&quick, at(20), End::Unanswered);
        cohorts.end(&last, at(500), End::Unanswered);
        cohorts.end(&late, at(501), End::Unanswered);
        cohorts.end(&later, at(502), End::Unanswered);
        cohorts.end(&gone, at(501), End::ClientGone);
        let candidate = &cohorts.close(at(502))[0].candidate;
        assert_eq!((candidate.unanswered, candidate.unfinished), (2, 2));
    }

    #[test]
    fn every_request_that_hangs_counts_once_in_its_own_version() {
        let (mut cohorts, five) = (cohorts(), Weight::from_percent(5));
        for arm in [Arm::Candidate, Arm::Baseline, Arm::Baseline] {
            let slow = cohorts.arrive(at(0), five, arm);
            cohorts.end(&slow, at(501), End::Answered(501_000, false));
            cohorts.arrive(at(0), five, arm);
        }
        let batch = &cohorts.close(at(600))[0];
        assert_eq!((batch.candidate.unfinished, batch.baseline.unfinished), (2, 4));
    }

    #[test]
    fn only_so_many_cohorts_stay_open_and_the_oldest_goes_first() {
        let mut cohorts = cohorts();
        for number in 0..=OPEN_MAX as u64 {
            // A weight of its own opens a cohort of its own, in the same instant.
            let weight = if number % 2 == 0 { 5 } else { 25 };
            cohorts.arrive(at(0), Weight::from_percent(weight), Arm::Candidate);
            let closed = cohorts.close(at(0));
            assert_eq!(closed.len(), usize::from(number == OPEN_MAX as u64), "{number}");
        }
    }

    #[test]
    fn each_batch_has_one_weight_and_the_next_number() {
        let mut cohorts = cohorts();
        for (millis, percent) in [(0, 5), (10, 5), (20, 25)] {
            let ticket = cohorts.arrive(at(millis), Weight::from_percent(percent), Arm::Baseline);
            cohorts.end(&ticket, at(millis + 5), End::Answered(5_000, true));
        }
        let closed = cohorts.close(at(200));
        let of = |batch: &Batch| (batch.sequence, batch.weight, batch.baseline.failed());
        let expected = [(1, Weight::from_percent(5), 2), (2, Weight::from_percent(25), 1)];
        assert_eq!(closed.iter().map(of).collect::<Vec<_>>(), expected);
    }
}
