//! HTTP/2 clients that mean harm: each flood is ended with the right word, and in between the
//! others are served.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use switchback_ports::DataPlane;
use tokio::io::AsyncWriteExt;

use super::frames::*;
use super::support::*;

async fn start() -> (Running, SocketAddr) {
    let (proxy, listen) = (Running::start().await, free_address());
    proxy.plane.publish(&single(1, listen, "v1", &[version("v1").await])).await.unwrap();
    (proxy, listen)
}

/// Sends the same again and again until the connection ends; gives the verdict.
async fn flood(listen: SocketAddr, begin: &[u8], mut next: impl FnMut(u32) -> Vec<u8>) -> u32 {
    let mut raw = Raw::open(listen).await;
    raw.send(begin).await;
    let Raw(stream) = raw;
    let (from, mut to) = stream.into_split();
    let mut pieces = Vec::new();
    for n in 0..20_000 {
        pieces.push(next(n));
    }
    let writing = tokio::spawn(async move {
        for piece in pieces.chunks(100) {
            if to.write_all(&piece.concat()).await.is_err() {
                break;
            }
        }
        to
    });
    let mut reading = Reading(from);
    let verdict = reading.verdict().await.expect("the flood is ended with a word");
    drop(writing.await.unwrap());
    verdict
}

/// The half of a connection that is read while the other is flooded.
struct Reading(tokio::net::tcp::OwnedReadHalf);

impl Reading {
    async fn verdict(&mut self) -> Option<u32> {
        use tokio::io::AsyncReadExt;
        let mut verdict = None;
        let mut head = [0; 9];
        let end = Instant::now() + PATIENCE;
        while self.0.read_exact(&mut head).await.is_ok() && Instant::now() < end {
            let [a, b, c, kind, ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            if self.0.read_exact(&mut payload).await.is_err() {
                break;
            }
            if kind == GOAWAY {
                verdict = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
        verdict
    }
}

async fn still_serves(proxy: &Running, listen: SocketAddr) {
    assert_eq!(ask(listen, get("/")).await, (200, "v1".to_owned()));
    eventually("nothing is left in flight", async || proxy.in_flight("v1").await == 0).await;
}

#[tokio::test]
async fn floods_of_small_frames_are_ended() {
    let (proxy, listen) = start().await;
    let setting = [0, 3, 0, 0, 0, 100];
    let floods: [(&str, Vec<u8>); 5] = [
        ("SETTINGS", frame(SETTINGS, 0, 0, &setting)),
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
        ("unknown", frame(0x4d, 0, 0, b"?")),
        ("empty DATA", frame(DATA, 0, 1, &[])),
    ];
    for (name, piece) in floods {
        let open = frame(HEADERS, END_HEADERS, 1, &head("POST", &[]));
        let verdict = flood(listen, &open, |_| piece.clone()).await;
        assert_eq!(verdict, ENHANCE_YOUR_CALM, "{name}");
        still_serves(&proxy, listen).await;
    }
}

#[tokio::test]
async fn streams_that_are_taken_back_at_once_end_the_connection() {
    let (proxy, listen) = start().await;
    let rapid = |n: u32| {
        let stream = 2 * n + 1;
        [asks(stream), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    };
    assert_eq!(flood(listen, &[], rapid).await, ENHANCE_YOUR_CALM);
    still_serves(&proxy, listen).await;
    let report = proxy.report().await;
    assert!(report.arms[0].stats.accepted < 2_000, "{}", report.arms[0].stats.accepted);
}

#[tokio::test]
async fn streams_taken_back_one_by_one_use_a_budget_up() {
    let (proxy, listen) = start().await;
    let mut raw = Raw::open(listen).await;
    for n in 0..1_000 {
        let stream = 2 * n + 1;
        raw.send(&asks(stream)).await;
        // It is answered, or is over: each one was looked at, so none counts as pending.
        let seen = loop {
            match raw.next().await {
                Some(frame) if frame.kind == GOAWAY => break Some(frame.error()),
                Some(frame) if frame.stream == stream => break None,
                Some(_) => {}
                None => panic!("no word at the end"),
            }
        };
        if let Some(error) = seen {
            assert_eq!(error, ENHANCE_YOUR_CALM);
            assert!((190..=260).contains(&n), "after {n}");
            return still_serves(&proxy, listen).await;
        }
        raw.send(&frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())).await;
    }
    panic!("a thousand resets were taken");
}

#[tokio::test]
async fn a_client_that_makes_us_reset_its_streams_is_ended() {
    let (proxy, listen) = start().await;
    // MadeYouReset: a window beyond all makes the server reset a stream it works on.
    let made = |n: u32| {
        let stream = 2 * n + 1;
        [asks(stream), frame(WINDOW_UPDATE, 0, stream, &[127, 255, 255, 255])].concat()
    };
    let verdict = flood(listen, &[], made).await;
    assert_eq!(verdict, ENHANCE_YOUR_CALM);
    still_serves(&proxy, listen).await;
}

#[tokio::test]
async fn headers_without_end_are_ended() {
    let (proxy, listen) = start().await;
    let open = frame(HEADERS, END_STREAM, 1, &head("GET", &[]));
    let filler = block(&[("x-filler", &"a".repeat(100))]);
    let verdict = flood(listen, &open, |_| frame(CONTINUATION, 0, 1, &filler)).await;
    assert_eq!(verdict, ENHANCE_YOUR_CALM);
    let verdict = flood(listen, &open, |_| frame(CONTINUATION, 0, 1, &[])).await;
    assert_eq!(verdict, ENHANCE_YOUR_CALM, "empty ones cost too");
    // A list that is too large, in one frame, is refused by itself.
    let mut raw = Raw::open(listen).await;
    let large = [head("GET", &[]), filler.repeat(130)].concat();
    raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &large)).await;
    assert!(raw.until(HEADERS).await.is_some(), "answered, and not passed on");
    assert_eq!(proxy.stats("v1").await.accepted, 0);
    still_serves(&proxy, listen).await;
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused_and_the_rest_served() {
    let (proxy, listen) = start().await;
    let mut raw = Raw::open(listen).await;
    let open = |stream| frame(HEADERS, END_HEADERS, stream, &head("POST", &[]));
    let streams: Vec<u8> = (0..110).flat_map(|n| open(2 * n + 1)).collect();
    raw.send(&streams).await;
    for _ in 0..10 {
        let reset = raw.until(RST_STREAM).await.unwrap();
        assert_eq!(reset.error(), 7, "refused, so it may be sent again");
        assert!(reset.stream > 200, "{}", reset.stream);
    }
    eventually("a hundred are carried", async || proxy.in_flight("v1").await == 100).await;
    drop(raw);
    still_serves(&proxy, listen).await;
}

/// The library calls some wrong sizes a breach of protocol; either ends the connection.
const SIZE: &[u32] = &[FRAME_SIZE_ERROR, PROTOCOL_ERROR];

#[tokio::test]
async fn what_is_no_http2_is_ended_with_the_right_error() {
    let (proxy, listen) = start().await;
    let dependent = [&[0, 0, 0, 1, 16][..], &head("GET", &[])].concat();
    let cases: Vec<(&str, Vec<u8>, &[u32])> = vec![
        ("stream 0", asks(0), &[PROTOCOL_ERROR]),
        ("an even stream", asks(2), &[PROTOCOL_ERROR]),
        ("a stream that goes back", [asks(5), asks(3)].concat(), &[PROTOCOL_ERROR, 5]),
        ("DATA on an idle stream", frame(DATA, 0, 9, b"x"), &[PROTOCOL_ERROR]),
        ("a reset of an idle stream", frame(RST_STREAM, 0, 9, &[0; 4]), &[PROTOCOL_ERROR]),
        ("CONTINUATION alone", frame(CONTINUATION, 4, 1, b""), &[PROTOCOL_ERROR]),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), &[PROTOCOL_ERROR]),
        ("half a setting", frame(SETTINGS, 0, 0, &[0; 5]), SIZE),
        ("an acknowledgement with content", frame(SETTINGS, ACK, 0, &[0; 6]), SIZE),
        (
            "a window beyond all",
            frame(SETTINGS, 0, 0, &[0, 4, 255, 255, 255, 255]),
            &[FLOW_CONTROL_ERROR, PROTOCOL_ERROR],
        ),
        ("a short PING", frame(PING, 0, 0, &[0; 7]), SIZE),
        ("PING on a stream", frame(PING, 0, 1, &[0; 8]), &[PROTOCOL_ERROR]),
        ("no window", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), &[PROTOCOL_ERROR]),
        (
            "windows beyond all",
            frame(WINDOW_UPDATE, 0, 0, &[127, 255, 255, 255]),
            &[FLOW_CONTROL_ERROR],
        ),
        ("a frame too large", frame(DATA, 0, 1, &vec![0; 16_385]), SIZE),
        ("PUSH_PROMISE", frame(5, 4, 1, &[0, 0, 0, 2]), &[PROTOCOL_ERROR]),
        ("padding beyond the frame", frame(HEADERS, 0xd, 1, &[255, 0]), &[PROTOCOL_ERROR]),
        (
            "broken compression",
            frame(HEADERS, 5, 1, &[0xff, 0xff, 0xff, 0xff, 0xff]),
            &[COMPRESSION_ERROR, PROTOCOL_ERROR],
        ),
        (
            "other frames within a header",
            [frame(HEADERS, 1, 1, &[]), asks(3)].concat(),
            &[PROTOCOL_ERROR],
        ),
        ("a stream of its own", frame(HEADERS, 0x25, 1, &dependent), &[PROTOCOL_ERROR]),
    ];
    for (name, bytes, expected) in cases {
        let mut raw = Raw::open(listen).await;
        raw.send(&bytes).await;
        // The library may keep the connection and reset the one stream.
        let end = loop {
            match raw.next().await {
                Some(frame) if matches!(frame.kind, GOAWAY | RST_STREAM) => break frame.error(),
                Some(_) => {}
                None => panic!("{name}: ended without a word"),
            }
        };
        assert!(expected.contains(&end), "{name}: {end}");
    }
    still_serves(&proxy, listen).await;
}

#[tokio::test]
async fn random_frames_do_no_harm() {
    let (proxy, listen) = start().await;
    let end = Instant::now() + Duration::from_secs(3);
    let mut seed = 0x5eed_u64;
    let mut dice = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    while Instant::now() < end {
        let mut raw = Raw::open(listen).await;
        for _ in 0..dice(40) {
            let stream = u32::try_from(dice(8)).unwrap();
            let (kind, flags) = (u8::try_from(dice(11)).unwrap(), u8::try_from(dice(64)).unwrap());
            let payload: Vec<u8> = match dice(3) {
                0 => head("GET", &[]),
                _ => (0..dice(30)).map(|_| u8::try_from(dice(256)).unwrap()).collect(),
            };
            raw.send(&frame(kind, flags, stream, &payload)).await;
        }
    }
    still_serves(&proxy, listen).await;
}
