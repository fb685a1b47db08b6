//! HTTP/2 as clients speak it, by prior knowledge: streams beside each other, bodies both ways,
//! what may not get through to HTTP/1.1, and gRPC.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use switchback_domain::Split;
use switchback_domain::tls::{UpstreamProtocol, UpstreamSpec};
use switchback_ports::DataPlane;
use switchback_routing::Table;
use tokio::net::TcpStream;

use super::frames::{self, END_HEADERS, END_STREAM, HEADERS, Raw, block, frame, head};
use super::support::*;

/// A connection to the data plane.
async fn http2(listen: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(listen).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

fn asking(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://a.test{path}")).body(()).unwrap()
}

async fn all_of(mut body: RecvStream) -> (String, Option<HeaderMap>) {
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        text.extend_from_slice(&data);
    }
    (String::from_utf8(text).unwrap(), body.trailers().await.unwrap())
}

#[tokio::test]
async fn streams_are_requests_like_any_other() {
    let (proxy, listen) = (Running::start().await, free_address());
    let echo = instance(|request: Request<hyper::body::Incoming>| async move {
        let told: Vec<_> = ["host", "cookie", "x-forwarded-proto", "te", "content-length"]
            .iter()
            .map(|name| {
                request.headers().get(*name).map_or("-", |v| v.to_str().unwrap()).to_owned()
            })
            .collect();
        let line = format!("{} {} {}", request.method(), request.uri(), told.join(" "));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut response = Response::new(full(format!("{line} {}", body.len())));
        response.headers_mut().insert("connection", "x-gone".parse().unwrap());
        response.headers_mut().insert("x-gone", "1".parse().unwrap());
        response
    })
    .await;
    proxy.plane.publish(&single(1, listen, "v1", &[echo])).await.unwrap();
    let mut sender = http2(listen).await;
    let mut request = asking("GET", "/p?q");
    for (name, value) in [("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")] {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let (answer, _) = sender.send_request(request, true).unwrap();
    let response = answer.await.unwrap();
    assert!(!response.headers().contains_key("x-gone"));
    let (text, _) = all_of(response.into_body()).await;
    assert_eq!(text, "GET /p?q a.test a=1; b=2 http trailers - 0");
    // Fifty uploads beside each other, each larger than its window.
    let mut waiting = Vec::new();
    for n in 0..50_usize {
        let length = 70_000 + n;
        let mut sender = sender.clone().ready().await.unwrap();
        waiting.push(tokio::spawn(async move {
            let (answer, mut body) = sender.send_request(asking("POST", "/"), false).unwrap();
            let mut left = length;
            while left > 0 {
                body.reserve_capacity(left.min(10_000));
                let granted = std::future::poll_fn(|c| body.poll_capacity(c)).await;
                let granted = granted.unwrap().unwrap().min(left);
                body.send_data(vec![b'x'; granted].into(), left == granted).unwrap();
                left -= granted;
            }
            let (text, _) = all_of(answer.await.unwrap().into_body()).await;
            assert_eq!(text, format!("POST / a.test - http - - {length}"));
        }));
    }
    for task in waiting {
        task.await.unwrap();
    }
    assert_eq!(proxy.stats("v1").await.answered(), 51);
}

#[tokio::test]
async fn what_would_mean_something_else_in_http1_does_not_get_through() {
    let (proxy, listen) = (Running::start().await, free_address());
    proxy.plane.publish(&single(1, listen, "v1", &[version("v1").await])).await.unwrap();
    let ended = END_HEADERS | END_STREAM;
    let malformed: [(&str, Vec<u8>); 12] = [
        ("a line break in a value", head("GET", &[("x", "a\r\nx-evil: 1")])),
        ("a NUL in a value", head("GET", &[("x", "a\0b")])),
        ("a name in capitals", head("GET", &[("X-Y", "1")])),
        ("a line break in a name", head("GET", &[("x\r\ny", "1")])),
        ("a colon in a name", head("GET", &[("x:y", "1")])),
        ("transfer-encoding", head("GET", &[("transfer-encoding", "chunked")])),
        ("connection", head("GET", &[("connection", "close")])),
        ("upgrade", head("GET", &[("upgrade", "websocket")])),
        ("te beyond trailers", head("GET", &[("te", "gzip")])),
        ("a length that is a lie", head("GET", &[("content-length", "5")])),
        ("a pseudo-field after others", head("GET", &[("x", "1"), (":path", "/two")])),
        ("no path", block(&[(":method", "GET"), (":scheme", "http"), (":authority", "a.test")])),
    ];
    for (name, head) in malformed {
        let mut raw = Raw::open(listen).await;
        raw.send(&frame(HEADERS, ended, 1, &head)).await;
        // What is no header at all ends the connection, what is no request only its stream.
        let error = loop {
            match raw.next().await {
                Some(frame) if matches!(frame.kind, frames::RST_STREAM | frames::GOAWAY) => {
                    break frame.error();
                }
                Some(_) => {}
                None => panic!("{name}: ended without a word"),
            }
        };
        let expected = [frames::PROTOCOL_ERROR, frames::COMPRESSION_ERROR];
        assert!(expected.contains(&error), "{name}: {error}");
    }
    let refused: [(&str, Vec<u8>); 7] = [
        ("another Host", head("GET", &[("host", "b.test")])),
        ("two lengths", head("POST", &[("content-length", "0"), ("content-length", "0")])),
        ("blanks around a value", head("GET", &[("x", " 1")])),
        ("two Hosts", head("GET", &[("host", "a.test"), ("host", "a.test")])),
        ("a user in the host", authority("u@a.test")),
        ("an authority that is none", authority("a test")),
        ("CONNECT", block(&[(":method", "CONNECT"), (":authority", "a.test:80")])),
    ];
    for (name, head) in refused {
        let mut raw = Raw::open(listen).await;
        raw.send(&frame(HEADERS, ended, 1, &head)).await;
        let answer = loop {
            match raw.next().await.unwrap() {
                frame if frame.kind == HEADERS => break frame.payload[0],
                frame if frame.kind == frames::RST_STREAM => break 0x8c,
                _ => {}
            }
        };
        // 0x8c is the table's `:status: 400`; 405 is a literal.
        assert!(answer == 0x8c || name == "CONNECT", "{name}: {answer:x}");
    }
    assert_eq!(proxy.stats("v1").await.accepted, 0, "none of them was taken for a request");
}

fn authority(name: &str) -> Vec<u8> {
    block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", name)])
}

/// A gRPC-like instance: answers each message as it comes, then the status that the path names.
async fn grpc() -> SocketAddr {
    raw_instance(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                assert_eq!(request.headers()["te"], "trailers");
                let status = request.uri().path().trim_start_matches('/').to_owned();
                let response = Response::builder()
                    .header("content-type", "application/grpc")
                    .body(())
                    .unwrap();
                let mut out = respond.send_response(response, false).unwrap();
                let mut body = request.into_body();
                while let Some(Ok(data)) = body.data().await {
                    body.flow_control().release_capacity(data.len()).unwrap();
                    out.send_data(data, false).unwrap();
                }
                let mut trailers = HeaderMap::new();
                if !status.is_empty() {
                    trailers.insert("grpc-status", status.parse().unwrap());
                }
                trailers.insert("x-heard", "all".parse().unwrap());
                out.send_trailers(trailers).unwrap();
            });
        }
    })
    .await
}

fn http2_table(listen: SocketAddr, instance: SocketAddr) -> Table {
    let mut arm = arm("v1", &[instance]);
    arm.upstream = UpstreamSpec { protocol: UpstreamProtocol::H2c, tls: None };
    table(1, listen, vec![arm], Split::all(release("v1")))
}

#[tokio::test]
async fn grpc_streams_both_ways_at_once_and_its_status_is_counted() {
    let (proxy, listen) = (Running::start().await, free_address());
    proxy.plane.publish(&http2_table(listen, grpc().await)).await.unwrap();
    let sender = http2(listen).await;
    for (status, failed) in [("0", 0), ("5", 0), ("14", 1), ("13", 2), ("", 3)] {
        let mut request = asking("POST", &format!("/{status}"));
        request.headers_mut().insert("te", "trailers".parse().unwrap());
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let mut sender = sender.clone().ready().await.unwrap();
        let (answer, mut out) = sender.send_request(request, false).unwrap();
        let mut body = answer.await.unwrap().into_body();
        for message in ["one", "two"] {
            // Each one is answered before the next is sent: nothing waits for an end.
            out.send_data(message.into(), false).unwrap();
            let heard = body.data().await.unwrap().unwrap();
            assert_eq!(heard, message);
            body.flow_control().release_capacity(heard.len()).unwrap();
        }
        out.send_data(Bytes::new(), true).unwrap();
        let (rest, trailers) = all_of(body).await;
        let trailers = trailers.unwrap();
        assert_eq!((rest.as_str(), &trailers["x-heard"]), ("", &"all".parse().unwrap()));
        assert_eq!(trailers.contains_key("grpc-status"), !status.is_empty());
        let counted = async || proxy.stats("v1").await.failed() == failed;
        eventually("the status is counted", counted).await;
    }
    assert_eq!(proxy.stats("v1").await.answered(), 5);
    let metrics = proxy.report().await.arms[0].in_flight;
    assert_eq!(metrics, 0);
}

#[tokio::test]
async fn a_client_that_takes_a_stream_back_takes_it_from_the_instance_too() {
    let (proxy, listen) = (Running::start().await, free_address());
    let (reset, mut resets) = tokio::sync::mpsc::unbounded_channel();
    let instance = raw_instance(move |stream| {
        let reset = reset.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_request, mut respond))) = connection.accept().await {
                let reset = reset.clone();
                tokio::spawn(async move {
                    let mut out = respond.send_response(Response::new(()), false).unwrap();
                    out.send_data("first".into(), false).unwrap();
                    let reason = std::future::poll_fn(|c| out.poll_reset(c)).await.unwrap();
                    reset.send(reason).unwrap();
                });
            }
        }
    })
    .await;
    proxy.plane.publish(&http2_table(listen, instance)).await.unwrap();
    let mut sender = http2(listen).await;
    let (answer, mut out) = sender.send_request(asking("POST", "/"), false).unwrap();
    let mut body = answer.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "first");
    out.send_reset(Reason::CANCEL);
    let reason = tokio::time::timeout(PATIENCE, resets.recv()).await.unwrap();
    assert_eq!(reason, Some(Reason::CANCEL));
    eventually("it counts as the client's doing", async || {
        let stats = proxy.stats("v1").await;
        stats.client_gone == 1 && proxy.in_flight("v1").await == 0
    })
    .await;
}

#[tokio::test]
async fn http1_clients_are_served_by_instances_that_speak_http2() {
    let (proxy, listen) = (Running::start().await, free_address());
    let connections = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&connections);
    let instance = raw_instance(move |stream| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                tokio::spawn(async move {
                    assert_eq!(request.uri().authority().unwrap(), "a.test");
                    assert!(!request.headers().contains_key("host"));
                    let (text, _) = all_of(request.into_body()).await;
                    let mut out = respond.send_response(Response::new(()), false).unwrap();
                    out.send_data(format!("heard {}", text.len()).into(), true).unwrap();
                });
            }
        }
    })
    .await;
    proxy.plane.publish(&http2_table(listen, instance)).await.unwrap();
    let mut sender = client(listen).await;
    for length in [0, 5, 100_000] {
        sender.ready().await.unwrap();
        let response = sender.send_request(post("/", "x".repeat(length))).await.unwrap();
        assert_eq!(read(response).await, (200, format!("heard {length}")));
    }
    let opened = connections.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(opened, 1, "requests share a connection");
}

#[tokio::test]
async fn at_the_end_streams_are_finished_and_new_ones_sent_elsewhere() {
    let (proxy, listen) = (Running::start().await, free_address());
    let (enter, mut entered) = tokio::sync::mpsc::unbounded_channel();
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let opening = std::sync::Arc::clone(&gate);
    let instance = instance(move |_| {
        let (enter, gate) = (enter.clone(), std::sync::Arc::clone(&gate));
        async move {
            enter.send(()).unwrap();
            gate.acquire().await.unwrap().forget();
            Response::new(full("late"))
        }
    })
    .await;
    proxy.plane.publish(&single(1, listen, "v1", &[instance])).await.unwrap();
    let mut raw = Raw::open(listen).await;
    raw.send(&frames::asks(1)).await;
    entered.recv().await.unwrap();
    let ending = async {
        let first = raw.until(frames::GOAWAY).await.unwrap();
        let last =
            |frame: &frames::Frame| u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
        assert_eq!((last(&first), first.error()), (0x7fff_ffff, 0), "first the warning");
        let ping = raw.until(frames::PING).await.unwrap();
        raw.send(&frame(frames::PING, frames::ACK, 0, &ping.payload)).await;
        let second = raw.until(frames::GOAWAY).await.unwrap();
        assert_eq!((last(&second), second.error()), (1, 0), "then the last one that is served");
        opening.add_permits(1);
        let data = raw.until(frames::DATA).await.unwrap();
        assert_eq!(data.payload, b"late");
        assert!(data.flags & END_STREAM != 0 || raw.next().await.is_some());
    };
    let (stopped, ()) = tokio::join!(proxy.plane.stop(), ending);
    stopped.unwrap();
}
