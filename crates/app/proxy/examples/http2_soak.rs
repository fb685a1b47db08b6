//! HTTP/2 under floods for as long as one likes, with the memory of the data plane beside it:
//! `cargo run --release -p switchback-proxy --example http2_soak [SECONDS]`, ten minutes by default.
//!
//! Ends with an error when a good request failed or memory grew: too slow for the test suite.
#![allow(clippy::print_stdout, reason = "a program for people who look on")]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use switchback_dataplane::{Options, ProxyDataPlane};
use switchback_domain::{Epoch, Generation};
use switchback_ports::DataPlane;
use switchback_ports::data_plane::conformance::{sample_arm, sample_table};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

mod support {
    pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
}

#[allow(dead_code, clippy::unwrap_used, reason = "of the tests, which use more of it")]
#[path = "../tests/proxy/frames.rs"]
mod frames;

use frames::{
    CONTINUATION, DATA, END_HEADERS, HEADERS, PING, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, asks,
    block, frame, head,
};

const FLOOD_FRAMES: u32 = 3_000;
const REPORT: Duration = Duration::from_secs(10);
/// What an allocator may keep beyond the first third's most.
const GROWTH_KB_MAX: u64 = 6 * 1024;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Default)]
struct Counts {
    good: AtomicU64,
    failed: AtomicU64,
    floods: AtomicU64,
    stop: AtomicBool,
}

fn main() -> Result<ExitCode, Failure> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|word| word == "proxy").is_some() {
        let options = switchback_proxy::Options::from_arguments(arguments)?;
        switchback_proxy::run(&options)?;
        return Ok(ExitCode::SUCCESS);
    }
    let seconds = arguments.next().and_then(|text| text.to_str()?.parse().ok()).unwrap_or(600);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(soak(Duration::from_secs(seconds)))
}

async fn soak(length: Duration) -> Result<ExitCode, Failure> {
    let directory = tempfile::tempdir()?;
    let program = std::env::current_exe()?;
    let plane = ProxyDataPlane::new(Options::new(directory.path(), program));
    plane.ensure_started().await?;
    let listen = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let arm = sample_arm("v1", &[instance().await?]);
    let generation = Generation::first(Epoch(1));
    plane.publish(&sample_table(generation, listen, vec![arm])).await?;
    let pid = plane.pid().await.ok_or("the data plane does not answer")?;
    let counts = Arc::new(Counts::default());
    for n in 0..4_u32 {
        tokio::spawn(good(listen, Arc::clone(&counts)));
        tokio::spawn(bad(listen, Arc::clone(&counts), n));
    }
    let (start, mut memory) = (Instant::now(), Vec::new());
    while start.elapsed() < length {
        tokio::time::sleep(REPORT.min(length)).await;
        let resident = resident_kb(pid)?;
        memory.push(resident);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        println!(
            "{:4} s  {:6} KB  {} good requests, {} failed, {} floods",
            start.elapsed().as_secs(),
            resident,
            read(&counts.good),
            read(&counts.failed),
            read(&counts.floods),
        );
    }
    counts.stop.store(true, Ordering::Relaxed);
    plane.stop().await?;
    let third = memory.len().div_ceil(3);
    let most = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
    let (early, late) = (most(&memory[..third]), most(&memory[memory.len() - third..]));
    let failed = counts.failed.load(Ordering::Relaxed);
    println!("most memory: {early} KB in the first third, {late} KB in the last; {failed} failed");
    let fine = failed == 0 && late <= early + GROWTH_KB_MAX;
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn resident_kb(pid: u32) -> Result<u64, Failure> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let line = line.ok_or("the kernel does not tell the memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Answers every request of HTTP/1.1 without a body.
async fn instance() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut head, mut byte) = (Vec::new(), [0; 4096]);
                while let Ok(count @ 1..) = stream.read(&mut byte).await {
                    head.extend_from_slice(&byte[..count]);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    Ok(address)
}

/// A hundred requests on a connection, again and again.
async fn good(listen: SocketAddr, counts: Arc<Counts>) {
    while !counts.stop.load(Ordering::Relaxed) {
        let served = async {
            let stream = TcpStream::connect(listen).await?;
            let (mut sender, connection) = h2::client::handshake(stream).await?;
            tokio::spawn(connection);
            for _ in 0..100 {
                sender = sender.ready().await?;
                let request = Request::get("http://a.test/").body(())?;
                let answer = sender.send_request(request, true)?.0.await?;
                let (status, mut body) = (answer.status(), answer.into_body());
                let said: Bytes = body.data().await.ok_or("an answer without a body")??;
                if said != "ok" {
                    return Err(format!("{status}: {}", String::from_utf8_lossy(&said)).into());
                }
                counts.good.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), Failure>(())
        };
        if let Err(failure) = served.await
            && !counts.stop.load(Ordering::Relaxed)
        {
            println!("failed: {failure}");
            counts.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One flood after the other, each on a connection of its own.
async fn bad(listen: SocketAddr, counts: Arc<Counts>, first: u32) {
    for kind in (first..).take_while(|_| !counts.stop.load(Ordering::Relaxed)) {
        let Raw(stream) = Raw::open(listen).await;
        let (mut from, mut to) = stream.into_split();
        let reading =
            tokio::spawn(async move { tokio::io::copy(&mut from, &mut tokio::io::sink()).await });
        for n in 0..FLOOD_FRAMES / 50 {
            let pieces: Vec<u8> = (0..50).flat_map(|m| piece(kind % 7, 50 * n + m)).collect();
            if to.write_all(&pieces).await.is_err() {
                break;
            }
        }
        drop(to);
        let _ = reading.await;
        counts.floods.fetch_add(1, Ordering::Relaxed);
    }
}

fn piece(kind: u32, n: u32) -> Vec<u8> {
    let stream = 2 * n + 1;
    match kind {
        0 => frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
        1 => frame(PING, 0, 0, &[0; 8]),
        2 => [asks(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat(),
        3 => [asks(stream), frame(WINDOW_UPDATE, 0, stream, &[127, 255, 255, 255])].concat(),
        4 if n == 0 => frame(HEADERS, 0, 1, &head("GET", &[])),
        4 => frame(CONTINUATION, 0, 1, &block(&[("x-filler", "aaaaaaaaaaaaaaaa")])),
        5 if n == 0 => frame(HEADERS, END_HEADERS, 1, &head("POST", &[])),
        5 => frame(DATA, 0, 1, b"x"),
        _ => frame(HEADERS, END_HEADERS, stream, &head("POST", &[])),
    }
}
