//! Messages pass unharmed, and only valid ones do.

use std::collections::VecDeque;
use std::fmt::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;
use hyper::{HeaderMap, Request, Response, Version};
use hyper_util::rt::TokioIo;
use switchback_domain::Split;
use switchback_ports::DataPlane;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::*;

/// An instance that answers with what it was sent.
async fn mirror() -> std::net::SocketAddr {
    instance(|request| async move {
        let (parts, body) = request.into_parts();
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned();
        let mut text = format!("{} {}\n", parts.method, parts.uri);
        for (name, value) in parts.headers.iter().chain(trailers.iter().flatten()) {
            writeln!(text, "{name}: {}", value.to_str().unwrap()).unwrap();
        }
        text += &String::from_utf8_lossy(&collected.to_bytes());
        Response::builder()
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("x-end", "2")
            .body(full(text))
            .unwrap()
    })
    .await
}

#[tokio::test]
async fn heads_and_bodies_pass_and_hop_by_hop_fields_do_not() {
    let (proxy, listen) = (Running::start().await, free_address());
    proxy.plane.publish(&single(1, listen, "v1", &[mirror().await])).await.unwrap();
    let mut request = post("/x/../y?q=%20", "hello");
    let headers = request.headers_mut();
    headers.insert("connection", "x-private".parse().unwrap());
    headers.insert("x-private", "1".parse().unwrap());
    let response = client(listen).await.send_request(request).await.unwrap();
    assert_eq!((response.version(), response.status().as_u16()), (Version::HTTP_11, 200));
    assert_eq!(response.headers()["x-end"], "2");
    assert!(!response.headers().contains_key("x-hop"));
    let (_, text) = read(response).await;
    assert!(text.starts_with("POST /x/../y?q=%20\n") && text.ends_with("\nhello"), "{text}");
    for line in [
        "host: a.test",
        "content-length: 5",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: a.test",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(text.contains("x-request-id: ") && !text.contains("x-private"), "{text}");
    let stats = proxy.stats("v1").await;
    assert_eq!((stats.accepted, stats.responses, stats.latency.count()), (1, [0, 1, 0, 0, 0], 1));
}

#[tokio::test]
async fn chunks_and_trailers_pass_both_ways() {
    let (proxy, listen) = (Running::start().await, free_address());
    let echo = instance(|request| async move {
        let te = request.headers().get("te").cloned();
        assert_eq!(te.unwrap(), "trailers");
        let body = request.into_body().boxed();
        Response::builder().header("trailer", "x-sum").body(body).unwrap()
    });
    proxy.plane.publish(&single(1, listen, "v1", &[echo.await])).await.unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "42".parse().unwrap());
    let frames =
        [Frame::data(Bytes::from("one,")), Frame::data("two".into()), Frame::trailers(trailers)];
    let body = Frames(frames.into()).boxed();
    let request = Request::post("/").header("host", "a.test").header("te", "trailers");
    let request = request.header("trailer", "x-sum").body(body).unwrap();
    let response = client(listen).await.send_request(request).await.unwrap();
    assert_eq!(response.headers()["transfer-encoding"], "chunked");
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "42");
    assert_eq!(collected.to_bytes(), "one,two");
}

/// A body of given frames.
struct Frames(VecDeque<Frame<Bytes>>);

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

#[tokio::test]
async fn responses_without_a_body_keep_the_connection_in_step() {
    let (proxy, listen) = (Running::start().await, free_address());
    let address = raw_instance(|mut stream| async move {
        loop {
            let head = read_head(&mut stream).await;
            let answer: &[u8] = match head.split(' ').nth(1) {
                Some("/length") => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
                Some("/chunked") => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                Some("/204") => b"HTTP/1.1 204 No Content\r\n\r\n",
                Some("/304") => b"HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n",
                Some("/hints") => {
                    b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
                }
                _ => return,
            };
            stream.write_all(answer).await.unwrap();
        }
    });
    proxy.plane.publish(&single(1, listen, "v1", &[address.await])).await.unwrap();
    let mut connection = client(listen).await;
    for (method, path, status, length) in [
        ("HEAD", "/length", 200, Some("5")),
        ("HEAD", "/chunked", 200, None),
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, None),
        ("GET", "/hints", 200, Some("2")),
    ] {
        connection.ready().await.unwrap();
        let mut request = get(path);
        *request.method_mut() = method.parse().unwrap();
        let response = connection.send_request(request).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{path}");
        let announced =
            response.headers().get("content-length").map(|value| value.to_str().unwrap());
        assert_eq!(announced, length, "{path}");
        let (_, body) = read(response).await;
        assert_eq!(body, if path == "/hints" { "ok" } else { "" });
    }
    assert_eq!(proxy.stats("v1").await.answered(), 5);
}

#[tokio::test]
async fn old_clients_absolute_targets_and_expectations_are_served() {
    let (proxy, listen) = (Running::start().await, free_address());
    proxy.plane.publish(&single(1, listen, "v1", &[mirror().await])).await.unwrap();
    let old = raw(listen, b"GET /old HTTP/1.0\r\n\r\n").await;
    assert!(
        old.starts_with("HTTP/1.0 200 OK\r\n") && old.contains(&format!("host: {listen}")),
        "{old}"
    );
    let absolute =
        b"GET http://other.test/p?q HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n";
    let absolute = raw(listen, absolute).await;
    assert!(absolute.contains("GET /p?q\n") && absolute.contains("host: other.test"), "{absolute}");
    let mut stream = TcpStream::connect(listen).await.unwrap();
    let head =
        b"PUT /e HTTP/1.1\r\nhost: a.test\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
    stream.write_all(head).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 100 "));
    stream.write_all(b"ok").await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn nonsense_is_refused_and_counted() {
    let (proxy, listen) = (Running::start().await, free_address());
    proxy.plane.publish(&single(1, listen, "v1", &[mirror().await])).await.unwrap();
    let many = "x-many: 1\r\n".repeat(120);
    let long = "y".repeat(40_000);
    for (bytes, status) in [
        ("garbage\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\nhost: a b\r\n\r\n".to_owned(), "400"),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"
                .to_owned(),
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
                .to_owned(),
            "501",
        ),
        ("CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "405"),
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n"), "431"),
    ] {
        let answer = raw(listen, bytes.as_bytes()).await;
        let shown = &bytes[..bytes.len().min(60)];
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {answer}");
    }
    // Counted when the connection has ended, a moment after the client saw it.
    eventually("all are counted", async || proxy.report().await.refused == 9).await;
    let report = proxy.report().await;
    assert_eq!((report.unrouted, report.arms[0].stats.accepted), (0, 0));
}

#[tokio::test]
async fn a_request_without_a_route_or_a_split_is_told_why() {
    let (proxy, listen) = (Running::start().await, free_address());
    let mut table = table(1, listen, Vec::new(), Split::none());
    table.routes[0].path_prefix = "/api".to_owned();
    proxy.plane.publish(&table).await.unwrap();
    let (status, text) = ask(listen, get("/apix")).await;
    assert_eq!((status, text.as_str()), (404, "switchback: no route for this host and path\n"));
    let (status, text) = ask(listen, get("/api/x")).await;
    assert_eq!((status, text.as_str()), (503, "switchback: no version serves this route\n"));
    let report = proxy.report().await;
    assert_eq!((report.unrouted, report.refused), (2, 0));
}

#[tokio::test]
async fn large_bodies_pass_in_both_directions() {
    let (proxy, listen) = (Running::start().await, free_address());
    let echo = instance(|request| async move { Response::new(request.into_body().boxed()) });
    proxy.plane.publish(&single(1, listen, "v1", &[echo.await])).await.unwrap();
    let sent: Vec<u8> = (0..16 * 1024 * 1024_u32).map(|n| (n % 251) as u8).collect();
    let sent = Bytes::from(sent);
    let response = client(listen).await.send_request(post("/", sent.clone())).await.unwrap();
    let received = response.into_body().collect().await.unwrap().to_bytes();
    assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
}

#[tokio::test]
async fn a_slow_upload_is_not_held_against_the_instance() {
    let (proxy, listen) = (Running::start().await, free_address());
    let mut table = single(1, listen, "v1", &[mirror().await]);
    table.routes[0].timeout = std::time::Duration::from_millis(200);
    proxy.plane.publish(&table).await.unwrap();
    let mut stream = TcpStream::connect(listen).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\n").await.unwrap();
    for _ in 0..8 {
        // sleep: a slow upload is slow.
        tokio::time::sleep(std::time::Duration::from_millis(70)).await;
        stream.write_all(b"x").await.unwrap();
    }
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(proxy.stats("v1").await.responses[1], 1);
}

#[tokio::test]
async fn an_upgraded_connection_is_a_tunnel_and_counts_until_it_ends() {
    let (proxy, listen) = (Running::start().await, free_address());
    let address = instance(|mut request| async move {
        assert_eq!(request.headers()["upgrade"], "echo");
        tokio::spawn(async move {
            let mut upgraded = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
            let mut bytes = [0; 4];
            while upgraded.read_exact(&mut bytes).await.is_ok() {
                upgraded.write_all(&bytes).await.unwrap();
            }
        });
        let switching = Response::builder().status(101).header("connection", "upgrade");
        switching.header("upgrade", "echo").body(full("")).unwrap()
    });
    proxy.plane.publish(&single(1, listen, "v1", &[address.await])).await.unwrap();
    let mut stream = TcpStream::connect(listen).await.unwrap();
    let ask = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    let head = read_head(&mut stream).await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: echo"), "{head}");
    for _ in 0..3 {
        stream.write_all(b"ping").await.unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"ping");
    }
    assert_eq!((proxy.in_flight("v1").await, proxy.stats("v1").await.responses[0]), (1, 1));
    drop(stream);
    eventually("the tunnel ends", async || proxy.in_flight("v1").await == 0).await;
}

#[tokio::test]
async fn a_head_that_drips_in_is_given_up() {
    let (proxy, listen) = (Running::start().await, free_address());
    proxy.plane.publish(&single(1, listen, "v1", &[mirror().await])).await.unwrap();
    let mut stream = TcpStream::connect(listen).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let drip = async {
        for byte in b"GET / HTTP/1.1\r\nhost: a\r\nx-slow: 1234567890".iter().cycle() {
            if writing.write_all(&[*byte]).await.is_err() {
                return;
            }
            // sleep: a dripping client drips.
            tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        }
    };
    let mut answer = [0; 20];
    tokio::select! {
        () = drip => panic!("the connection broke before it was told why"),
        read = reading.read_exact(&mut answer) => drop(read.unwrap()),
        // sleep: the end of patience, not of the test.
        () = tokio::time::sleep(PATIENCE) => panic!("it may drip for ever"),
    }
    assert_eq!(&answer, b"HTTP/1.1 408 Request");
    assert_eq!(proxy.report().await.refused, 1);
}
