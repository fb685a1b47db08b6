//! What is counted and told of requests: the ledger, metrics, traces, the access log.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Response;
use switchback_domain::resilience::{Resilience, StaticAnswer};
use switchback_domain::route::{LogFormat, RouteMode};
use switchback_ports::DataPlane;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::*;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// An instance that says which trace it was told of.
async fn traced() -> SocketAddr {
    instance(|request| async move {
        let all = |name: &str| {
            let values = request.headers().get_all(name).iter();
            values.map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>().join("+")
        };
        Response::new(full(format!("{} {}", all("traceparent"), all("tracestate"))))
    })
    .await
}

#[tokio::test]
async fn a_trace_is_kept_and_what_is_none_is_replaced() {
    let (proxy, listen) = (Running::start().await, free_address());
    proxy.plane.publish(&single(1, listen, "v1", &[traced().await])).await.unwrap();
    let told = async |fields: &[(&'static str, &str)]| {
        let mut request = get("/");
        for (name, value) in fields {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        ask(listen, request).await.1
    };
    let kept = told(&[("tracestate", "a=1"), ("TraceParent", PARENT), ("tracestate", "b=2")]).await;
    assert_eq!(kept, format!("{PARENT} a=1+b=2"));
    let invalid = PARENT.replace("4bf9", "4BF9");
    let cases: [&[(&'static str, &str)]; 4] = [
        &[],
        &[("traceparent", &invalid), ("tracestate", "a=1")],
        &[("traceparent", PARENT), ("traceparent", PARENT), ("tracestate", "a=1")],
        &[("traceparent", PARENT), ("connection", "traceparent, tracestate"), ("tracestate", "a")],
    ];
    for fields in cases {
        let begun = told(fields).await;
        let (parent, state) = begun.split_once(' ').unwrap();
        assert!(parent.starts_with("00-") && parent.len() == 55, "{begun}");
        assert!(!parent.contains("4bf92f3577b34da6"), "{begun}");
        assert_eq!(state, "", "{begun}");
    }
}

#[tokio::test]
async fn as_many_traces_begun_here_are_recorded_as_the_route_says() {
    let (proxy, listen) = (Running::start().await, free_address());
    let instance = traced().await;
    for (at, percent) in [(1, 0), (2, 100)] {
        let mut table = single(at, listen, "v1", &[instance]);
        let weight = switchback_domain::Weight::from_percent(percent);
        table.routes[0].steering.rules.observation.trace_sample = Some(weight);
        proxy.plane.publish(&table).await.unwrap();
        let flag = if percent == 0 { "-00 " } else { "-01 " };
        for request in [get("/"), post("/", "x")] {
            let (_, told) = ask(listen, request).await;
            assert!(told.ends_with(flag), "{percent}: {told}");
        }
        let mut own = get("/");
        own.headers_mut().insert("traceparent", PARENT.replace("-01", "-00").parse().unwrap());
        assert!(ask(listen, own).await.1.ends_with("-00 "), "the client has decided");
    }
}

#[tokio::test]
async fn bodies_and_times_are_counted_for_each_version() {
    let (proxy, listen) = (Running::start().await, free_address());
    let twice = instance(|request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(full(Bytes::from([&body[..], &body[..]].concat())))
    });
    proxy.plane.publish(&single(1, listen, "v1", &[twice.await])).await.unwrap();
    let mut sender = client(listen).await;
    for size in [0, 10, 100_000] {
        let answer = sender.send_request(post("/", "x".repeat(size))).await.unwrap();
        assert_eq!(read(answer).await.1.len(), 2 * size);
    }
    let chunked = "POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\
        connection: close\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
    assert!(raw(listen, chunked.as_bytes()).await.ends_with("abcdefgabcdefg"));
    eventually("the ledger is complete", async || proxy.in_flight("v1").await == 0).await;
    let stats = proxy.stats("v1").await;
    assert_eq!((stats.accepted, stats.answered()), (4, 4));
    assert_eq!((stats.bytes_in, stats.bytes_out), (100_017, 200_034));
    assert_eq!((stats.first_byte.count(), stats.latency.count()), (4, 4));
    assert!((1..4).contains(&stats.connect.count()), "{:?}", stats.connect);
}

/// A route whose requests are written down.
fn logged(
    counter: u64,
    listen: SocketAddr,
    instances: &[SocketAddr],
    format: LogFormat,
) -> switchback_routing::Table {
    let mut table = single(counter, listen, "v1", instances);
    table.routes[0].steering.rules.observation.access_log = Some(format);
    table
}

async fn lines(proxy: &Running, count: usize) -> Vec<String> {
    let path = proxy.directory.path().join("access.log");
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    eventually("the lines are written", async || read().lines().count() >= count).await;
    read().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn each_request_of_a_route_that_asks_for_it_gets_one_line_without_secrets() {
    let (proxy, listen) = (Running::start().await, free_address());
    let table = logged(1, listen, &[traced().await], LogFormat::Json);
    proxy.plane.publish(&table).await.unwrap();
    let mut request = post("/a/b?token=secret-1", "hello");
    let headers = request.headers_mut();
    headers.insert("cookie", "id=secret-2".parse().unwrap());
    headers.insert("authorization", "secret-3".parse().unwrap());
    headers.insert("x-request-id", "r-\"1\"".parse().unwrap());
    headers.insert("traceparent", PARENT.parse().unwrap());
    assert_eq!(ask(listen, request).await.0, 200);
    let text = lines(&proxy, 1).await.remove(0);
    assert!(!text.contains("secret"), "{text}");
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (key, expected) in [
        ("client", "127.0.0.1"),
        ("method", "POST"),
        ("host", "a.test"),
        ("path", "/a/b"),
        ("environment", "test"),
        ("service", "sample"),
        ("version", "v1"),
        ("outcome", "answered"),
        ("assigned_by", "only"),
        ("request_id", "r-\"1\""),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
    ] {
        assert_eq!(line[key], expected, "{key} in {text}");
    }
    let sent = PARENT.len() + 1;
    for (key, expected) in [("status", 200), ("bytes", sent), ("bytes_received", 5), ("retries", 0)]
    {
        assert_eq!(line[key], expected, "{key} in {text}");
    }
    assert!(line["instance"].is_string() && line["duration_us"].is_u64(), "{text}");
    assert!(line["time"].as_str().unwrap().ends_with('Z'), "{text}");
    let mode = std::fs::metadata(proxy.directory.path().join("access.log")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn what_no_version_answers_has_its_line_too() {
    let (proxy, listen) = (Running::start().await, free_address());
    let gone = free_address();
    proxy.plane.publish(&logged(1, listen, &[gone], LogFormat::Json)).await.unwrap();
    assert_eq!(ask(listen, get("/failing")).await.0, 502);
    let mut isolated = logged(2, listen, &[gone], LogFormat::Json);
    isolated.routes[0].steering.mode = RouteMode::Isolate;
    proxy.plane.publish(&isolated).await.unwrap();
    assert_eq!(ask(listen, get("/isolated")).await.0, 503);
    let mut fallback = logged(3, listen, &[gone], LogFormat::Json);
    let answer = StaticAnswer { status: 200, content_type: "text/plain".into(), body: "ok".into() };
    let mut resilience = Resilience::default();
    resilience.fallback.answer = Some(answer);
    fallback.routes[0].steering.rules.resilience = Some(Box::new(resilience));
    proxy.plane.publish(&fallback).await.unwrap();
    assert_eq!(ask(listen, get("/replaced")).await.0, 200);
    proxy.plane.publish(&single(4, listen, "v1", &[gone])).await.unwrap();
    assert_eq!(ask(listen, get("/silent")).await.0, 502);
    proxy.plane.publish(&logged(5, listen, &[gone], LogFormat::Common)).await.unwrap();
    assert_eq!(ask(listen, get("/last?x")).await.0, 502);
    let written = lines(&proxy, 4).await;
    let all = written.join("\n");
    assert_eq!(written.len(), 4, "{all}");
    let find = |path: &str| {
        let line = written.iter().find(|line| line.contains(path)).unwrap();
        serde_json::from_str::<serde_json::Value>(line).unwrap()
    };
    let seen = |path: &str| {
        let line = find(path);
        (line["status"].as_u64().unwrap(), line["outcome"].as_str().unwrap().to_owned())
    };
    assert_eq!(seen("/failing"), (502, "connect_failed".to_owned()));
    assert_eq!(seen("/isolated"), (503, "turned_away".to_owned()));
    assert_eq!(find("/isolated")["why"], "the service is isolated by an operator");
    assert_eq!(seen("/replaced"), (200, "connect_failed".to_owned()));
    let common = written.iter().find(|line| line.contains("/last")).unwrap();
    assert!(common.starts_with("127.0.0.1 - - ["), "{common}");
    assert!(common.contains("] \"GET /last HTTP/1.1\" 502 "), "{common}");
}

#[tokio::test]
async fn a_log_that_nobody_takes_slows_and_loses_no_request() {
    let (proxy, listen) = (Running::start().await, free_address());
    let fifo = proxy.directory.path().join("access.log");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, 0o600.into(), 0).unwrap();
    let table = logged(1, listen, &[version("v1").await], LogFormat::Json);
    proxy.plane.publish(&table).await.unwrap();
    let mut sender = client(listen).await;
    let long = format!("/{}", "x".repeat(2_000));
    let count = 1_500;
    for _ in 0..count {
        let answer = sender.send_request(get(&long)).await.unwrap();
        assert_eq!(read(answer).await, (200, "v1".to_owned()));
    }
    let stats = proxy.stats("v1").await;
    assert_eq!((stats.accepted, stats.answered()), (count, count));
    let page = metrics(&proxy).await;
    let dropped = page.lines().find_map(|line| {
        line.strip_prefix("switchback_proxy_access_log_lines_total{outcome=\"dropped\"} ")
    });
    let dropped: u64 = dropped.unwrap().parse().unwrap();
    assert!((1..count).contains(&dropped), "{dropped} of {count}");
}

#[tokio::test]
async fn a_full_disk_is_told_and_stops_no_request() {
    let (proxy, listen) = (Running::start().await, free_address());
    let log = proxy.directory.path().join("access.log");
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    let table = logged(1, listen, &[version("v1").await], LogFormat::Json);
    proxy.plane.publish(&table).await.unwrap();
    assert_eq!(ask(listen, get("/lost")).await.0, 200);
    let told = async || proxy.report().await.warnings.iter().any(|it| it.contains("access.log"));
    eventually("it is told", told).await;
    std::fs::remove_file(&log).unwrap();
    assert_eq!(ask(listen, get("/kept")).await.0, 200);
    assert!(lines(&proxy, 1).await[0].contains("/kept"));
    assert!(proxy.report().await.warnings.is_empty());
}

/// The page, by the admin socket.
async fn metrics(proxy: &Running) -> String {
    let path = switchback_domain::socket_path(proxy.directory.path(), "proxy");
    let mut socket = tokio::net::UnixStream::connect(path).await.unwrap();
    let ask = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    socket.write_all(ask).await.unwrap();
    let mut page = String::new();
    socket.read_to_string(&mut page).await.unwrap();
    page
}
