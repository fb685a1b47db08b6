//! What happens to one request: routed, assigned to a version, exchanged. Every way out is an
//! answer to pass on or a refusal with its reason; counting is done here, whatever the codec.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::compiled::{Arm, Visit};
use crate::counters::{Outcome, Ticket};
use crate::exchange::{Asked, Exchange, Failure, exchange};
use crate::worker::Worker;

/// Where a request came in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// The route's address.
    pub(crate) listen: SocketAddr,
    /// The client's.
    pub(crate) client: SocketAddr,
}

/// An answer of our own: a status, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) reason: &'static str,
    /// Nothing more can be read from this client.
    pub(crate) close: bool,
}

impl Refusal {
    /// The request is none, or none that is served here: the connection is closed after it.
    pub(crate) const fn bad(status: StatusCode, reason: &'static str) -> Self {
        Self { status, reason, close: true }
    }

    /// What the client is told.
    pub(crate) fn text(&self) -> String {
        format!("switchback: {}\n", self.reason)
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

/// Decides about one request and carries it out, up to the head of the answer.
pub(crate) async fn decide<E: Exchange>(
    worker: &Rc<Worker>,
    entry: &Entry,
    request: &mut E,
) -> Result<Answered<E::Answer>, Refusal> {
    let (ticket, timeout) = assign(worker, entry, request.asked())?;
    match exchange(worker, &ticket, timeout, request).await {
        Ok((answer, visit)) => Ok(Answered { ticket, visit, answer }),
        Err(failure) => Err(failed(failure, ticket)),
    }
}

/// Chooses route and version. No `await` in here: the look into the worker's table and the raised
/// in-flight count must not be torn apart (see `crate::plane`).
fn assign(
    worker: &Rc<Worker>,
    entry: &Entry,
    asked: Asked<'_>,
) -> Result<(Ticket, Duration), Refusal> {
    let refused = |status, reason| {
        worker.shared.unrouted(worker.index);
        Err(Refusal { status, reason, close: false })
    };
    worker.with_table(|table| {
        let path = if asked.path.starts_with('/') { asked.path } else { "/" };
        let Some(route) = table.router.find(entry.listen, asked.host, path) else {
            return refused(StatusCode::NOT_FOUND, "no route for this host and path");
        };
        let coin = rand::random_range(0..10_000);
        let Some(arm) = route.choose(coin).and_then(|index| table.arms.get(index)) else {
            return refused(StatusCode::SERVICE_UNAVAILABLE, "no version serves this route");
        };
        let arm: Arc<Arm> = Arc::clone(arm);
        let mut ticket = Ticket::accept(arm, worker.index);
        ticket.enroll(&worker.cohorts, None);
        Ok((ticket, route.timeout))
    })
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
    Refusal { status, reason, close }
}
