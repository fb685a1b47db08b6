//! What happens to one request: routed, assigned to a version, exchanged. Every way out is an
//! answer to pass on or a refusal with its reason; counting is done here, whatever the codec.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use switchback_domain::ServiceKey;
use switchback_domain::route::{LogFormat, Maintenance, PauseLimits, RouteMode};
use switchback_resilience::Admission;
use switchback_routing::{ArmId, Reason, RequestView, RouteEntry, bare_host};

use crate::access_log::Record;
use crate::clock;
use crate::compiled::{Arm, Compiled, Visit};
use crate::counters::{Outcome, Ticket};
use crate::exchange::{Exchange, Failure, exchange};
use crate::hold::hold;
use crate::mirror;
use crate::resilience::{Capture, Guard, Pace, guarded};
use crate::route_counts::Turned;
use crate::worker::Worker;

/// Where a request came in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// The route's address.
    pub(crate) listen: SocketAddr,
    /// The client's.
    pub(crate) client: SocketAddr,
    /// By TLS.
    pub(crate) secure: bool,
}

/// An answer of our own: a status, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) reason: &'static str,
    /// Nothing more can be read from this client.
    pub(crate) close: bool,
    /// In how many seconds it is worth another try.
    pub(crate) retry_after: Option<u64>,
    /// A page in place of the reason.
    pub(crate) page: Option<String>,
    /// Something else altogether.
    pub(crate) own: Option<Box<OwnAnswer>>,
    /// The version that could not answer.
    pub(crate) arm: Option<Box<ArmId>>,
    /// It is in the access log already, if it belongs there.
    pub(crate) logged: bool,
}

/// An answer that is no refusal: what was kept or configured for when nobody answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnAnswer {
    /// Its head, beside status and framing.
    pub(crate) fields: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

/// What clients see of a maintenance that brings no page of its own.
const MAINTENANCE_PAGE: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
    <meta name=\"viewport\" content=\"width=device-width\">\n<title>Maintenance</title>\n\
    <h1>We will be back soon</h1>\n<p>This service is down for maintenance.</p>\n</html>\n";

impl Refusal {
    /// The connection stays open.
    pub(crate) const fn of(status: StatusCode, reason: &'static str) -> Self {
        let (retry_after, page, own, arm) = (None, None, None, None);
        let (close, logged) = (false, false);
        Self { status, reason, close, retry_after, page, own, arm, logged }
    }

    /// The request is none, or none that is served here: the connection is closed after it.
    pub(crate) const fn bad(status: StatusCode, reason: &'static str) -> Self {
        let (retry_after, page, own, arm) = (None, None, None, None);
        let (close, logged) = (true, false);
        Self { status, reason, close, retry_after, page, own, arm, logged }
    }

    /// Nothing wrong with the request: it may come again after a while, of at least a second.
    pub(crate) fn later(reason: &'static str, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        let retry_after = Some(seconds.max(1));
        Self { retry_after, ..Self::of(StatusCode::SERVICE_UNAVAILABLE, reason) }
    }

    /// Somebody asks too often.
    pub(crate) fn too_many(after: Duration) -> Self {
        let later = Self::later("too many requests", after);
        Self { status: StatusCode::TOO_MANY_REQUESTS, ..later }
    }

    /// An answer in place of the version's.
    pub(crate) fn own(status: StatusCode, answer: OwnAnswer) -> Self {
        Self { own: Some(Box::new(answer)), ..Self::of(status, "nobody answered") }
    }

    /// The same is to be asked at the encrypted address with this port.
    fn encrypted(asked: &RequestView<'_>, port: u16) -> Self {
        let host = bare_host(asked.host);
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        let query = if asked.query.is_empty() { "" } else { "?" };
        let location = format!("https://{host}{port}{}{query}{}", asked.path, asked.query);
        let fields = vec![("location", location)];
        Self::own(StatusCode::PERMANENT_REDIRECT, OwnAnswer { fields, body: Bytes::new() })
    }

    /// What an authority asked for that is to certify the name.
    fn proof(answer: &str) -> Self {
        let fields = vec![("content-type", "application/octet-stream".to_owned())];
        let body = Bytes::copy_from_slice(answer.as_bytes());
        let reason = "asked by an authority";
        Self { reason, ..Self::own(StatusCode::OK, OwnAnswer { fields, body }) }
    }

    fn maintenance(of: &Maintenance) -> Self {
        let page = if of.page.is_empty() { MAINTENANCE_PAGE } else { of.page.as_str() };
        let refusal = Self::later("the service is down for maintenance", of.retry_after);
        Self { page: Some(page.to_owned()), ..refusal }
    }

    /// Says in the access log that this is the answer.
    pub(crate) fn note(&self, record: &mut Record) {
        record.refused(self.status.as_u16(), self.reason, self.body().len());
    }

    /// What the client is told.
    pub(crate) fn body(&self) -> Bytes {
        match (&self.own, &self.page) {
            (Some(own), _) => own.body.clone(),
            (None, Some(page)) => page.clone().into(),
            (None, None) => format!("switchback: {}\n", self.reason).into(),
        }
    }

    /// Its head, beside status and framing.
    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        let content_type = match (&self.own, &self.page) {
            (Some(own), _) => return own.fields.clone(),
            (None, Some(_)) => "text/html; charset=utf-8",
            (None, None) => "text/plain; charset=utf-8",
        };
        let retry_after = self.retry_after.map(|seconds| ("retry-after", seconds.to_string()));
        [("content-type", content_type.to_owned())].into_iter().chain(retry_after).collect()
    }
}

/// A version's answer, to be passed on. The ticket is settled when it has ended.
#[derive(Debug)]
pub(crate) struct Answered<A> {
    pub(crate) ticket: Ticket,
    pub(crate) visit: Visit,
    pub(crate) answer: A,
    /// How long it may take to its end.
    pub(crate) pace: Option<Box<Pace>>,
    /// Writes it down for when nobody answers.
    pub(crate) capture: Option<Box<Capture>>,
}

/// How a response of this status counts once it was passed on to its end.
pub(crate) fn outcome_of(status: u16) -> Outcome {
    Outcome::Answered(usize::from(status / 100).saturating_sub(1))
}

/// What a look into the table comes to.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "the usual one: cheaper than a box for each request")]
pub(crate) enum Way {
    /// To a version.
    On(Assigned),
    /// The route does something about trouble: it is to be asked first.
    Guarded(Arc<Guard>),
    /// To a version that is not asked for the time being.
    Open(Refusal),
    /// The route holds requests back.
    Held(ServiceKey, PauseLimits),
    Refused(Refusal),
}

/// A request that has its version.
#[derive(Debug)]
pub(crate) struct Assigned {
    pub(crate) ticket: Ticket,
    pub(crate) timeout: Duration,
    /// What makes the client keep its version.
    pub(crate) cookie: Option<String>,
    /// The request asks for this version by its name or address: no other shall answer it, nor
    /// its answer be given to others.
    pub(crate) is_asked_for: bool,
    /// Who is to get a copy of it.
    pub(crate) mirror: Option<(ServiceKey, Arc<Arm>)>,
    /// Its trace is to be recorded, if it begins here.
    pub(crate) is_sampled: bool,
    /// How it is written down, if it is, for which route, and why it goes to its version.
    pub(crate) logged: Option<(LogFormat, Box<ServiceKey>)>,
    pub(crate) reason: Reason,
}

impl Assigned {
    /// Has the answer set the cookie.
    pub(crate) fn show_cookie<E: Exchange>(&mut self, entry: &Entry, request: &mut E) {
        if let Some(cookie) = self.cookie.take() {
            request.set_cookie(if entry.secure { cookie + "; Secure" } else { cookie });
        }
    }

    /// Has its bytes counted, marks its trace now and then, and begins its line in the access log
    /// where the route wants one.
    pub(crate) fn observe<E: Exchange>(&mut self, worker: &Worker, entry: &Entry, request: &mut E) {
        self.ticket.takes(request.upload());
        if self.is_sampled {
            request.mark_sampled();
        }
        if let Some((format, route)) = self.logged.take() {
            let log = &worker.access_log;
            let mut record = request.view(entry, |asked| Record::new(log, format, &route, asked));
            name(&mut record, request);
            record.assigned(self.ticket.arm().version.clone(), self.reason);
            self.ticket.record = Some(record);
        }
    }
}

fn name<E: Exchange>(record: &mut Record, request: &mut E) {
    let request_id = request.forwarded("x-request-id");
    record.named(request_id, request.forwarded("traceparent").as_deref());
}

/// Writes down what no version was asked about, if its route wants that.
pub(crate) fn log_refusal<E: Exchange>(
    worker: &Worker,
    entry: &Entry,
    request: &mut E,
    refusal: &Refusal,
) {
    if refusal.logged {
        return;
    }
    let record = request.view(entry, |asked| {
        worker.with_table(|table| {
            let route = table.router.find_for(asked)?;
            let format = route.observation.access_log?;
            Some(Record::new(&worker.access_log, format, &route.service, asked))
        })
    });
    if let Some(mut record) = record {
        name(&mut record, request);
        refusal.note(&mut record);
    }
}

/// Who has been asked about a request already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Past {
    Nobody,
    Guard,
}

/// Decides about one request and carries it out, up to the head of the answer.
pub(crate) async fn decide<E: Exchange>(
    worker: &Rc<Worker>,
    entry: &Entry,
    request: &mut E,
) -> Result<Answered<E::Answer>, Refusal> {
    let mut way = assign(worker, entry, request, Past::Nobody);
    // What waits gets a box of its own: all other requests shall not pay for its room.
    let mut assigned = loop {
        way = match way {
            Way::On(assigned) => break assigned,
            Way::Refused(refusal) | Way::Open(refusal) => return Err(refusal),
            Way::Held(service, limits) => {
                Box::pin(hold(worker, entry, request, service, limits)).await
            }
            Way::Guarded(guard) => {
                return Box::pin(guarded(worker, entry, request, guard)).await;
            }
        };
    };
    assigned.show_cookie(entry, request);
    assigned.observe(worker, entry, request);
    let Assigned { mut ticket, timeout, .. } = assigned;
    match exchange(worker, &ticket, timeout, None, request).await {
        Ok((answer, visit)) => {
            ticket.answered(E::status(&answer), &visit);
            Ok(Answered { ticket, visit, answer, pace: None, capture: None })
        }
        Err(failure) => Err(failed(worker, failure, ticket)),
    }
}

/// Chooses route and version. No `await` in here: the look into the worker's table and the raised
/// in-flight count must not be torn apart (see `crate::plane`).
pub(crate) fn assign<E: Exchange>(
    worker: &Rc<Worker>,
    entry: &Entry,
    request: &E,
    past: Past,
) -> Way {
    let mut way = request.view(entry, |asked| {
        worker.with_table(|table| {
            if !entry.secure
                && let Some(answer) = table.table.challenge(asked.path)
            {
                return Way::Refused(Refusal::proof(answer));
            }
            let elsewhere = |any| table.tls.redirect(entry.listen, asked.host, any);
            if let Some(port) = elsewhere(false) {
                return Way::Refused(Refusal::encrypted(asked, port));
            }
            if let Some(route) = table.router.find_for(asked) {
                return by_mode(worker, table, route, asked, past);
            }
            match elsewhere(true) {
                Some(port) => Way::Refused(Refusal::encrypted(asked, port)),
                None => unrouted(worker, StatusCode::NOT_FOUND, "no route for this host and path"),
            }
        })
    });
    if let Way::On(Assigned { mirror, .. }) = &mut way
        && let Some((service, arm)) = mirror.take()
    {
        mirror::send(worker, &service, &arm, request.copy());
    }
    way
}

fn by_mode(
    worker: &Worker,
    table: &Compiled,
    route: &RouteEntry,
    asked: &RequestView<'_>,
    past: Past,
) -> Way {
    let turned = |why, refusal| {
        worker.shared.routes(worker.index).turned(&route.service, why);
        Way::Refused(refusal)
    };
    match &route.mode {
        RouteMode::Serve | RouteMode::Divert { .. } => {
            let guard = route.resilient.and_then(|at| table.guard(at));
            match guard.filter(|_| past == Past::Nobody) {
                Some(guard) => Way::Guarded(Arc::clone(guard)),
                None => to_version(worker, table, route, asked),
            }
        }
        RouteMode::Pause(limits) => Way::Held(route.service.clone(), *limits),
        RouteMode::Maintenance(of) => turned(Turned::Maintenance, Refusal::maintenance(of)),
        RouteMode::Isolate => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            turned(Turned::Isolated, Refusal::of(status, "the service is isolated by an operator"))
        }
    }
}

fn to_version(
    worker: &Worker,
    table: &Compiled,
    route: &RouteEntry,
    asked: &RequestView<'_>,
) -> Way {
    let random = rand::random();
    let chosen = route.choose_for(asked, random);
    let found = chosen.and_then(|chosen| Some((table.arms.get(chosen.arm)?, chosen)));
    let Some((arm, chosen)) = found else {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return unrouted(worker, status, "no version serves this route");
    };
    let mut ticket = Ticket::accept(worker.hold(chosen.arm, arm), worker.index);
    if chosen.reason.is_random() {
        ticket.enroll(&worker.cohorts, chosen.session);
    }
    let (timeout, cookie, is_sampled) = (route.timeout, chosen.set_cookie, route.samples(random));
    let logged =
        route.observation.access_log.map(|format| (format, Box::new(route.service.clone())));
    let reason = chosen.reason;
    let is_asked_for = matches!(chosen.reason, Reason::Preview | Reason::Named);
    let mirror = chosen.mirror.and_then(|at| table.arms.get(at));
    let mirror = mirror.map(|arm| (route.service.clone(), Arc::clone(arm)));
    match admit(ticket) {
        Ok(ticket) => Way::On(Assigned {
            ticket,
            timeout,
            cookie,
            is_asked_for,
            mirror,
            is_sampled,
            logged,
            reason,
        }),
        Err(refusal) if is_asked_for => Way::Refused(refusal),
        Err(refusal) => Way::Open(refusal),
    }
}

/// Asks the version's circuit breaker, if it has one. What it turns away is the version's failure.
pub(crate) fn admit(mut ticket: Ticket) -> Result<Ticket, Refusal> {
    let Some(breaker) = &ticket.arm().breaker else { return Ok(ticket) };
    match breaker.admit(|| clock::moment(ticket.started())) {
        Admission::Yes => Ok(ticket),
        Admission::Probe => {
            ticket.probes();
            Ok(ticket)
        }
        Admission::No(wait) => {
            ticket.settle(Outcome::BreakerOpen);
            let refusal = Refusal::later("the version has failed too often", wait);
            Err(Refusal { arm: Some(Box::new(ticket.arm().id.clone())), ..refusal })
        }
    }
}

fn unrouted(worker: &Worker, status: StatusCode, reason: &'static str) -> Way {
    worker.shared.unrouted(worker.index);
    Way::Refused(Refusal::of(status, reason))
}

/// Settles a request that got no answer, and has its line say so.
pub(crate) fn failed(worker: &Worker, failure: Failure, mut ticket: Ticket) -> Refusal {
    let mut refusal = fail(worker, failure, &mut ticket);
    if let Some(mut record) = ticket.release_record() {
        refusal.note(&mut record);
        refusal.logged = true;
    }
    refusal
}

/// Settles a request that got no answer.
pub(crate) fn fail(worker: &Worker, failure: Failure, ticket: &mut Ticket) -> Refusal {
    let (outcome, status, reason) = match failure {
        Failure::Version(Outcome::TimedOut) => {
            (Outcome::TimedOut, StatusCode::GATEWAY_TIMEOUT, "the instance did not answer in time")
        }
        Failure::Version(Outcome::Broken) => {
            (Outcome::Broken, StatusCode::BAD_GATEWAY, "the instance did not answer properly")
        }
        Failure::Version(outcome) => {
            (outcome, StatusCode::BAD_GATEWAY, "no instance took the request")
        }
        Failure::ClientLate => {
            (Outcome::ClientGone, StatusCode::REQUEST_TIMEOUT, "the rest of the request is missing")
        }
        Failure::ClientGone => {
            (Outcome::ClientGone, StatusCode::BAD_REQUEST, "the request broke off")
        }
        Failure::Ours => (
            Outcome::Dropped,
            StatusCode::SERVICE_UNAVAILABLE,
            "no instance to send the request to",
        ),
    };
    let broke_off = matches!(outcome, Outcome::ConnectFailed | Outcome::Broken);
    let arm = &ticket.arm().id;
    let has_left = || worker.with_table(|t| t.arm(arm).is_none_or(|arm| arm.endpoints.is_empty()));
    // Nobody of the version is to be asked any more: what broke it off is our stop.
    let outcome = if broke_off && has_left() { Outcome::Cut } else { outcome };
    ticket.settle(outcome);
    let close = matches!(failure, Failure::ClientLate | Failure::ClientGone);
    let arm = Some(Box::new(ticket.arm().id.clone()));
    Refusal { close, arm, ..Refusal::of(status, reason) }
}
