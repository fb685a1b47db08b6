//! What the own codec does about connections where hyper is laxer: it never lets two sides
//! disagree about where a message ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use switchback_ports::DataPlane;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::support::*;

/// An instance that tells what it reads, connection by connection, and answers by a function of
/// the head; it closes when that gives nothing.
async fn teller(
    answer: impl Fn(&str) -> &'static [u8] + Clone + Send + 'static,
) -> (std::net::SocketAddr, mpsc::UnboundedReceiver<(u64, String)>) {
    let (tell, told) = mpsc::unbounded_channel();
    let opened = Arc::new(AtomicU64::new(0));
    let address = raw_instance(move |mut stream| {
        let (tell, answer) = (tell.clone(), answer.clone());
        let connection = opened.fetch_add(1, Ordering::SeqCst);
        async move {
            loop {
                let head = read_head(&mut stream).await;
                if head.is_empty() {
                    return;
                }
                let said = answer(&head);
                if tell.send((connection, head)).is_err() || said.is_empty() {
                    return;
                }
                stream.write_all(said).await.unwrap();
            }
        }
    });
    (address.await, told)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn serving(address: std::net::SocketAddr) -> (Running, std::net::SocketAddr) {
    let (proxy, listen) = (Running::start().await, free_address());
    proxy.plane.publish(&single(1, listen, "v1", &[address])).await.unwrap();
    (proxy, listen)
}

async fn read_body(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    body
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_one_after_the_other() {
    let (address, mut told) = teller(|_| OK).await;
    let (proxy, listen) = serving(address).await;
    let mut stream = TcpStream::connect(listen).await.unwrap();
    let requests = "GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\nGET /3 HTT";
    stream.write_all(requests.as_bytes()).await.unwrap();
    for n in 1..=3 {
        if n == 3 {
            stream.write_all(b"P/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        }
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{n}: {head}");
        assert_eq!(read_body(&mut stream, 2).await, b"ok");
        let (connection, head) = told.recv().await.unwrap();
        assert!(connection == 0 && head.starts_with(&format!("GET /{n} ")), "{connection} {head}");
    }
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "closed, as it was asked");
    assert_eq!(proxy.stats("v1").await.answered(), 3);
}

#[tokio::test]
async fn after_a_refused_request_nothing_more_is_read_as_one() {
    let (address, mut told) = teller(|_| OK).await;
    let (proxy, listen) = serving(address).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    for bad in [
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0;\r\n\r\n",
        "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\nhost: a\n\n",
        "GET / HTTP/1.1\r\n\r\n",
    ] {
        let answer = raw(listen, format!("{bad}{smuggled}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("connection: close"));
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{bad:?}: {answer}");
    }
    assert!(told.try_recv().is_err(), "an instance never heard of it");
    let report = proxy.report().await;
    assert_eq!((report.refused, report.arms[0].stats.accepted), (5, 0));
}

#[tokio::test]
async fn a_body_that_turns_to_nonsense_ends_both_connections() {
    let (address, mut told) = teller(|head| if head.starts_with("POST") { b"" } else { OK }).await;
    let (proxy, listen) = serving(address).await;
    let mut stream = TcpStream::connect(listen).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    stream.write_all(head).await.unwrap();
    eventually("it is on its way", async || proxy.stats("v1").await.accepted == 1).await;
    drop(stream.write_all(b"nonsense\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n").await);
    let mut answer = String::new();
    drop(stream.read_to_string(&mut answer).await);
    assert!(answer.matches("HTTP/1.1").count() <= 1 && !answer.contains("200"), "{answer}");
    assert_eq!(ask(listen, get("/next")).await.0, 200);
    let (first, _) = told.recv().await.unwrap();
    let (second, head) = told.recv().await.unwrap();
    assert!(first != second && head.starts_with("GET /next"), "{first} {second} {head}");
}

#[tokio::test]
async fn an_instance_that_answers_before_the_end_of_a_request_gets_no_other_on_that_connection() {
    let (address, mut told) = teller(|_| OK).await;
    let (_proxy, listen) = serving(address).await;
    let mut stream = TcpStream::connect(listen).await.unwrap();
    // The rest of this body would be the next request to an instance that has moved on.
    let head =
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nGET /smuggled HTTP/1.1\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("connection: close"));
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    // Enough connections at once that each worker has some: one of them has that pool.
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(client(listen).await);
    }
    for client in &mut clients {
        assert_eq!(client.send_request(get("/next")).await.unwrap().status(), 200);
    }
    let mut next = Vec::new();
    while let Ok((connection, head)) = told.try_recv() {
        if head.starts_with("GET /next") {
            next.push(connection);
        }
    }
    assert_eq!((next.len(), next.contains(&0)), (6, false), "{next:?}");
}

#[tokio::test]
async fn what_an_instance_sends_beyond_its_answer_is_nobodys_answer() {
    let (address, mut told) = teller(|head| match head.split(' ').nth(1) {
        Some("/more") => {
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 418 Smuggled\r\n\r\n"
        }
        Some("/head") => b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 418 Smuggled\r\n\r\n",
        Some("/close") => b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        _ => OK,
    })
    .await;
    let (_proxy, listen) = serving(address).await;
    // One client connection, so one worker and its pool.
    let mut connection = client(listen).await;
    for (n, path) in ["/more", "/a", "/head", "/a", "/close", "/a", "/a"].into_iter().enumerate() {
        connection.ready().await.unwrap();
        let response = connection.send_request(get(path)).await.unwrap();
        let (status, _) = read(response).await;
        assert_eq!(status, if path == "/head" { 204 } else { 200 });
        let expected = [0, 1, 1, 2, 2, 3, 3][n];
        assert_eq!(told.recv().await.unwrap().0, expected, "{n}: {path}");
    }
}

#[tokio::test]
async fn a_new_protocol_begins_with_the_101_and_not_before() {
    let (address, mut told) = teller(|head| {
        if head.starts_with("GET /yes") {
            b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nhello"
        } else {
            OK
        }
    })
    .await;
    let (proxy, listen) = serving(address).await;
    let ask = |path| {
        format!(
            "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nGET /next HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        )
    };
    // Refused: what follows is an ordinary request of this client's, seen as one.
    let answer = raw(listen, ask("/no").as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 2, "{answer}");
    assert!(told.recv().await.unwrap().1.contains("upgrade: x\r\n"));
    let (_, next) = told.recv().await.unwrap();
    assert!(next.contains("x-forwarded-for: 127.0.0.1"), "{next}");
    // Accepted: the same bytes go through untouched, after the 101.
    let mut stream = TcpStream::connect(listen).await.unwrap();
    stream.write_all(ask("/yes").as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101 Go\r\n") && head.contains("connection: upgrade"));
    assert_eq!(read_body(&mut stream, 5).await, b"hello");
    assert!(told.recv().await.unwrap().1.starts_with("GET /yes"));
    let (_, next) = told.recv().await.unwrap();
    assert_eq!(next, "GET /next HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    // Not asked for: a 101 is no answer.
    assert_eq!(super::support::ask(listen, get("/yes")).await.0, 502);
    assert_eq!(proxy.stats("v1").await.broken, 1);
}

#[tokio::test]
async fn old_clients_get_plain_bodies_and_see_when_one_breaks_off() {
    let (address, _told) = teller(|head| match head.split(' ').nth(1) {
        Some("/whole") => {
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        }
        _ => OK,
    })
    .await;
    let (proxy, listen) = serving(address).await;
    let whole = raw(listen, b"GET /whole HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").await;
    assert!(whole.starts_with("HTTP/1.0 200 OK\r\n") && whole.ends_with("\r\n\r\nok"), "{whole}");
    let mut stream = TcpStream::connect(listen).await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET /kept HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").await.unwrap();
        assert!(read_head(&mut stream).await.contains("connection: keep-alive\r\n"));
        assert_eq!(read_body(&mut stream, 2).await, b"ok");
    }
    let half = raw_instance(|mut stream| async move {
        read_head(&mut stream).await;
        let begun = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhalf";
        stream.write_all(begun).await.unwrap();
    });
    proxy.plane.publish(&single(2, listen, "v2", &[half.await])).await.unwrap();
    let mut stream = TcpStream::connect(listen).await.unwrap();
    stream.write_all(b"GET /half HTTP/1.0\r\n\r\n").await.unwrap();
    let read = stream.read_to_end(&mut Vec::new()).await;
    assert!(read.is_err(), "an orderly end would say that it was all: {read:?}");
    assert_eq!(proxy.stats("v2").await.broken, 1);
}

#[tokio::test]
async fn the_continue_is_sent_when_it_is_needed_and_only_then() {
    let address = version("v1").await;
    let (_proxy, listen) = serving(address).await;
    let head = "PUT / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\nconnection: close\r\n";
    let sent = raw(listen, format!("{head}content-length: 2\r\n\r\nok").as_bytes()).await;
    assert!(sent.starts_with("HTTP/1.1 200 OK\r\n"), "the body was there: {sent}");
    let none = raw(listen, format!("{head}content-length: 0\r\n\r\n").as_bytes()).await;
    assert!(none.starts_with("HTTP/1.1 200 OK\r\n"), "there is no body: {none}");
    let other = format!("{}content-length: 2\r\n\r\n", head.replace("100-continue", "magic"));
    assert!(raw(listen, other.as_bytes()).await.starts_with("HTTP/1.1 417 "));
}

#[tokio::test]
async fn interim_answers_reach_the_client_before_the_answer_does() {
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let address = sharing(&go, |gate, mut stream| async move {
        read_head(&mut stream).await;
        let hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        stream.write_all(hints).await.unwrap();
        gate.acquire().await.unwrap().forget();
        stream.write_all(OK).await.unwrap();
    });
    let (_proxy, listen) = serving(address.await).await;
    let mut stream = TcpStream::connect(listen).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let hints = read_head(&mut stream).await;
    assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
    go.add_permits(1);
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn an_endless_or_oversized_head_of_an_instance_is_given_up() {
    let address = raw_instance(|mut stream| async move {
        let head = read_head(&mut stream).await;
        let interim = head.starts_with("GET /interim");
        if !interim && stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await.is_err() {
            return;
        }
        let more: &[u8] = if interim { b"HTTP/1.1 102 Processing\r\n\r\n" } else { &[b'x'; 1024] };
        while stream.write_all(more).await.is_ok() {}
    })
    .await;
    let (proxy, listen) = serving(address).await;
    assert_eq!(ask(listen, get("/large")).await.0, 502);
    let mut stream = TcpStream::connect(listen).await.unwrap();
    stream.write_all(b"GET /interim HTTP/1.0\r\n\r\n").await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.0 502 "));
    // A new client is told of as many as may be, and then that there is no answer.
    stream = TcpStream::connect(listen).await.unwrap();
    stream.write_all(b"GET /interim HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut interims = 0;
    let last = loop {
        let head = read_head(&mut stream).await;
        if !head.starts_with("HTTP/1.1 102 ") {
            break head;
        }
        interims += 1;
    };
    assert!(last.starts_with("HTTP/1.1 502 ") && interims <= 33, "{interims}: {last}");
    assert_eq!(proxy.stats("v1").await.broken, 3);
}

#[tokio::test]
async fn what_is_no_request_is_told_so_where_it_can_be() {
    let (address, mut told) = teller(|_| OK).await;
    let (proxy, listen) = serving(address).await;
    for (bytes, status) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], 400),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 400),
        (b"\0\0\0\0", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nset-cookie: a\nb: c\r\n\r\n", 400),
        // HTTP/2 begins with the first byte, or it is none.
        (b"\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ] {
        let answer = raw(listen, bytes).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{}: {answer}", bytes.escape_ascii());
    }
    let mut stream = TcpStream::connect(listen).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx: ").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("breaks off"), "{answer}");
    assert!(told.try_recv().is_err(), "an instance never heard of any");
    assert_eq!(proxy.report().await.refused, 7);
}

#[tokio::test]
async fn what_is_no_answer_is_a_bad_gateway_and_nothing_of_it_reaches_the_client() {
    let (address, _told) = teller(|head| match head.split(' ').nth(1) {
        Some("/tls") => b"\x15\x03\x01\x00\x02\x02\x46",
        Some("/ssh") => b"SSH-2.0-OpenSSH_9.2\r\n",
        Some("/h2") => b"\0\0\x12\x04\0\0\0\0\0\0\x03",
        Some("/split") => b"HTTP/1.1 200 OK\r\nx: a\nset-cookie: stolen\r\n\r\n",
        Some("/twice") => b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na",
        Some("/both") => {
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        }
        _ => b"",
    })
    .await;
    let (proxy, listen) = serving(address).await;
    let paths = ["/tls", "/ssh", "/h2", "/split", "/twice", "/both", "/nothing"];
    for path in paths {
        let (status, body) = ask(listen, get(path)).await;
        assert_eq!(status, 502, "{path}: {body}");
        assert!(!body.contains("stolen"), "{path}: {body}");
    }
    let stats = proxy.stats("v1").await;
    assert_eq!((stats.broken, stats.connect_failed), (paths.len() as u64 - 1, 1));
}

#[tokio::test]
async fn a_client_that_ends_its_side_gave_the_request_up_and_is_told_so() {
    let (asked, mut was_asked) = mpsc::unbounded_channel();
    let address = raw_instance(move |mut stream| {
        let asked = asked.clone();
        async move {
            read_head(&mut stream).await;
            asked.send(()).unwrap();
            let gone = stream.read(&mut [0]).await;
            assert!(matches!(gone, Ok(0) | Err(_)), "the instance is told by the end");
            asked.send(()).unwrap();
        }
    });
    let (proxy, listen) = serving(address.await).await;
    let mut stream = TcpStream::connect(listen).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    was_asked.recv().await.unwrap();
    stream.shutdown().await.unwrap();
    // It may still listen, so it is told; of an answer of the instance it gets nothing.
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("broke off"), "{answer}");
    was_asked.recv().await.unwrap();
    eventually("it is counted", async || proxy.stats("v1").await.client_gone == 1).await;
}
