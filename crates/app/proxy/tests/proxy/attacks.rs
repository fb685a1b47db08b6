//! Neighbours that mean harm, or might as well: resets at any time, clients that read nothing, and
//! ten thousand connections that begin and say no more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Response;
use rustix::process::{Resource, Rlimit};
use switchback_ports::DataPlane;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use super::support::*;

/// Ends a connection without a farewell: the peer gets a reset.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

#[tokio::test]
async fn an_instance_that_resets_its_connections_is_at_fault_where_it_owed_an_answer() {
    let (proxy, listen) = (Running::start().await, free_address());
    let seen = Arc::new(Semaphore::new(0));
    let address = sharing(&seen, |seen, mut stream| async move {
        let head = read_head(&mut stream).await;
        let answer: &[u8] = match head.split(' ').nth(1) {
            Some("/half") => b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
            Some("/whole") => b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfull",
            _ => return reset(stream),
        };
        stream.write_all(answer).await.unwrap();
        seen.acquire().await.unwrap().forget();
        reset(stream);
    })
    .await;
    proxy.plane.publish(&single(1, listen, "v1", &[address])).await.unwrap();
    assert_eq!(ask(listen, get("/nothing")).await.0, 502);
    let response = client(listen).await.send_request(get("/half")).await.unwrap();
    seen.add_permits(1);
    assert!(response.into_body().collect().await.is_err(), "it must not look whole");
    for _ in 0..20 {
        assert_eq!(ask(listen, get("/whole")).await, (200, "full".to_owned()));
        seen.add_permits(1);
    }
    let counted = proxy.stats("v1").await;
    assert_eq!((counted.accepted, counted.responses[1]), (22, 20), "{counted:?}");
    assert_eq!((counted.connect_failed, counted.broken), (1, 1), "{counted:?}");
}

#[tokio::test]
async fn clients_that_read_nothing_hold_up_nobody_and_are_let_go() {
    const CLIENTS: usize = 16;
    const LARGE: usize = 32 << 20;
    let (proxy, listen) = (Running::start().await, free_address());
    let large = bytes::Bytes::from(vec![b'x'; LARGE]);
    let address = instance(move |request| {
        let large = large.clone();
        let is_large = request.uri().path() == "/large";
        async move { Response::new(if is_large { full(large) } else { full("small") }) }
    })
    .await;
    proxy.plane.publish(&single(1, listen, "v1", &[address])).await.unwrap();
    let mut deaf = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = TcpStream::connect(listen).await.unwrap();
        stream.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        // The first bytes, so that the answer is on its way; then nothing any more.
        stream.read_exact(&mut [0; 15]).await.unwrap();
        deaf.push(stream);
    }
    for _ in 0..50 {
        assert_eq!(ask(listen, get("/small")).await, (200, "small".to_owned()));
    }
    let passed_on = proxy.stats("v1").await.bytes_out;
    assert!(passed_on < (CLIENTS * LARGE / 2) as u64, "no more than the sockets hold: {passed_on}");
    assert_eq!(proxy.in_flight("v1").await, CLIENTS as u64);
    drop(deaf);
    eventually("they are let go", async || proxy.in_flight("v1").await == 0).await;
    let counted = proxy.stats("v1").await;
    assert_eq!((counted.client_gone, counted.broken), (CLIENTS as u64, 0), "{counted:?}");
}

/// How many connections this process may open, and keep a few thousand for the other tests.
fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, raised).unwrap();
    let most = limit.maximum.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    most.saturating_sub(4_000).max(500)
}

/// From one of the loopback addresses: one alone may not have as many.
async fn connect(number: usize, listen: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let source = u8::try_from(1 + number / 500).unwrap();
    socket.bind(([127, 0, 1, source], 0).into()).unwrap();
    socket.connect(listen).await.unwrap()
}

#[tokio::test]
async fn ten_thousand_heads_that_never_end_hinder_nobody_and_are_given_up_in_time() {
    let count = descriptors().min(10_000);
    // A process of its own: its descriptors are not ours.
    let directory = tempfile::tempdir().unwrap();
    let (plane, listen) = (super::lifecycle::plane(directory.path()), free_address());
    plane.ensure_started().await.unwrap();
    plane.publish(&single(1, listen, "v1", &[version("v1").await])).await.unwrap();
    let mut resting = client(listen).await;
    assert_eq!(read(resting.send_request(get("/")).await.unwrap()).await.1, "v1");
    let mut silent = Vec::new();
    for number in 0..count {
        let mut stream = connect(number, listen).await;
        stream.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
        silent.push(stream);
        if number % 1_000 == 0 {
            assert_eq!(ask(listen, get("/")).await, (200, "v1".to_owned()));
        }
    }
    plane.publish(&single(2, listen, "v2", &[version("v2").await])).await.unwrap();
    assert_eq!(ask(listen, get("/")).await.1, "v2", "a table is swapped under them");
    assert_eq!(read(resting.send_request(get("/")).await.unwrap()).await.1, "v2");
    let given_up = async {
        for stream in &mut silent {
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 408");
        }
    };
    tokio::time::timeout(3 * PATIENCE, given_up).await.expect("a head has ten seconds");
    assert_eq!(read(resting.send_request(get("/")).await.unwrap()).await.1, "v2");
    plane.stop().await.unwrap();
}
