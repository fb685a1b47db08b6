//! One version's circuit breaker, shared by all workers. While it is closed, asking it costs one
//! load; every end of a request takes its lock, which only versions that have one pay.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use switchback_domain::resilience::BreakerPolicy;
use switchback_resilience::{Admission, Breaker, BreakerState, Moment};

use crate::clock;
use crate::counters::Outcome;

/// See the module.
#[derive(Debug)]
pub(crate) struct SharedBreaker {
    pub(crate) policy: BreakerPolicy,
    inner: Mutex<Breaker>,
    /// It is not closed.
    shut: AtomicBool,
}

impl SharedBreaker {
    pub(crate) fn new(policy: BreakerPolicy) -> Self {
        Self { policy, inner: Mutex::new(Breaker::new(policy)), shut: AtomicBool::new(false) }
    }

    /// Asks for a request.
    pub(crate) fn admit(&self, now: impl FnOnce() -> Moment) -> Admission {
        if self.shut.load(Ordering::Relaxed) {
            return self.with(|breaker| breaker.admit(now()));
        }
        Admission::Yes
    }

    /// A request has ended.
    pub(crate) fn observe(&self, outcome: Outcome, is_probe: bool) {
        let is_good = match outcome {
            Outcome::Answered(class) => Some(class < 4),
            Outcome::ConnectFailed | Outcome::Broken | Outcome::TimedOut => Some(false),
            // Says nothing about the version.
            Outcome::ClientGone | Outcome::Dropped | Outcome::BreakerOpen | Outcome::Cut => None,
        };
        match is_good {
            Some(is_good) => {
                self.with(|breaker| breaker.observe(clock::now(), is_good, is_probe));
            }
            None if is_probe => self.with(Breaker::abandon),
            None => {}
        }
    }

    /// What it does now, and how often it has opened.
    pub(crate) fn state(&self) -> (BreakerState, u64) {
        self.with(|breaker| (breaker.state(clock::now()), breaker.opened()))
    }

    fn with<T>(&self, change: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut inner);
        let is_shut = inner.state(Moment::default()) != BreakerState::Closed;
        self.shut.store(is_shut, Ordering::Relaxed);
        changed
    }
}
