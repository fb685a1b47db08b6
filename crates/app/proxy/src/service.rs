//! What happens to one request: routed, assigned to a version, exchanged. Every way out is an
//! answer to pass on or a refusal with its reason; counting is done here, whatever the codec.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use switchback_domain::ServiceKey;
use switchback_domain::route::{Maintenance, PauseLimits, RouteMode};
use switchback_routing::{RequestView, RouteEntry};

use crate::compiled::{Compiled, Visit};
use crate::counters::{Outcome, Ticket};
use crate::exchange::{Exchange, Failure, exchange};
use crate::hold::hold;
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
}

/// What clients see of a maintenance that brings no page of its own.
const MAINTENANCE_PAGE: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
    <meta name=\"viewport\" content=\"width=device-width\">\n<title>Maintenance</title>\n\
    <h1>We will be back soon</h1>\n<p>This service is down for maintenance.</p>\n</html>\n";

impl Refusal {
    /// The connection stays open.
    pub(crate) const fn of(status: StatusCode, reason: &'static str) -> Self {
        Self { status, reason, close: false, retry_after: None, page: None }
    }

    /// The request is none, or none that is served here: the connection is closed after it.
    pub(crate) const fn bad(status: StatusCode, reason: &'static str) -> Self {
        Self { status, reason, close: true, retry_after: None, page: None }
    }

    /// Nothing wrong with the request: it may come again after a while, of at least a second.
    pub(crate) fn later(reason: &'static str, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        let retry_after = Some(seconds.max(1));
        Self { retry_after, ..Self::of(StatusCode::SERVICE_UNAVAILABLE, reason) }
    }

    fn maintenance(of: &Maintenance) -> Self {
        let page = if of.page.is_empty() { MAINTENANCE_PAGE } else { of.page.as_str() };
        let refusal = Self::later("the service is down for maintenance", of.retry_after);
        Self { page: Some(page.to_owned()), ..refusal }
    }

    /// What the client is told.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        match &self.page {
            Some(page) => page.into(),
            None => format!("switchback: {}\n", self.reason).into(),
        }
    }

    /// What that is.
    pub(crate) const fn content_type(&self) -> &'static str {
        match self.page {
            Some(_) => "text/html; charset=utf-8",
            None => "text/plain; charset=utf-8",
        }
    }
}

/// A version's answer, to be passed on. The ticket is settled when it has ended.
#[derive(Debug)]
pub(crate) struct Answered<A> {
    pub(crate) ticket: Ticket,
    pub(crate) visit: Visit,
    pub(crate) answer: A,
}

/// How a response of this status counts once it was passed on to its end.
pub(crate) fn outcome_of(status: u16) -> Outcome {
    Outcome::Answered(usize::from(status / 100).saturating_sub(1))
}

/// What a look into the table comes to.
#[derive(Debug)]
pub(crate) enum Way {
    /// To a version.
    On(Assigned),
    /// The route holds requests back.
    Held(ServiceKey, PauseLimits),
    Refused(Refusal),
}

/// A request that has its version.
#[derive(Debug)]
pub(crate) struct Assigned {
    ticket: Ticket,
    timeout: Duration,
    /// What makes the client keep its version.
    cookie: Option<String>,
}

/// Decides about one request and carries it out, up to the head of the answer.
pub(crate) async fn decide<E: Exchange>(
    worker: &Rc<Worker>,
    entry: &Entry,
    request: &mut E,
) -> Result<Answered<E::Answer>, Refusal> {
    let assigned = match assign(worker, entry, request) {
        Way::On(assigned) => assigned,
        Way::Refused(refusal) => return Err(refusal),
        // In a box of its own: all other requests shall not pay for its room.
        Way::Held(service, limits) => {
            Box::pin(hold(worker, entry, request, service, limits)).await?
        }
    };
    let Assigned { ticket, timeout, cookie } = assigned;
    if let Some(cookie) = cookie {
        request.set_cookie(if entry.secure { cookie + "; Secure" } else { cookie });
    }
    match exchange(worker, &ticket, timeout, request).await {
        Ok((answer, visit)) => Ok(Answered { ticket, visit, answer }),
        Err(failure) => Err(failed(failure, ticket)),
    }
}

/// Chooses route and version. No `await` in here: the look into the worker's table and the raised
/// in-flight count must not be torn apart (see `crate::plane`).
pub(crate) fn assign<E: Exchange>(worker: &Rc<Worker>, entry: &Entry, request: &E) -> Way {
    request.view(entry, |asked| {
        worker.with_table(|table| match table.router.find_for(asked) {
            Some(route) => by_mode(worker, table, route, asked),
            None => unrouted(worker, StatusCode::NOT_FOUND, "no route for this host and path"),
        })
    })
}

fn by_mode(worker: &Worker, table: &Compiled, route: &RouteEntry, asked: &RequestView<'_>) -> Way {
    let turned = |why, refusal| {
        worker.shared.routes(worker.index).turned(&route.service, why);
        Way::Refused(refusal)
    };
    match &route.mode {
        RouteMode::Serve | RouteMode::Divert { .. } => to_version(worker, table, route, asked),
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
    let chosen = route.choose_for(asked, rand::random());
    let found = chosen.and_then(|chosen| Some((table.arms.get(chosen.arm)?, chosen)));
    let Some((arm, chosen)) = found else {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return unrouted(worker, status, "no version serves this route");
    };
    let mut ticket = Ticket::accept(Arc::clone(arm), worker.index);
    if chosen.reason.is_random() {
        ticket.enroll(&worker.cohorts, chosen.session);
    }
    Way::On(Assigned { ticket, timeout: route.timeout, cookie: chosen.set_cookie })
}

fn unrouted(worker: &Worker, status: StatusCode, reason: &'static str) -> Way {
    worker.shared.unrouted(worker.index);
    Way::Refused(Refusal::of(status, reason))
}

/// Settles a request that got no answer.
pub(crate) fn failed(failure: Failure, mut ticket: Ticket) -> Refusal {
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
    ticket.settle(outcome);
    let close = matches!(failure, Failure::ClientLate | Failure::ClientGone);
    Refusal { close, ..Refusal::of(status, reason) }
}
