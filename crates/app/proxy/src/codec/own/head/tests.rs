//! The rules of request framing, one by one.

use super::*;

fn entry() -> Entry {
    Entry {
        listen: ([127, 0, 0, 1], 8080).into(),
        client: ([10, 0, 0, 9], 5).into(),
        secure: false,
    }
}

fn status(text: &str) -> u16 {
    match read(text.as_bytes(), &entry(), &mut Vec::new()) {
        Ok(Some(_)) => 200,
        Ok(None) => 0,
        Err(refusal) => {
            assert!(refusal.close, "{text:?}: nobody knows where the next request begins");
            refusal.status.as_u16()
        }
    }
}

/// What the instance gets, in lower case.
fn written(text: &str) -> String {
    let mut out = Vec::new();
    let head = read(text.as_bytes(), &entry(), &mut out).unwrap().unwrap();
    assert_eq!(head.bytes, text.len());
    String::from_utf8(out).unwrap().to_ascii_lowercase()
}

#[test]
fn whatever_two_readers_could_frame_differently_is_refused() {
    for (fields, expected) in [
        ("content-length: 3\r\ntransfer-encoding: chunked", 400),
        ("transfer-encoding: chunked\r\ncontent-length: 3", 400),
        ("content-length: 3\r\ncontent-length: 3", 400),
        ("content-length: 3\r\ncontent-length: 4", 400),
        ("content-length: 3, 3", 400),
        ("content-length: +3", 400),
        ("content-length: -3", 400),
        ("content-length: 0x3", 400),
        ("content-length:", 400),
        ("content-length: 3 3", 400),
        ("content-length: 99999999999999999999", 400),
        ("transfer-encoding: gzip", 501),
        ("transfer-encoding: gzip, chunked", 501),
        ("transfer-encoding: chunked, chunked", 501),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", 501),
        ("transfer-encoding: identity", 501),
        ("transfer-encoding:", 501),
        ("transfer-encoding: \"chunked\"", 501),
        ("transfer-encoding: chunked;q=1", 501),
        ("transfer-encoding : chunked", 400),
        ("transfer-encoding\t: chunked", 400),
        ("transfer-encoding: \u{b}chunked", 400),
        ("x: 1\r\n folded", 400),
        ("x: 1\r\n\tfolded", 400),
        (" x: 1", 400),
        ("x: a\0b", 400),
        ("x: a\rb", 400),
        ("x\0: a", 400),
        ("x: 1\ny: 2", 400),
        ("no colon", 400),
        (": no name", 400),
        ("x(: 1", 400),
    ] {
        let text = format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n");
        assert_eq!(status(&text), expected, "{fields:?}");
    }
    assert_eq!(status("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n"), 400);
    for good in ["content-length: 3", "content-length: 003", "Transfer-Encoding: Chunked"] {
        assert_eq!(status(&format!("POST / HTTP/1.1\r\nhost: a\r\n{good}\r\n\r\n")), 200, "{good}");
    }
}

#[test]
fn lines_end_in_cr_lf_and_nothing_stands_before_the_first() {
    for bad in [
        "GET / HTTP/1.1\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n\n",
        "GET / HTTP/1.1\r\nhost: a\n\n",
        "GET / HTTP/1.0\n\r\n",
        "GET / HTTP/1.0\n\n",
        "\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        " GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\r\nhost: a\r\n\r\n",
        "GET / http/1.1\r\nhost: a\r\n\r\n",
        "GET /\r\n\r\n",
        "G\x7fT / HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        assert_eq!(status(bad), 400, "{bad:?}");
    }
    assert_eq!(status("GET / HTTP/2.0\r\nhost: a\r\n\r\n"), 505);
    assert_eq!(status("\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"), 200);
    let whole = "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n\r\n";
    for end in 0..whole.len() {
        assert_eq!(status(&whole[..end]), 0, "{:?}", &whole[..end]);
    }
}

#[test]
fn there_is_one_host_and_it_is_one() {
    for bad in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost:\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: u@a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a:b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a, b\r\n\r\n",
        "GET http://u:p@a/ HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET http:///x HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nhost: b c\r\n\r\n",
    ] {
        assert_eq!(status(bad), 400, "{bad:?}");
    }
    let old = written("GET / HTTP/1.0\r\n\r\n");
    assert!(old.contains("\r\nhost: 127.0.0.1:8080\r\n"), "{old}");
    let named = written("GET HTTP://b.test:1?q HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(named.starts_with("get /?q http/1.1\r\nhost: b.test:1\r\n"), "{named}");
    assert!(named.contains("x-forwarded-host: b.test:1\r\n"), "{named}");
}

#[test]
fn targets_methods_and_expectations_beyond_what_is_served_are_refused() {
    let ask =
        |line: &str, field: &str| status(&format!("{line} HTTP/1.1\r\nhost: a\r\n{field}\r\n"));
    let long = format!("GET /{}", "x".repeat(TARGET_BYTES_MAX));
    let large = format!("x: {}\r\n", "x".repeat(HEADER_BYTES_MAX));
    let many = "x: 1\r\n".repeat(HEADERS_MAX);
    for (line, field, expected) in [
        ("CONNECT a:1", "", 405),
        ("GET *", "", 400),
        ("OPTIONS *", "", 200),
        ("GET a", "", 400),
        ("GET ftp://a/", "", 400),
        ("GET /#x", "", 400),
        ("GET /\u{e4}", "", 400),
        ("GET /<x>", "", 400),
        ("GET /?\"", "", 400),
        (long.as_str(), "", 414),
        ("GET /", large.as_str(), 431),
        ("GET /", many.as_str(), 431),
        ("POST /", "expect: more\r\ncontent-length: 1\r\n", 417),
        ("POST /", "expect: 100-Continue\r\ncontent-length: 1\r\n", 200),
    ] {
        assert_eq!(ask(line, field), expected, "{}", &line[..line.len().min(20)]);
    }
}

#[test]
fn the_instance_gets_one_canonical_message() {
    let text = written(concat!(
        "POST /a?b HTTP/1.1\r\nHost:  a.test \r\nConnection: close, X-Secret\r\n",
        "connection: host, content-length, x-forwarded-for\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n",
        "TE: gzip, trailers\r\nProxy-Authorization: x\r\nExpect: 100-continue\r\n",
        "Content-Length: 003\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\n",
        "TraceState: a=1\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
        "Upgrade: websocket\r\nTrailer: x-sum\r\nx-request-id: mine\r\nx:\t1 \r\n\r\n"
    ));
    assert_eq!(
        text,
        concat!(
            "post /a?b http/1.1\r\nhost: a.test\r\nx-forwarded-proto: https\r\ntracestate: a=1\r\n",
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
            "trailer: x-sum\r\n",
            "x-request-id: mine\r\nx: 1\r\ncontent-length: 3\r\nte: trailers\r\n",
            "x-forwarded-for: 10.0.0.9\r\nx-forwarded-host: a.test\r\n\r\n"
        )
    );
    let text = written("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 1.1.1.1\r\n\r\n");
    assert!(text.contains("x-forwarded-for: 1.1.1.1, 10.0.0.9\r\nx-forwarded-proto: http\r\n"));
    let ours = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    assert_eq!(ours("x-request-id: ").len(), 32);
    assert!(crate::trace::is_valid(ours("traceparent: ").as_bytes()), "{text}");
}

#[test]
fn an_upgrade_is_asked_for_only_without_a_body_and_never_to_h2c() {
    let ask = |fields: &str| {
        written(&format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n")).contains("upgrade")
    };
    assert!(ask("connection: keep-alive, Upgrade\r\nupgrade: websocket"));
    assert!(!ask("upgrade: websocket"));
    assert!(!ask("connection: upgrade\r\nupgrade: h2c"));
    assert!(!ask("connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 1"));
}
