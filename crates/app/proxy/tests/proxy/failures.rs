//! Instances and clients that misbehave: what is repeated, what is answered, what is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Response;
use switchback_domain::ArmStats;
use switchback_ports::DataPlane;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::*;

#[tokio::test]
async fn a_refused_connection_is_tried_elsewhere_also_with_a_body() {
    let (proxy, listen) = (Running::start().await, free_address());
    let dead = [free_address(), free_address(), free_address(), free_address()];
    let addresses = [&dead[..], &[version("v1").await]].concat();
    proxy.plane.publish(&single(1, listen, "v1", &addresses)).await.unwrap();
    for n in 0..100 {
        let request = if n % 2 == 0 { get("/") } else { post("/", "data") };
        assert_eq!(ask(listen, request).await, (200, "v1".to_owned()));
    }
    let counted = proxy.stats("v1").await;
    assert_eq!((counted.accepted, counted.answered(), counted.connect_failed), (100, 100, 0));
    assert!((1..50).contains(&counted.retried), "passed over after a refusal: {counted:?}");
}

/// A connection's first packet that finds the accept queue full comes again after a second: who has
/// waited in vain takes a connection that others have done with.
#[tokio::test]
async fn a_burst_that_an_accept_queue_does_not_hold_is_answered_by_what_comes_free() {
    const BURST: usize = 64;
    let (proxy, listen) = (Running::start().await, free_address());
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(8).unwrap();
    let address = listener.local_addr().unwrap();
    proxy.plane.publish(&single(1, listen, "v1", &[address])).await.unwrap();
    let mut asking = tokio::task::JoinSet::new();
    for n in 0..BURST {
        let request = if n % 2 == 0 { get("/") } else { post("/", "data") };
        asking.spawn(ask(listen, request));
    }
    eventually("all are on their way", async || proxy.in_flight("v1").await == BURST as u64).await;
    let (accepted, counted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                while let head = read_head(&mut stream).await
                    && !head.is_empty()
                {
                    if head.starts_with("POST") {
                        stream.read_exact(&mut [0; 4]).await.unwrap();
                    }
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    for answer in asking.join_all().await {
        assert_eq!(answer, (200, "ok".to_owned()));
    }
    let counted = proxy.stats("v1").await;
    assert_eq!((counted.answered(), counted.connect_failed), (BURST as u64, 0));
    let accepted = accepted.load(Ordering::Relaxed);
    assert!(accepted < BURST as u64 / 2, "most took what came free: {accepted} connections");
    serving.abort();
}

#[tokio::test]
async fn a_version_that_refuses_everywhere_fails_and_one_without_instances_is_our_fault() {
    let (proxy, listen) = (Running::start().await, free_address());
    let addresses = [free_address(), free_address()];
    proxy.plane.publish(&single(1, listen, "v1", &addresses)).await.unwrap();
    let (status, text) = ask(listen, get("/")).await;
    assert_eq!((status, text.as_str()), (502, "switchback: no instance took the request\n"));
    let counted = proxy.stats("v1").await;
    assert_eq!((counted.connect_failed, counted.retried, counted.failed()), (1, 1, 1));
    proxy.plane.publish(&single(2, listen, "v2", &[])).await.unwrap();
    assert_eq!(ask(listen, get("/")).await.0, 503);
    let counted = proxy.stats("v2").await;
    assert_eq!(counted, ArmStats { accepted: 1, dropped: 1, ..ArmStats::default() });
}

#[tokio::test]
async fn garbage_and_half_answers_are_the_versions_fault() {
    let (proxy, listen) = (Running::start().await, free_address());
    let address = raw_instance(|mut stream| async move {
        let head = read_head(&mut stream).await;
        let answer: &[u8] = match head.split(' ').nth(1) {
            Some("/garbage") => b"\x16\x03\x01 what?\r\n\r\n",
            Some("/coding") => {
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
            }
            Some("/half-head") => b"HTTP/1.1 200 OK\r\ncontent-le",
            Some("/half-body") => b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
            Some("/half-chunk") => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nha",
            _ => b"",
        };
        stream.write_all(answer).await.unwrap();
    })
    .await;
    proxy.plane.publish(&single(1, listen, "v1", &[address])).await.unwrap();
    for path in ["/garbage", "/half-head", "/coding"] {
        assert_eq!(ask(listen, get(path)).await.0, 502, "{path}");
    }
    for path in ["/half-body", "/half-chunk"] {
        let response = client(listen).await.send_request(get(path)).await.unwrap();
        assert!(response.into_body().collect().await.is_err(), "{path} must not look whole");
    }
    assert_eq!(ask(listen, get("/nothing")).await.0, 502);
    let counted = proxy.stats("v1").await;
    assert_eq!(
        (counted.accepted, counted.broken, counted.connect_failed),
        (6, 5, 1),
        "{counted:?}"
    );
    assert_eq!((counted.answered(), counted.retried), (0, 0));
}

#[tokio::test]
async fn an_instance_that_hangs_is_given_up_in_time() {
    let (proxy, listen) = (Running::start().await, free_address());
    let address = instance(|request| async move {
        drop(request);
        std::future::pending().await
    });
    let mut table = single(1, listen, "v1", &[address.await]);
    table.routes[0].timeout = Duration::from_millis(100);
    proxy.plane.publish(&table).await.unwrap();
    assert_eq!(ask(listen, get("/")).await.0, 504);
    assert_eq!(ask(listen, post("/", "data")).await.0, 504);
    let counted = proxy.stats("v1").await;
    assert_eq!((counted.timed_out, counted.finished(), counted.retried), (2, 2, 0));
}

#[tokio::test]
async fn a_client_that_leaves_is_counted_and_its_request_is_cancelled() {
    let (proxy, listen) = (Running::start().await, free_address());
    let cancelled = Arc::new(AtomicU64::new(0));
    let address = sharing(&cancelled, |cancelled, mut stream| async move {
        let head = read_head(&mut stream).await;
        if head.starts_with("GET /body") {
            let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
            stream.write_all(begun).await.unwrap();
        }
        // The end of the connection is the cancellation.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        cancelled.fetch_add(1, Ordering::SeqCst);
    })
    .await;
    proxy.plane.publish(&single(1, listen, "v1", &[address])).await.unwrap();
    for (n, head) in ["GET /wait", "GET /body", "POST /upload"].into_iter().enumerate() {
        let mut stream = TcpStream::connect(listen).await.unwrap();
        let length = if n == 2 { "content-length: 9\r\n" } else { "" };
        let head = format!("{head} HTTP/1.1\r\nhost: a\r\n{length}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        eventually("it is on its way", async || proxy.in_flight("v1").await == 1).await;
        drop(stream);
        eventually("it is over", async || proxy.in_flight("v1").await == 0).await;
    }
    let counted = proxy.stats("v1").await;
    assert_eq!(
        (counted.accepted, counted.client_gone, counted.finished()),
        (3, 3, 0),
        "{counted:?}"
    );
    eventually("all are cancelled", async || cancelled.load(Ordering::SeqCst) == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_close_their_connections_lose_no_request() {
    let (proxy, listen) = (Running::start().await, free_address());
    // Says nothing about it, and closes after every fourth answer, a moment later.
    let address = raw_instance(|mut stream| async move {
        for _ in 0..4 {
            let head = read_head(&mut stream).await;
            if head.is_empty() {
                return;
            }
            if head.starts_with("POST") {
                let mut body = [0; 4];
                stream.read_exact(&mut body).await.unwrap();
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
        // sleep: the instance closes a moment after its answer, as real ones do.
        tokio::time::sleep(Duration::from_micros(200)).await;
    })
    .await;
    proxy.plane.publish(&single(1, listen, "v1", &[address])).await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(tokio::spawn(async move {
            let mut connection = client(listen).await;
            for _ in 0..300 {
                connection.ready().await.unwrap();
                let response = connection.send_request(get("/")).await.unwrap();
                assert_eq!(read(response).await, (200, "ok".to_owned()));
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    let counted = proxy.stats("v1").await;
    assert_eq!((counted.accepted, counted.answered(), counted.failed()), (2_400, 2_400, 0));
}

#[tokio::test]
async fn connections_that_rested_and_were_closed_are_not_used_again() {
    let (proxy, listen) = (Running::start().await, free_address());
    let opened = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&opened);
    // As servers do: closes a connection that rested for 30 ms.
    let address = raw_instance(move |mut stream| {
        counting.fetch_add(1, Ordering::SeqCst);
        async move {
            let rest = Duration::from_millis(30);
            while let Ok(head) = tokio::time::timeout(rest, read_head(&mut stream)).await {
                if head.is_empty() {
                    return;
                }
                let mut body = [0; 4];
                stream.read_exact(&mut body).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            }
        }
    })
    .await;
    proxy.plane.publish(&single(1, listen, "v1", &[address])).await.unwrap();
    let mut connection = client(listen).await;
    for n in 0..30_u64 {
        connection.ready().await.unwrap();
        let response = connection.send_request(post("/", "data")).await.unwrap();
        assert_eq!(read(response).await, (200, "ok".to_owned()), "request {n}");
        // Every third pause is long enough for the instance to close first.
        let pause = if n % 3 == 0 { 45 } else { 1 };
        // sleep: the pauses are the test: the instance closes during the long ones.
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    let connections = opened.load(Ordering::SeqCst);
    assert!((2..30).contains(&connections), "{connections} connections for 30 requests");
    assert_eq!(proxy.stats("v1").await.failed(), 0);
}

#[tokio::test]
async fn a_request_with_a_body_is_never_sent_twice() {
    let (proxy, listen) = (Running::start().await, free_address());
    let seen = Arc::new(AtomicU64::new(0));
    // Answers one request per connection and breaks off at the second, after reading it.
    let address = sharing(&seen, |seen, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        if read_head(&mut stream).await.is_empty() {
            return;
        }
        seen.fetch_add(1, Ordering::SeqCst);
    })
    .await;
    proxy.plane.publish(&single(1, listen, "v1", &[address])).await.unwrap();
    // One client connection, so one worker and its pool.
    let mut connection = client(listen).await;
    let mut status = async |request| {
        connection.ready().await.unwrap();
        let response = connection.send_request(request).await.unwrap();
        read(response).await.0
    };
    assert_eq!(status(get("/")).await, 200);
    assert_eq!(status(post("/", "data")).await, 502);
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    let counted = proxy.stats("v1").await;
    assert_eq!((counted.connect_failed, counted.retried), (1, 0));
    assert_eq!(status(get("/")).await, 200);
    assert_eq!(status(get("/")).await, 200, "a GET may be repeated on a new connection");
    assert_eq!(proxy.stats("v1").await.retried, 1);
}

#[tokio::test]
async fn an_early_refusal_of_an_upload_reaches_the_client() {
    let (proxy, listen) = (Running::start().await, free_address());
    let address = instance(|request| async move {
        drop(request);
        Response::builder().status(413).body(full("too much")).unwrap()
    });
    proxy.plane.publish(&single(1, listen, "v1", &[address.await])).await.unwrap();
    let mut stream = TcpStream::connect(listen).await.unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 900000\r\n\r\nx")
        .await
        .unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 413 "));
}
