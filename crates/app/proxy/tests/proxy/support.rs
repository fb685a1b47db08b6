//! Instances, clients, tables and a running data plane for the tests.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use switchback_dataplane::{Options as ClientOptions, ProxyDataPlane};
use switchback_domain::{ArmStats, Epoch, Generation, ReleaseId, Split};
use switchback_ports::DataPlane;
use switchback_ports::data_plane::Report;
use switchback_ports::data_plane::conformance::{sample_arm, sample_route};
use switchback_routing::{Arm, Table};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Longest any test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An address nobody listens on, outside the range the kernel hands out for outgoing connections.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 9_000).unwrap();
    loop {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if StdListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// A data plane in a thread of this process.
pub(crate) struct Running {
    pub(crate) plane: ProxyDataPlane,
    pub(crate) directory: tempfile::TempDir,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn start_in(directory: tempfile::TempDir) -> Self {
        let mut options = switchback_proxy::Options::new(directory.path());
        options.workers = Some(2);
        options.codec = super::CODEC_NAME.parse().unwrap();
        options.detach = false;
        options.stop_grace = Duration::from_millis(500);
        let work = move || switchback_proxy::run(&options).unwrap();
        let thread = Some(std::thread::spawn(work));
        let plane = ProxyDataPlane::new(ClientOptions::new(directory.path(), "unused"));
        eventually("the data plane answers", async || plane.health().await.is_ok()).await;
        Self { plane, directory, thread }
    }

    pub(crate) async fn report(&self) -> Report {
        self.plane.report().await.unwrap()
    }

    pub(crate) async fn stats(&self, version: &str) -> ArmStats {
        let report = self.report().await;
        let arm = report.arms.iter().find(|arm| arm.version.as_str() == version);
        arm.map(|arm| arm.stats.clone()).unwrap_or_default()
    }

    pub(crate) async fn in_flight(&self, version: &str) -> u64 {
        let report = self.report().await;
        let arm = report.arms.iter().find(|arm| arm.version.as_str() == version);
        arm.map_or(0, |arm| arm.in_flight)
    }

    /// Ends it and gives its directory back.
    pub(crate) async fn stop(mut self) -> tempfile::TempDir {
        self.plane.stop().await.unwrap();
        self.thread.take().unwrap().join().unwrap();
        std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        use std::io::Write;
        let path = switchback_domain::socket_path(self.directory.path(), "proxy");
        if let Ok(mut socket) = std::os::unix::net::UnixStream::connect(path) {
            let _ = socket.write_all(b"POST /v1/stop HTTP/1.1\r\nhost: x\r\n\r\n");
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "it never came to pass: {what}");
        // sleep: nothing to await; bounded by PATIENCE.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn generation(counter: u64) -> Generation {
    Generation { epoch: Epoch(1), counter }
}

pub(crate) fn release(version: &str) -> ReleaseId {
    ReleaseId::from_stored(version)
}

/// A version with instances at these addresses.
pub(crate) fn arm(version: &str, addresses: &[SocketAddr]) -> Arm {
    sample_arm(version, addresses)
}

/// A table with one route.
pub(crate) fn table(
    counter: u64,
    listen: SocketAddr,
    arms: Vec<Arm>,
    split: Split<ReleaseId>,
) -> Table {
    let generation = generation(counter);
    Table { generation, routes: vec![sample_route(listen, split)], arms, ..Table::default() }
}

/// A table with one version that gets everything.
pub(crate) fn single(
    counter: u64,
    listen: SocketAddr,
    version: &str,
    addresses: &[SocketAddr],
) -> Table {
    table(counter, listen, vec![arm(version, addresses)], Split::all(release(version)))
}

pub(crate) type Body = BoxBody<Bytes, hyper::Error>;

pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

/// An instance that answers by a function.
pub(crate) async fn instance<F, R>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    raw_instance(move |stream| {
        let answer = answer.clone();
        async move {
            let service = hyper::service::service_fn(move |request| {
                let answered = answer(request);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            let _ = connection.await;
        }
    })
    .await
}

/// An instance that says its version to everybody.
pub(crate) async fn version(name: &'static str) -> SocketAddr {
    instance(move |request| async move {
        let body = request.into_body().collect().await;
        assert!(body.is_ok());
        Response::new(full(name))
    })
    .await
}

/// An instance that does what it likes with its connections.
pub(crate) async fn raw_instance<F, R>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// The same, with something that all its connections share.
pub(crate) async fn sharing<T, F, R>(shared: &Arc<T>, serve: F) -> SocketAddr
where
    T: Send + Sync + 'static,
    F: Fn(Arc<T>, TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let shared = Arc::clone(shared);
    raw_instance(move |stream| serve(Arc::clone(&shared), stream)).await
}

/// An instance that can be killed: aborting the task closes its listener and every connection.
pub(crate) async fn mortal(name: &'static str) -> (SocketAddr, tokio::task::AbortHandle) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let life = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let service =
                    hyper::service::service_fn(move |request: Request<Incoming>| async move {
                        drop(request.into_body().collect().await);
                        Ok::<_, Infallible>(Response::new(full(name)))
                    });
                let server = hyper::server::conn::http1::Builder::new();
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, life.abort_handle())
}

/// Reads a request head from a raw stream; empty when the peer closed.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return String::new(),
        }
    }
    String::from_utf8(head).unwrap()
}

/// A keep-alive connection to the data plane.
pub(crate) async fn client(address: SocketAddr) -> SendRequest<Body> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).header("host", "a.test").body(full("")).unwrap()
}

pub(crate) fn post(path: &str, body: impl Into<Bytes>) -> Request<Body> {
    Request::post(path).header("host", "a.test").body(full(body)).unwrap()
}

/// Sends one request on a connection of its own; gives status and body.
pub(crate) async fn ask(address: SocketAddr, request: Request<Body>) -> (u16, String) {
    let response = client(address).await.send_request(request).await.unwrap();
    read(response).await
}

pub(crate) async fn read(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Writes bytes and reads until the data plane closes.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    tokio::time::timeout(PATIENCE, reading).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

/// An instance that answers this when it is let, and one permit to every answer.
pub(crate) async fn gated(answer: &'static str) -> (SocketAddr, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let address = instance(move |_| {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.unwrap().forget();
            Response::new(full(answer))
        }
    });
    (address.await, gate)
}
