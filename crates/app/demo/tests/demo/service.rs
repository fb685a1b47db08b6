//! Each thing the service can be told to do, once.

use std::net::SocketAddr;
use std::time::Duration;

use switchback_demo::{Load, LoadOptions, ServiceOptions, service};
use tokio::time::Instant;

use crate::support::{exchange, get, in_time, start, start_ready};

#[tokio::test]
async fn answers_with_its_version_everywhere() {
    let service = start_ready(&["body_bytes=1000"]).await;
    let root = get(service.address, "/").await;
    assert_eq!((root.status, root.body.len()), (200, 1000));
    assert!(root.body.starts_with("v1 says hello\n"), "{}", root.body);
    assert!(root.head.contains("x-version: v1"), "{}", root.head);
    for (path, status) in [("/health", "healthy"), ("/ready", "ready")] {
        let reply = get(service.address, path).await;
        assert!(reply.body.contains(&format!("\"status\":\"{status}\"")), "{}", reply.body);
        assert!(reply.body.contains("\"version\":\"v1\""), "{}", reply.body);
        assert!(reply.body.contains("\"timestamp\":\"20"), "{}", reply.body);
    }
    let version = get(service.address, "/api/version").await;
    assert!(version.body.contains("\"version\":\"v1\""), "{}", version.body);
    let metrics = get(service.address, "/metrics").await.body;
    for line in [
        "http_requests_total{version=\"v1\",status=\"200\"} 1\n",
        "http_request_duration_seconds_count{version=\"v1\"} 1\n",
        "http_requests_in_flight{version=\"v1\"} 0\n",
        "service_ready{version=\"v1\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[tokio::test]
async fn receives_uploads_with_a_length_and_in_chunks() {
    let service = start_ready(&[]).await;
    let head = "POST /upload HTTP/1.1\r\nHost: test\r\nConnection: close\r\n";
    let body = "x".repeat(100_000);
    let sized = format!("{head}Content-Length: 100000\r\n\r\n{body}");
    let reply = exchange(service.address, &sized).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "v1 received 100000 bytes\n"));
    let chunked =
        format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    assert_eq!(exchange(service.address, &chunked).await.body, "v1 received 5 bytes\n");
}

#[tokio::test]
async fn becomes_ready_after_a_while_and_refuses_work_until_then() {
    let service = start(&["ready_delay=300ms"]);
    let begun = Instant::now();
    let early = get(service.address, "/ready").await;
    assert_eq!(early.status, 503);
    assert!(early.body.contains("\"status\":\"starting\""), "{}", early.body);
    assert_eq!(get(service.address, "/").await.status, 503);
    assert_eq!(get(service.address, "/health").await.status, 200);
    crate::support::until_ready(service.address).await;
    assert!(begun.elapsed() >= Duration::from_millis(250));
    assert_eq!(get(service.address, "/").await.status, 200);
}

#[tokio::test]
async fn never_becomes_ready() {
    let service = start(&["never_ready=true"]);
    for _ in 0..50 {
        assert_eq!(get(service.address, "/ready").await.status, 503);
    }
}

#[tokio::test]
async fn fails_as_often_as_it_was_told() {
    let service = start_ready(&["error_rate=0.25"]).await;
    let mut failed = 0;
    for _ in 0..400 {
        match get(service.address, "/").await.status {
            500 => failed += 1,
            other => assert_eq!(other, 200),
        }
    }
    // 100 expected, standard deviation 8.7: seven of them to either side.
    assert!((40..=160).contains(&failed), "{failed} of 400");
}

#[tokio::test]
async fn takes_its_time() {
    let service = start_ready(&["latency=100ms"]).await;
    let begun = Instant::now();
    assert_eq!(get(service.address, "/").await.status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(90));
}

#[tokio::test]
async fn crashes_instead_of_answering_one_request_too_many() {
    let service = start_ready(&["crash_after_requests=3"]).await;
    for _ in 0..3 {
        assert_eq!(get(service.address, "/").await.status, 200);
    }
    assert_eq!(get(service.address, "/").await.status, 0);
    assert_eq!(in_time(service.exit_code).await.unwrap(), 101);
    assert_eq!(get(service.address, "/health").await.status, 0);
}

#[tokio::test]
async fn crashes_by_the_clock() {
    for setting in ["crash_after=50ms", "die_after_ready=50ms"] {
        let service = start(&[setting]);
        assert_eq!(in_time(service.exit_code).await.unwrap(), 101, "{setting}");
    }
    let unready = start(&["die_after_ready=1ms", "never_ready=true"]);
    assert_eq!(get(unready.address, "/health").await.status, 200);
}

#[test]
fn exits_at_once() {
    let options = ServiceOptions::new(0, "v1", ["exit_code=3"]).unwrap();
    assert_eq!(service::run(options).unwrap(), 3);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let service = start(&[]);
    let options = ServiceOptions::new(service.address.port(), "v2", [""; 0]).unwrap();
    let refused = service::Service::bind(options).map(drop).unwrap_err();
    assert_eq!(refused.to_string(), format!("cannot listen on {}", service.address));
}

/// Waits until one request is being answered.
async fn until_in_flight(address: SocketAddr) {
    in_time(async {
        let line = "http_requests_in_flight{version=\"v1\"} 1\n";
        while !get(address, "/metrics").await.body.contains(line) {
            // sleep: a figure can only be read again; bounded by `in_time`.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn hangs_on_some_requests_but_not_on_probes() {
    let service = start_ready(&["hang_rate=1"]).await;
    let hung = tokio::spawn(get(service.address, "/"));
    until_in_flight(service.address).await;
    assert_eq!(get(service.address, "/health").await.status, 200);
    assert!(!hung.is_finished());
    hung.abort();
}

#[tokio::test]
async fn hangs_altogether_after_a_while() {
    let service = start(&["hang_after=100ms"]);
    let silent = async {
        let limit = Duration::from_millis(200);
        while tokio::time::timeout(limit, get(service.address, "/health")).await.is_ok() {}
    };
    in_time(silent).await;
    assert!(!service.exit_code.is_finished());
}

#[tokio::test]
async fn answers_nonsense() {
    let service = start_ready(&["garbage_rate=1"]).await;
    let reply = get(service.address, "/").await;
    assert!(reply.head.contains("squeak") && !reply.head.contains("http/"), "{}", reply.head);
    assert_eq!(get(service.address, "/health").await.status, 200);
}

#[tokio::test]
async fn serves_on_while_it_ignores_the_stop() {
    let service = start_ready(&["slow_stop=300ms"]).await;
    let begun = Instant::now();
    service.stop.send(()).unwrap();
    assert_eq!(get(service.address, "/").await.status, 200);
    assert_eq!(in_time(service.exit_code).await.unwrap(), 0);
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn tells_its_clients_to_leave_before_it_hangs_up() {
    let service = start_ready(&["latency=200ms"]).await;
    let keep_alive = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    let reply = tokio::spawn(exchange(service.address, keep_alive));
    until_in_flight(service.address).await;
    service.stop.send(()).unwrap();
    let reply = in_time(reply).await.unwrap();
    assert!(reply.head.contains("connection: close"), "{}", reply.head);
    assert_eq!((reply.status, reply.body.as_str()), (200, "v1 says hello\n"));
    assert_eq!(in_time(service.exit_code).await.unwrap(), 0);
}

#[tokio::test]
async fn finishes_what_it_began_before_it_stops() {
    let service = start_ready(&["latency=100ms"]).await;
    let load = Load::start(LoadOptions {
        rate_per_second: 400,
        connections: 60,
        ..LoadOptions::new(service.address)
    })
    .unwrap();
    while load.snapshot().answered_total() < 100 {
        // sleep: a snapshot can only be taken again.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    service.stop.send(()).unwrap();
    assert_eq!(in_time(service.exit_code).await.unwrap(), 0);
    let report = in_time(load.stop()).await;
    assert_eq!(report.by_status.keys().copied().collect::<Vec<_>>(), [200]);
    let failures = report.failures;
    assert_eq!((failures.reused_before_byte, failures.mid_response, failures.timeout), (0, 0, 0));
    assert!(report.connections_closed_by_server >= 30, "{report:?}");
    assert_eq!(report.in_flight(), 0);
}
