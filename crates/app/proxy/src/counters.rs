//! Counting per version: one shard per worker, relaxed atomics, nothing shared on the hot path.
//! A shard has one writer, its worker, so nothing is read, changed and written in one operation.
//!
//! A [`Ticket`] is one accepted request: it raises the in-flight count when the version is chosen
//! and gives exactly one outcome, whatever happens to the request.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use switchback_domain::histogram::{BUCKETS, bucket_of};
use switchback_domain::timing::{self, Timing};
use switchback_domain::{ArmStats, Histogram};

use crate::access_log::{Ended, Record};
use crate::cohorts::{Cohorts, Enrolled};
use crate::compiled::{HeldArm, Visit};
use crate::resilience::Permit;
use crate::sync::{AtomicU64, Ordering};
use crate::upload::Upload;

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
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    connect: Clock,
    first_byte: Clock,
    /// 14 KB, so only where there were requests: a table may name 10,000 versions.
    latency: OnceLock<Box<[AtomicU64]>>,
}

/// The shard's part of a [`Timing`].
#[derive(Debug, Default)]
struct Clock {
    counts: [AtomicU64; timing::BUCKETS],
    sum_micros: AtomicU64,
}

impl Clock {
    fn record(&self, took: Duration) {
        let micros = micros(took);
        add(&self.counts[timing::bucket_of(micros)], 1);
        add(&self.sum_micros, micros);
    }

    fn read(&self) -> Timing {
        Timing { counts: self.counts.each_ref().map(read), sum_micros: read(&self.sum_micros) }
    }
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
    /// So many more are on their way. Whoever reads the new number, reads what was counted before.
    fn in_flight(&self, change: i64) {
        let now = read(&self.in_flight).wrapping_add_signed(change);
        self.in_flight.store(now, Ordering::Release);
    }

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
            bytes_in: read(&self.bytes_in),
            bytes_out: read(&self.bytes_out),
            connect: self.connect.read(),
            first_byte: self.first_byte.read(),
            latency: dense.map(Histogram::from_dense).unwrap_or_default(),
        }
    }

    fn record(&self, outcome: Outcome, micros: u64) {
        match outcome {
            Outcome::Answered(class) => {
                let empty = || (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
                add(&self.latency.get_or_init(empty)[bucket_of(micros)], 1);
                add(&self.responses[class.min(4)], 1);
            }
            Outcome::ConnectFailed => add(&self.connect_failed, 1),
            Outcome::Broken => add(&self.broken, 1),
            Outcome::TimedOut => add(&self.timed_out, 1),
            Outcome::ClientGone => add(&self.client_gone, 1),
            Outcome::BreakerOpen => add(&self.breaker_open, 1),
            Outcome::Dropped => add(&self.dropped, 1),
            Outcome::Cut => add(&self.cut, 1),
        }
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// By the shard's only writer.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(read(counter).wrapping_add(more), Ordering::Relaxed);
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// One accepted request. Dropped without an outcome, its client went away, or its worker ended.
#[derive(Debug)]
pub(crate) struct Ticket {
    arm: HeldArm,
    worker: usize,
    started: Instant,
    /// When the newest head of an answer came; until then, when it was accepted.
    head_at: Cell<Instant>,
    /// How it ended; the first outcome counts.
    outcome: Option<Outcome>,
    /// The client's body, if there is one.
    upload: Option<Rc<Upload>>,
    /// Bytes of the answer's body.
    sent: u64,
    retries: Cell<u32>,
    /// Its line in the access log, if its route wants one.
    pub(crate) record: Option<Box<Record>>,
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
    pub(crate) fn accept(arm: HeldArm, worker: usize) -> Self {
        let shard = &arm.counters.0[worker];
        add(&shard.accepted, 1);
        shard.in_flight(1);
        let (outcome, enrolled, permit, upload) = (None, None, None, None);
        let (sent, retries) = (0, Cell::new(0));
        let (is_probe, tunnels) = (false, false);
        let started = Instant::now();
        Self {
            worker,
            started,
            head_at: Cell::new(started),
            outcome,
            upload,
            sent,
            retries,
            record: None,
            enrolled,
            permit,
            is_probe,
            tunnels,
            arm,
        }
    }

    /// Chance alone has chosen the version: the request is evidence if the version is on trial.
    /// `session` is the client, if it stays with its version.
    pub(crate) fn enroll(&mut self, cohorts: &Rc<Cohorts>, session: Option<u64>) {
        let part = self.arm.part.as_ref();
        self.enrolled = part.map(|part| cohorts.arrive(part, self.started, session));
    }

    /// The version it was assigned to.
    pub(crate) fn arm(&self) -> &HeldArm {
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
        add(&self.shard().retried, 1);
        self.retries.set(self.retries.get() + 1);
    }

    fn shard(&self) -> &Shard {
        &self.arm.counters.0[self.worker]
    }

    /// Has the client's body counted, by however much of it has come when the request ends.
    pub(crate) fn takes(&mut self, upload: Option<Rc<Upload>>) {
        self.upload = upload;
    }

    /// So many bytes of the answer's body are passed on.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        add(&self.shard().bytes_out, bytes as u64);
    }

    /// A new connection to an instance took so long to open.
    pub(crate) fn connected(&self, took: Duration) {
        self.shard().connect.record(took);
    }

    /// The head of an answer came.
    pub(crate) fn head_came(&self) {
        let now = Instant::now();
        self.head_at.set(now);
        self.shard().first_byte.record(now.saturating_duration_since(self.started));
    }

    /// When it did.
    pub(crate) fn head_at(&self) -> Instant {
        self.head_at.get()
    }

    /// An instance answers with this status.
    pub(crate) fn answered(&mut self, status: u16, visit: &Visit) {
        if let Some(record) = &mut self.record {
            record.answered(status, &visit.endpoint().instance);
        }
    }

    /// Its line, with what is known of it, for whoever answers in the version's place.
    pub(crate) fn release_record(&mut self) -> Option<Box<Record>> {
        let mut record = self.record.take()?;
        let received = self.upload.as_ref().map_or(0, |upload| upload.body_bytes());
        let (outcome, sent, retries) = (self.outcome, self.sent, self.retries.get());
        record.ended(Ended { outcome, why: "", received, sent, retries });
        Some(record)
    }

    /// Counts what has come of the client's body and was not counted yet.
    fn count_upload(&self) {
        if let Some(upload) = &self.upload {
            add(&self.shard().bytes_in, upload.take_uncounted());
        }
    }

    /// Records the outcome; the first one counts.
    pub(crate) fn settle(&mut self, outcome: Outcome) {
        self.settle_at(outcome, Instant::now);
    }

    /// The same, for who has just read the clock.
    pub(crate) fn settle_at(&mut self, outcome: Outcome, now: impl FnOnce() -> Instant) {
        if self.outcome.is_none() {
            self.outcome = Some(outcome);
            let micros = micros(now().saturating_duration_since(self.started));
            self.count_upload();
            self.shard().record(outcome, micros);
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
            add(&self.shard().tunnels_cut, 1);
        }
        self.settle(if CUTTING.get() { Outcome::Cut } else { Outcome::ClientGone });
        self.count_upload();
        drop(self.release_record());
        self.shard().in_flight(-1);
    }
}
