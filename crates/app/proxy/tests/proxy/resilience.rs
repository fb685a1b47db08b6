//! Slow and failing instances, and more requests than a service can take: who is asked, who is
//! turned away, what clients get, and that it is all counted for whom it is due.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hyper::Response;
use switchback_domain::resilience::{
    AdaptivePolicy, Balance, BreakerPolicy, Bulkhead, ClientKey, ClientRate, EjectionPolicy,
    Fallback, Rate, Resilience, RetryPolicy, StalePolicy, StaticAnswer, Timeouts,
};
use switchback_domain::route::VersionHeader;
use switchback_domain::{Split, Weight};
use switchback_ports::DataPlane;
use switchback_ports::data_plane::{BreakerReport, RouteReport};
use switchback_routing::{Candidate, Table};
use tokio::io::AsyncWriteExt;

use super::support::*;

/// The table with a route that does this about trouble.
fn with(mut table: Table, resilience: Resilience) -> Table {
    table.routes[0].steering.rules.resilience = Some(Box::new(resilience));
    table
}

async fn counts(proxy: &Running) -> RouteReport {
    let report = proxy.report().await;
    report.routes.first().cloned().expect("something was counted")
}

/// An instance that answers 500 while it is told to, else 200.
async fn moody(broken: &Arc<AtomicBool>) -> std::net::SocketAddr {
    let broken = Arc::clone(broken);
    instance(move |_| {
        let status = if broken.load(Ordering::SeqCst) { 500 } else { 200 };
        async move { Response::builder().status(status).body(full("moody")).unwrap() }
    })
    .await
}

/// Requests one after the other on one connection.
async fn in_turn(listen: std::net::SocketAddr, count: usize) {
    let mut connection = client(listen).await;
    for _ in 0..count {
        connection.ready().await.unwrap();
        let response = connection.send_request(get("/")).await.unwrap();
        assert_eq!(read(response).await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_instance_is_seldom_asked() {
    let (proxy, listen) = (Running::start().await, free_address());
    let slow_asked = Arc::new(AtomicU64::new(0));
    let slow = Arc::clone(&slow_asked);
    let slow = instance(move |_| {
        slow.fetch_add(1, Ordering::SeqCst);
        async move {
            // sleep: it is the slow one.
            tokio::time::sleep(Duration::from_millis(150)).await;
            Response::new(full("slow"))
        }
    });
    let fast = || {
        instance(|_| async {
            // sleep: what they take to answer.
            tokio::time::sleep(Duration::from_millis(4)).await;
            Response::new(full("fast"))
        })
    };
    let addresses = [slow.await, fast().await, fast().await, fast().await];
    proxy.plane.publish(&single(1, listen, "v1", &addresses)).await.unwrap();
    tokio::join!(in_turn(listen, 200), in_turn(listen, 200));
    let asked = slow_asked.load(Ordering::SeqCst);
    // Taking turns would ask it 100 times of 400. Each worker has to find out once, and a busy
    // machine makes the others slow now and then; times are compared in `core/resilience`.
    assert!((1..=50).contains(&asked), "{asked} of 400");
}

#[tokio::test]
async fn a_failing_instance_is_ejected_and_told_of() {
    let (proxy, listen) = (Running::start().await, free_address());
    let broken = Arc::new(AtomicBool::new(true));
    let addresses = [moody(&broken).await, version("v1").await, version("v1").await];
    // Its response times alone would make it wait for its fifth failure in a row.
    let ejection = Some(EjectionPolicy { failures: 1, ..EjectionPolicy::default() });
    let balance = Balance { slow_start: Duration::ZERO, ejection };
    let resilience = Resilience { balance, ..Resilience::default() };
    proxy.plane.publish(&with(single(1, listen, "v1", &addresses), resilience)).await.unwrap();
    let mut asked = 0;
    while proxy.report().await.arms[0].trouble.ejections == 0 {
        asked += 1;
        assert!(asked < 5_000, "never ejected");
        ask(listen, get("/")).await;
    }
    let trouble = proxy.report().await.arms[0].trouble.clone();
    assert_eq!((trouble.ejections, trouble.ejected.len()), (1, 1));
    let failed = proxy.stats("v1").await.failed();
    assert_eq!(failed, 1, "what the client saw is counted for the version");
    for _ in 0..50 {
        assert_eq!(ask(listen, get("/")).await.0, 200);
    }
}

#[tokio::test]
async fn the_last_instance_is_never_ejected() {
    let (proxy, listen) = (Running::start().await, free_address());
    let broken = Arc::new(AtomicBool::new(true));
    let addresses = [moody(&broken).await, moody(&broken).await];
    let ejection = Some(EjectionPolicy { failures: 2, base: Duration::from_mins(1) });
    let balance = Balance { slow_start: Duration::ZERO, ejection };
    let resilience = Resilience { balance, ..Resilience::default() };
    proxy.plane.publish(&with(single(1, listen, "v1", &addresses), resilience)).await.unwrap();
    for _ in 0..40 {
        assert_eq!(ask(listen, get("/")).await.0, 500);
    }
    assert_eq!(proxy.report().await.arms[0].trouble.ejections, 1);
    broken.store(false, Ordering::SeqCst);
    assert_eq!(ask(listen, get("/")).await.0, 200);
}

#[tokio::test]
async fn a_breaker_opens_counts_what_it_turns_away_and_closes_again() {
    let (proxy, listen) = (Running::start().await, free_address());
    let broken = Arc::new(AtomicBool::new(true));
    let breaker =
        BreakerPolicy { failures: 3, open: Duration::from_millis(200), ..BreakerPolicy::default() };
    let resilience = Resilience { breaker: Some(breaker), ..Resilience::default() };
    let table = single(1, listen, "v1", &[moody(&broken).await]);
    proxy.plane.publish(&with(table, resilience)).await.unwrap();
    for _ in 0..3 {
        assert_eq!(ask(listen, get("/")).await.0, 500);
    }
    let (status, text) = ask(listen, get("/")).await;
    assert_eq!((status, text.as_str()), (503, "switchback: the version has failed too often\n"));
    let counted = proxy.stats("v1").await;
    assert_eq!((counted.accepted, counted.breaker_open, counted.failed()), (4, 1, 4));
    let trouble = proxy.report().await.arms[0].trouble.clone();
    assert_eq!(trouble.breaker_opened, 1);
    assert!(trouble.breaker.is_some_and(|state| state != BreakerReport::Closed));
    broken.store(false, Ordering::SeqCst);
    eventually("it is tried again", async || ask(listen, get("/")).await.0 == 200).await;
    eventually("it closes", async || {
        ask(listen, get("/")).await;
        let trouble = proxy.report().await.arms[0].trouble.clone();
        trouble.breaker == Some(BreakerReport::Closed)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulkhead_lets_so_many_in_and_so_many_wait() {
    let (proxy, listen) = (Running::start().await, free_address());
    let (address, gate) = gated("done").await;
    let bulkhead = Bulkhead { requests: 2, pending: 1, pending_timeout: PATIENCE };
    let resilience = Resilience { bulkhead: Some(bulkhead), ..Resilience::default() };
    let table = with(single(1, listen, "v1", &[address]), resilience);
    proxy.plane.publish(&table).await.unwrap();
    let inside = [tokio::spawn(ask(listen, get("/1"))), tokio::spawn(ask(listen, get("/2")))];
    eventually("two are in", async || proxy.in_flight("v1").await == 2).await;
    let refused = Arc::new(AtomicU64::new(0));
    let mut later = Vec::new();
    for _ in 0..3 {
        let refused = Arc::clone(&refused);
        later.push(tokio::spawn(async move {
            let (status, _) = ask(listen, get("/later")).await;
            refused.fetch_add(u64::from(status == 503), Ordering::SeqCst);
            status
        }));
    }
    eventually("two of three are refused", async || refused.load(Ordering::SeqCst) == 2).await;
    assert_eq!(proxy.in_flight("v1").await, 2);
    gate.add_permits(3);
    for task in inside {
        assert_eq!(task.await.unwrap().0, 200);
    }
    let mut statuses = Vec::new();
    for task in later {
        statuses.push(task.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503, 503]);
    assert_eq!(counts(&proxy).await.bulkhead_full, 2);
    assert_eq!(proxy.stats("v1").await.failed(), 0, "no fault of the version");
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_again() {
    let (proxy, listen) = (Running::start().await, free_address());
    let rate = Rate { requests: 1, per: Duration::from_secs(30), burst: 3 };
    let key = ClientKey::Header("x-key".to_owned());
    let resilience = Resilience {
        rate: Some(Rate { burst: 5, ..rate }),
        client_rate: Some(ClientRate { rate, key }),
        ..Resilience::default()
    };
    let table = single(1, listen, "v1", &[version("v1").await]);
    proxy.plane.publish(&with(table, resilience)).await.unwrap();
    let as_client = |key: &str| {
        let mut request = get("/");
        request.headers_mut().insert("x-key", key.parse().unwrap());
        request
    };
    for _ in 0..3 {
        assert_eq!(ask(listen, as_client("a")).await.0, 200);
    }
    let response = client(listen).await.send_request(as_client("a")).await.unwrap();
    assert_eq!(response.status(), 429);
    let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    assert_eq!(ask(listen, as_client("b")).await.0, 200, "each has its own");
    assert_eq!(ask(listen, get("/")).await.0, 200, "without the header, the address is the key");
    assert_eq!(ask(listen, as_client("c")).await.0, 429, "the route has its own, too");
    let counted = counts(&proxy).await;
    assert_eq!((counted.client_limited, counted.rate_limited), (1, 1));
    assert_eq!(proxy.stats("v1").await.accepted, 5);
}

#[tokio::test]
async fn what_failed_is_repeated_elsewhere_within_the_budget() {
    let (proxy, listen) = (Running::start().await, free_address());
    let broken = Arc::new(AtomicBool::new(true));
    // One answers 500, one breaks off before it answers, one is well.
    let silent = raw_instance(|mut stream| async move {
        read_head(&mut stream).await;
        stream.shutdown().await.unwrap();
    });
    let addresses = [moody(&broken).await, silent.await, version("v1").await];
    let retries = RetryPolicy {
        statuses: vec![500],
        per_second_min: 3,
        budget: Weight::from_basis_points(1).unwrap(),
        backoff: Duration::from_millis(1),
        backoff_max: Duration::from_millis(2),
        ..RetryPolicy::default()
    };
    let balance = Balance { slow_start: Duration::ZERO, ejection: None };
    let resilience = Resilience { retries: Some(retries), balance, ..Resilience::default() };
    proxy.plane.publish(&with(single(1, listen, "v1", &addresses), resilience)).await.unwrap();
    // A request with a body is not repeated, whatever happens to it.
    for _ in 0..20 {
        ask(listen, post("/", "data")).await;
    }
    assert_eq!(proxy.stats("v1").await.retried, 0);
    let mut failed = 0;
    while failed == 0 {
        let status = ask(listen, get("/")).await.0;
        failed += u64::from(status != 200);
        assert!(proxy.stats("v1").await.accepted < 5_000, "the budget never ends");
    }
    let counted = proxy.stats("v1").await;
    assert!((10..=30).contains(&counted.retried), "ten seconds' worth: {counted:?}");
    assert!(counts(&proxy).await.unrepeated >= 1);
    assert_eq!(counted.accepted, counted.finished(), "each request counts once");
}

#[tokio::test]
async fn the_last_good_answer_then_the_configured_one_are_better_than_none() {
    let (proxy, listen) = (Running::start().await, free_address());
    let gone = Arc::new(AtomicBool::new(false));
    let address = sharing(&gone, |gone, mut stream| async move {
        loop {
            let head = read_head(&mut stream).await;
            if head.is_empty() || gone.load(Ordering::SeqCst) {
                return;
            }
            let more = if head.starts_with("GET /own") { "set-cookie: a=b\r\n" } else { "" };
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: x/y\r\n{more}transfer-encoding: chunked\
                 \r\n\r\n3\r\nold\r\n0\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let answer = StaticAnswer {
        status: 203,
        body: "[]".to_owned(),
        content_type: "application/json".to_owned(),
    };
    let stale = Some(StalePolicy::default());
    let fallback = Fallback { version: false, stale, answer: Some(answer) };
    let resilience = Resilience { fallback, ..Resilience::default() };
    let table = single(1, listen, "v1", &[address.await]);
    proxy.plane.publish(&with(table, resilience)).await.unwrap();
    for path in ["/kept", "/own"] {
        assert_eq!(ask(listen, get(path)).await, (200, "old".to_owned()));
    }
    gone.store(true, Ordering::SeqCst);
    let response = client(listen).await.send_request(get("/kept")).await.unwrap();
    let field = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(field("content-type"), "x/y");
    assert!(field("warning").starts_with("110 "));
    assert!(field("age").parse::<u64>().unwrap() < 60);
    assert_eq!(read(response).await, (200, "old".to_owned()));
    let response = client(listen).await.send_request(get("/own")).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(read(response).await, (203, "[]".to_owned()));
    assert_eq!(ask(listen, post("/kept", "data")).await.0, 203);
    let counted = counts(&proxy).await;
    assert_eq!((counted.stale, counted.canned), (1, 2));
    let counted = proxy.stats("v1").await;
    assert_eq!((counted.answered(), counted.connect_failed), (2, 3), "{counted:?}");
}

#[tokio::test]
async fn the_baseline_answers_for_a_candidate_that_cannot_and_the_candidate_is_blamed() {
    let (proxy, listen) = (Running::start().await, free_address());
    let arms = vec![arm("v1", &[version("v1").await]), arm("v2", &[free_address()])];
    let split = Split::between(release("v1"), release("v2"), Weight::from_percent(50));
    let fallback = Fallback { version: true, ..Fallback::default() };
    let breaker = BreakerPolicy { failures: 3, ..BreakerPolicy::default() };
    let resilience = Resilience { fallback, breaker: Some(breaker), ..Resilience::default() };
    let mut table = with(table(1, listen, arms, split), resilience);
    let candidate = Candidate { release: release("v2"), salt: "r1".to_owned(), open: true };
    table.routes[0].steering.candidate = Some(candidate);
    proxy.plane.publish(&table).await.unwrap();
    for n in 0..40 {
        let request = if n % 2 == 0 { get("/") } else { post("/", "data") };
        assert_eq!(ask(listen, request).await, (200, "v1".to_owned()));
    }
    let (old, new) = (proxy.stats("v1").await, proxy.stats("v2").await);
    assert_eq!((old.accepted, old.failed()), (40, 0));
    assert!(new.accepted > 3, "{new:?}");
    assert_eq!((new.answered(), new.failed()), (0, new.accepted), "nothing is hidden");
    assert!(new.breaker_open > 0 && new.connect_failed >= 3, "{new:?}");
    assert_eq!(counts(&proxy).await.rescued, new.accepted);
}

#[tokio::test]
async fn an_answer_that_stops_half_way_is_given_up() {
    let (proxy, listen) = (Running::start().await, free_address());
    let address = raw_instance(|mut stream| async move {
        let head = read_head(&mut stream).await;
        if head.starts_with("GET /half") {
            let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
            stream.write_all(half).await.unwrap();
        }
        // The rest never comes.
        read_head(&mut stream).await;
    });
    let timeouts = Timeouts {
        response_idle: Some(Duration::from_millis(100)),
        total: Some(Duration::from_millis(300)),
        ..Timeouts::default()
    };
    let resilience = Resilience { timeouts, ..Resilience::default() };
    let table = single(1, listen, "v1", &[address.await]);
    proxy.plane.publish(&with(table, resilience)).await.unwrap();
    let response = client(listen).await.send_request(get("/half")).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = http_body_util::BodyExt::collect(response.into_body()).await;
    assert!(body.is_err(), "it must not look whole");
    assert_eq!(ask(listen, get("/never")).await.0, 504, "the whole request is limited, too");
    let counted = proxy.stats("v1").await;
    assert_eq!((counted.timed_out, counted.answered()), (2, 0), "{counted:?}");
}

#[tokio::test]
async fn a_version_that_is_asked_for_by_name_is_not_replaced() {
    let (proxy, listen) = (Running::start().await, free_address());
    let arms = vec![arm("v1", &[version("v1").await]), arm("v2", &[free_address()])];
    let fallback = Fallback { version: true, ..Fallback::default() };
    let resilience = Resilience { fallback, ..Resilience::default() };
    let split = Split::between(release("v1"), release("v2"), Weight::from_percent(50));
    let mut table = with(table(1, listen, arms, split), resilience);
    let candidate = Candidate { release: release("v2"), salt: "r1".to_owned(), open: true };
    table.routes[0].steering.candidate = Some(candidate);
    let header = VersionHeader { header: "x-version".to_owned(), source: Vec::new() };
    table.routes[0].steering.rules.version_header = Some(header);
    proxy.plane.publish(&table).await.unwrap();
    for _ in 0..10 {
        let mut request = get("/");
        request.headers_mut().insert("x-version", "v2".parse().unwrap());
        assert_eq!(ask(listen, request).await.0, 502);
        assert_eq!(ask(listen, get("/")).await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn above_the_adaptive_limit_requests_are_refused() {
    let (proxy, listen) = (Running::start().await, free_address());
    let (address, gate) = gated("done").await;
    let adaptive = Some(AdaptivePolicy { initial: 1, min: 1, max: 1 });
    let resilience = Resilience { adaptive, ..Resilience::default() };
    let table = single(1, listen, "v1", &[address]);
    proxy.plane.publish(&with(table, resilience)).await.unwrap();
    let inside = tokio::spawn(ask(listen, get("/")));
    eventually("it is in", async || proxy.in_flight("v1").await == 1).await;
    assert_eq!(ask(listen, get("/")).await.0, 503);
    gate.add_permits(2);
    assert_eq!(inside.await.unwrap().0, 200);
    eventually("there is room again", async || ask(listen, get("/")).await.0 == 200).await;
    assert!(counts(&proxy).await.overloaded >= 1);
}

#[tokio::test]
async fn an_upload_may_pause_as_long_as_the_route_says() {
    let (proxy, listen) = (Running::start().await, free_address());
    let timeouts =
        Timeouts { request_idle: Some(Duration::from_millis(100)), ..Timeouts::default() };
    let resilience = Resilience { timeouts, ..Resilience::default() };
    let mut table = single(1, listen, "v1", &[version("v1").await]);
    table.routes[0].timeout = Duration::from_millis(50);
    proxy.plane.publish(&with(table, resilience)).await.unwrap();
    let answer = raw(listen, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(proxy.stats("v1").await.client_gone, 1, "no fault of the version");
}
