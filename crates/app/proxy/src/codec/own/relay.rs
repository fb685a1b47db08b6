//! The answer on its way to the client: its head, its body as it comes, its end. Settles the
//! request's ticket and gives the connection to the instance back.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Instant;

use super::chunked::Malformed;
use super::flight::{Answer, ClientGone, Flight};
use super::link::Link;
use super::outbound::Framing;
use super::scratch::Scratch;
use super::tunnel::Tunnel;
use crate::compiled::Visit;
use crate::counters::{Outcome, Ticket};
use crate::resilience::{Capture, Pace, Turn};
use crate::service::{Answered, outcome_of};

/// What a connection does after a request.
#[derive(Debug)]
pub(super) enum After {
    /// It waits for the next one.
    Rest,
    /// It is closed; what the client may still send is thrown away first.
    Close,
    /// It is closed so that nobody takes the answer for a whole one.
    Abort,
    /// It carries another protocol.
    Tunnel(Box<Tunnel>),
}

/// Why an answer did not reach its end.
#[derive(Debug)]
enum Cut {
    /// The instance broke off, or sent no body.
    Instance,
    /// It took too long.
    Late,
    Client,
}

/// An answer being passed on.
struct Relay<'f, 'c> {
    flight: &'f mut Flight<'c>,
    ticket: Ticket,
    outcome: Outcome,
    /// Where it comes from, until its end was read.
    source: Option<(Link, Visit)>,
    is_reusable: bool,
    keep_alive: Option<std::time::Duration>,
    pace: Option<Box<Pace>>,
    capture: Option<Box<Capture>>,
}

/// Passes an answer on.
pub(super) async fn pass_on(flight: &mut Flight<'_>, answered: Answered<Answer>) -> After {
    let Answered { mut ticket, visit, answer: Answer { link, response }, pace, capture } = answered;
    flight.scratch.instance.begin(response.bytes, response.body);
    if response.status == 101 {
        ticket.open_tunnel();
        return After::Tunnel(Box::new(tunnel(flight, ticket, visit, link)));
    }
    flight.scratch.response.set_framing(response.framing);
    let mut relay = Relay {
        outcome: outcome_of(response.status),
        source: Some((link, visit)),
        // An answer to half a request: the instance may be anywhere in the other half.
        is_reusable: response.is_reusable && flight.is_sent,
        keep_alive: response.keep_alive,
        flight,
        ticket,
        pace,
        capture,
    };
    let passed = match relay.frame_what_is_there() {
        Ok(()) => poll_fn(|context| relay.poll(context)).await,
        Err(cut) => Err(cut),
    };
    match passed {
        Ok(()) if response.client_keeps_alive => After::Rest,
        Ok(()) => After::Close,
        Err(Cut::Client) => After::Abort,
        Err(cut @ (Cut::Instance | Cut::Late)) => {
            let late = matches!(cut, Cut::Late);
            relay.ticket.settle(if late { Outcome::TimedOut } else { relay.breaking() });
            if response.framing == Framing::UntilClose {
                // An orderly end would say that this was all.
                let _ = socket2::SockRef::from(&*relay.flight.client)
                    .set_linger(Some(std::time::Duration::ZERO));
            }
            After::Abort
        }
    }
}

fn tunnel(flight: &mut Flight<'_>, ticket: Ticket, visit: Visit, link: Link) -> Tunnel {
    let Scratch { client, instance, response, .. } = &*flight.scratch;
    let to_client = [response.rest(), instance.raw()].concat();
    Tunnel { ticket, visit, instance: link.stream, to_client, to_instance: client.raw().to_vec() }
}

impl Relay<'_, '_> {
    /// What came with the head leaves with it.
    fn frame_what_is_there(&mut self) -> Result<(), Cut> {
        let decoded = self.flight.scratch.instance.decode();
        decoded.map_err(|Malformed| Cut::Instance)?;
        let head_at = self.ticket.head_at();
        self.frame(|| head_at)
    }

    fn frame(&mut self, now: impl FnOnce() -> Instant) -> Result<(), Cut> {
        let Scratch { instance, response, .. } = &mut *self.flight.scratch;
        self.ticket.sent(instance.data().len());
        if let Some(capture) = &mut self.capture {
            capture.push(instance.data());
        }
        response.frame(instance).map_err(|Malformed| Cut::Instance)?;
        if response.has_ended() {
            self.ended(now());
        }
        Ok(())
    }

    /// What it is when the instance breaks off: once it was taken out of the table, our stop.
    fn breaking(&self) -> Outcome {
        let serves = |(_, visit): &(Link, Visit)| self.flight.worker.serves(visit.endpoint().id);
        if self.source.as_ref().is_none_or(serves) { Outcome::Broken } else { Outcome::Cut }
    }

    /// The whole answer is here: nothing more can go wrong on the instance's side.
    fn ended(&mut self, now: Instant) {
        self.ticket.settle_at(self.outcome, || now);
        if let Some(capture) = self.capture.take() {
            capture.finish();
        }
        let Some((link, visit)) = self.source.take() else { return };
        let worker = self.flight.worker;
        let clean = self.is_reusable && self.flight.scratch.instance.raw().is_empty();
        if clean && worker.serves(visit.endpoint().id) {
            worker.keep(&self.ticket.arm().id, visit.endpoint(), link, self.keep_alive, now);
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        let turn = loop {
            let Scratch { instance, response, .. } = &mut *self.flight.scratch;
            match response.poll_write(context, self.flight.client, instance) {
                Poll::Ready(Ok(())) if response.has_ended() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Cut::Client)),
                Poll::Pending => break Turn::Client,
            }
            let Some((link, _)) = &mut self.source else { break Turn::Client };
            match instance.poll_more(context, &mut link.stream, &self.flight.worker.scratches) {
                Poll::Ready(Ok(_)) => {
                    self.frame(Instant::now)?;
                    if let Some(pace) = &mut self.pace {
                        pace.moved();
                    }
                }
                Poll::Ready(Err(Malformed)) => return Poll::Ready(Err(Cut::Instance)),
                Poll::Pending => break Turn::Instance,
            }
        };
        if let Some(pace) = &mut self.pace
            && pace.poll(context, turn).is_ready()
        {
            let late = turn == Turn::Instance;
            return Poll::Ready(Err(if late { Cut::Late } else { Cut::Client }));
        }
        let instance = self.source.as_mut().map(|(link, _)| &mut link.stream);
        match self.flight.poll_aside(context, instance) {
            Ok(()) => Poll::Pending,
            Err(ClientGone) => Poll::Ready(Err(Cut::Client)),
        }
    }
}
