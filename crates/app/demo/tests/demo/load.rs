//! The load generator finds every request that a server loses, and calls it by its name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use switchback_demo::{Load, LoadOptions, LoadReport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{in_time, start_ready};

/// What a server does with a request, by its number on the connection, from 1.
#[derive(Clone, Copy)]
enum Act {
    Answer(&'static str),
    /// Answers, and hangs up without having said so.
    AnswerAndClose,
    Close,
    Break,
    Silence,
}

/// A server that does as its script says; counts the requests it did not answer whole.
async fn scripted(script: fn(u64) -> Act) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let lost = Arc::new(AtomicU64::new(0));
    let counter = lost.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, script, counter.clone()));
        }
    });
    (address, lost)
}

async fn converse(mut stream: TcpStream, script: fn(u64) -> Act, lost: Arc<AtomicU64>) {
    let mut buffer = vec![0; 4096];
    for number in 1.. {
        // Requests are small, and the next one leaves after the answer: one read is one request.
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let act = script(number);
        let reply = match act {
            Act::Answer(version) => {
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{version}", version.len())
            }
            Act::AnswerAndClose => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nv1".to_owned(),
            Act::Break => "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nv1".to_owned(),
            Act::Close | Act::Silence => String::new(),
        };
        if matches!(act, Act::Close | Act::Break | Act::Silence) {
            lost.fetch_add(1, Ordering::Relaxed);
        }
        stream.write_all(reply.as_bytes()).await.unwrap();
        match act {
            Act::Answer(_) => {}
            Act::AnswerAndClose | Act::Close | Act::Break => return,
            Act::Silence => std::future::pending().await,
        }
    }
}

fn options(address: SocketAddr, requests_max: u64) -> LoadOptions {
    LoadOptions {
        rate_per_second: 400,
        connections: 8,
        post_share: 0.0,
        requests_max,
        ..LoadOptions::new(address)
    }
}

/// Runs the load to its end; the ledger has to add up, whatever happened.
async fn run(options: LoadOptions) -> LoadReport {
    let wanted = options.requests_max;
    let report = in_time(Load::start(options).unwrap().wait()).await;
    assert_eq!(report.sent, report.answered_total() + report.failures.total(), "{report:?}");
    assert_eq!(report.sent + report.skipped, wanted, "{report:?}");
    assert_eq!(report.by_status.values().sum::<u64>(), report.answered_total());
    assert_eq!(report.latency.count(), report.answered_total());
    report
}

#[tokio::test]
async fn loses_nothing_of_a_good_service() {
    let service = start_ready(&[]).await;
    let mut options = options(service.address, 600);
    options.post_share = 0.5;
    let report = run(options).await;
    assert_eq!(report.answered.get("v1"), Some(&600));
    assert_eq!((report.failures.total(), report.connections_closed_by_server), (0, 0));
    assert!(report.connections_opened <= 8 && report.errors.is_empty());
}

#[tokio::test]
async fn finds_every_request_that_died_with_a_reused_connection() {
    let (address, lost) =
        scripted(|number| if number == 5 { Act::Close } else { Act::Answer("v1") }).await;
    let report = run(options(address, 200)).await;
    let lost = lost.load(Ordering::Relaxed);
    assert!(lost > 10, "{lost}");
    assert_eq!((report.failures.reused_before_byte, report.failures.total()), (lost, lost));
    assert_eq!(report.answered["v1"], 200 - lost);
}

#[tokio::test]
async fn tells_the_other_ways_to_lose_a_request_apart() {
    let (address, _) = scripted(|_| Act::Close).await;
    assert_eq!(run(options(address, 20)).await.failures.fresh_before_byte, 20);
    let (address, _) = scripted(|_| Act::Break).await;
    assert_eq!(run(options(address, 20)).await.failures.mid_response, 20);
    let (address, _) = scripted(|_| Act::Silence).await;
    let mut hasty = options(address, 20);
    hasty.timeout = Duration::from_millis(50);
    assert_eq!(run(hasty).await.failures.timeout, 20);
    let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(run(options(refusing, 20)).await.failures.connect, 20);
    let service = start_ready(&["garbage_rate=1"]).await;
    assert_eq!(run(options(service.address, 20)).await.failures.malformed, 20);
}

#[tokio::test]
async fn a_connection_closed_between_two_requests_costs_no_request() {
    let (address, _) = scripted(|_| Act::AnswerAndClose).await;
    let report = run(options(address, 100)).await;
    assert_eq!((report.answered_total(), report.failures.total()), (100, 0));
    assert!(report.connections_closed_by_server >= 92, "{report:?}");
    assert_eq!(report.connections_opened, 100);
}

#[tokio::test]
async fn tells_versions_and_errors_apart() {
    let (address, _) =
        scripted(|number| Act::Answer(if number % 2 == 0 { "v2 hi" } else { "v1" })).await;
    let report = run(options(address, 80)).await;
    assert_eq!(report.answered.len(), 2);
    assert!(report.answered["v1"] >= 40 && report.answered["v2"] > 0, "{report:?}");
    let service = start_ready(&["error_rate=1"]).await;
    let report = run(options(service.address, 30)).await;
    assert_eq!((report.errors["v1"], report.by_status[&500]), (30, 30));
    assert_eq!(report.failures.total(), 0);
}

#[tokio::test]
async fn waiting_for_a_free_connection_is_latency_and_too_much_of_it_is_skipped() {
    let service = start_ready(&["latency=100ms"]).await;
    let mut narrow = options(service.address, 400);
    narrow.rate_per_second = 200;
    narrow.connections = 2;
    let report = run(narrow).await;
    assert!(report.skipped > 0, "{report:?}");
    let slowest = report.latency.quantile(1.0).unwrap();
    assert!(slowest > 500_000, "open loop: {slowest} us");
}

#[tokio::test]
async fn stops_when_told_and_shows_what_it_counts_meanwhile() {
    let service = start_ready(&["latency=20ms"]).await;
    let load = Load::start(options(service.address, 1_000_000)).unwrap();
    let mut seen = 0;
    while seen < 50 {
        let snapshot = load.snapshot();
        assert!(snapshot.answered_total() >= seen && snapshot.in_flight() <= 8);
        seen = snapshot.answered_total();
        // sleep: a snapshot can only be taken again.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let report = in_time(load.stop()).await;
    assert_eq!((report.in_flight(), report.failures.total()), (0, 0));
    assert_eq!(report.sent, report.answered["v1"]);
}

#[tokio::test]
async fn ends_by_itself_when_its_time_is_over() {
    let service = start_ready(&[]).await;
    let mut short = options(service.address, 1_000_000);
    short.duration_max = Duration::from_millis(250);
    let report = in_time(Load::start(short).unwrap().wait()).await;
    assert_eq!(report.sent + report.skipped, 101);
}

type Change = fn(&mut LoadOptions);

#[test]
fn refuses_other_machines_and_nonsense() {
    let refused = |change: Change| {
        let mut options = LoadOptions::new(([127, 0, 0, 1], 1).into());
        change(&mut options);
        Load::start(options).map(drop).unwrap_err().to_string()
    };
    assert_eq!(
        refused(|options| options.address = ([192, 0, 2, 1], 80).into()),
        "192.0.2.1:80 is not a loopback address; load is sent to this machine only"
    );
    let named: [(&str, Change); 7] = [
        ("rate_per_second", |options| options.rate_per_second = 0),
        ("connections", |options| options.connections = 60_000),
        ("post_share", |options| options.post_share = f64::NAN),
        ("post_bytes", |options| options.post_bytes = usize::MAX),
        ("timeout", |options| options.timeout = Duration::ZERO),
        ("host", |options| options.host = "a\r\nX: y".to_owned()),
        ("path", |options| options.path = "no slash".to_owned()),
    ];
    for (name, change) in named {
        assert_eq!(refused(change), format!("the load's {name} is out of range"));
    }
}
