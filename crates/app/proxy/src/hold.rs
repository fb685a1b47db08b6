//! Requests that a route holds back: they wait, a limited number for a limited time, until the
//! table says otherwise. Nobody's in-flight count knows of them.

use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use switchback_domain::ServiceKey;
use switchback_domain::route::PauseLimits;
use tokio::time::Instant;

use crate::exchange::Exchange;
use crate::route_counts::Turned;
use crate::service::{Entry, Past, Refusal, Way, assign};
use crate::worker::Worker;

/// One held request's place among those of its service; free again when dropped.
struct Place<'w> {
    worker: &'w Worker,
    service: ServiceKey,
    /// How it ended, unless its client left, which may drop it at any time.
    ended: Option<Ended>,
}

#[derive(Clone, Copy)]
enum Ended {
    /// The route went on, whatever that means for the request.
    Released,
    Expired,
}

impl<'w> Place<'w> {
    /// `None` when as many as allowed are taken, by all workers together.
    fn take(worker: &'w Worker, service: ServiceKey, cap: u32) -> Option<Self> {
        if !worker.shared.take_hold(&service, cap) {
            return None;
        }
        worker.shared.routes(worker.index).change(&service, |counts| counts.held += 1);
        Some(Self { worker, service, ended: None })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.worker.shared.free_hold(&self.service);
        let counts = self.worker.shared.routes(self.worker.index);
        counts.change(&self.service, |counts| {
            counts.held -= 1;
            counts.released += u64::from(matches!(self.ended, Some(Ended::Released)));
        });
        match self.ended {
            Some(Ended::Released) => {}
            Some(Ended::Expired) => counts.turned(&self.service, Turned::HoldExpired),
            None => counts.turned(&self.service, Turned::HoldLeft),
        }
    }
}

/// Holds a request until its route serves it, or turns it away.
pub(crate) async fn hold<E: Exchange>(
    worker: &Rc<Worker>,
    entry: &Entry,
    request: &mut E,
    service: ServiceKey,
    limits: PauseLimits,
) -> Way {
    let deadline = Instant::now() + limits.deadline;
    let Some(mut place) = Place::take(worker, service.clone(), limits.cap) else {
        worker.shared.routes(worker.index).turned(&service, Turned::HoldFull);
        let reason = "the service is paused, and too many wait";
        return Way::Refused(Refusal::later(reason, limits.deadline));
    };
    while !worker.roster.is_stopping() {
        // Made before anything is awaited: on this thread no table can come in between.
        let changed = worker.changed.notified();
        tokio::select! {
            biased;
            () = request.client_gone() => {
                let refusal = Refusal::bad(StatusCode::REQUEST_TIMEOUT, "the client left");
                return Way::Refused(refusal);
            }
            () = changed => {}
            () = tokio::time::sleep_until(deadline) => break,
        }
        match assign(worker, entry, request, Past::Nobody) {
            Way::Held(..) => {}
            way @ (Way::On(_) | Way::Guarded(_) | Way::Open(_) | Way::Refused(_)) => {
                place.ended = Some(Ended::Released);
                return way;
            }
        }
    }
    place.ended = Some(Ended::Expired);
    let wait = limits.deadline.max(Duration::from_secs(1));
    Way::Refused(Refusal::later("the service is paused", wait))
}
