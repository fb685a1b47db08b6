//! What the tests share: a service in this process, one plain request, and patience.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use switchback_demo::{Service, ServiceOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Whatever is awaited comes far sooner; without it the test fails instead of hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) exit_code: JoinHandle<u8>,
}

/// Starts a service `v1` that behaves as told.
pub(crate) fn start(settings: &[&str]) -> Running {
    let service = Service::bind(ServiceOptions::new(0, "v1", settings).unwrap()).unwrap();
    let address = service.address();
    let (stop, stopped) = oneshot::channel();
    let exit_code = tokio::spawn(service.serve(async {
        // A test that drops the sender wants the service to go on.
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
    }));
    Running { address, stop, exit_code }
}

/// Starts a service and waits until it is ready.
pub(crate) async fn start_ready(settings: &[&str]) -> Running {
    let running = start(settings);
    until_ready(running.address).await;
    running
}

pub(crate) async fn until_ready(address: SocketAddr) {
    let begun = Instant::now();
    while get(address, "/ready").await.status != 200 {
        assert!(begun.elapsed() < PATIENCE, "never ready");
        // sleep: readiness can only be asked again; bounded by PATIENCE.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    /// 0 when there was none.
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Reply {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"))
        .await
}

/// Sends a request on a connection of its own, and reads until the service closes it.
pub(crate) async fn exchange(address: SocketAddr, request: impl AsRef<str>) -> Reply {
    let mut bytes = Vec::new();
    if let Ok(mut stream) = TcpStream::connect(address).await {
        stream.write_all(request.as_ref().as_bytes()).await.unwrap();
        // A reset ends the reading like an end does.
        let _ = stream.read_to_end(&mut bytes).await;
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    Reply { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("takes too long")
}
