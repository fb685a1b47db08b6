//! What an operator has a route do: maintenance, isolation, diversion, holding back.

use std::time::Duration;

use super::support::{
    PATIENCE, Running, arm, ask, client, eventually, free_address, full, generation, get, instance,
    post, read, release, single, table, version,
};
use switchback_domain::Split;
use switchback_domain::route::{Destination, Maintenance, PauseLimits, RouteMode};
use switchback_ports::DataPlane;
use switchback_ports::data_plane::RouteReport;
use switchback_routing::Table;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

fn in_mode(table: Table, counter: u64, mode: RouteMode) -> Table {
    let mut table = Table { generation: generation(counter), ..table };
    table.routes[0].steering.mode = mode;
    table
}

async fn counts(running: &Running) -> RouteReport {
    running.report().await.routes.into_iter().next().unwrap()
}

#[tokio::test]
async fn in_maintenance_clients_get_a_page_and_when_to_come_again() {
    let (running, listen) = (Running::start().await, free_address());
    let serving = single(1, listen, "v1", &[version("v1").await]);
    let retry_after = Duration::from_millis(90_500);
    let mut connection = {
        running.plane.publish(&serving).await.unwrap();
        client(listen).await
    };
    for (counter, page, expected) in [(2, "", "down for maintenance"), (3, "<p>mine</p>", "mine")] {
        let mode = RouteMode::Maintenance(Maintenance { page: page.to_owned(), retry_after });
        running.plane.publish(&in_mode(serving.clone(), counter, mode)).await.unwrap();
        let response = connection.send_request(get("/")).await.unwrap();
        assert_eq!(response.headers()["retry-after"], "91");
        assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
        let (status, body) = read(response).await;
        assert!(status == 503 && body.contains(expected), "{status} {body}");
    }
    running.plane.publish(&in_mode(serving, 4, RouteMode::Serve)).await.unwrap();
    let response = connection.send_request(get("/")).await.unwrap();
    assert_eq!(read(response).await, (200, "v1".to_owned()), "on the same connection");
    assert_eq!(counts(&running).await.maintenance, 2);
    assert_eq!(running.stats("v1").await.accepted, 1, "no version answers for maintenance");
}

#[tokio::test]
async fn an_isolated_service_refuses_at_once_and_a_diverted_one_is_answered_by_another() {
    let (running, listen) = (Running::start().await, free_address());
    let (one, other) = (version("v1").await, version("v2").await);
    let arms = vec![arm("v1", &[one]), arm("v2", &[other])];
    let serving = table(1, listen, arms, Split::all(release("v1")));
    running.plane.publish(&in_mode(serving.clone(), 1, RouteMode::Isolate)).await.unwrap();
    let (status, body) = ask(listen, get("/")).await;
    assert!(status == 503 && body.contains("isolated"), "{status} {body}");
    let to = Destination::Version(release("v2"));
    running.plane.publish(&in_mode(serving.clone(), 2, RouteMode::Divert { to })).await.unwrap();
    assert_eq!(ask(listen, get("/")).await, (200, "v2".to_owned()));
    running.plane.publish(&in_mode(serving, 3, RouteMode::Serve)).await.unwrap();
    assert_eq!(ask(listen, get("/")).await, (200, "v1".to_owned()));
    assert_eq!(counts(&running).await.isolated, 1);
}

fn paused(deadline: Duration, cap: u32) -> RouteMode {
    RouteMode::Pause(PauseLimits { deadline, cap })
}

#[tokio::test]
async fn held_requests_go_on_in_full_when_the_pause_ends() {
    let (running, listen) = (Running::start().await, free_address());
    let echo = instance(|request| async move {
        use http_body_util::BodyExt;
        let body = request.into_body().collect().await.unwrap().to_bytes();
        hyper::Response::new(full(body))
    })
    .await;
    let serving = single(1, listen, "v1", &[echo]);
    let pause = in_mode(serving.clone(), 1, paused(PATIENCE, 3));
    running.plane.publish(&pause).await.unwrap();
    let held: Vec<_> = (0..3)
        .map(|n| tokio::spawn(ask(listen, post("/", format!("{n}{}", "x".repeat(40_000))))))
        .collect();
    eventually("three are held", async || {
        running.report().await.routes.first().is_some_and(|counts| counts.held == 3)
    })
    .await;
    let response = client(listen).await.send_request(get("/")).await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(running.in_flight("v1").await, 0, "nobody's in-flight count knows of them");
    // Another table that still holds back lets nobody go, nor gives anybody more time.
    running.plane.publish(&in_mode(serving.clone(), 2, paused(PATIENCE, 3))).await.unwrap();
    assert_eq!(counts(&running).await.held, 3);
    running.plane.publish(&in_mode(serving, 3, RouteMode::Serve)).await.unwrap();
    for (n, held) in held.into_iter().enumerate() {
        let (status, body) = held.await.unwrap();
        assert!(status == 200 && body.starts_with(&n.to_string()) && body.len() == 40_001);
    }
    let counts = counts(&running).await;
    assert_eq!((counts.held, counts.released, counts.hold_full), (0, 3, 1));
    assert_eq!(running.stats("v1").await.answered(), 3);
}

#[tokio::test]
async fn a_held_request_is_given_up_at_its_deadline_and_when_its_client_leaves() {
    let (running, listen) = (Running::start().await, free_address());
    let serving = single(1, listen, "v1", &[version("v1").await]);
    let pause = in_mode(serving.clone(), 1, paused(Duration::from_millis(50), 1));
    running.plane.publish(&pause).await.unwrap();
    let response = client(listen).await.send_request(get("/")).await.unwrap();
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(read(response).await, (503, "switchback: the service is paused\n".to_owned()));
    running.plane.publish(&in_mode(serving, 2, paused(PATIENCE, 1))).await.unwrap();
    for leaving in 1..=2 {
        let mut stream = TcpStream::connect(listen).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();
        eventually("it is held", async || counts(&running).await.held == 1).await;
        drop(stream);
        eventually("its place is free", async || {
            let counts = counts(&running).await;
            (counts.held, counts.hold_left) == (0, leaving)
        })
        .await;
    }
    assert_eq!(counts(&running).await.hold_expired, 1);
}

#[tokio::test]
async fn a_data_plane_that_stops_lets_held_requests_go() {
    let (running, listen) = (Running::start().await, free_address());
    let serving = single(1, listen, "v1", &[version("v1").await]);
    running.plane.publish(&in_mode(serving, 1, paused(PATIENCE, 9))).await.unwrap();
    let held = tokio::spawn(ask(listen, get("/")));
    eventually("it is held", async || {
        running.report().await.routes.first().is_some_and(|counts| counts.held == 1)
    })
    .await;
    running.stop().await;
    assert_eq!(held.await.unwrap().0, 503);
}
