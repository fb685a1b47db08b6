//! One request to one version: connection, sending, waiting, and the repetitions that are safe.
//!
//! A request is repeated only if the instance cannot have seen it (never sent), or if it may be
//! seen twice (idempotent, without a body) and the connection was an old one that the instance
//! closed before a single byte of a response.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, Uri};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::balance::draw;
use crate::body::{Patience, RequestBody, Upload};
use crate::compiled::Visit;
use crate::counters::{Outcome, Ticket};
use crate::headers;
use crate::limits::{INSTANCES_TRIED_MAX, RETRIES_MAX};
use crate::pool::{Lease, Link, NoLink, connect};
use crate::worker::Worker;

/// Why there is no response to pass on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The version did not do its part.
    Version(Outcome),
    /// The client stopped sending its request.
    ClientLate,
    /// The client broke off.
    ClientGone,
    /// This process could not do its part.
    Ours,
}

/// What became of one attempt.
enum Attempt {
    Answered(Box<(Response<Incoming>, Lease)>),
    /// The instance refused the connection; the request is as it was.
    Refused(Request<RequestBody>),
    /// The connection failed, but the request, as it was, can safely be sent again.
    Again(Request<RequestBody>, Visit),
    Failed(Failure),
}

/// Everything an attempt needs beside the request.
struct Course<'a> {
    worker: &'a Rc<Worker>,
    ticket: &'a Ticket,
    timeout: Duration,
    upload: Option<Rc<Upload>>,
    /// Instances that refused this request a connection.
    tried: Vec<u64>,
    /// An old connection failed: only new ones from now on.
    fresh: bool,
}

/// Gets a response head from some instance of the ticket's version.
pub(crate) async fn exchange(
    worker: &Rc<Worker>,
    ticket: &Ticket,
    timeout: Duration,
    mut request: Request<RequestBody>,
) -> Result<(Response<Incoming>, Lease), Failure> {
    let upload = request.body().upload();
    let mut course = Course { worker, ticket, timeout, upload, tried: Vec::new(), fresh: false };
    let (mut held, mut last, mut repetitions) = (None, Failure::Ours, 0);
    while course.tried.len() < INSTANCES_TRIED_MAX && repetitions <= RETRIES_MAX {
        let Some(visit) = course.next_visit(held.as_ref()) else { break };
        if last != Failure::Ours {
            ticket.retry();
        }
        match course.attempt(visit, request).await {
            Attempt::Answered(answer) => return Ok(*answer),
            Attempt::Failed(failure) => return Err(failure),
            Attempt::Refused(unsent) => request = unsent,
            Attempt::Again(unsent, visit) => {
                request = unsent;
                held = Some(visit);
                repetitions += 1;
            }
        }
        last = Failure::Version(Outcome::ConnectFailed);
    }
    Err(last)
}

impl Course<'_> {
    /// The next instance, from the newest table: a repetition must not begin on what it left out.
    /// If the whole version left it, only the instance that `held` keeps counted may be asked.
    fn next_visit(&self, held: Option<&Visit>) -> Option<Visit> {
        let index = self.worker.index;
        let own = self.ticket.arm();
        let first = held.is_none() && self.tried.is_empty();
        let chosen = self.worker.with_table(|table| match table.arm(&own.id) {
            Some(arm) => draw(&arm.endpoints, &self.tried, index),
            None if first => draw(&own.endpoints, &self.tried, index),
            None => held.map(|visit| Arc::clone(&visit.endpoint)),
        });
        Some(Visit::begin(chosen?, index))
    }

    async fn attempt(&mut self, visit: Visit, request: Request<RequestBody>) -> Attempt {
        let repeatable = is_idempotent(request.method()) && self.upload.is_none();
        let link = match self.link(&visit, repeatable).await {
            Ok(link) => link,
            Err(NoLink::Exhausted) => return Attempt::Failed(Failure::Ours),
            Err(NoLink::Refused) => {
                visit.endpoint.eject();
                self.tried.push(visit.endpoint.id);
                return Attempt::Refused(request);
            }
        };
        let spare = (link.reused && repeatable).then(|| Spare::of(&request));
        self.send(link, visit, request, spare).await
    }

    async fn link(&self, visit: &Visit, repeatable: bool) -> Result<Link, NoLink> {
        if !self.fresh
            && let Some(link) = self.worker.pool.take(visit.endpoint.id, repeatable)
        {
            return Ok(link);
        }
        let link = connect(visit).await?;
        visit.endpoint.readmit();
        Ok(link)
    }

    async fn send(
        &mut self,
        mut link: Link,
        visit: Visit,
        request: Request<RequestBody>,
        spare: Option<Spare>,
    ) -> Attempt {
        link.watch.take_heard();
        let sending = link.sender.try_send_request(request);
        let mut error = match within(sending, self.upload.as_deref(), self.timeout).await {
            Ok(Ok(response)) => {
                let seconds = headers::keep_alive_seconds(response.headers());
                let keep_alive = seconds.map(Duration::from_secs);
                let lease = Lease { link, visit, worker: Rc::clone(self.worker), keep_alive };
                return Attempt::Answered(Box::new((response, lease)));
            }
            Ok(Err(error)) => error,
            Err(late) => return Attempt::Failed(late),
        };
        self.fresh = true;
        let silent = !link.watch.take_heard();
        if self.upload.as_ref().is_some_and(|upload| upload.failed()) {
            return Attempt::Failed(Failure::ClientGone);
        }
        if let Some(unsent) = error.take_message()
            && !self.upload.as_ref().is_some_and(|upload| upload.touched())
        {
            return Attempt::Again(unsent, visit);
        }
        match spare {
            Some(spare) if silent => Attempt::Again(spare.request(), visit),
            Some(_) | None if silent => Attempt::Failed(Failure::Version(Outcome::ConnectFailed)),
            Some(_) | None => Attempt::Failed(Failure::Version(Outcome::Broken)),
        }
    }
}

/// Waits for a response head, but not longer than is fair to the instance.
async fn within<T>(
    sending: impl Future<Output = T>,
    upload: Option<&Upload>,
    timeout: Duration,
) -> Result<T, Failure> {
    let mut sending = pin!(sending);
    let mut deadline = Instant::now() + timeout;
    loop {
        if let Ok(sent) = tokio::time::timeout_at(deadline, sending.as_mut()).await {
            return Ok(sent);
        }
        let late = Failure::Version(Outcome::TimedOut);
        let Some(upload) = upload else { return Err(late) };
        match upload.patience(Instant::now(), timeout) {
            Patience::Until(later) => deadline = later,
            Patience::InstanceLate => return Err(late),
            Patience::ClientLate => return Err(Failure::ClientLate),
        }
    }
}

/// A copy of a request without a body, in case it has to be sent again.
struct Spare {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Spare {
    fn of(request: &Request<RequestBody>) -> Self {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        Self { method, uri, headers: request.headers().clone() }
    }

    fn request(self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}

fn is_idempotent(method: &Method) -> bool {
    let safe = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE];
    safe.contains(method)
}
