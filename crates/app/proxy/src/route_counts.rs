//! What is counted per service because no version has to do with it: requests that a mode turned
//! away or held back. Rare, so a lock per worker is cheap enough: only reports contend for it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use switchback_domain::ServiceKey;
use switchback_ports::data_plane::RouteReport;

/// Why a request did not get to a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    Maintenance,
    Isolated,
    /// As many as allowed were held back already.
    HoldFull,
    /// It was held back for as long as allowed.
    HoldExpired,
    /// Its client left while it was held back.
    HoldLeft,
    /// The route gets more than its rate.
    RateLimited,
    /// The client sends more than its rate.
    ClientLimited,
    /// As many as allowed were on their way, and too many waited or for too long.
    BulkheadFull,
    /// Its client left while it waited for room.
    PendingLeft,
    /// As many as the service bears were on their way.
    Overloaded,
    /// A repetition was due, but the budget is spent.
    Unrepeated,
    /// The baseline was asked in the candidate's place.
    Rescued,
    /// An older answer was given.
    Stale,
    /// The configured answer was given.
    Canned,
}

/// One worker's counts.
#[derive(Debug, Default)]
pub(crate) struct RouteCounts(Mutex<BTreeMap<ServiceKey, RouteReport>>);

impl RouteCounts {
    fn all(&self) -> MutexGuard<'_, BTreeMap<ServiceKey, RouteReport>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the counts of a service.
    pub(crate) fn change(&self, service: &ServiceKey, change: impl FnOnce(&mut RouteReport)) {
        let mut all = self.all();
        if let Some(counts) = all.get_mut(service) {
            return change(counts);
        }
        let fresh = RouteReport::new(service.clone());
        change(all.entry(service.clone()).or_insert(fresh));
    }

    /// A request was turned away.
    pub(crate) fn turned(&self, service: &ServiceKey, why: Turned) {
        self.change(service, |counts| {
            let count = match why {
                Turned::Maintenance => &mut counts.maintenance,
                Turned::Isolated => &mut counts.isolated,
                Turned::HoldFull => &mut counts.hold_full,
                Turned::HoldExpired => &mut counts.hold_expired,
                Turned::HoldLeft => &mut counts.hold_left,
                Turned::RateLimited => &mut counts.rate_limited,
                Turned::ClientLimited => &mut counts.client_limited,
                Turned::BulkheadFull => &mut counts.bulkhead_full,
                Turned::PendingLeft => &mut counts.pending_left,
                Turned::Overloaded => &mut counts.overloaded,
                Turned::Unrepeated => &mut counts.unrepeated,
                Turned::Rescued => &mut counts.rescued,
                Turned::Stale => &mut counts.stale,
                Turned::Canned => &mut counts.canned,
            };
            *count += 1;
        });
    }

    /// What was counted, by service.
    pub(crate) fn report(&self) -> Vec<RouteReport> {
        self.all().values().cloned().collect()
    }
}
