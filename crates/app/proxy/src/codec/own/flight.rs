//! One request in flight, up to the head of its answer: the upload goes up while the answer is
//! waited for, and a client that leaves is noticed.

use std::future::poll_fn;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use switchback_routing::RequestView;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::chunked::Malformed;
use super::fields::values;
use super::head::Head;
use super::inbound::Body;
use super::link::Link;
use super::outbound::Framing;
use super::response::{self, Client, Response, add_field};
use super::roster::Seat;
use super::scratch::Scratch;
use crate::compiled::Arm;
use crate::exchange::{Exchange, Sent, path_or_root};
use crate::limits::INTERIM_RESPONSES_MAX;
use crate::pool::Pool;
use crate::service::Entry;
use crate::upload::{Patience, Upload, patience_with};
use crate::worker::Worker;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// See the module.
#[derive(Debug)]
pub(super) struct Flight<'c> {
    pub(super) worker: &'c Rc<Worker>,
    seat: &'c Seat,
    pub(super) client: &'c mut TcpStream,
    pub(super) scratch: &'c mut Scratch,
    pub(super) head: Head,
    /// Where the head lies in the client's input.
    head_at: usize,
    /// The host for clients that name none.
    host: Option<String>,
    upload: Option<Rc<Upload>>,
    /// What the answer is to set.
    cookie: Option<String>,
    /// The whole request has been written.
    pub(super) is_sent: bool,
    /// The instance does not take the rest of it.
    is_deaf: bool,
    interims: usize,
}

/// The head of an answer, and where its body comes from.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) link: Link,
    pub(super) response: Response,
}

impl<'c> Flight<'c> {
    /// A request whose head was read into `scratch.client` and written to `scratch.request`.
    pub(super) fn new(
        worker: &'c Rc<Worker>,
        seat: &'c Seat,
        client: &'c mut TcpStream,
        scratch: &'c mut Scratch,
        entry: &Entry,
        mut head: Head,
    ) -> Result<Self, Malformed> {
        let head_at = scratch.client.raw_start();
        let body = std::mem::replace(&mut head.body, Body::Ended);
        let chunked = matches!(body, Body::Chunked(_));
        let upload = (!body.has_ended()).then(Upload::new);
        scratch.request.set_framing(if chunked { Framing::Chunked } else { Framing::Plain });
        scratch.client.begin(head.bytes, body);
        // What came with the head leaves with it.
        scratch.client.decode()?;
        if let Some(upload) = &upload {
            upload.carried(scratch.client.data().len());
        }
        scratch.request.frame(&mut scratch.client)?;
        let host = head.host.is_none().then(|| entry.listen.to_string());
        let (is_sent, is_deaf, interims) = (false, false, 0);
        Ok(Self {
            worker,
            seat,
            client,
            scratch,
            head,
            head_at,
            host,
            upload,
            cookie: None,
            is_sent,
            is_deaf,
            interims,
        })
    }

    /// What shapes the answer.
    pub(super) fn facts(&self) -> Client {
        Client {
            is_old: self.head.is_old,
            is_head: self.head.has_bodiless_answer,
            wants_upgrade: self.head.wants_upgrade,
            keeps_alive: self.head.keeps_alive && self.is_sent && !self.worker.roster.is_stopping(),
        }
    }

    fn poll_in_time(
        &mut self,
        context: &mut Context<'_>,
        instance: &mut TcpStream,
    ) -> Poll<Result<Result<Response, Sent<Answer>>, TimeIsUp>> {
        match self.poll_send(context, instance) {
            Poll::Ready(sent) => Poll::Ready(Ok(sent)),
            Poll::Pending if self.seat.is_told(context) => Poll::Ready(Err(TimeIsUp)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        instance: &mut TcpStream,
    ) -> Poll<Result<Response, Sent<Answer>>> {
        if let Err(sent) = self.poll_upload(context, instance) {
            return Poll::Ready(Err(sent));
        }
        if let Poll::Ready(answer) = self.poll_answer(context, instance) {
            return Poll::Ready(answer);
        }
        match self.poll_client(context) {
            Ok(()) => Poll::Pending,
            Err(ClientGone) => Poll::Ready(Err(Sent::ClientGone)),
        }
    }

    /// Moves as much of the request as both sides let.
    fn poll_upload(
        &mut self,
        context: &mut Context<'_>,
        instance: &mut TcpStream,
    ) -> Result<(), Sent<Answer>> {
        while !self.is_sent && !self.is_deaf {
            let Scratch { client, request, .. } = &mut *self.scratch;
            match request.poll_write(context, instance, client) {
                Poll::Ready(Ok(())) if request.has_ended() => self.is_sent = true,
                Poll::Ready(Ok(())) => {
                    if self.poll_body(context)?.is_pending() {
                        break;
                    }
                }
                Poll::Ready(Err(_)) if !request.has_begun() => return Err(Sent::Unsent),
                // It may have answered before it stopped listening.
                Poll::Ready(Err(_)) => self.is_deaf = true,
                Poll::Pending => {
                    if let Some(upload) = &self.upload {
                        upload.held_up(Instant::now());
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    /// Reads the next part of the client's body.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Result<Poll<()>, Sent<Answer>> {
        let Some(upload) = &self.upload else { return Ok(Poll::Ready(())) };
        let Scratch { client, request, response, .. } = &mut *self.scratch;
        match client.poll_more(context, self.client, &self.worker.scratches) {
            Poll::Ready(Ok(count)) => {
                upload.came(count, Instant::now());
                upload.carried(client.data().len());
                let framed = request.frame(client);
                framed.map(Poll::Ready).map_err(|Malformed| Sent::ClientGone)
            }
            Poll::Ready(Err(Malformed)) => Err(Sent::ClientGone),
            Poll::Pending => {
                upload.waits(Instant::now());
                if std::mem::take(&mut self.head.expects_continue) {
                    response.head().extend_from_slice(CONTINUE);
                }
                Ok(Poll::Pending)
            }
        }
    }

    fn poll_answer(
        &mut self,
        context: &mut Context<'_>,
        instance: &mut TcpStream,
    ) -> Poll<Result<Response, Sent<Answer>>> {
        let facts = self.facts();
        loop {
            self.scratch.instance.make_room(&self.worker.scratches);
            let Scratch { instance: inbound, response: outbound, .. } = &mut *self.scratch;
            match inbound.poll_fill(context, instance) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(_) | Err(_)) => {
                    let silent = inbound.raw().is_empty() && self.interims == 0;
                    return Poll::Ready(Err(if silent { Sent::Silent } else { Sent::Garbled }));
                }
                Poll::Pending => return Poll::Pending,
            }
            while let Some(head) = match response::read(inbound.raw(), facts, outbound.head()) {
                Ok(head) => head,
                Err(Malformed) => return Poll::Ready(Err(Sent::Garbled)),
            } {
                if !head.is_interim() {
                    if let Some(cookie) = &self.cookie {
                        add_field(outbound.head(), b"set-cookie", cookie.as_bytes());
                    }
                    return Poll::Ready(Ok(head));
                }
                inbound.begin(head.bytes, Body::Ended);
                self.interims += 1;
                if self.interims > INTERIM_RESPONSES_MAX {
                    return Poll::Ready(Err(Sent::Garbled));
                }
            }
            if !inbound.has_room() && inbound.raw().len() >= crate::limits::BUFFER_BYTES_MAX {
                return Poll::Ready(Err(Sent::Garbled));
            }
        }
    }

    /// Writes interim responses, and notices when the client has left.
    fn poll_client(&mut self, context: &mut Context<'_>) -> Result<(), ClientGone> {
        let Scratch { response, instance, .. } = &mut *self.scratch;
        if !response.rest().is_empty()
            && let Poll::Ready(Err(_)) = response.poll_write(context, self.client, instance)
        {
            return Err(ClientGone);
        }
        self.watch(context)
    }

    /// Notices when a client that has sent its request leaves. What else comes is the start of its
    /// next request, which has to wait.
    fn watch(&mut self, context: &mut Context<'_>) -> Result<(), ClientGone> {
        let client = &mut self.scratch.client;
        while self.is_sent && client.has_room() {
            match client.poll_fill(context, self.client) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(_) | Err(_)) => return Err(ClientGone),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// While the answer is passed on: the rest of the request, and whether anybody wants it.
    pub(super) fn poll_aside(
        &mut self,
        context: &mut Context<'_>,
        instance: Option<&mut TcpStream>,
    ) -> Result<(), ClientGone> {
        if let Some(instance) = instance
            && !self.is_sent
        {
            match self.poll_upload(context, instance) {
                Ok(()) => {}
                Err(Sent::ClientGone) => return Err(ClientGone),
                Err(_) => self.is_deaf = true,
            }
        }
        self.watch(context)
    }
}

/// The answer is not there when it should be.
#[derive(Debug)]
struct TimeIsUp;

/// Nobody is there to be answered.
#[derive(Debug)]
pub(super) struct ClientGone;

impl Exchange for Flight<'_> {
    type Link = Link;
    type Answer = Answer;

    fn view<T>(&self, entry: &Entry, look: impl FnOnce(&RequestView<'_>) -> T) -> T {
        let part = |part: &Range<usize>| self.scratch.client.part(self.head_at, part);
        let text = |range| std::str::from_utf8(part(range)).unwrap_or_default();
        // One check for all that the line holds.
        let start = self.head.method.start;
        let line = start..self.head.query.end;
        let line = text(&line);
        let of_line = |part: &Range<usize>| {
            line.get(part.start.wrapping_sub(start)..part.end.wrapping_sub(start))
                .unwrap_or_default()
        };
        let whole = 0..self.head.bytes;
        let host = match (&self.head.host, &self.host) {
            (Some(host), _) => text(host),
            (None, host) => host.as_deref().unwrap_or_default(),
        };
        let headers = |name: &str, visit: &mut dyn FnMut(&[u8]) -> bool| {
            values(part(&whole), name).any(visit)
        };
        look(&RequestView {
            listen: entry.listen,
            client: entry.client.ip(),
            method: of_line(&self.head.method),
            host,
            path: path_or_root(of_line(&self.head.path)),
            query: of_line(&self.head.query),
            headers: &headers,
        })
    }

    fn set_cookie(&mut self, cookie: String) {
        self.cookie = Some(cookie);
    }

    fn mark_sampled(&mut self) {
        if let Some(at) = self.head.sampled_at {
            self.scratch.request.mark_sampled(at);
        }
    }

    fn forwarded(&mut self, name: &str) -> Option<String> {
        let value = values(self.scratch.request.rest(), name).next()?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    fn copy(&self) -> Option<Vec<u8>> {
        let Scratch { client, request, .. } = &*self.scratch;
        if self.head.wants_upgrade { None } else { request.whole(client) }
    }

    async fn client_gone(&mut self) {
        poll_fn(|context| {
            let mut byte = [0];
            match self.client.poll_peek(context, &mut ReadBuf::new(&mut byte)) {
                // What comes is the rest of this request or the next one; the end lies behind it.
                Poll::Ready(Ok(1..)) | Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(_) | Err(_)) => Poll::Ready(()),
            }
        })
        .await;
    }

    fn is_repeatable(&self) -> bool {
        self.head.is_repeatable
    }

    fn pool(worker: &Worker) -> &Pool<Link> {
        &worker.own_pool
    }

    async fn open(_: &Worker, stream: TcpStream, arm: &Arm) -> Option<Link> {
        // This codec speaks HTTP/1.1 in plain text; addresses with other routes get the other one.
        arm.upstream.is_default().then(|| Link::new(stream))
    }

    fn upload(&self) -> Option<Rc<Upload>> {
        self.upload.clone()
    }

    fn can_be_sent(&self) -> bool {
        self.head.is_repeatable || !self.scratch.request.has_begun()
    }

    fn answer_header(
        &self,
        answer: &Answer,
        name: &str,
        visit: &mut dyn FnMut(&[u8]) -> bool,
    ) -> bool {
        let head = self.scratch.instance.raw().get(..answer.response.bytes);
        values(head.unwrap_or_default(), name).any(visit)
    }

    fn may_discard(&self) -> bool {
        self.interims == 0
    }

    fn discard(&mut self, answer: Answer) {
        drop(answer);
        self.scratch.response.reset();
    }

    fn status(answer: &Answer) -> u16 {
        answer.response.status
    }

    async fn send(
        &mut self,
        mut link: Link,
        now: std::time::Instant,
        timeout: Duration,
        _again: bool,
    ) -> Sent<Answer> {
        self.scratch.instance.reset(&self.worker.scratches);
        self.scratch.request.rewind();
        (self.is_sent, self.is_deaf) = (false, false);
        let mut deadline = Instant::from_std(now) + timeout;
        let sent = loop {
            self.seat.awaits(deadline);
            match poll_fn(|context| self.poll_in_time(context, &mut link.stream)).await {
                Ok(sent) => break sent,
                Err(TimeIsUp) => match patience_with(self.upload.as_deref(), timeout) {
                    Patience::Until(later) => deadline = later,
                    Patience::Over(late) => break Err(Sent::Late(late)),
                },
            }
        };
        self.seat.awaits_nothing();
        match sent {
            Ok(response) => Sent::Answered(Answer { link, response }),
            Err(sent) => sent,
        }
    }
}
