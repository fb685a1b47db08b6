//! One request to one version: connection, sending, waiting, and the repetitions that are safe.
//! The seam between policy and codec is [`Exchange`]: nothing here knows how a message is written.
//!
//! A request is repeated only if the instance cannot have seen it (never sent), or if it may be
//! seen twice (idempotent, without a body) and the connection was an old one that the instance
//! closed before a single byte of a response.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use switchback_domain::resilience::RetryPolicy;
use switchback_resilience::backoff;
use switchback_routing::RequestView;
use tokio::net::TcpStream;

use crate::balance::{Deed, draw};
use crate::clock;
use crate::compiled::{Arm, Visit};
use crate::counters::{Outcome, Ticket};
use crate::limits::{
    CONNECT_ALONE, CONNECT_LAST_MAX, CONNECT_MAX, INSTANCES_TRIED_MAX, RETRIES_MAX,
};
use crate::pool::{Link, NoLink, Pool, connect};
use crate::resilience::Guard;
use crate::route_counts::Turned;
use crate::service::Entry;
use crate::upload::Upload;
use crate::worker::Worker;

/// One request in the hands of its codec: a view of its head, and a way to send it, with its body,
/// over a connection. The codec also passes the answer on.
pub(crate) trait Exchange {
    /// A connection to an instance.
    type Link: Link;
    /// A response whose head has come.
    type Answer;

    /// Lets routing look at the request as the client sent it: nothing is copied, and a header is
    /// only looked for when a rule asks for it.
    fn view<T>(&self, entry: &Entry, look: impl FnOnce(&RequestView<'_>) -> T) -> T;

    /// What the answer is to carry beside its own: the value of a `Set-Cookie`.
    fn set_cookie(&mut self, cookie: String);

    /// Has the instance told that the trace is recorded, if it begins here. Before it is sent.
    fn mark_sampled(&mut self);

    /// The first value of a header, by its name in lower case, as an instance gets it. Before it
    /// is sent; a body that came with its head may be taken for a part of that, after the head.
    fn forwarded(&mut self, name: &str) -> Option<String>;

    /// The whole request as an instance gets it by HTTP/1.1, body included; `None` when that is not
    /// all here, or when it asks for another protocol.
    fn copy(&self) -> Option<Vec<u8>>;

    /// Ends when the client is seen to leave before anything was sent. A codec whose connection
    /// drops the whole exchange then, need not see it.
    async fn client_gone(&mut self);

    /// Whether it may reach an instance twice: idempotent and without a body.
    fn is_repeatable(&self) -> bool;

    /// This codec's resting connections.
    fn pool(worker: &Worker) -> &Pool<Self::Link>;

    /// Makes a new connection to an instance of this version one of this codec's.
    async fn open(worker: &Worker, stream: TcpStream, arm: &Arm) -> Option<Self::Link>;

    /// How its body comes in; `None` without one.
    fn upload(&self) -> Option<Rc<Upload>>;

    /// Whether it can still be sent, to another version, as nobody has seen it.
    fn can_be_sent(&self) -> bool;

    /// Calls back with each value of a header of the answer, by its name in lower case, until one
    /// call returns true; returns whether one did.
    fn answer_header(
        &self,
        answer: &Self::Answer,
        name: &str,
        visit: &mut dyn FnMut(&[u8]) -> bool,
    ) -> bool;

    /// Whether nothing of an answer has reached the client yet.
    fn may_discard(&self) -> bool;

    /// Throws an answer away; the request, which is repeatable, can be sent again.
    fn discard(&mut self, answer: Self::Answer);

    /// The status of an answer.
    fn status(answer: &Self::Answer) -> u16;

    /// Sends it and waits for the head of the answer, at most for `timeout` after its last byte.
    /// `now` is a moment just ago; `again` tells that it will be sent once more if the connection
    /// ends in silence.
    async fn send(
        &mut self,
        link: Self::Link,
        now: Instant,
        timeout: Duration,
        again: bool,
    ) -> Sent<Self::Answer>;
}

/// What became of sending a request.
#[derive(Debug)]
pub(crate) enum Sent<A> {
    /// The head of an answer came.
    Answered(A),
    /// No byte of it left; it can be sent again, whatever it is.
    Unsent,
    /// The connection ended before a byte of an answer.
    Silent,
    /// The connection ended within the head of an answer, or that was none.
    Garbled,
    /// No head in time.
    Late(Late),
    /// The client broke off, or its body is none.
    ClientGone,
}

/// Who was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// It has everything it needs.
    Instance,
    /// It does not send the rest of its request.
    Client,
}

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
enum Attempt<A> {
    Answered(A, Visit),
    /// The instance refused the connection; the request is as it was.
    Refused,
    /// The connection failed, but the request can safely be sent again.
    Again(Visit),
    /// It failed, but it may be repeated, and the budget allows it.
    Repeat(Visit),
    Failed(Failure),
}

/// What the attempts for one request share.
struct Course<'a> {
    worker: &'a Rc<Worker>,
    ticket: &'a Ticket,
    timeout: Duration,
    guard: Option<&'a Guard>,
    /// How often it was repeated out of the budget.
    repeated: u32,
    /// Instances that refused this request a connection, or failed it.
    tried: Vec<u64>,
    /// An old connection failed: only new ones from now on.
    fresh: bool,
    /// When the present attempt did.
    began: Instant,
}

/// Gets a response head from some instance of the ticket's version.
pub(crate) async fn exchange<E: Exchange>(
    worker: &Rc<Worker>,
    ticket: &Ticket,
    timeout: Duration,
    guard: Option<&Guard>,
    request: &mut E,
) -> Result<(E::Answer, Visit), Failure> {
    let (tried, began) = (Vec::new(), ticket.started());
    let (repeated, fresh) = (0, false);
    let mut course = Course { worker, ticket, timeout, guard, repeated, tried, fresh, began };
    let (mut held, mut last, mut repetitions) = (None, Failure::Ours, 0);
    while course.tried.len() < INSTANCES_TRIED_MAX && repetitions <= RETRIES_MAX {
        if last != Failure::Ours {
            course.began = Instant::now();
        }
        let Some(visit) = course.next_visit(held.as_ref()) else { break };
        if last != Failure::Ours {
            ticket.retry();
        }
        match course.attempt(visit, request).await {
            Attempt::Answered(answer, visit) => {
                ticket.head_came();
                return Ok((answer, visit));
            }
            Attempt::Failed(failure) => return Err(failure),
            Attempt::Refused => {}
            Attempt::Again(visit) => {
                held = Some(visit);
                repetitions += 1;
            }
            Attempt::Repeat(visit) => {
                course.rest().await;
                held = Some(visit);
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
        let now = || clock::moment(self.began);
        let own = self.ticket.arm();
        let first = held.is_none() && self.tried.is_empty();
        if first && self.guard.is_none() {
            // Chosen a moment ago, in the same stretch without `await`: no need to look again.
            let at = draw(own, &self.tried, index, now)?;
            return Some(Visit::begin(Rc::clone(own), at, index));
        }
        self.worker.with_table(|table| match table.arm(&own.id) {
            // Whoever failed it is asked again when there is nobody else.
            Some(arm) => {
                let again = || (self.repeated > 0).then(|| draw(arm, &[], index, now)).flatten();
                let at = draw(arm, &self.tried, index, now).or_else(again)?;
                Some(Visit::begin(Rc::new(Arc::clone(arm)), at, index))
            }
            None if first => {
                let at = draw(own, &self.tried, index, now)?;
                Some(Visit::begin(Rc::clone(own), at, index))
            }
            None => held.map(Visit::again),
        })
    }

    async fn attempt<E: Exchange>(&mut self, visit: Visit, request: &mut E) -> Attempt<E::Answer> {
        let repeatable = request.is_repeatable();
        let (link, reused, now) = match self.link::<E>(&visit, repeatable).await {
            Ok(found) => found,
            Err(NoLink::Exhausted) => return Attempt::Failed(Failure::Ours),
            Err(NoLink::Refused) => {
                visit.endpoint().refused(clock::now());
                self.learn(&visit, Deed::Bad);
                self.tried.push(visit.endpoint().id);
                return Attempt::Refused;
            }
        };
        let again = reused && repeatable;
        let budgeted = self.guard.and_then(|guard| guard.policy.retries.as_ref());
        let policy = budgeted.filter(|policy| repeatable && self.repeated < policy.attempts);
        let sent = request.send(link, now, self.timeout, again || policy.is_some()).await;
        self.fresh = true;
        match &sent {
            Sent::Answered(answer) if E::status(answer) < 500 => self.learn(&visit, Deed::Good),
            Sent::Silent if again => {}
            Sent::Answered(_) | Sent::Silent | Sent::Garbled | Sent::Late(Late::Instance) => {
                self.learn(&visit, Deed::Bad);
            }
            Sent::Unsent | Sent::Late(Late::Client) | Sent::ClientGone => {}
        }
        match sent {
            Sent::Answered(answer)
                if policy.is_some_and(|policy| policy.statuses.contains(&E::status(&answer)))
                    && request.may_discard()
                    && self.may_repeat() =>
            {
                request.discard(answer);
                self.repeat(visit)
            }
            Sent::Answered(answer) => Attempt::Answered(answer, visit),
            Sent::Unsent => Attempt::Again(visit),
            Sent::Silent if again => Attempt::Again(visit),
            Sent::Silent if policy.is_some() && self.may_repeat() => self.repeat(visit),
            Sent::Silent => Attempt::Failed(Failure::Version(Outcome::ConnectFailed)),
            Sent::Garbled => Attempt::Failed(Failure::Version(Outcome::Broken)),
            Sent::Late(Late::Instance) => Attempt::Failed(Failure::Version(Outcome::TimedOut)),
            Sent::Late(Late::Client) => Attempt::Failed(Failure::ClientLate),
            Sent::ClientGone => Attempt::Failed(Failure::ClientGone),
        }
    }

    /// Takes a repetition out of the budget.
    fn may_repeat(&self) -> bool {
        let Some(guard) = self.guard else { return false };
        let may = guard.withdraw(self.worker.index, clock::now());
        if !may {
            let counts = self.worker.shared.routes(self.worker.index);
            counts.turned(&guard.service, Turned::Unrepeated);
        }
        may
    }

    fn repeat<A>(&mut self, visit: Visit) -> Attempt<A> {
        self.tried.push(visit.endpoint().id);
        self.repeated += 1;
        Attempt::Repeat(visit)
    }

    /// Waits a little, each time longer, so that those who failed together do not come back so.
    async fn rest(&self) {
        let policy = self.guard.and_then(|guard| guard.policy.retries.as_ref());
        if let Some(RetryPolicy { backoff: base, backoff_max: cap, .. }) = policy {
            let before = self.repeated.saturating_sub(1);
            tokio::time::sleep(backoff(before, *base, *cap, rand::random())).await;
        }
    }

    fn learn(&self, visit: &Visit, deed: Deed) {
        let (arm, worker) = (self.ticket.arm(), self.worker.index);
        arm.learn(visit.endpoint(), worker, deed, || clock::moment(self.began), clock::now);
    }

    /// A connection, whether it has carried a request before, and since when it is there.
    async fn link<E: Exchange>(
        &self,
        visit: &Visit,
        repeatable: bool,
    ) -> Result<(E::Link, bool, Instant), NoLink> {
        let (pool, endpoint) = (E::pool(self.worker), visit.endpoint().id);
        if !self.fresh
            && let Some(link) = pool.take(endpoint, repeatable, self.began)
        {
            return Ok((link, true, self.began));
        }
        // In a box of its own: all other requests shall not pay for its room.
        let (link, reused) = Box::pin(self.link_or_freed::<E>(visit, repeatable)).await?;
        Ok((link, reused, Instant::now()))
    }

    /// A new connection, or one that comes free before it is there: an instance whose accept queue
    /// is full does not answer the connection's first packet, which is repeated after a second.
    async fn link_or_freed<E: Exchange>(
        &self,
        visit: &Visit,
        repeatable: bool,
    ) -> Result<(E::Link, bool), NoLink> {
        if self.fresh {
            return self.new_link::<E>(visit).await;
        }
        let freed = async {
            tokio::time::sleep(CONNECT_ALONE).await;
            E::pool(self.worker).freed(visit.endpoint().id, repeatable).await
        };
        tokio::select! {
            biased;
            made = self.new_link::<E>(visit) => made,
            link = freed => Ok((link, true)),
        }
    }

    async fn new_link<E: Exchange>(&self, visit: &Visit) -> Result<(E::Link, bool), NoLink> {
        let (arm, began) = (self.ticket.arm(), Instant::now());
        let is_last = self.tried.len() + 1 >= arm.endpoints.len();
        let own = self.guard.and_then(|guard| guard.policy.timeouts.connect);
        let limit = own.unwrap_or(if is_last { CONNECT_LAST_MAX } else { CONNECT_MAX });
        let stream = connect(visit.endpoint().address, limit).await?;
        let link = E::open(self.worker, stream, arm).await.ok_or(NoLink::Refused)?;
        if let Some(shared) = link.shared() {
            E::pool(self.worker).put(visit.endpoint().id, shared, None, began);
        }
        visit.endpoint().took_connection();
        self.ticket.connected(began.elapsed());
        Ok((link, false))
    }
}

/// A path for routing; that of a target without one (`*`, or an authority alone) is the root.
pub(crate) fn path_or_root(path: &str) -> &str {
    if path.starts_with('/') { path } else { "/" }
}

/// Whether a method may take effect twice without harm (RFC 9110, 9.2.2).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    let safe = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE];
    safe.contains(method)
}
