//! hyper's server as the oracle: of the same bytes, the own reader may refuse more, but it never
//! sees another message, or the same one ending elsewhere.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::head;
use super::inbound::Inbound;
use crate::service::Entry;

/// A message as a reader sees it: method, target, data.
type Message = (String, String, Vec<u8>);

/// What the own reader makes of a stream.
fn own(bytes: &[u8]) -> Vec<Message> {
    let address = ([127, 0, 0, 1], 80).into();
    let entry = Entry { listen: address, client: address, secure: false };
    let (mut inbound, mut messages) = (Inbound::new(), Vec::new());
    inbound.feed(bytes);
    loop {
        let mut written = Vec::new();
        let Ok(Some(head)) = head::read(inbound.raw(), &entry, &mut written) else { break };
        let line = String::from_utf8_lossy(&inbound.raw()[..head.bytes]).into_owned();
        let mut words = line.trim_start().split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let keeps_alive = head.keeps_alive;
        inbound.begin(head.bytes, head.body);
        if inbound.decode().is_err() || !inbound.has_ended() {
            break;
        }
        messages.push((method, target, inbound.data().to_vec()));
        inbound.passed(inbound.data().len());
        if !keeps_alive {
            break;
        }
    }
    messages
}

/// What hyper makes of it.
async fn oracle(bytes: &[u8]) -> Vec<Message> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (mut client, server) = tokio::io::duplex(1 << 20);
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
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
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

fn agree(bytes: &[u8]) -> Result<usize, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let theirs = runtime.expect("a runtime").block_on(oracle(bytes));
    let ours = own(bytes);
    let same = |(ours, theirs): (&Message, &Message)| {
        (&ours.0, &ours.2) == (&theirs.0, &theirs.2)
            && (ours.1 == theirs.1 || ours.1.to_ascii_lowercase().starts_with("http"))
    };
    if ours.len() <= theirs.len() && ours.iter().zip(&theirs).all(same) {
        return Ok(ours.len());
    }
    let text = String::from_utf8_lossy(bytes);
    Err(format!("{text:?}\nours:   {ours:?}\ntheirs: {theirs:?}"))
}

/// Streams that are nearly always valid.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let method = prop::sample::select(vec!["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "X"]);
    let target = prop::sample::select(vec![
        "/",
        "/a?b=c",
        "*",
        "http://h.test/p",
        "/%2e",
        "/a#b",
        "/{|}?[\"]",
    ]);
    let version = prop::sample::select(vec!["1.1", "1.1", "1.1", "1.1", "1.0"]);
    let field = prop::sample::select(vec![
        "x: 1\r\n",
        "Connection: close\r\n",
        "Connection: keep-alive\r\n",
        "connection: x, te\r\n",
        "X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
        "expect: 100-continue\r\n",
        "Content-Length: 3\r\n",
        "transfer-encoding: chunked\r\n",
        "transfer-encoding: gzip\r\n",
        "te: trailers\r\n",
        "host: b\r\n",
        " folded: 1\r\n",
        "bare: 1\n",
    ]);
    let chunk = (prop::collection::vec(any::<u8>(), 1..20), 0..6_u8).prop_map(|(data, kind)| {
        let extension = ["", "", "", ";a=b", "; a = \"b;\\\"\r\"", " "][usize::from(kind)];
        let mut chunk = format!("{:x}{extension}\r\n", data.len()).into_bytes();
        chunk.extend_from_slice(&data);
        chunk.extend_from_slice(b"\r\n");
        chunk
    });
    let trailer = prop::sample::select(vec!["", "", "x: 1\r\n", "content-length: 5\r\n"]);
    let chunked = (prop::collection::vec(chunk, 0..4), trailer).prop_map(|(chunks, trailer)| {
        [chunks.concat(), format!("0\r\n{trailer}\r\n").into()].concat()
    });
    let body = prop_oneof![
        3 => Just((String::new(), Vec::new())),
        3 => prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|data| (format!("content-length: {}\r\n", data.len()), data)),
        4 => chunked.prop_map(|data| ("Transfer-Encoding: chunked\r\n".to_owned(), data)),
    ];
    let fields = prop_oneof![
        3 => Just(Vec::new()),
        2 => prop::collection::vec(field, 1..3),
    ];
    (method, target, version, fields, body).prop_map(|(method, target, version, fields, body)| {
        let head = format!(
            "{method} {target} HTTP/{version}\r\nhost: a\r\n{}{}\r\n",
            fields.concat(),
            body.0
        );
        [head.into_bytes(), body.1].concat()
    })
}

/// What may be done to a stream.
#[derive(Debug, Clone)]
enum Harm {
    Replace(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Repeat(usize, usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    let at = 0..400_usize;
    let piece = prop::sample::select(vec![
        &b"\r"[..],
        b"\n",
        b"\0",
        b" ",
        b"\t",
        b"\r\n",
        b"\r\n ",
        b"0",
        b"+",
        b"0x",
        b",",
        b";",
        b"\"",
        b":",
        b"\x0b",
        b"\xff",
        b"chunked",
        b"content-length: 1\r\n",
        b"transfer-encoding: x\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"GET / HTTP/1.1\r\n",
    ]);
    prop_oneof![
        1 => (at.clone(), any::<u8>()).prop_map(|(at, byte)| Harm::Replace(at, byte)),
        4 => (at.clone(), piece).prop_map(|(at, piece)| Harm::Insert(at, piece.to_vec())),
        1 => (at.clone(), 1..9_usize).prop_map(|(at, count)| Harm::Remove(at, count)),
        1 => (at, 1..30_usize).prop_map(|(at, count)| Harm::Repeat(at, count)),
    ]
}

fn harmed(mut bytes: Vec<u8>, harms: Vec<Harm>) -> Vec<u8> {
    for harm in harms {
        let length = bytes.len().max(1);
        match harm {
            Harm::Replace(at, byte) => {
                if let Some(place) = bytes.get_mut(at % length) {
                    *place = byte;
                }
            }
            Harm::Insert(at, piece) => drop(bytes.splice(at % length..at % length, piece)),
            Harm::Remove(at, count) => {
                let start = at % length;
                drop(bytes.drain(start..(start + count).min(bytes.len())));
            }
            Harm::Repeat(at, count) => {
                let start = at % length;
                let piece = bytes[start..(start + count).min(bytes.len())].to_vec();
                drop(bytes.splice(start..start, piece));
            }
        }
    }
    bytes
}

/// How many streams are tried: more on demand.
fn cases() -> u32 {
    std::env::var("SWITCHBACK_DIFFERENTIAL_CASES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(3_000)
}

#[test]
fn the_own_reader_never_sees_another_message_than_hyper() {
    let config =
        ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() };
    let streams = prop::collection::vec(message(), 1..4);
    let harms = prop_oneof![2 => Just(Vec::new()), 5 => prop::collection::vec(harm(), 1..4)];
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let agreed = std::cell::Cell::new(0);
    let run = runner.run(&(streams, harms), |(messages, harms)| {
        match agree(&harmed(messages.concat(), harms)) {
            Ok(count) => agreed.set(agreed.get() + count),
            Err(difference) => return Err(TestCaseError::fail(difference)),
        }
        Ok(())
    });
    assert!(run.is_ok(), "{}", run.unwrap_err());
    let read = agreed.get();
    assert!(read > cases() as usize / 5, "the streams must be worth reading: {read}");
}

#[test]
fn known_disagreements_of_parsers_are_none_here() {
    for bytes in [
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ncontent-length: 4\r\n\r\nGET ",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4, 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
        "\n\r\n\nGET / HTTP/1.1\nhost: a\n\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n y: 2\r\n\r\n",
    ] {
        assert_eq!(
            agree(bytes.as_bytes()),
            Ok(0),
            "{bytes:?} is refused, and nothing is read of it"
        );
    }
    let valid = "\r\nPOST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n0\r\nt: 1\r\n\r\nGET / HTTP/1.0\r\n\r\n";
    assert_eq!(agree(valid.as_bytes()), Ok(2));
}
