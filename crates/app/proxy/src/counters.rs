//! Counting per version: one shard per worker, relaxed atomics, nothing shared on the hot path.
//!
//! A [`Ticket`] is one accepted request: it raises the in-flight count when the version is chosen
//! and gives exactly one outcome, whatever happens to the request.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use switchback_domain::histogram::{BUCKETS, bucket_of};
use switchback_domain::{ArmStats, Histogram};

use crate::cohorts::{Cohorts, Enrolled};
use crate::compiled::Arm;
use crate::resilience::Permit;

/// One worker's numbers, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    in_flight: AtomicU64,
    accepted: AtomicU64,
    responses: [AtomicU64; 5],
    connect_failed: AtomicU64,
    broken: AtomicU64,
    timed_out: AtomicU64,
    client_gone: AtomicU64,
    retried: AtomicU64,
    breaker_open: AtomicU64,
    dropped: AtomicU64,
    cut: AtomicU64,
    tunnels_cut: AtomicU64,
    /// 14 KB, so only where there were requests: a table may name 10,000 versions.
    latency: OnceLock<Box<[AtomicU64]>>,
}

/// One version's numbers.
#[derive(Debug)]
pub(crate) struct Counters(Box<[Shard]>);

/// How an accepted request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A response of this class (0 is 1xx, 4 is 5xx) was passed on to its end.
    Answered(usize),
    /// No connection, or closed before a response head.
    ConnectFailed,
    /// Broke off in the middle, or answered garbage.
    Broken,
    /// No response head in time.
    TimedOut,
    /// The client went away first.
    ClientGone,
    /// Its circuit breaker turned it away.
    BreakerOpen,
    /// Nobody to ask: our fault.
    Dropped,
    /// Its time to finish was over: cut by us.
    Cut,
}

thread_local! {
    /// Whether requests that end without an outcome on this thread are cut by us.
    static CUTTING: Cell<bool> = const { Cell::new(false) };
}

/// The time to finish is over: what this thread still has is cut by us from now on.
pub(crate) fn cut_the_rest() {
    CUTTING.set(true);
}

impl Counters {
    pub(crate) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Shard::default()).collect())
    }

    /// Requests on their way now. Read it before [`Self::stats`]: an outcome is counted before
    /// the in-flight count falls.
    pub(crate) fn in_flight(&self) -> u64 {
        self.0.iter().map(|shard| shard.in_flight.load(Ordering::Acquire)).sum()
    }

    /// What was counted so far.
    pub(crate) fn stats(&self) -> ArmStats {
        let one = |shard: &Shard| shard.stats();
        self.0.iter().map(one).fold(ArmStats::default(), |sum, stats| sum.merge(&stats))
    }
}

impl Shard {
    fn stats(&self) -> ArmStats {
        let dense = self.latency.get().map(|counts| counts.iter().map(read));
        ArmStats {
            accepted: read(&self.accepted),
            responses: [0, 1, 2, 3, 4].map(|class| read(&self.responses[class])),
            connect_failed: read(&self.connect_failed),
            broken: read(&self.broken),
            timed_out: read(&self.timed_out),
            client_gone: read(&self.client_gone),
            retried: read(&self.retried),
            breaker_open: read(&self.breaker_open),
            dropped: read(&self.dropped),
            cut: read(&self.cut),
            tunnels_cut: read(&self.tunnels_cut),
            latency: dense.map(Histogram::from_dense).unwrap_or_default(),
        }
    }

    fn record(&self, outcome: Outcome, micros: u64) {
        match outcome {
            Outcome::Answered(class) => {
                let empty = || (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
                add(&self.latency.get_or_init(empty)[bucket_of(micros)]);
                add(&self.responses[class.min(4)]);
            }
            Outcome::ConnectFailed => add(&self.connect_failed),
            Outcome::Broken => add(&self.broken),
            Outcome::TimedOut => add(&self.timed_out),
            Outcome::ClientGone => add(&self.client_gone),
            Outcome::BreakerOpen => add(&self.breaker_open),
            Outcome::Dropped => add(&self.dropped),
            Outcome::Cut => add(&self.cut),
        }
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// One accepted request. Dropped without an outcome, its client went away, or its worker ended.
#[derive(Debug)]
pub(crate) struct Ticket {
    arm: Arc<Arm>,
    worker: usize,
    started: Instant,
    settled: bool,
    /// Its place in a rollout's trial, if chance has assigned it.
    enrolled: Option<Enrolled>,
    /// Its place among those that a route lets in.
    pub(crate) permit: Option<Permit>,
    /// Its end tells the circuit breaker whether to close.
    is_probe: bool,
    /// It became a tunnel, which has not ended yet.
    tunnels: bool,
}

impl Ticket {
    /// Accepts a request for a version. Must be called in the same stretch without `await` in
    /// which the version was looked up in the worker's table: see `crate::plane`.
    pub(crate) fn accept(arm: Arc<Arm>, worker: usize) -> Self {
        let shard = &arm.counters.0[worker];
        add(&shard.in_flight);
        add(&shard.accepted);
        let (settled, enrolled, permit) = (false, None, None);
        let (is_probe, tunnels) = (false, false);
        let started = Instant::now();
        Self { arm, worker, started, settled, enrolled, permit, is_probe, tunnels }
    }

    /// Chance alone has chosen the version: the request is evidence if the version is on trial.
    /// `session` is the client, if it stays with its version.
    pub(crate) fn enroll(&mut self, cohorts: &Rc<Cohorts>, session: Option<u64>) {
        let part = self.arm.part.as_ref();
        self.enrolled = part.map(|part| cohorts.arrive(part, self.started, session));
    }

    /// The version it was assigned to.
    pub(crate) fn arm(&self) -> &Arc<Arm> {
        &self.arm
    }

    /// The circuit breaker waits for its end.
    pub(crate) fn probes(&mut self) {
        self.is_probe = true;
    }

    /// When it was accepted.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// One more attempt.
    pub(crate) fn retry(&self) {
        add(&self.arm.counters.0[self.worker].retried);
    }

    /// Records the outcome; the first one counts.
    pub(crate) fn settle(&mut self, outcome: Outcome) {
        if !self.settled {
            self.settled = true;
            let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.arm.counters.0[self.worker].record(outcome, micros);
            if let Some(enrolled) = &self.enrolled {
                enrolled.end(outcome, micros);
            }
            if let Some(breaker) = &self.arm.breaker {
                breaker.observe(outcome, self.is_probe);
            }
            if let Some(permit) = &self.permit {
                permit.ended(outcome, Duration::from_micros(micros));
            }
        }
    }

    /// It was answered with another protocol. A tunnel that does not say how it ended was cut.
    pub(crate) fn open_tunnel(&mut self) {
        self.settle(Outcome::Answered(0));
        self.tunnels = true;
    }

    /// The tunnel ended by itself.
    pub(crate) fn end_tunnel(&mut self) {
        self.tunnels = false;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.tunnels {
            add(&self.arm.counters.0[self.worker].tunnels_cut);
        }
        self.settle(if CUTTING.get() { Outcome::Cut } else { Outcome::ClientGone });
        self.arm.counters.0[self.worker].in_flight.fetch_sub(1, Ordering::Release);
    }
}
