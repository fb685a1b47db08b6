//! One process takes over from another: what moves, what stays, what happens when either dies.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use switchback_dataplane::{Error, Options, ProxyDataPlane};
use switchback_domain::{ArmStats, Split};
use switchback_ports::DataPlane;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use tokio::sync::Semaphore;

use super::lifecycle::{host, kill, kill_nine, plane, started, started_gated};
use super::support::*;

fn is_own() -> bool {
    super::CODEC_NAME == "own"
}

/// An instance that echoes after a 101.
async fn echo() -> std::net::SocketAddr {
    raw_instance(|mut stream| async move {
        read_head(&mut stream).await;
        let answer = b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await
}

async fn open_tunnel(listen: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(listen).await.unwrap();
    let ask = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101"));
    stream
}

async fn echoes(stream: &mut TcpStream, text: &[u8; 4]) {
    stream.write_all(text).await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, text);
}

async fn stats(plane: &ProxyDataPlane) -> (ArmStats, u64) {
    let report = plane.report().await.unwrap();
    let arm = report.arms.first();
    arm.map(|arm| (arm.stats.clone(), arm.in_flight)).unwrap_or_default()
}

pub(crate) async fn old_one_is_gone(plane: &ProxyDataPlane) {
    eventually("the old process has ended", async || {
        plane.health().await.is_ok_and(|health| health.retiring == 0)
    })
    .await;
}

#[tokio::test]
async fn resting_connections_counts_table_and_listeners_go_to_the_new_process() {
    let directory = tempfile::tempdir().unwrap();
    let (plane, listen) = (plane(directory.path()), free_address());
    let before = plane.ensure_started().await.unwrap();
    plane.publish(&single(3, listen, "v1", &[version("v1").await])).await.unwrap();
    let mut clients: Vec<SendRequest<Body>> = Vec::new();
    for _ in 0..20 {
        let mut client = client(listen).await;
        let response = client.send_request(get("/")).await.unwrap();
        assert_eq!(read(response).await, (200, "v1".to_owned()));
        clients.push(client);
    }
    let silent = TcpStream::connect(listen).await.unwrap();
    let upgraded = plane.upgrade(None).await.unwrap();
    assert_ne!(upgraded.to.pid, before.pid);
    assert_eq!(upgraded.to.incarnation, before.incarnation, "counters go on");
    assert_eq!(plane.ensure_started().await.unwrap().pid, upgraded.to.pid, "adopted");
    if is_own() {
        old_one_is_gone(&plane).await;
        assert_eq!(plane.health().await.unwrap().taken_over, 21);
    }
    for client in &mut clients {
        let response = client.send_request(get("/")).await.unwrap();
        assert_eq!(response.headers().contains_key("connection"), !is_own());
        assert_eq!(read(response).await, (200, "v1".to_owned()));
    }
    drop(silent);
    assert_eq!(ask(listen, get("/")).await.1, "v1", "a new connection");
    old_one_is_gone(&plane).await;
    let report = plane.report().await.unwrap();
    assert_eq!((report.generation, report.arms[0].stats.accepted), (generation(3), 41));
    assert_eq!(report.arms[0].stats.latency.count(), 41);
    plane.publish(&single(4, listen, "v2", &[version("v2").await])).await.unwrap();
    assert_eq!(ask(listen, get("/")).await.1, "v2");
    plane.stop().await.unwrap();
    assert!(TcpStream::connect(listen).await.is_err(), "nobody has the listener any more");
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().flatten().collect();
    let names: Vec<_> = left.iter().map(std::fs::DirEntry::file_name).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().contains("sock")), "{names:?}");
}

#[tokio::test]
async fn connections_to_instances_go_to_the_new_process_too() {
    let (accepted, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (counted, held) = (Arc::clone(&accepted), Arc::clone(&gate));
    let address = raw_instance(move |mut stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        let held = Arc::clone(&held);
        async move {
            while !read_head(&mut stream).await.is_empty() {
                held.acquire().await.unwrap().forget();
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
            }
        }
    })
    .await;
    let (_directory, plane, listen) = started().await;
    plane.publish(&single(1, listen, "v1", &[address])).await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(client(listen).await);
    }
    for _ in 0..3 {
        let asked = clients.iter_mut().map(|client| client.send_request(get("/")));
        let answers: tokio::task::JoinSet<_> = asked.collect();
        eventually("all are on their way", async || stats(&plane).await.1 == 8).await;
        gate.add_permits(8);
        for answer in answers.join_all().await {
            assert_eq!(read(answer.unwrap()).await, (200, "ok".to_owned()));
        }
        assert_eq!(accepted.load(Ordering::SeqCst), 8, "connections");
        plane.upgrade(None).await.unwrap();
        if !is_own() {
            break;
        }
        old_one_is_gone(&plane).await;
    }
    plane.stop().await.unwrap();
}

#[tokio::test]
async fn a_new_process_that_never_gets_ready_is_ended_and_the_old_one_serves() {
    let directory = tempfile::tempdir().unwrap();
    let (first, listen) = (plane(directory.path()), free_address());
    let before = first.ensure_started().await.unwrap();
    first.publish(&single(1, listen, "v1", &[version("v1").await])).await.unwrap();
    let script = directory.path().join("sleeper");
    let pid_file = directory.path().join("sleeper.pid");
    let text = format!("#!/bin/sh\necho $$ > {}\nexec sleep 600\n", pid_file.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut options = Options::new(directory.path(), host());
    options.upgrade_within = Duration::from_millis(500);
    let failing = ProxyDataPlane::new(options);
    let failed = failing.upgrade(Some(&script)).await.unwrap_err();
    assert!(matches!(failed, Error::NotReady { .. }), "{failed:?}");
    let sleeper: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    let sleeper = rustix::process::Pid::from_raw(sleeper).unwrap();
    assert!(rustix::process::test_kill_process(sleeper).is_err(), "nothing happens later");
    assert_eq!(first.health().await.unwrap().pid, before.pid);
    assert_eq!(ask(listen, get("/")).await.1, "v1");
    first.stop().await.unwrap();
}

#[tokio::test]
async fn an_authority_that_comes_by_during_an_upgrade_is_answered() {
    let (_directory, plane, listen) = started().await;
    let mut table = single(1, listen, "v1", &[version("v1").await]);
    table.challenges.insert("token".to_owned(), "token.thumb".to_owned());
    plane.publish(&table).await.unwrap();
    let mut early = client(listen).await;
    let asked = || get("/.well-known/acme-challenge/token");
    assert_eq!(read(early.send_request(asked()).await.unwrap()).await.1, "token.thumb");
    plane.upgrade(None).await.unwrap();
    assert_eq!(read(early.send_request(asked()).await.unwrap()).await.1, "token.thumb");
    assert_eq!(ask(listen, asked()).await.1, "token.thumb");
    plane.stop().await.unwrap();
}

#[tokio::test]
async fn bytes_that_nobody_has_read_move_with_their_connection() {
    let (_directory, plane, listen) = started().await;
    plane.publish(&single(1, listen, "v1", &[version("v1").await])).await.unwrap();
    let mut halves = Vec::new();
    for _ in 0..50 {
        halves.push(TcpStream::connect(listen).await.unwrap());
    }
    // Some of it is read before, some of it after, some of it in the very moment.
    let writing = async {
        for stream in &mut halves {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (upgraded, ()) = tokio::join!(plane.upgrade(None), writing);
    upgraded.unwrap();
    for stream in &mut halves {
        assert!(read_head(stream).await.starts_with("HTTP/1.1 200"));
    }
    plane.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_in_flight_ends_in_the_old_process_and_counts_in_the_new_one() {
    let (_directory, plane, listen, gate) = started_gated().await;
    let mut client = client(listen).await;
    let long = client.send_request(get("/"));
    let long = tokio::spawn(long);
    eventually("it is on its way", async || stats(&plane).await.1 == 1).await;
    plane.upgrade(None).await.unwrap();
    plane.upgrade(None).await.unwrap();
    let (counted, in_flight) = stats(&plane).await;
    assert_eq!((counted.accepted, in_flight), (1, 1));
    // Left out of the table, it is drained when its last request is.
    let both = vec![arm("v1", &[]), arm("v2", &[version("v2").await])];
    let next = table(2, listen, both, Split::all(release("v2")));
    plane.publish(&next).await.unwrap();
    assert_eq!(stats(&plane).await.1, 1, "not drained");
    gate.add_permits(1);
    assert_eq!(read(long.await.unwrap().unwrap()).await, (200, "done".to_owned()));
    eventually("it is drained", async || stats(&plane).await.1 == 0).await;
    let response = client.ready().await;
    if is_own() {
        response.unwrap();
        let again = client.send_request(get("/")).await.unwrap();
        assert_eq!(read(again).await, (200, "v2".to_owned()), "its connection followed");
    }
    old_one_is_gone(&plane).await;
    let (counted, _) = stats(&plane).await;
    assert_eq!((counted.accepted, counted.answered(), counted.cut), (1, 1, 0));
    plane.stop().await.unwrap();
}

#[tokio::test]
async fn a_tunnel_outlives_upgrades_and_the_process_that_holds_it_follows_new_tables() {
    let (_directory, plane, listen) = started().await;
    plane.publish(&single(1, listen, "v1", &[echo().await])).await.unwrap();
    let mut tunnel = open_tunnel(listen).await;
    for counter in 2..5 {
        plane.upgrade(None).await.unwrap();
        echoes(&mut tunnel, b"ping").await;
        plane.publish(&single(counter, listen, "v1", &[echo().await])).await.unwrap();
        eventually("only the process that holds the tunnel stays", async || {
            plane.health().await.is_ok_and(|health| health.retiring == 1)
        })
        .await;
        assert_eq!(stats(&plane).await.1, 1);
    }
    drop(tunnel);
    old_one_is_gone(&plane).await;
    let (counted, in_flight) = stats(&plane).await;
    assert_eq!((counted.accepted, counted.responses[0], in_flight), (1, 1, 0));
    assert_eq!((counted.cut, counted.tunnels_cut), (0, 0));
    plane.stop().await.unwrap();
}

/// A program that the data plane is told to be replaced by.
fn with(directory: &Path, executable: impl Into<std::path::PathBuf>, words: &[&str]) -> Options {
    let mut options = Options::new(directory, executable);
    options.arguments = words.iter().map(Into::into).collect();
    options
}

#[tokio::test]
async fn a_successor_that_fails_at_any_step_leaves_the_old_process_serving() {
    let directory = tempfile::tempdir().unwrap();
    let (plane, listen) = (plane(directory.path()), free_address());
    let first = plane.ensure_started().await.unwrap();
    plane.publish(&single(1, listen, "v1", &[version("v1").await])).await.unwrap();
    let mut resting = client(listen).await;
    read(resting.send_request(get("/")).await.unwrap()).await;
    let half = host().with_file_name("half_successor");
    let missing = ProxyDataPlane::new(with(directory.path(), "/nowhere/switchback", &[]));
    assert!(matches!(missing.upgrade(None).await, Err(Error::Spawn { .. })));
    let stages = [
        ("protocol", "it speaks protocol 99"),
        ("offer", "it went away"),
        ("garbage", "it went away"),
        ("ready", "last step"),
        ("commit", "last step"),
        ("silent", "did not confirm"),
    ];
    for (stage, words) in stages {
        let failing = ProxyDataPlane::new(with(directory.path(), &half, &[stage]));
        let failed = failing.upgrade(None).await;
        let Err(Error::NotReplaced { last_words, .. }) = failed else {
            panic!("{stage}: {failed:?}")
        };
        eventually("the old one says why", async || {
            let log = std::fs::read_to_string(directory.path().join("proxy.log")).unwrap();
            let said = log.contains("goes on, did not hand over") && log.contains(words);
            assert!(log.len() < 100_000);
            said
        })
        .await;
        assert_eq!(plane.health().await.unwrap().pid, first.pid, "{stage}: {last_words}");
        assert_eq!(ask(listen, get("/")).await.1, "v1", "{stage}: it accepts");
        let response = resting.send_request(get("/")).await.unwrap();
        assert_eq!(read(response).await, (200, "v1".to_owned()), "{stage}: nothing was closed");
    }
    let accepted = 1 + 2 * stages.len() as u64;
    assert_eq!(stats(&plane).await.0.accepted, accepted);
    plane.publish(&single(2, listen, "v2", &[version("v2").await])).await.unwrap();
    let upgraded = plane.upgrade(None).await.unwrap();
    assert_ne!(upgraded.to.pid, first.pid, "and the next one takes over");
    assert_eq!(ask(listen, get("/")).await.1, "v2");
    plane.stop().await.unwrap();
}

#[tokio::test]
async fn a_new_process_that_does_not_understand_the_table_says_so_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = switchback_domain::socket_path(directory.path(), "handover");
    let listener = UnixListener::bind(path).unwrap();
    let mut child = std::process::Command::new(host())
        .args(["--take-over", "--state-dir"])
        .arg(directory.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let hello = hear(&mut stream).await;
    assert!(hello.contains("Hello") && hello.contains("\"protocol\":1"), "{hello}");
    let zero = r#"{"epoch":0,"counter":0}"#;
    let offer = format!(
        r#"{{"Offer":{{"version":"0","incarnation":"x","acknowledged":{zero},"saved":{zero},
        "table":{{"generation":"tomorrow"}},"listeners":[],"a field of the future":1}}}}"#
    );
    let length = u32::try_from(offer.len()).unwrap().to_be_bytes();
    let frame = [&length[..], offer.as_bytes()].concat();
    let lock = std::fs::File::create(directory.path().join("proxy.lock")).unwrap();
    send_with(&stream, &frame, &lock);
    let answer = hear(&mut stream).await;
    assert!(answer.contains("Refused") && answer.contains("table is not understood"), "{answer}");
    let output = tokio::task::spawn_blocking(move || {
        let status = child.wait().unwrap();
        let mut words = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut words).unwrap();
        (status, words)
    });
    let (status, words) = output.await.unwrap();
    assert!(!status.success() && words.contains("cannot take over"), "{status}: {words}");
}

fn send_with(stream: &tokio::net::UnixStream, bytes: &[u8], file: &std::fs::File) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let descriptors = [file.as_fd()];
    assert!(beside.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let part = [std::io::IoSlice::new(bytes)];
    assert_eq!(sendmsg(stream, &part, &mut beside, SendFlags::empty()), Ok(bytes.len()));
}

async fn hear(stream: &mut tokio::net::UnixStream) -> String {
    let length = stream.read_u32().await.unwrap();
    let mut word = vec![0; length as usize];
    stream.read_exact(&mut word).await.unwrap();
    String::from_utf8(word).unwrap()
}

#[tokio::test]
async fn an_old_process_that_is_killed_has_its_requests_counted_as_cut() {
    let (_directory, plane, listen, _gate) = started_gated().await;
    let first = plane.ensure_started().await.unwrap();
    let long = tokio::spawn(async move { client(listen).await.send_request(get("/")).await });
    eventually("it is on its way", async || stats(&plane).await.1 == 1).await;
    plane.upgrade(None).await.unwrap();
    kill_nine(first.pid);
    assert!(long.await.unwrap().is_err());
    old_one_is_gone(&plane).await;
    let (counted, in_flight) = stats(&plane).await;
    assert_eq!((counted.accepted, counted.cut, in_flight), (1, 1, 0), "nothing is unnamed");
    plane.publish(&single(2, listen, "v2", &[version("v2").await])).await.unwrap();
    assert_eq!(ask(listen, get("/")).await.1, "v2");
    plane.stop().await.unwrap();
}

#[tokio::test]
async fn when_the_new_process_dies_the_old_one_finishes_under_the_next() {
    let (_directory, plane, listen, gate) = started_gated().await;
    let mut client = client(listen).await;
    let long = tokio::spawn(client.send_request(get("/")));
    eventually("it is on its way", async || stats(&plane).await.1 == 1).await;
    plane.upgrade(None).await.unwrap();
    kill(&plane).await;
    plane.ensure_started().await.unwrap();
    eventually("the old one joins", async || stats(&plane).await.1 == 1).await;
    gate.add_permits(2);
    assert_eq!(read(long.await.unwrap().unwrap()).await, (200, "done".to_owned()));
    if is_own() {
        client.ready().await.unwrap();
        let again = client.send_request(get("/")).await.unwrap();
        assert_eq!(read(again).await, (200, "done".to_owned()), "its connection followed");
    }
    old_one_is_gone(&plane).await;
    let (counted, in_flight) = stats(&plane).await;
    let expected = if is_own() { 2 } else { 1 };
    assert_eq!((counted.answered(), counted.cut, in_flight), (expected, 0, 0));
    plane.stop().await.unwrap();
}

#[tokio::test]
async fn a_stop_waits_for_the_old_process_too() {
    let (_directory, plane, listen, gate) = started_gated().await;
    let long = tokio::spawn(async move { client(listen).await.send_request(get("/")).await });
    eventually("it is on its way", async || stats(&plane).await.1 == 1).await;
    let upgraded = plane.upgrade(None).await.unwrap();
    let stopping = async {
        eventually("it stops", async || plane.health().await.is_ok_and(|h| h.stopping)).await;
        assert_eq!(plane.health().await.unwrap().pid, upgraded.to.pid, "waits for the other one");
        gate.add_permits(1);
    };
    let (stopped, ()) = tokio::join!(plane.stop(), stopping);
    stopped.unwrap();
    assert_eq!(read(long.await.unwrap().unwrap()).await, (200, "done".to_owned()));
}

#[tokio::test]
async fn requests_lose_nothing_while_processes_take_over_from_each_other() {
    let (_directory, plane, listen) = started().await;
    plane.publish(&single(1, listen, "v1", &[version("v1").await])).await.unwrap();
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut load = tokio::task::JoinSet::new();
    for n in 0..8 {
        let over = Arc::clone(&over);
        load.spawn(async move {
            let (mut connection, mut done) = (client(listen).await, 0_u64);
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let request = if n % 2 == 0 { get("/") } else { post("/", "body") };
                let response = connection.send_request(request).await.unwrap();
                let last = response.headers().contains_key("connection");
                assert_eq!(read(response).await, (200, "v1".to_owned()));
                done += 1;
                if last {
                    connection = client(listen).await;
                }
            }
            done
        });
    }
    let (mut pids, mut last) = (BTreeMap::new(), 0);
    for turn in 0..10 {
        let upgraded = plane.upgrade(None).await.unwrap();
        pids.insert(upgraded.to.pid, turn);
        let accepted = stats(&plane).await.0.accepted;
        assert!(accepted >= last, "counters never go back: {accepted} after {last}");
        last = accepted;
    }
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    let sent: u64 = load.join_all().await.into_iter().sum();
    old_one_is_gone(&plane).await;
    let (counted, in_flight) = stats(&plane).await;
    assert_eq!((pids.len(), in_flight), (10, 0));
    assert_eq!((counted.accepted, counted.answered(), counted.retried), (sent, sent, 0));
    plane.stop().await.unwrap();
}
