//! One client connection: rests, reads a head, has it carried out, rests again.

use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use tokio::net::TcpStream;

use super::flight::Flight;
use super::head::{self, Head};
use super::relay::{After, pass_on};
use super::response::{Client, write_refusal};
use super::roster::{Rested, Seat};
use super::scratch::{Lent, Scratch};
use crate::codec::{http2, hyper};
use crate::limits::{LINGER_MAX, OWN_ANSWER_BYTES_PER_SECOND_MIN};
use crate::service::{Entry, Refusal, decide, log_refusal};
use crate::shared::Open;
use crate::socket::{begins_http2, set_up};
use crate::worker::Worker;

/// What a client that ends its side within a request head is told, should it still listen.
const CUT_SHORT: Refusal = Refusal::bad(StatusCode::BAD_REQUEST, "the request breaks off");
/// What a connection that takes too long for its request head is told.
const TOO_SLOW: Refusal =
    Refusal::bad(StatusCode::REQUEST_TIMEOUT, "the rest of the header is missing");

/// Serves one connection to its end. The future is what a resting connection costs: keep it small.
pub(crate) fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    entry: Entry,
    open: Open,
) -> impl Future<Output = ()> {
    let seat = Seat::take(&worker.roster);
    async move {
        let mut client = stream;
        set_up(&client);
        let mut is_new = true;
        loop {
            match seat.rest(&client).await {
                Rested::Heard => {}
                Rested::Over => return,
                Rested::Leaves => return worker.roster.hand_out(client, entry, open),
            }
            if std::mem::take(&mut is_new) && Box::pin(begins_http2(&client)).await {
                drop(seat);
                Box::pin(in_http2(worker, client, entry)).await;
                return drop(open);
            }
            match Box::pin(converse(&worker, &mut client, &entry, &seat)).await {
                After::Rest => {}
                After::Close => return Box::pin(linger(&client)).await,
                After::Abort => return,
                After::Tunnel(tunnel) => return Box::pin(tunnel.run(&worker, client)).await,
            }
        }
    }
}

/// Streams are not this codec's.
async fn in_http2(worker: Rc<Worker>, client: TcpStream, entry: Entry) {
    let (socket, watch) = hyper::Socket::new(client);
    http2::serve(worker, socket, watch, Rc::new(hyper::Caller::plain(entry))).await;
}

/// What reading a head came to.
#[allow(clippy::large_enum_variant, reason = "moved once: cheaper than a box for each request")]
enum Heard {
    Head(Head),
    /// Nothing, after all.
    Nothing,
    Gone,
    Refused(Refusal),
}

/// Serves requests for as long as bytes of one are there.
async fn converse(
    worker: &Rc<Worker>,
    client: &mut TcpStream,
    entry: &Entry,
    seat: &Seat,
) -> After {
    let mut scratch = Lent::take(worker);
    loop {
        let mut listening = Listening { worker, client, entry, seat, scratch: &mut scratch };
        let head = match poll_fn(|context| listening.poll(context)).await {
            Heard::Head(head) => head,
            Heard::Nothing => return After::Rest,
            Heard::Gone => return After::Abort,
            Heard::Refused(refusal) => {
                worker.shared.refused(worker.index);
                let facts = Client {
                    is_old: false,
                    is_head: false,
                    wants_upgrade: false,
                    keeps_alive: false,
                };
                scratch.response.reset();
                refuse(client, &mut scratch, &refusal, facts).await;
                return After::Close;
            }
        };
        seat.is_busy();
        let after = carry_out(worker, seat, client, entry, &mut scratch, head).await;
        seat.rests();
        match after {
            After::Rest if !scratch.client.raw().is_empty() => {
                scratch.instance.reset(&worker.scratches);
                scratch.request.reset();
                scratch.response.reset();
                seat.reads();
            }
            After::Rest | After::Close | After::Abort | After::Tunnel(_) => return after,
        }
    }
}

/// A head being waited for.
struct Listening<'c> {
    worker: &'c Rc<Worker>,
    client: &'c mut TcpStream,
    entry: &'c Entry,
    seat: &'c Seat,
    scratch: &'c mut Scratch,
}

impl Listening<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Heard> {
        loop {
            let Scratch { client: inbound, request, .. } = &mut *self.scratch;
            if !inbound.raw().is_empty() {
                match head::read(inbound.raw(), self.entry, request.head()) {
                    Ok(Some(head)) => return Poll::Ready(Heard::Head(head)),
                    Ok(None) => {}
                    Err(refusal) => return Poll::Ready(Heard::Refused(refusal)),
                }
            }
            inbound.make_room(&self.worker.scratches);
            let begins = inbound.raw().is_empty();
            match inbound.poll_fill(context, self.client) {
                Poll::Ready(Ok(1..)) if begins => self.seat.reads(),
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(_)) if !begins => return Poll::Ready(Heard::Refused(CUT_SHORT)),
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(Heard::Gone),
                Poll::Pending if begins => return Poll::Ready(Heard::Nothing),
                Poll::Pending if self.seat.is_told(context) => {
                    return Poll::Ready(Heard::Refused(TOO_SLOW));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// One request, from its head to the end of its answer.
async fn carry_out(
    worker: &Rc<Worker>,
    seat: &Seat,
    client: &mut TcpStream,
    entry: &Entry,
    scratch: &mut Scratch,
    head: Head,
) -> After {
    let (is_old, is_head) = (head.is_old, head.has_bodiless_answer);
    let keeps_alive = head.keeps_alive && !worker.roster.is_stopping();
    let Ok(mut flight) = Flight::new(worker, seat, client, scratch, entry, head) else {
        worker.shared.refused(worker.index);
        let refusal = Refusal::bad(StatusCode::BAD_REQUEST, "the body is none");
        let facts = Client { is_old, is_head, wants_upgrade: false, keeps_alive: false };
        scratch.response.reset();
        refuse(client, scratch, &refusal, facts).await;
        return After::Close;
    };
    let refusal = match decide(worker, entry, &mut flight).await {
        Ok(answered) => return pass_on(&mut flight, answered).await,
        Err(refusal) => refusal,
    };
    log_refusal(worker, entry, &mut flight, &refusal);
    // Of a body that is not all here, nobody knows where the next request begins.
    let whole = flight.scratch.client.has_ended();
    let keeps_alive = keeps_alive && whole && !refusal.close;
    let facts = Client { is_old, is_head, wants_upgrade: false, keeps_alive };
    refuse(client, scratch, &refusal, facts).await;
    if keeps_alive { After::Rest } else { After::Close }
}

/// Writes an answer of our own, after whatever interim ones wait to be written.
async fn refuse(client: &mut TcpStream, scratch: &mut Scratch, refusal: &Refusal, facts: Client) {
    let Scratch { response, instance, .. } = scratch;
    write_refusal(refusal, facts, response.head());
    instance.begin(0, super::inbound::Body::Ended);
    let writing = poll_fn(|context| response.poll_write(context, client, instance));
    // A client that does not read this in time does not read it at all.
    let seconds = refusal.body().len() as u64 / OWN_ANSWER_BYTES_PER_SECOND_MIN;
    let _ = tokio::time::timeout(LINGER_MAX + Duration::from_secs(seconds), writing).await;
    // Few answers of our own are long; their room is not for every request after them.
    response.shrink();
}

/// Ends our side, then throws away what still comes: were it left unread, the kernel would reset
/// the connection, and the client might lose the answer it has not read. Holds no buffer.
async fn linger(client: &TcpStream) {
    if socket2::SockRef::from(client).shutdown(std::net::Shutdown::Write).is_err() {
        return;
    }
    let reading = poll_fn(|context| {
        while client.poll_read_ready(context).is_ready() {
            match client.try_read(&mut [0; 4096]) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    });
    // Longer than this is not an accident any more.
    let _ = tokio::time::timeout(LINGER_MAX, reading).await;
}
