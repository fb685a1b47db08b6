//! What must hold for any bytes whatever, as functions of those bytes: they panic where it does
//! not. `fuzz/` feeds them; so does a test here, shortly and the same each time.

mod oracle;
#[cfg(test)]
mod streams;

use super::chunked::Chunked;
use super::head::{self, Head};
use super::inbound::{Body, Inbound};
use super::outbound::{Framing, Outbound};
use super::response::{self, Client, Response};
use crate::limits::{HEADER_BYTES_MAX, HEADERS_MAX};
use crate::service::Entry;

/// Streams up to this length are cut at every place, longer ones at this many.
const CUTS: usize = 64;
/// What only our own head has: the end of it is not the same twice.
const DRAWN: &[u8] = b"\r\nx-request-id: ";

fn entry() -> Entry {
    let address = ([127, 0, 0, 1], 80).into();
    Entry { listen: address, client: address, secure: false }
}

/// A request's head: however it is cut, it is read once and the same way, and what the instance
/// gets is one message of the same framing.
///
/// # Panics
///
/// If that does not hold.
pub fn request_head(bytes: &[u8]) {
    let Some((head, written)) = read_request(bytes) else { return };
    for end in cuts(head.bytes) {
        let early = head::read(&bytes[..end], &entry(), &mut Vec::new());
        assert!(matches!(early, Ok(None)), "cut at {end}, it is {early:?}");
    }
    let (alone, again) = read_request(&bytes[..head.bytes]).expect("it was a head before");
    assert_eq!((alone.bytes, before_the_draw(&again)), (head.bytes, before_the_draw(&written)));
    check_lines(&written);
    if !can_be_read(&written) {
        return;
    }
    let (passed, _) = read_request(&written).expect("what is written is a request");
    assert_eq!(passed.bytes, written.len(), "and only one");
    assert_eq!(format!("{:?}", passed.body), format!("{:?}", head.body));
    let is_same = |part: &std::ops::Range<usize>, other: &std::ops::Range<usize>| {
        bytes[part.clone()] == written[other.clone()]
    };
    if let Some(host) = &head.host {
        assert!(passed.host.is_some_and(|passed| is_same(host, &passed)), "another host");
    }
    assert!(head.path.is_empty() || is_same(&head.path, &passed.path), "another path");
}

fn read_request(bytes: &[u8]) -> Option<(Head, Vec<u8>)> {
    let mut written = Vec::new();
    let head = head::read(bytes, &entry(), &mut written).ok()??;
    Some((head, written))
}

fn before_the_draw(head: &[u8]) -> &[u8] {
    let at = head.windows(DRAWN.len()).position(|part| part == DRAWN);
    &head[..at.unwrap_or(head.len())]
}

/// Every line ends in CR LF, and there is no other CR, LF or NUL: nothing splits in two.
fn check_lines(head: &[u8]) {
    let text = head.strip_suffix(b"\r\n\r\n").expect("a head ends in an empty line");
    let mut at = 0;
    while let Some(found) = text[at..].iter().position(|byte| b"\r\n\0".contains(byte)) {
        at += found;
        assert!(text[at..].starts_with(b"\r\n"), "a bare CR, LF or NUL at {at}");
        assert!(!text[at + 2..].starts_with(b"\r\n"), "an empty line at {at}");
        at += 2;
    }
}

/// Whether a head that was written is within what is read: our fields come on top of the sender's.
fn can_be_read(head: &[u8]) -> bool {
    let lines = head.split(|byte| *byte == b'\n').count() - 1;
    // The first line and the empty one hold no fields.
    head.len() <= HEADER_BYTES_MAX && lines <= HEADERS_MAX + 2
}

/// A response's head, for each kind of client: the same, and the client gets one message whose
/// framing it knows.
///
/// # Panics
///
/// If that does not hold.
pub fn response_head(bytes: &[u8]) {
    for kind in 0..16 {
        let bit = |place: u8| kind >> place & 1 == 1;
        let client =
            Client { is_old: bit(0), is_head: bit(1), wants_upgrade: bit(2), keeps_alive: bit(3) };
        let Some((head, written)) = read_response(bytes, client) else { continue };
        for end in cuts(head.bytes) {
            let early = response::read(&bytes[..end], client, &mut Vec::new());
            assert!(matches!(early, Ok(None)), "cut at {end}, it is {early:?}");
        }
        check_response(&head, &written, client);
    }
}

fn read_response(bytes: &[u8], client: Client) -> Option<(Response, Vec<u8>)> {
    let mut written = Vec::new();
    let head = response::read(bytes, client, &mut written).ok()??;
    Some((head, written))
}

fn check_response(head: &Response, written: &[u8], client: Client) {
    if written.is_empty() {
        assert!(head.is_interim());
        return;
    }
    check_lines(written);
    if !can_be_read(written) {
        return;
    }
    let new = Client { is_old: false, ..client };
    let (passed, _) = read_response(&with_version(written), new).expect("it is a response");
    assert_eq!((passed.bytes, passed.status), (written.len(), head.status));
    match (head.framing, &passed.body) {
        (Framing::Plain, body) => assert_eq!(format!("{body:?}"), format!("{:?}", head.body)),
        (Framing::Chunked, body) => assert!(matches!(body, Body::Chunked(_)) && !client.is_old),
        (Framing::UntilClose, body) => {
            assert!(matches!(body, Body::UntilClose) && !head.client_keeps_alive);
        }
    }
}

/// The same head in HTTP/1.1: an old client's differs in that alone.
fn with_version(head: &[u8]) -> Vec<u8> {
    [b"HTTP/1.1", head.get(8..).unwrap_or_default()].concat()
}

/// A chunked body: the same data, trailers and end however it is cut, and again when it was sent
/// on.
///
/// # Panics
///
/// If that does not hold.
pub fn chunked_body(bytes: &[u8]) {
    let whole = read_body(bytes, bytes.len().max(1));
    for piece in [1, 2, 7] {
        assert_eq!(read_body(bytes, piece), whole, "in pieces of {piece}");
    }
    let Some((data, taken, sent)) = whole else { return };
    assert!(taken <= bytes.len() && data.len() < bytes.len());
    let (again, length, _) = read_body(&sent, sent.len()).expect("what is sent on is a body");
    assert_eq!((again, length), (data, sent.len()));
}

/// Data, the length of the body, and how it is sent on when it came in one piece. `None` if it is
/// no body or not a whole one.
fn read_body(bytes: &[u8], piece: usize) -> Option<(Vec<u8>, usize, Vec<u8>)> {
    let (mut inbound, mut outbound) = (Inbound::new(), Outbound::default());
    outbound.set_framing(Framing::Chunked);
    inbound.begin(0, Body::Chunked(Chunked::new()));
    let (mut data, mut fed) = (Vec::new(), 0);
    while !inbound.has_ended() {
        let next = bytes.get(fed..)?;
        let next = &next[..piece.min(next.len())];
        if next.is_empty() {
            return None;
        }
        inbound.feed(next);
        fed += next.len();
        inbound.decode().ok()?;
        data.extend_from_slice(inbound.data());
        if !inbound.has_ended() {
            inbound.passed(inbound.data().len());
        }
    }
    let taken = fed - inbound.raw().len();
    let mut sent = Vec::new();
    inbound.replace_data(&data);
    outbound.frame(&mut inbound).ok()?;
    outbound.copy_to(&inbound, &mut sent);
    Some((data, taken, sent))
}

/// hyper as the oracle: of the same bytes, the own reader may refuse more, but it never sees
/// another message, or the same one ending elsewhere. The first byte says whether the rest is a
/// client's requests (even) or an instance's answer, and to which method.
///
/// # Panics
///
/// If they disagree.
pub fn differential(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let agreed = match kind % 4 {
        0 | 2 => oracle::requests_agree(bytes).map(drop),
        1 => oracle::answers_agree(bytes, false).map(drop),
        _ => oracle::answers_agree(bytes, true).map(drop),
    };
    if let Err(difference) = agreed {
        panic!("{difference}");
    }
}

/// Places before `end` to cut at, the last ones among them.
fn cuts(end: usize) -> impl Iterator<Item = usize> {
    let step = end.div_ceil(CUTS).max(1);
    (1..end).rev().step_by(step)
}
