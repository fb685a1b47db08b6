//! One request to a route that does something about trouble: let in, given to a version, perhaps
//! to the baseline in its place, and at the end of all that an answer of our own.
//!
//! Whoever answers in the end: what a version did not do is settled on its own ticket first.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use switchback_domain::resilience::StaticAnswer;
use switchback_routing::Reason;
use tokio::time::Instant;

use super::guard::{Guard, Permit};
use super::pace::Pace;
use super::stale::{Capture, Wanted};
use crate::access_log::Record;
use crate::clock;
use crate::counters::{Outcome, Ticket};
use crate::exchange::{Exchange, Failure, exchange};
use crate::route_counts::Turned;
use crate::service::{
    Answered, Assigned, Entry, OwnAnswer, Past, Refusal, Way, admit, assign, fail,
};
use crate::worker::Worker;

/// See the module.
pub(crate) async fn guarded<E: Exchange>(
    worker: &Rc<Worker>,
    entry: &Entry,
    request: &mut E,
    guard: Arc<Guard>,
) -> Result<Answered<E::Answer>, Refusal> {
    let mut record = None;
    let mut decided = decide(worker, entry, request, guard, &mut record).await;
    if let (Err(refusal), Some(record)) = (&mut decided, &mut record) {
        refusal.note(record);
        refusal.logged = true;
    }
    decided
}

/// Leaves the request's line in the access log in `record`, unless somebody answers.
async fn decide<E: Exchange>(
    worker: &Rc<Worker>,
    entry: &Entry,
    request: &mut E,
    guard: Arc<Guard>,
    record: &mut Option<Box<Record>>,
) -> Result<Answered<E::Answer>, Refusal> {
    let now = clock::now();
    let (taken, wanted) =
        request.view(entry, |asked| (guard.take(asked, now), Wanted::of(&guard, asked)));
    let case = Case { worker, entry, guard: &guard, wanted };
    if let Err((why, wait)) = taken {
        case.count(why);
        return Err(Refusal::too_many(wait));
    }
    guard.deposit(worker.index, now);
    let permit = match guard.enter(request.client_gone()).await {
        Ok(permit) => permit,
        Err(why) => return Err(case.shut_out(why)),
    };
    let (refusal, permit) = match assign(worker, entry, request, Past::Guard) {
        Way::On(mut assigned) => {
            assigned.show_cookie(entry, request);
            assigned.observe(worker, entry, request);
            assigned.ticket.permit = Some(permit);
            let is_asked_for = assigned.is_asked_for;
            match case.carry(request, assigned).await {
                Ok(answered) => return Ok(answered),
                Err((failure, mut ticket)) => {
                    let permit = ticket.permit.take();
                    let is_unanswerable = is_unanswerable(failure);
                    let refusal = fail(worker, failure, &mut ticket);
                    *record = ticket.release_record();
                    drop(ticket);
                    if is_asked_for {
                        return Err(refusal);
                    }
                    if !is_unanswerable {
                        return Err(case.degraded(refusal));
                    }
                    (refusal, permit)
                }
            }
        }
        Way::Open(refusal) => (refusal, Some(permit)),
        // While it waited, an operator has paused the route.
        Way::Held(..) | Way::Guarded(_) => {
            return Err(Refusal::later("the service is paused", Duration::from_secs(1)));
        }
        Way::Refused(refusal) => return Err(refusal),
    };
    match case.rescued(request, &refusal, permit, record).await {
        Some(answered) => Ok(answered),
        None => Err(case.degraded(refusal)),
    }
}

/// One request, as far as all steps need it.
struct Case<'c> {
    worker: &'c Rc<Worker>,
    entry: &'c Entry,
    guard: &'c Arc<Guard>,
    wanted: Option<Wanted>,
}

impl Case<'_> {
    fn count(&self, why: Turned) {
        self.worker.shared.routes(self.worker.index).turned(&self.guard.service, why);
    }

    /// There was no room.
    fn shut_out(&self, why: Turned) -> Refusal {
        self.count(why);
        let second = Duration::from_secs(1);
        if why == Turned::PendingLeft {
            return Refusal::bad(StatusCode::REQUEST_TIMEOUT, "the client left");
        }
        self.degraded(Refusal::later("as many requests as allowed are on their way", second))
    }

    /// Has a version answer.
    async fn carry<E: Exchange>(
        &self,
        request: &mut E,
        assigned: Assigned,
    ) -> Result<Answered<E::Answer>, (Failure, Ticket)> {
        let Assigned { mut ticket, timeout, is_asked_for, .. } = assigned;
        let timeouts = &self.guard.policy.timeouts;
        let upload = request.upload();
        if let (Some(upload), Some(pause)) = (&upload, timeouts.request_idle) {
            upload.set_pause_max(pause);
        }
        let started = Instant::from_std(ticket.started());
        let exchanging = exchange(self.worker, &ticket, timeout, Some(self.guard), request);
        let exchanged = match timeouts.total {
            None => exchanging.await,
            Some(total) => match tokio::time::timeout_at(started + total, exchanging).await {
                Ok(exchanged) => exchanged,
                Err(_) if upload.is_some_and(|upload| upload.is_awaited()) => {
                    Err(Failure::ClientLate)
                }
                Err(_) => Err(Failure::Version(Outcome::TimedOut)),
            },
        };
        match exchanged {
            Ok((answer, visit)) => {
                ticket.answered(E::status(&answer), &visit);
                let wanted = self.wanted.clone().filter(|_| !is_asked_for);
                let capture = wanted.and_then(|wanted| {
                    let look = |name: &str, visit: &mut dyn FnMut(&[u8]) -> bool| {
                        request.answer_header(&answer, name, visit)
                    };
                    Capture::begin(self.guard, wanted, E::status(&answer), &look)
                });
                let pace = Pace::new(timeouts, started);
                Ok(Answered { ticket, visit, answer, pace, capture })
            }
            Err(failure) => Err((failure, ticket)),
        }
    }

    /// The baseline's answer, if it was the candidate that could not be asked.
    async fn rescued<E: Exchange>(
        &self,
        request: &mut E,
        refusal: &Refusal,
        permit: Option<Permit>,
        record: &mut Option<Box<Record>>,
    ) -> Option<Answered<E::Answer>> {
        let worker = self.worker;
        if !self.guard.policy.fallback.version || !request.can_be_sent() {
            return None;
        }
        let (ticket, timeout) = request.view(self.entry, |asked| {
            worker.with_table(|table| {
                let route = table.router.find_for(asked)?;
                let at = route.baseline?;
                let arm = table.arms.get(at)?;
                Some(arm).filter(|arm| refusal.arm.as_ref().is_some_and(|of| **of != arm.id))?;
                let ticket = admit(Ticket::accept(worker.hold(at, arm), worker.index)).ok()?;
                Some((ticket, route.timeout))
            })
        })?;
        self.count(Turned::Rescued);
        let mut assigned = Assigned {
            ticket,
            timeout,
            cookie: None,
            is_asked_for: false,
            mirror: None,
            is_sampled: false,
            logged: None,
            reason: Reason::Only,
        };
        assigned.ticket.permit = permit;
        assigned.ticket.takes(request.upload());
        assigned.ticket.record = record.take().map(|mut record| {
            record.assigned(assigned.ticket.arm().version.clone(), assigned.reason);
            record
        });
        match self.carry(request, assigned).await {
            Ok(answered) => Some(answered),
            Err((failure, mut ticket)) => {
                fail(worker, failure, &mut ticket);
                *record = ticket.release_record();
                None
            }
        }
    }

    /// An answer of our own in place of a refusal, if there is one.
    fn degraded(&self, refusal: Refusal) -> Refusal {
        if refusal.close {
            return refusal;
        }
        if let Some(last) = self.wanted.as_ref().and_then(|wanted| wanted.last(self.guard)) {
            self.count(Turned::Stale);
            return Refusal::own(StatusCode::OK, last);
        }
        let Some(answer) = &self.guard.policy.fallback.answer else { return refusal };
        self.count(Turned::Canned);
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        Refusal::own(status, canned(answer))
    }
}

/// Whether nobody of the version could be asked.
fn is_unanswerable(failure: Failure) -> bool {
    matches!(failure, Failure::Ours | Failure::Version(Outcome::ConnectFailed))
}

fn canned(answer: &StaticAnswer) -> OwnAnswer {
    let fields = vec![("content-type", answer.content_type.clone())];
    OwnAnswer { fields, body: Bytes::copy_from_slice(answer.body.as_bytes()) }
}
