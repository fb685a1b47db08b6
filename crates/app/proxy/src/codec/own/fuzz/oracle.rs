//! hyper's server and client as oracles of the own reader.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::Runtime;

use super::entry;
use crate::codec::own::head;
use crate::codec::own::inbound::{Body, Inbound};
use crate::codec::own::response::{self, Client};

/// A request as a reader sees it: method, target, data.
type Request = (String, String, Vec<u8>);
/// An answer as a reader sees it: status, data.
type Answer = (u16, Vec<u8>);

/// More than any stream that is fed here.
const PIPE_BYTES: usize = 1 << 20;

fn wait<F: Future>(work: F) -> F::Output {
    thread_local! {
        static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
    }
    RUNTIME.with_borrow_mut(|runtime| {
        let start = || tokio::runtime::Builder::new_current_thread().build();
        runtime.get_or_insert_with(|| start().expect("a runtime can be built")).block_on(work)
    })
}

/// How many requests the own reader sees in a client's stream; an error tells where hyper does not.
pub(super) fn requests_agree(bytes: &[u8]) -> Result<usize, String> {
    let (ours, theirs) = (own_requests(bytes), wait(their_requests(bytes)));
    let same = |(ours, theirs): (&Request, &Request)| {
        (&ours.0, &ours.2) == (&theirs.0, &theirs.2)
            && (ours.1 == theirs.1 || ours.1.to_ascii_lowercase().starts_with("http"))
    };
    if ours.len() <= theirs.len() && ours.iter().zip(&theirs).all(same) {
        return Ok(ours.len());
    }
    let text = String::from_utf8_lossy(bytes);
    Err(format!("{text:?}\nours:   {ours:?}\ntheirs: {theirs:?}"))
}

fn own_requests(bytes: &[u8]) -> Vec<Request> {
    let (mut inbound, mut messages) = (Inbound::new(), Vec::new());
    inbound.feed(bytes);
    while let Ok(Some(head)) = head::read(inbound.raw(), &entry(), &mut Vec::new()) {
        let line = String::from_utf8_lossy(&inbound.raw()[..head.bytes]).into_owned();
        let mut words = line.trim_start().split(' ').map(str::to_owned);
        let (method, target) = (words.next(), words.next());
        let keeps_alive = head.keeps_alive;
        inbound.begin(head.bytes, head.body);
        if inbound.decode().is_err() || !inbound.has_ended() {
            break;
        }
        let data = inbound.data().to_vec();
        messages.push((method.unwrap_or_default(), target.unwrap_or_default(), data));
        inbound.passed(inbound.data().len());
        if !keeps_alive {
            break;
        }
    }
    messages
}

/// The client's end of a pipe through which all of `bytes` came.
async fn stream_of(bytes: &[u8]) -> (DuplexStream, DuplexStream) {
    let (mut sender, receiver) = tokio::io::duplex(PIPE_BYTES);
    // Both only fail when the other end is gone, which we hold.
    let _ = sender.write_all(bytes).await;
    let _ = sender.shutdown().await;
    (sender, receiver)
}

async fn their_requests(bytes: &[u8]) -> Vec<Request> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: http::Request<Incoming>| {
        let seen = Rc::clone(&seen);
        async move {
            let (parts, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                let data = body.to_bytes().to_vec();
                seen.borrow_mut().push((parts.method.to_string(), parts.uri.to_string(), data));
            }
            Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new()))
        }
    });
    let (mut client, server) = stream_of(bytes).await;
    let serving = async {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.half_close(true);
        // It ends with an error whenever the stream does not end between two messages.
        let _ = builder.serve_connection(TokioIo::new(server), service).await;
    };
    let reading = async {
        let mut answers = Vec::new();
        let _ = client.read_to_end(&mut answers).await;
    };
    tokio::join!(serving, reading);
    seen.take()
}

/// Whether the own reader sees a whole answer in an instance's stream; an error tells that hyper
/// sees another.
pub(super) fn answers_agree(bytes: &[u8], is_head: bool) -> Result<bool, String> {
    let Some(ours) = own_answer(bytes, is_head) else { return Ok(false) };
    let theirs = wait(their_answer(bytes, is_head));
    if theirs.as_ref() == Some(&ours) {
        return Ok(true);
    }
    let text = String::from_utf8_lossy(bytes);
    Err(format!("to HEAD: {is_head}, {text:?}\nours:   {ours:?}\ntheirs: {theirs:?}"))
}

fn own_answer(bytes: &[u8], is_head: bool) -> Option<Answer> {
    let client = Client { is_old: false, is_head, wants_upgrade: false, keeps_alive: true };
    let mut inbound = Inbound::new();
    inbound.feed(bytes);
    let head = loop {
        let head = response::read(inbound.raw(), client, &mut Vec::new()).ok()??;
        if !head.is_interim() {
            break head;
        }
        inbound.begin(head.bytes, Body::Ended);
    };
    let until_close = matches!(head.body, Body::UntilClose);
    inbound.begin(head.bytes, head.body);
    inbound.decode().ok()?;
    // The stream has ended, and so has what ends with it.
    (until_close || inbound.has_ended()).then(|| (head.status, inbound.data().to_vec()))
}

async fn their_answer(bytes: &[u8], is_head: bool) -> Option<Answer> {
    let (client, mut server) = tokio::io::duplex(PIPE_BYTES);
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(client)).await;
    let (mut sender, connection) = handshake.ok()?;
    let method = if is_head { http::Method::HEAD } else { http::Method::GET };
    let mut request = http::Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    let answering = async {
        // It takes no answer before it has asked.
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") && server.read_buf(&mut asked).await.is_ok() {}
        let _ = server.write_all(bytes).await;
        let _ = server.shutdown().await;
        server
    };
    let asking = async move {
        let response = sender.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?;
        Some((status, body.to_bytes().to_vec()))
    };
    let (_server, _connection, answer) = tokio::join!(answering, connection, asking);
    answer
}
