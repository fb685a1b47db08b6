//! Both adapters against real sources on loopback: a Prometheus of Debian's package that scrapes a
//! small exporter, and a JSON document.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "whatever else comes fails the test"
)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use switchback_domain::Timestamp;
use switchback_domain::metric::{Answer, Endpoint, MetricSource};
use switchback_metrics::HttpMetrics;
use switchback_ports::Metrics;
use switchback_ports::metrics::Question;
use switchback_ports::metrics::conformance::{Places, check};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long a Prometheus may take to start and scrape on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

fn endpoint(address: SocketAddr, path: &str) -> Endpoint {
    Endpoint { url: format!("http://{address}{path}"), authorization_env: None }
}

fn now() -> Timestamp {
    Timestamp::default() + SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// A place where nobody listens.
fn dead() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// A place that connects and is silent.
fn silent() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Answers every request with what `answer` makes of its head; ends with the test.
async fn serve(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 8192];
            let length = stream.read(&mut head).await.unwrap_or_default();
            let said = answer(&String::from_utf8_lossy(&head[..length]));
            let _ = stream.write_all(said.as_bytes()).await;
        }
    });
    address
}

fn ok(kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

async fn ask(source: MetricSource, query: &str) -> Answer {
    let question =
        Question { source, query: query.to_owned(), at: now(), timeout: Duration::from_secs(5) };
    HttpMetrics.query(&question).await
}

#[tokio::test]
async fn json_conforms() {
    let document = r#"{"rate": 0.25, "null": null, "two": [1, 2], "text": "high"}"#;
    let address = serve(|_| ok("application/json", document)).await;
    let teapot = serve(|_| "HTTP/1.1 418 I'm a teapot\r\n\r\nno".to_owned()).await;
    let (_silent, slow) = silent();
    let at = |address, pointer: &str| {
        (MetricSource::Json(endpoint(address, "/figures?of=v2")), pointer.to_owned())
    };
    let places = Places {
        number: at(address, "/rate"),
        nothing: at(address, "/null"),
        several: at(address, "/two"),
        not_finite: None,
        text: at(address, "/text"),
        wrong: at(teapot, "/rate"),
        dead: at(dead(), "/rate"),
        slow: at(slow, "/rate"),
    };
    check(&HttpMetrics, &places).await;
}

#[tokio::test]
async fn what_is_no_answer_is_named_and_bounded() {
    let endless = "x".repeat(3 << 20);
    for (said, named) in [
        (ok("text/plain", "hello"), "no JSON"),
        ("SSH-2.0-x\r\n".to_owned(), "no valid HTTP answer"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{".to_owned(), "200 OK, then"),
        ("HTTP/1.1 302 Found\r\nlocation: /x\r\n\r\n".to_owned(), "302 Found"),
        (ok("application/json", &endless), "larger than"),
    ] {
        let address = serve(move |_| said.clone()).await;
        match ask(MetricSource::Json(endpoint(address, "/")), "/rate").await {
            Answer::Failed(why) => assert!(why.contains(named), "{why}"),
            other => panic!("{named}: {other:?}"),
        }
    }
    for (url, named) in [("https://localhost/", "only http"), ("localhost", "only http")] {
        let source = Endpoint { url: url.to_owned(), authorization_env: None };
        match ask(MetricSource::Json(source), "/rate").await {
            Answer::Failed(why) => assert!(why.contains(named), "{url}: {why}"),
            other => panic!("{url}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn the_authorization_comes_from_the_environment_and_is_not_told() {
    // PATH is a variable that is there; nobody's secret is needed for this.
    let value = std::env::var("PATH").unwrap();
    let expected = format!("authorization: {value}\r\n");
    let address = serve(move |head| {
        let given = u8::from(head.contains(&expected));
        ok("application/json", &format!(r#"{{"given": {given}}}"#))
    })
    .await;
    let with = |name: &str| {
        let url = format!("http://{address}");
        MetricSource::Json(Endpoint { url, authorization_env: Some(name.to_owned()) })
    };
    let answer = ask(with("PATH"), "/given").await;
    assert!(matches!(answer, Answer::Number { value, .. } if value > 0.5), "{answer:?}");
    match ask(with("SWITCHBACK_NO_SUCH_VARIABLE"), "/given").await {
        Answer::Failed(why) => assert!(why.contains("SWITCHBACK_NO_SUCH_VARIABLE is not set")),
        other => panic!("{other:?}"),
    }
}

/// A Prometheus that ends with the test.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("prometheus.yml");
        let jobs = format!("[{{job_name: shop, static_configs: [{{targets: ['{target}']}}]}}]");
        let text = format!("global: {{scrape_interval: 1s}}\nscrape_configs: {jobs}\n");
        std::fs::write(&config, text).unwrap();
        let address = dead();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, address, _directory: directory }
    }

    fn source(&self) -> MetricSource {
        MetricSource::Prometheus(endpoint(self.address, ""))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the Debian package is there. Without it the test says so and is over; where
/// `SWITCHBACK_REQUIRE_PACKAGES` is set it fails.
#[allow(clippy::print_stdout, reason = "a test that did not run says so")]
fn has_prometheus() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|it| it.join("prometheus").is_file());
    let required = std::env::var_os("SWITCHBACK_REQUIRE_PACKAGES").is_some();
    assert!(found || !required, "the package prometheus is missing, and packages are required");
    if !found {
        println!("skipped: it needs the Debian package prometheus");
    }
    found
}

#[tokio::test]
async fn a_real_prometheus_conforms_and_knows_what_it_scraped() {
    if !has_prometheus() {
        return;
    }
    let page = "requests_total{version=\"v1\"} 900\nrequests_total{version=\"v2\"} 100\n\
                failed_total{version=\"v2\"} 25\nbroken NaN\n";
    let exporter = serve(move |_| ok("text/plain; version=0.0.4", page)).await;
    let prometheus = Prometheus::start(exporter);
    let rate = "sum(failed_total{version=\"v2\"}) / sum(requests_total{version=\"v2\"})";
    let started_at = std::time::Instant::now();
    while !matches!(ask(prometheus.source(), rate).await, Answer::Number { .. }) {
        assert!(started_at.elapsed() < PATIENCE, "{:?}", ask(prometheus.source(), rate).await);
        // sleep: between two tries while a real Prometheus starts and scrapes.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (_silent, slow) = silent();
    let at = |query: &str| (prometheus.source(), query.to_owned());
    let elsewhere = |address| (MetricSource::Prometheus(endpoint(address, "/")), rate.to_owned());
    let places = Places {
        number: at(rate),
        nothing: at("requests_total{version=\"v3\"}"),
        several: at("requests_total"),
        not_finite: Some(at("broken")),
        text: at("\"high\""),
        wrong: at("sum("),
        dead: elsewhere(dead()),
        slow: elsewhere(slow),
    };
    check(&HttpMetrics, &places).await;
    let question = Question {
        source: prometheus.source(),
        query: rate.to_owned(),
        at: now() + Duration::from_mins(5),
        timeout: Duration::from_secs(5),
    };
    let answer = HttpMetrics.query(&question).await;
    assert!(matches!(answer, Answer::OtherClock(seconds) if seconds < -200), "{answer:?}");
}
