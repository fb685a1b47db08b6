//! One try of a probe: ask an instance over HTTP or TCP, or run a command beside it. Not here:
//! how often, and how many tries count.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, Response};
use switchback_domain::InstanceId;
use switchback_domain::probe::{Probe, ProbeAction, ProbeResult};
use switchback_domain::time::humane;
use switchback_domain::with_causes;
use switchback_http::{Limits, Longer, exchange, shown};
use switchback_ports::{Prober, Runtime};
use tokio::net::TcpStream;

/// More of a body is not read; larger heads are no answer to a probe.
const LIMITS: Limits =
    Limits { head_bytes_max: 16 * 1024, body_bytes_max: 64 * 1024, longer: Longer::Cut };
/// More of a body is not shown.
const BODY_SHOWN_MAX: usize = 200;
/// What `"status"` may say in a passing answer.
const GOOD_STATUS: [&str; 5] = ["healthy", "ok", "up", "pass", "ready"];

/// Tries a probe once. Always answers within the probe's timeout (a command is given a moment
/// more to be killed), and says what was seen: `GET /ready: 503 Service Unavailable: starting`.
pub async fn probe(
    address: SocketAddr,
    probe: &Probe,
    runtime: &dyn Runtime,
    id: &InstanceId,
) -> ProbeResult {
    match &probe.action {
        ProbeAction::Http { path } => {
            let tried = tokio::time::timeout(probe.timeout, get(address, path)).await;
            let answer = tried.unwrap_or_else(|_| Err(no_answer(probe)));
            let result = answer.map_or_else(failure, |answer| judge(&answer));
            ProbeResult { detail: format!("GET {path}: {}", result.detail), ..result }
        }
        ProbeAction::Tcp => {
            let tried = tokio::time::timeout(probe.timeout, connect(address)).await;
            match tried.unwrap_or_else(|_| Err(no_answer(probe))) {
                Ok(_) => ProbeResult { passed: true, detail: format!("connected to {address}") },
                Err(detail) => failure(detail),
            }
        }
        ProbeAction::Command { argv } => match runtime.execute(id, argv, probe.timeout).await {
            Ok(result) => result,
            Err(error) => failure(with_causes(&error)),
        },
    }
}

/// [`probe`] as the port that the control plane asks through.
#[derive(Clone)]
pub struct InstanceProber {
    runtime: Arc<dyn Runtime>,
}

impl InstanceProber {
    /// Commands are run through `runtime`.
    pub fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self { runtime }
    }
}

#[async_trait]
impl Prober for InstanceProber {
    async fn probe(&self, id: &InstanceId, address: SocketAddr, asked: &Probe) -> ProbeResult {
        probe(address, asked, self.runtime.as_ref(), id).await
    }
}

fn failure(detail: String) -> ProbeResult {
    ProbeResult { passed: false, detail }
}

fn no_answer(probe: &Probe) -> String {
    format!("no complete answer within {}", humane(probe.timeout))
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let connected = TcpStream::connect(address).await;
    connected.map_err(|error| format!("cannot connect to {address}: {error}"))
}

async fn get(address: SocketAddr, path: &str) -> Result<Response<Bytes>, String> {
    let request = Request::get(path)
        .header("host", address.to_string())
        .header("user-agent", "switchback-probe")
        .header("accept", "*/*")
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("not a path: {error}"))?;
    let stream = connect(address).await?;
    exchange(stream, request, LIMITS).await.map_err(|error| with_causes(&error))
}

/// 200 to 399 passes, unless a JSON body says that the service is not well.
fn judge(answer: &Response<Bytes>) -> ProbeResult {
    let (status, body) = (answer.status(), answer.body());
    let good_code = (200..400).contains(&status.as_u16());
    let passed = good_code && says_well(body);
    let shown = shown(&String::from_utf8_lossy(body), BODY_SHOWN_MAX);
    if passed || shown.is_empty() {
        return ProbeResult { passed, detail: status.to_string() };
    }
    ProbeResult { passed, detail: format!("{status}: {shown}") }
}

fn says_well(body: &[u8]) -> bool {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let status = json.as_ref().and_then(|json| json.get("status"));
    status.is_none_or(|status| {
        let text = status.as_str().unwrap_or_default().to_ascii_lowercase();
        GOOD_STATUS.contains(&text.as_str())
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use switchback_ports::runtime::fake::FakeRuntime;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn http(path: &str) -> Probe {
        Probe {
            action: ProbeAction::Http { path: path.to_owned() },
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(300),
            healthy_after: 1,
            unhealthy_after: 1,
        }
    }

    async fn ask(address: SocketAddr, asked: &Probe) -> ProbeResult {
        let runtime = FakeRuntime::default();
        probe(address, asked, &runtime, &InstanceId::from_stored("x")).await
    }

    /// What a probe makes of a server that reads a request and says this, then closes or not.
    async fn answer_to(said: impl Into<Vec<u8>>, close: bool) -> ProbeResult {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, said) = (listener.local_addr().unwrap(), said.into());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(&said).await;
            if !close {
                std::future::pending::<()>().await;
            }
        });
        let result = ask(address, &http("/ready")).await;
        server.abort();
        result
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn codes_from_200_to_399_pass() {
        let cases = [("200 OK", true), ("204 No Content", true), ("302 Found", true)];
        let failing = [("404 Not Found", false), ("503 Service Unavailable", false)];
        for (code, passed) in cases.into_iter().chain(failing) {
            let said = format!("HTTP/1.1 {code}\r\ncontent-length: 0\r\n\r\n");
            let result = answer_to(said, true).await;
            assert_eq!(result, ProbeResult { passed, detail: format!("GET /ready: {code}") });
        }
    }

    #[tokio::test]
    async fn a_json_status_decides_whatever_the_code_says() {
        for (body, passed) in [
            (r#"{"status":"healthy"}"#, true),
            (r#"{"status":"UP","more":1}"#, true),
            (r#"{"status":"degraded"}"#, false),
            (r#"{"status":3}"#, false),
            (r#"{"state":"bad"}"#, true),
            ("[1]", true),
            ("status: bad", true),
        ] {
            assert_eq!(answer_to(ok(body), false).await.passed, passed, "{body}");
        }
    }

    #[tokio::test]
    async fn a_failing_body_is_shown_cut_and_on_one_line() {
        let said = "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"status\":\n\"starting\"}";
        let detail = answer_to(said, true).await.detail;
        assert_eq!(detail, "GET /ready: 503 Service Unavailable: {\"status\": \"starting\"}");
        let said = format!("HTTP/1.1 500 Oh\r\n\r\n{}", "ü".repeat(5000));
        let detail = answer_to(said, true).await.detail;
        assert!(detail.ends_with("ü…") && detail.chars().count() < 260, "{detail}");
    }

    #[tokio::test]
    async fn garbage_is_no_answer() {
        for said in ["SSH-2.0-OpenSSH\r\n", "\0\0\0\0", "HTTP/9.9 200 OK\r\n\r\n", ""] {
            let result = answer_to(said, true).await;
            assert!(!result.passed, "{said:?}");
            assert!(result.detail.contains("no valid HTTP answer"), "{}", result.detail);
        }
        let endless_head = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(100_000));
        assert!(!answer_to(endless_head, false).await.passed);
        let torn = answer_to("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf", true).await;
        assert!(!torn.passed && torn.detail.contains("200 OK, then"), "{}", torn.detail);
    }

    #[tokio::test]
    async fn an_endless_body_is_not_read_to_its_end() {
        let said = format!("HTTP/1.1 200 OK\r\n\r\n{}", "z".repeat(1 << 20));
        assert!(answer_to(said, false).await.passed);
    }

    #[tokio::test]
    async fn a_server_that_hangs_or_is_not_there_fails_in_time() {
        let started_at = Instant::now();
        for said in ["", "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf"] {
            let result = answer_to(said, false).await;
            assert_eq!(result.detail, "GET /ready: no complete answer within 300ms");
        }
        assert!(started_at.elapsed() < Duration::from_secs(20));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tcp = Probe { action: ProbeAction::Tcp, ..http("/") };
        assert!(ask(address, &tcp).await.passed);
        drop(listener);
        for asked in [tcp, http("/ready")] {
            let result = ask(address, &asked).await;
            assert!(!result.passed && result.detail.contains("refused"), "{}", result.detail);
        }
    }
}
