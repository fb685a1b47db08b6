//! Who answers behind the proxies: nginx from memory for throughput, and an upstream inside this
//! process that remembers when it was last asked, for switches.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::net::{self, AddressFamily, SocketType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::address::{answers, free_port};
use super::peers::nginx;
use super::plan::VERSIONS;
use super::process::Process;
use super::world::World;

/// The path that answers with a large body; every other answers with a small one.
pub(super) const LARGE_PATH: &str = "/large";
const LARGE_BYTES: usize = 100 * 1024;
const SMALL_BYTES: usize = 1024;
/// The kernel caps it at `net.core.somaxconn`.
const ACCEPT_QUEUE: i32 = 4_096;

/// One nginx that is both versions, on a port each.
pub(super) struct Memory {
    pub(super) ports: [u16; 2],
    _process: Process,
}

impl Memory {
    pub(super) fn start(world: &World) -> Result<Self> {
        let directory = world.directory("upstream")?;
        let ports = [free_port()?, free_port()?];
        std::fs::write(directory.join("large"), "x".repeat(LARGE_BYTES))?;
        std::fs::write(directory.join("nginx.conf"), configuration(ports))?;
        let mut command = Command::new(&world.programs.nginx);
        nginx::in_directory(&mut command, &directory);
        let mut process = Process::start(command, &directory)?;
        process.wait(|| ports.iter().all(|port| answers(*port, "x", LARGE_PATH)))?;
        Ok(Self { ports, _process: process })
    }
}

fn configuration(ports: [u16; 2]) -> String {
    let mut servers = String::new();
    for (port, version) in ports.iter().zip(VERSIONS) {
        let body = "x".repeat(SMALL_BYTES);
        // Writing to a String cannot fail.
        let _ = writeln!(
            servers,
            "server {{ listen 127.0.0.1:{port}; add_header x-version {version};
               location {LARGE_PATH} {{ root .; try_files {LARGE_PATH} =404; }}
               location / {{ return 200 '{body}'; }} }}"
        );
    }
    nginx::frame(1, &format!("open_file_cache max=10;\n{servers}"))
}

/// Both versions inside this process; each remembers when a request last arrived.
pub(super) struct Witness {
    pub(super) ports: [u16; 2],
    last: [Arc<AtomicU64>; 2],
    _stop: oneshot::Sender<()>,
}

impl Witness {
    /// Serves on a thread of its own until this is dropped.
    pub(super) fn start() -> Result<Self> {
        let bind = || listen().context("no free port");
        let listeners = [bind()?, bind()?];
        let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
        let ports = [port(&listeners[0])?, port(&listeners[1])?];
        let last: [Arc<AtomicU64>; 2] = Default::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_io().build().context("cannot start a runtime")?;
        let shared = last.clone();
        // Time is counted from here, before anybody asks.
        nanoseconds(Instant::now());
        let body = move || {
            runtime.block_on(async {
                for ((listener, version), last) in listeners.into_iter().zip(VERSIONS).zip(shared) {
                    tokio::spawn(accept(listener, version, last));
                }
                // An error means that the guard was dropped: that is the sign to end.
                let _ = stopped.await;
            });
        };
        std::thread::Builder::new().name("witness".to_owned()).spawn(body)?;
        Ok(Self { ports, last, _stop: stop })
    }

    /// Seconds from `start` to the last request that version 0 or 1 got; zero when that was
    /// earlier.
    pub(super) fn last_after(&self, version: usize, start: Instant) -> f64 {
        let last = self.last[version].load(Ordering::Acquire);
        let start = nanoseconds(start);
        std::time::Duration::from_nanos(last.saturating_sub(start)).as_secs_f64()
    }
}

/// A free port with a queue as long as the kernel allows, as servers have it: the standard
/// library's is shorter, and what overflows it is neither the proxy's nor the method's doing.
fn listen() -> std::io::Result<TcpListener> {
    let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    net::bind(&socket, &any)?;
    net::listen(&socket, ACCEPT_QUEUE)?;
    Ok(socket.into())
}

/// A point in time as nanoseconds since the first call.
fn nanoseconds(at: Instant) -> u64 {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    let origin = *ORIGIN.get_or_init(Instant::now);
    u64::try_from(at.saturating_duration_since(origin).as_nanos()).unwrap_or(u64::MAX)
}

async fn accept(listener: TcpListener, version: &'static str, last: Arc<AtomicU64>) {
    let taken = listener.set_nonblocking(true).and_then(|()| listener.try_into());
    let Ok::<tokio::net::TcpListener, _>(listener) = taken else { return };
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, version, Arc::clone(&last)));
    }
}

/// Answers requests until the proxy closes the connection.
async fn serve(mut stream: TcpStream, version: &str, last: Arc<AtomicU64>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nx-version: {version}\r\n\r\n{version}\n");
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        if bytes.is_empty() {
            last.fetch_max(nanoseconds(Instant::now()), Ordering::AcqRel);
        }
        bytes.extend_from_slice(&buffer[..read]);
        while let Some(length) = request_length(&bytes) {
            bytes.drain(..length);
            stream.write_all(answer.as_bytes()).await?;
        }
    }
}

/// The length of the request that `bytes` begin with, once all of it is there. Proxies send
/// well-formed requests, so little is checked.
fn request_length(bytes: &[u8]) -> Option<usize> {
    let head = position(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let field =
        |name: &str| text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
    if field("transfer-encoding:").is_some() {
        return Some(head + position(&bytes[head..], b"0\r\n\r\n")? + 5);
    }
    let body: usize = field("content-length:").and_then(|text| text.parse().ok()).unwrap_or(0);
    (bytes.len() >= head + body).then_some(head + body)
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_end_where_they_say() {
        let get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(request_length(get), Some(get.len()));
        let post = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET";
        assert_eq!(request_length(post), Some(post.len() - 3));
        assert_eq!(request_length(&post[..post.len() - 4]), None);
        let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
        assert_eq!(request_length(chunked), Some(chunked.len()));
        assert_eq!(request_length(&chunked[..chunked.len() - 1]), None);
        assert_eq!(request_length(b"GET / HT"), None);
    }

    #[test]
    fn the_witness_answers_as_each_version_and_knows_when() {
        let witness = Witness::start().unwrap();
        let start = Instant::now();
        assert!(answers(witness.ports[1], "x", "/"));
        assert!(witness.last_after(1, start) > 0.0);
        assert!(witness.last_after(0, start) <= 0.0);
        assert!(witness.last_after(1, Instant::now()) <= 0.0);
    }
}
