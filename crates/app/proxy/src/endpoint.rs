//! One instance as the workers see it: what is on its way to it, how long it takes, and whether it
//! is passed over. Each worker learns for itself, on a cache line of its own; only trouble is
//! shared.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use switchback_domain::InstanceId;
use switchback_domain::resilience::EjectionPolicy;
use switchback_resilience::{Ejection, Moment, PeakEwma, readiness};

use crate::clock;
use crate::compiled::HeldArm;
use crate::sync::{AtomicU64, Ordering};

/// One instance at one address; the same object as long as some table names it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Unique in this process; never used again.
    pub(crate) id: u64,
    pub(crate) instance: InstanceId,
    pub(crate) address: SocketAddr,
    lanes: Box<[Lane]>,
    born: Moment,
    /// Until when it is passed over.
    until: AtomicU64,
    /// Something is held against it: not 0 while a good answer is news.
    held: AtomicU64,
    ejection: Mutex<Ejection>,
}

/// What one worker knows. Only this worker writes it, so no read-modify-write is needed; others
/// read the count.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane {
    in_flight: AtomicU64,
    cost: AtomicU64,
    at: AtomicU64,
}

impl Endpoint {
    pub(crate) fn new(id: u64, instance: InstanceId, address: SocketAddr, workers: usize) -> Self {
        let born = clock::now();
        let (cost, at) = PeakEwma::new(born).to_bits();
        let lane = |_| Lane { in_flight: AtomicU64::new(0), cost: cost.into(), at: at.into() };
        Self {
            id,
            instance,
            address,
            lanes: (0..workers).map(lane).collect(),
            born,
            until: AtomicU64::new(0),
            held: AtomicU64::new(0),
            ejection: Mutex::default(),
        }
    }

    /// What one more request of a worker would cost here.
    pub(crate) fn load(&self, worker: usize, now: Moment) -> f64 {
        let lane = &self.lanes[worker];
        lane.ewma().load(now, lane.in_flight.load(Ordering::Relaxed))
    }

    /// How much of its share it gets, having been there since it was first named.
    pub(crate) fn readiness(&self, now: Moment, slow_start: Duration) -> f64 {
        readiness(now.since(self.born), slow_start)
    }

    /// Requests of all workers on their way to it.
    pub(crate) fn in_flight(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.in_flight.load(Ordering::Acquire)).sum()
    }

    /// Whether it is passed over now.
    pub(crate) fn is_passed_over(&self, now: Moment) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != 0 && until > now.as_nanos()
    }

    /// Whether it is ejected, not only passed over for having refused a connection.
    pub(crate) fn is_ejected(&self, now: Moment) -> bool {
        self.is_passed_over(now) && self.trouble(|ejection| ejection.is_ejected(now))
    }

    /// It refused a connection: pass it over for a moment.
    pub(crate) fn refused(&self, now: Moment) {
        self.trouble(|ejection| ejection.refused(now));
    }

    /// It took a connection.
    pub(crate) fn took_connection(&self) {
        if self.until.load(Ordering::Relaxed) != 0 {
            self.trouble(Ejection::took_connection);
        }
    }

    /// It answered well after so long.
    pub(crate) fn answered(&self, worker: usize, now: Moment, took: Duration) {
        self.lanes[worker].learn(|ewma| ewma.observed(now, took));
    }

    /// It did not, after so long.
    pub(crate) fn slowed(&self, worker: usize, now: Moment, took: Duration) {
        self.lanes[worker].learn(|ewma| ewma.failed(now, took));
    }

    /// Nothing is in a row any more.
    pub(crate) fn succeeded(&self, policy: &EjectionPolicy, now: Moment) {
        if self.held.load(Ordering::Relaxed) != 0 {
            self.trouble(|ejection| ejection.succeeded(policy, now));
        }
    }

    /// It failed; whether it is ejected for it. `may` says whether it may be.
    pub(crate) fn failed(&self, policy: &EjectionPolicy, now: Moment, may: bool) -> bool {
        self.trouble(|ejection| ejection.failed(policy, now, may))
    }

    fn trouble<T>(&self, change: impl FnOnce(&mut Ejection) -> T) -> T {
        let mut ejection = self.ejection.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut ejection);
        self.until.store(ejection.until().as_nanos(), Ordering::Relaxed);
        self.held.store(u64::from(!ejection.is_clean()), Ordering::Relaxed);
        changed
    }
}

impl Lane {
    fn ewma(&self) -> PeakEwma {
        PeakEwma::from_bits(self.cost.load(Ordering::Relaxed), self.at.load(Ordering::Relaxed))
    }

    fn learn(&self, observed: impl FnOnce(PeakEwma) -> PeakEwma) {
        let (cost, at) = observed(self.ewma()).to_bits();
        self.cost.store(cost, Ordering::Relaxed);
        self.at.store(at, Ordering::Relaxed);
    }
}

/// One request on its way to one instance.
#[derive(Debug)]
pub(crate) struct Visit {
    arm: HeldArm,
    at: usize,
    worker: usize,
}

impl Visit {
    /// To the instance at this place of a version.
    pub(crate) fn begin(arm: HeldArm, at: usize, worker: usize) -> Self {
        let visit = Self { arm, at, worker };
        let in_flight = visit.in_flight();
        in_flight.store(in_flight.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        visit
    }

    /// One more to the same instance.
    pub(crate) fn again(&self) -> Self {
        Self::begin(Rc::clone(&self.arm), self.at, self.worker)
    }

    /// The instance.
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.arm.endpoints[self.at]
    }

    fn in_flight(&self) -> &AtomicU64 {
        &self.endpoint().lanes[self.worker].in_flight
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let in_flight = self.in_flight();
        // Whoever reads the new number, reads what was counted before.
        in_flight.store(in_flight.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Release);
    }
}
