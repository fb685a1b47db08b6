//! Who is let in to a service, and what is remembered of its requests. One per service, the same
//! as long as its policy is, whatever table names it.
//!
//! The limit of a route is one atomic word for all workers: exact, and one compare-and-swap for
//! those routes that have one. The limits of clients are spread over locks by client.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use switchback_domain::ServiceKey;
use switchback_domain::resilience::{Bulkhead, ClientKey, Resilience};
use switchback_resilience::{Bucket, ClientBuckets, Gradient, Moment, RetryBudget, StaleStore};
use switchback_routing::RequestView;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::stale::Stored;
use crate::counters::Outcome;
use crate::limits::{CLIENT_LOCKS, CLIENTS_REMEMBERED};
use crate::route_counts::Turned;

/// See the module.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) service: ServiceKey,
    pub(crate) policy: Resilience,
    rate: Option<(Bucket, AtomicU64)>,
    clients: Option<Clients>,
    gate: Option<Gate>,
    adaptive: Option<Adaptive>,
    /// One for each worker.
    budgets: Vec<Mutex<RetryBudget>>,
    pub(crate) shelf: Option<Mutex<StaleStore<Arc<Stored>>>>,
}

#[derive(Debug)]
struct Clients {
    random: RandomState,
    buckets: Vec<Mutex<ClientBuckets>>,
}

#[derive(Debug)]
struct Gate {
    limits: Bulkhead,
    slots: Arc<Semaphore>,
    pending: AtomicU32,
}

#[derive(Debug)]
struct Adaptive {
    in_flight: AtomicU32,
    limit: AtomicU32,
    gradient: Mutex<Gradient>,
}

/// Somebody who waits at the gate; not any more when dropped.
struct Waiting<'g>(&'g AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Guard {
    /// `None` when there is nothing to do before a version is chosen or after it failed.
    pub(crate) fn new(service: &ServiceKey, policy: &Resilience, workers: usize) -> Option<Self> {
        let Resilience { timeouts, balance: _, breaker: _, bulkhead, adaptive, .. } = policy;
        let Resilience { rate, client_rate, retries, fallback, .. } = policy;
        let limits = bulkhead.is_some() || adaptive.is_some() || rate.is_some();
        let others = client_rate.is_some() || retries.is_some() || !fallback.is_none();
        if !limits && !others && timeouts.is_default() {
            return None;
        }
        let holders = u32::try_from(workers).unwrap_or(u32::MAX);
        let budget = retries.as_ref().map(|policy| RetryBudget::new(policy, holders));
        Some(Self {
            service: service.clone(),
            rate: rate.as_ref().map(|rate| (Bucket::new(rate), AtomicU64::new(0))),
            clients: client_rate.as_ref().map(|of| Clients::new(Bucket::new(&of.rate))),
            gate: bulkhead.map(Gate::new),
            adaptive: adaptive.map(|policy| Adaptive::new(Gradient::new(policy))),
            budgets: (0..workers).filter_map(|_| budget.clone().map(Mutex::new)).collect(),
            shelf: fallback.stale.map(|policy| Mutex::new(StaleStore::new(policy))),
            policy: policy.clone(),
        })
    }

    /// Takes a request out of the buckets it is held to, or tells which one has none and when it
    /// will have one.
    pub(crate) fn take(
        &self,
        asked: &RequestView<'_>,
        now: Moment,
    ) -> Result<(), (Turned, Duration)> {
        if let (Some(clients), Some(of)) = (&self.clients, &self.policy.client_rate) {
            let client = clients.hash(asked, &of.key);
            clients.take(client, now).map_err(|wait| (Turned::ClientLimited, wait))?;
        }
        let Some((bucket, full_at)) = &self.rate else { return Ok(()) };
        let mut seen = full_at.load(Ordering::Relaxed);
        loop {
            let next = bucket.take(Moment::from_nanos(seen), now);
            let next = next.map_err(|wait| (Turned::RateLimited, wait))?.as_nanos();
            let order = Ordering::Relaxed;
            match full_at.compare_exchange_weak(seen, next, order, order) {
                Ok(_) => return Ok(()),
                Err(newer) => seen = newer,
            }
        }
    }

    /// Lets a request in when there is room for it; waits for room where that is allowed.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        gone: impl Future<Output = ()>,
    ) -> Result<Permit, Turned> {
        let slot = match &self.gate {
            Some(gate) => Some(gate.slot(gone).await?),
            None => None,
        };
        if let Some(adaptive) = &self.adaptive {
            let before = adaptive.in_flight.fetch_add(1, Ordering::Relaxed);
            if before >= adaptive.limit.load(Ordering::Relaxed) {
                adaptive.in_flight.fetch_sub(1, Ordering::Relaxed);
                return Err(Turned::Overloaded);
            }
        }
        Ok(Permit { guard: Arc::clone(self), _slot: slot })
    }

    /// A request came that may be repeated some time.
    pub(crate) fn deposit(&self, worker: usize, now: Moment) {
        self.budget(worker, |budget| budget.deposit(now));
    }

    /// Asks for a repetition.
    pub(crate) fn withdraw(&self, worker: usize, now: Moment) -> bool {
        self.budget(worker, |budget| budget.withdraw(now)).unwrap_or(false)
    }

    fn budget<T>(&self, worker: usize, change: impl FnOnce(&mut RetryBudget) -> T) -> Option<T> {
        let budget = self.budgets.get(worker)?;
        Some(change(&mut budget.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Clients {
    fn new(bucket: Bucket) -> Self {
        let one = || Mutex::new(ClientBuckets::new(bucket, CLIENTS_REMEMBERED / CLIENT_LOCKS));
        Self { random: RandomState::new(), buckets: (0..CLIENT_LOCKS).map(|_| one()).collect() }
    }

    /// A number that nobody outside can choose.
    fn hash(&self, asked: &RequestView<'_>, key: &ClientKey) -> u64 {
        let mut named = None;
        if let ClientKey::Header(name) = key {
            (asked.headers)(name, &mut |value| {
                named = Some(self.random.hash_one((1, value)));
                true
            });
        }
        named.unwrap_or_else(|| match asked.client.to_canonical() {
            IpAddr::V4(address) => self.random.hash_one((4, address.octets())),
            // Whoever has one address there has the whole network.
            IpAddr::V6(address) => self.random.hash_one((6, &address.octets()[..8])),
        })
    }

    fn take(&self, client: u64, now: Moment) -> Result<(), Duration> {
        // The low digits choose the place behind the lock.
        let lock = usize::try_from(client >> 32).unwrap_or_default() % CLIENT_LOCKS;
        let mut buckets = self.buckets[lock].lock().unwrap_or_else(PoisonError::into_inner);
        buckets.take(client, now)
    }
}

impl Gate {
    fn new(limits: Bulkhead) -> Self {
        let slots = usize::try_from(limits.requests).unwrap_or(Semaphore::MAX_PERMITS);
        let slots = Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS)));
        Self { limits, slots, pending: AtomicU32::new(0) }
    }

    async fn slot(&self, gone: impl Future<Output = ()>) -> Result<OwnedSemaphorePermit, Turned> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(slot);
        }
        let before = self.pending.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.pending);
        if before >= self.limits.pending {
            return Err(Turned::BulkheadFull);
        }
        tokio::select! {
            slot = Arc::clone(&self.slots).acquire_owned() => slot.map_err(|_| Turned::BulkheadFull),
            () = tokio::time::sleep(self.limits.pending_timeout) => Err(Turned::BulkheadFull),
            () = gone => Err(Turned::PendingLeft),
        }
    }
}

impl Adaptive {
    fn new(gradient: Gradient) -> Self {
        let (in_flight, limit) = (AtomicU32::new(0), AtomicU32::new(gradient.limit()));
        Self { in_flight, limit, gradient: Mutex::new(gradient) }
    }
}

/// A request that was let in; counted until dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    guard: Arc<Guard>,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Permit {
    /// It ended so after so long.
    pub(crate) fn ended(&self, outcome: Outcome, took: Duration) {
        let Some(adaptive) = &self.guard.adaptive else { return };
        if !matches!(outcome, Outcome::Answered(_) | Outcome::TimedOut) {
            return;
        }
        // Another worker is at it: one observation less is no loss.
        let Ok(mut gradient) = adaptive.gradient.try_lock() else { return };
        gradient.observe(took, adaptive.in_flight.load(Ordering::Relaxed));
        adaptive.limit.store(gradient.limit(), Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(adaptive) = &self.guard.adaptive {
            adaptive.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
