//! What a worker counts of the requests that chance assigned: cohorts by the tick they arrived in,
//! on the worker's own thread, without locks. Complete ones go to [`crate::batches`].
//!
//! The same rules as `switchback_analysis::cohort`, for several threads: ticks are numbered from
//! one common moment, so that cohorts of all workers can be added up.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchback_analysis::ArmBatch;
use switchback_analysis::cohort::Arm as Side;
use switchback_domain::Histogram;
use switchback_domain::Weight;
use switchback_domain::histogram::bucket_of;
use switchback_ports::data_plane::TrialId;

use crate::counters::Outcome;
use crate::sessions::Sessions;

/// How long a cohort takes new requests.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// One rollout's coin, as all workers know it.
#[derive(Debug)]
pub(crate) struct Trial {
    /// Unique in this process.
    pub(crate) number: u64,
    pub(crate) id: TrialId,
    /// Age at which a request counts as not ended.
    pub(crate) cap_age: Duration,
    /// Clients that stay with their version are counted once, and once more when it fails them.
    pub(crate) sessions: Sessions,
}

/// One version's part in a trial, under one table.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) trial: Arc<Trial>,
    pub(crate) side: Side,
    /// The candidate's share.
    pub(crate) weight: Weight,
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        let of = |part: &Self| (part.trial.number, part.side, part.weight);
        of(self) == of(other)
    }
}

/// The open cohorts of one worker.
#[derive(Debug)]
pub(crate) struct Cohorts {
    born: Instant,
    lanes: RefCell<Vec<Lane>>,
    /// Cohorts are numbered from here on in lanes that begin.
    numbered: Cell<u64>,
}

/// One trial's, ascending by its number.
#[derive(Debug)]
struct Lane {
    trial: Arc<Trial>,
    open: VecDeque<Cohort>,
    /// The number of the oldest open one.
    first: u64,
}

#[derive(Debug)]
struct Cohort {
    tick: u64,
    weight: Weight,
    running: [u64; 2],
    tallies: [Tally; 2],
}

/// What ended, one version's. Latencies are only written down: adding them up is not for now.
#[derive(Debug, Default)]
struct Tally {
    buckets: Vec<u16>,
    failed_answers: u64,
    unanswered: u64,
    unfinished: u64,
}

/// A request that is counted.
#[derive(Debug)]
pub(crate) struct Enrolled {
    cohorts: Rc<Cohorts>,
    trial: u64,
    /// `None`: its client was counted before.
    cohort: Option<u64>,
    side: Side,
    weight: Weight,
    session: Option<u64>,
}

/// What a worker hands over.
#[derive(Debug)]
pub(crate) struct Collected {
    /// The present tick.
    pub(crate) tick: u64,
    pub(crate) lanes: Vec<CollectedLane>,
}

/// The same for one trial.
#[derive(Debug)]
pub(crate) struct CollectedLane {
    pub(crate) trial: Arc<Trial>,
    pub(crate) closed: Vec<Closed>,
    /// Of earlier ticks nothing more will come.
    pub(crate) open_from: u64,
    /// Whether some cohort is open still.
    pub(crate) is_open: bool,
}

/// A cohort of one worker that is complete.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) tick: u64,
    pub(crate) weight: Weight,
    pub(crate) candidate: ArmBatch,
    pub(crate) baseline: ArmBatch,
}

impl Cohorts {
    /// `born` is the moment that all workers count ticks from.
    pub(crate) fn new(born: Instant) -> Rc<Self> {
        Rc::new(Self { born, lanes: RefCell::default(), numbered: Cell::new(0) })
    }

    /// Counts a request that chance assigned to this part at `now`. `session` is its client, if
    /// the client stays with its version.
    pub(crate) fn arrive(
        self: &Rc<Self>,
        part: &Part,
        now: Instant,
        session: Option<u64>,
    ) -> Enrolled {
        let Part { trial, side, weight } = part;
        let is_new = session.is_none_or(|session| trial.sessions.is_first_seen(session));
        let cohort = is_new.then(|| self.enter(trial, *side, *weight, self.tick_of(now)));
        let (trial, side, weight) = (trial.number, *side, *weight);
        Enrolled { cohorts: Rc::clone(self), trial, cohort, side, weight, session }
    }

    fn enter(&self, trial: &Arc<Trial>, side: Side, weight: Weight, tick: u64) -> u64 {
        let mut lanes = self.lanes.borrow_mut();
        let at = match lanes.binary_search_by_key(&trial.number, |lane| lane.trial.number) {
            Ok(at) => at,
            Err(at) => {
                let (trial, open) = (Arc::clone(trial), VecDeque::new());
                lanes.insert(at, Lane { trial, open, first: self.numbered.get() });
                at
            }
        };
        lanes[at].enter(side, weight, tick)
    }

    fn tick_of(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.born);
        age.as_secs() * 10 + u64::from(age.subsec_millis() / 100)
    }

    fn end(&self, enrolled: &Enrolled, outcome: Outcome, micros: u64) {
        let mut lanes = self.lanes.borrow_mut();
        let found = lanes.binary_search_by_key(&enrolled.trial, |lane| lane.trial.number);
        let Some(lane) = found.ok().and_then(|at| lanes.get_mut(at)) else { return };
        match enrolled.cohort {
            Some(number) => lane.end(number, enrolled, outcome, micros),
            None => lane.fail_again(enrolled, outcome),
        }
    }

    /// Takes out what is complete, or as old as the cap age.
    pub(crate) fn collect(&self, now: Instant) -> Collected {
        let tick = self.tick_of(now);
        let mut lanes = self.lanes.borrow_mut();
        let collected = lanes.iter_mut().map(|lane| lane.collect(tick)).collect();
        lanes.retain(|lane| {
            if lane.open.is_empty() {
                self.numbered.set(self.numbered.get().max(lane.first));
            }
            !lane.open.is_empty()
        });
        Collected { tick, lanes: collected }
    }
}

impl Lane {
    fn enter(&mut self, side: Side, weight: Weight, tick: u64) -> u64 {
        if !self.open.back().is_some_and(|last| last.tick == tick && last.weight == weight) {
            let (running, tallies) = ([0; 2], Default::default());
            self.open.push_back(Cohort { tick, weight, running, tallies });
        }
        if let Some(newest) = self.open.back_mut() {
            newest.running[index(side)] += 1;
        }
        self.first + self.open.len() as u64 - 1
    }

    /// A cohort that is closed has counted the request as unfinished, and so it stays.
    fn end(&mut self, number: u64, enrolled: &Enrolled, outcome: Outcome, micros: u64) {
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let cap = u64::try_from(self.trial.cap_age.as_micros()).unwrap_or(u64::MAX);
        let Some(cohort) = at.and_then(|at| self.open.get_mut(at)) else { return };
        let side = index(enrolled.side);
        cohort.running[side] = cohort.running[side].saturating_sub(1);
        let is_bad = cohort.tallies[side].count(outcome, micros, cap);
        if let Some(session) = enrolled.session.filter(|_| is_bad) {
            self.trial.sessions.is_first_failed(session);
        }
    }

    /// A client that was counted before, when it was served well, counts again as a failure; by
    /// now its first request's latency is no news. Only under the weight that it was assigned by.
    fn fail_again(&mut self, enrolled: &Enrolled, outcome: Outcome) {
        let Some(session) = enrolled.session.filter(|_| is_failure(outcome)) else { return };
        let newest = self.open.back_mut().filter(|newest| newest.weight == enrolled.weight);
        let Some(newest) = newest else { return };
        if self.trial.sessions.is_first_failed(session) {
            newest.tallies[index(enrolled.side)].unanswered += 1;
        }
    }

    fn collect(&mut self, now: u64) -> CollectedLane {
        let cap_ticks = self.trial.cap_age.as_millis().div_ceil(TICK.as_millis());
        let cap_ticks = u64::try_from(cap_ticks).unwrap_or(u64::MAX);
        let mut closed = Vec::new();
        while let Some(oldest) = self.open.front() {
            let is_complete = oldest.tick < now && oldest.running == [0, 0];
            let is_old = now > oldest.tick.saturating_add(cap_ticks);
            if !is_complete && !is_old {
                break;
            }
            closed.extend(self.open.pop_front().map(Cohort::close));
            self.first += 1;
        }
        let open_from = self.open.front().map_or(now, |oldest| oldest.tick);
        let (trial, is_open) = (Arc::clone(&self.trial), !self.open.is_empty());
        CollectedLane { trial, closed, open_from, is_open }
    }
}

impl Cohort {
    fn close(self) -> Closed {
        let Self { tick, weight, running, tallies } = self;
        let [candidate, baseline] = tallies;
        let candidate = candidate.close(running[index(Side::Candidate)]);
        let baseline = baseline.close(running[index(Side::Baseline)]);
        Closed { tick, weight, candidate, baseline }
    }
}

impl Tally {
    /// Counts an end; says whether it was a bad one.
    ///
    /// A client that goes away has waited at least so long: its patience does not depend on the
    /// version, so neither does the lesser of patience and latency, if the versions are equal, and
    /// a faster version can only make it less. Left out, a hung version would go unseen behind
    /// impatient clients. One that we cut is no different.
    fn count(&mut self, outcome: Outcome, micros: u64, cap: u64) -> bool {
        let is_bad = is_failure(outcome);
        match outcome {
            Outcome::Answered(_) | Outcome::ClientGone | Outcome::Cut if micros > cap => {
                self.unfinished += 1;
                return true;
            }
            Outcome::Answered(_) | Outcome::ClientGone | Outcome::Cut => {
                self.buckets.extend(u16::try_from(bucket_of(micros)).ok());
                self.failed_answers += u64::from(is_bad);
            }
            Outcome::ConnectFailed
            | Outcome::Broken
            | Outcome::TimedOut
            | Outcome::BreakerOpen
            | Outcome::Dropped => {
                if micros > cap {
                    self.unfinished += 1;
                } else {
                    self.unanswered += 1;
                }
            }
        }
        is_bad
    }

    fn close(self, running: u64) -> ArmBatch {
        let Self { mut buckets, failed_answers, unanswered, unfinished } = self;
        buckets.sort_unstable();
        let mut counts: Vec<(u16, u64)> = Vec::new();
        for bucket in buckets {
            match counts.last_mut() {
                Some((last, count)) if *last == bucket => *count += 1,
                Some(_) | None => counts.push((bucket, 1)),
            }
        }
        // In order, and of buckets that there are: nothing is refused.
        let latency = Histogram::try_from(counts).unwrap_or_default();
        let unfinished = unfinished + running;
        ArmBatch { unanswered, unfinished, latency, failed_answers, events: 0 }
    }
}

impl Enrolled {
    /// The request ended, `micros` microseconds after it came.
    pub(crate) fn end(&self, outcome: Outcome, micros: u64) {
        self.cohorts.end(self, outcome, micros);
    }
}

/// Whether the version, or nobody behind it, failed the request.
const fn is_failure(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Answered(class) => class >= 4,
        Outcome::ConnectFailed
        | Outcome::Broken
        | Outcome::TimedOut
        | Outcome::BreakerOpen
        | Outcome::Dropped => true,
        Outcome::ClientGone | Outcome::Cut => false,
    }
}

const fn index(side: Side) -> usize {
    match side {
        Side::Candidate => 0,
        Side::Baseline => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchback_ports::data_plane::conformance::sample_arm;

    const FIVE: Weight = Weight::from_percent(5);

    fn trial() -> Arc<Trial> {
        let of = sample_arm("v2", &[]).id;
        let (service, candidate, salt) = (of.service, of.release, "r1".to_owned());
        let id = TrialId { service, candidate, salt };
        let cap_age = Duration::from_millis(500);
        Arc::new(Trial { number: 3, id, cap_age, sessions: Sessions::default() })
    }

    fn part(trial: &Arc<Trial>, side: Side, weight: Weight) -> Part {
        Part { trial: Arc::clone(trial), side, weight }
    }

    struct Clock(Instant);

    impl Clock {
        fn at(&self, millis: u64) -> Instant {
            self.0 + Duration::from_millis(millis)
        }
    }

    fn closed(cohorts: &Cohorts, now: Instant) -> Vec<Closed> {
        cohorts.collect(now).lanes.into_iter().flat_map(|lane| lane.closed).collect()
    }

    #[test]
    fn a_hung_request_fails_at_the_cap_age_and_ends_only_once() {
        let (clock, trial) = (Clock(Instant::now()), trial());
        let cohorts = Cohorts::new(clock.at(0));
        let hung = cohorts.arrive(&part(&trial, Side::Candidate, FIVE), clock.at(10), None);
        let quick = cohorts.arrive(&part(&trial, Side::Baseline, FIVE), clock.at(50), None);
        quick.end(Outcome::Answered(1), 10_000);
        let waiting = cohorts.collect(clock.at(590));
        assert_eq!((waiting.lanes[0].closed.len(), waiting.lanes[0].open_from), (0, 0));
        let found = closed(&cohorts, clock.at(600));
        assert_eq!((found[0].candidate.unfinished, found[0].candidate.failed()), (1, 1));
        assert_eq!((found[0].baseline.requests(), found[0].baseline.failed()), (1, 0));
        // A new cohort must not be taken for the one that is gone.
        let next = cohorts.arrive(&part(&trial, Side::Candidate, FIVE), clock.at(650), None);
        hung.end(Outcome::Answered(1), 700_000);
        assert!(closed(&cohorts, clock.at(800)).is_empty(), "one is still on its way");
        next.end(Outcome::Answered(4), 5_000);
        let found = closed(&cohorts, clock.at(900));
        assert_eq!((found[0].candidate.requests(), found[0].candidate.failed()), (1, 1));
    }

    #[test]
    fn a_change_of_the_weight_within_a_tick_begins_another_cohort() {
        let (clock, trial) = (Clock(Instant::now()), trial());
        let cohorts = Cohorts::new(clock.at(0));
        for (millis, percent) in [(0, 5), (10, 5), (20, 25)] {
            let part = part(&trial, Side::Baseline, Weight::from_percent(percent));
            cohorts.arrive(&part, clock.at(millis), None).end(Outcome::Answered(4), 5_000);
        }
        let found = closed(&cohorts, clock.at(100));
        let of = |closed: &Closed| (closed.tick, closed.weight, closed.baseline.failed());
        let expected = [(0, FIVE, 2), (0, Weight::from_percent(25), 1)];
        assert_eq!(found.iter().map(of).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn every_end_is_one_request_of_its_version() {
        let (clock, trial) = (Clock(Instant::now()), trial());
        let cohorts = Cohorts::new(clock.at(0));
        let ends = [
            (Outcome::Answered(1), 1_000),
            (Outcome::Answered(4), 2_000),
            (Outcome::Answered(1), 501_000),
            (Outcome::ConnectFailed, 100),
            (Outcome::Broken, 100),
            (Outcome::TimedOut, 501_000),
            (Outcome::Dropped, 100),
            (Outcome::ClientGone, 40_000),
        ];
        for (outcome, micros) in ends {
            let part = part(&trial, Side::Candidate, FIVE);
            cohorts.arrive(&part, clock.at(1), None).end(outcome, micros);
        }
        let found = closed(&cohorts, clock.at(100)).pop().unwrap().candidate;
        assert_eq!((found.requests(), found.failed()), (8, 6));
        assert_eq!((found.unanswered, found.unfinished, found.failed_answers), (3, 2, 1));
        assert_eq!(found.latency.count(), 3);
    }

    #[test]
    fn a_client_that_stays_is_counted_once_and_once_more_when_it_is_failed() {
        let (clock, trial) = (Clock(Instant::now()), trial());
        let cohorts = Cohorts::new(clock.at(0));
        let candidate = part(&trial, Side::Candidate, FIVE);
        let ask = |session, outcome| {
            cohorts.arrive(&candidate, clock.at(1), Some(session)).end(outcome, 1_000);
        };
        (0..5).for_each(|_| ask(1, Outcome::Answered(1)));
        (0..5).for_each(|_| ask(1, Outcome::Answered(4)));
        (0..5).for_each(|_| ask(2, Outcome::Answered(4)));
        let found = closed(&cohorts, clock.at(100)).pop().unwrap().candidate;
        assert_eq!((found.requests(), found.failed()), (3, 2));
    }
}
