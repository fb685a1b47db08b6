//! The data plane as a process: started, adopted, killed, restored, stopped.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use switchback_dataplane::{Error, Options, ProxyDataPlane};
use switchback_ports::DataPlane;
use switchback_ports::data_plane::Error as PortError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use super::support::*;

/// The example that Cargo builds beside the tests.
pub(crate) fn host() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().parent().unwrap().join("examples/proxy_host")
}

pub(crate) fn plane(state_dir: impl Into<PathBuf>) -> ProxyDataPlane {
    let mut options = Options::new(state_dir, host());
    options.arguments = vec!["--codec".into(), super::CODEC_NAME.into()];
    ProxyDataPlane::new(options)
}

/// A data plane in a directory of its own, just started, and a free address.
pub(crate) async fn started() -> (tempfile::TempDir, ProxyDataPlane, SocketAddr) {
    let directory = tempfile::tempdir().unwrap();
    let plane = plane(directory.path());
    plane.ensure_started().await.unwrap();
    (directory, plane, free_address())
}

/// The same, serving a version that answers `done` to one request for every permit.
pub(crate) async fn started_gated()
-> (tempfile::TempDir, ProxyDataPlane, SocketAddr, Arc<Semaphore>) {
    let (directory, plane, listen) = started().await;
    let (address, gate) = gated("done").await;
    plane.publish(&single(1, listen, "v1", &[address])).await.unwrap();
    (directory, plane, listen, gate)
}

/// Kills a process and waits until the kernel has taken it away.
pub(crate) async fn kill(plane: &ProxyDataPlane) {
    kill_nine(plane.pid().await.unwrap());
    eventually("it is dead", async || plane.health().await.is_err()).await;
}

/// Sends the signal that nobody can catch.
pub(crate) fn kill_nine(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn after_kill_nine_it_serves_its_last_table_again_without_being_told() {
    let directory = tempfile::tempdir().unwrap();
    let (plane, listen) = (plane(directory.path()), free_address());
    let first = plane.ensure_started().await.unwrap();
    assert_eq!(plane.ensure_started().await.unwrap().pid, first.pid, "adopted, not started again");
    let table = single(7, listen, "v1", &[version("v1").await]);
    plane.publish(&table).await.unwrap();
    assert_eq!(ask(listen, get("/")).await.1, "v1");
    let before = plane.report().await.unwrap();
    kill(&plane).await;
    assert!(matches!(plane.report().await, Err(PortError::Unavailable(_))));
    let second = plane.ensure_started().await.unwrap();
    assert_ne!((second.pid, &second.incarnation), (first.pid, &first.incarnation));
    assert_eq!(ask(listen, get("/")).await.1, "v1", "served before anybody published");
    let after = plane.report().await.unwrap();
    assert_eq!((before.generation, before.arms[0].stats.accepted), (table.generation, 1));
    assert_eq!((after.generation, after.arms[0].stats.accepted), (table.generation, 1));
    assert_eq!(plane.publish(&table).await.unwrap(), table.generation, "known, so no change");
    let older = single(6, listen, "v0", &[]);
    assert!(matches!(plane.publish(&older).await, Err(PortError::Fenced { .. })));
    plane.stop().await.unwrap();
    assert!(tokio::net::TcpStream::connect(listen).await.is_err());
    plane.stop().await.unwrap();
}

#[tokio::test]
async fn another_control_plane_adopts_it_and_a_second_process_is_turned_away() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (plane(directory.path()), plane(directory.path()));
    let (first, second) = tokio::join!(one.ensure_started(), two.ensure_started());
    assert_eq!(first.unwrap().pid, second.unwrap().pid, "one data plane, whoever asks");
    let turned_away = std::process::Command::new(host())
        .arg("--state-dir")
        .arg(directory.path())
        .output()
        .unwrap();
    let words = String::from_utf8(turned_away.stderr).unwrap();
    assert!(
        !turned_away.status.success() && words.contains("another data plane runs on"),
        "{words}"
    );
    two.stop().await.unwrap();
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let missing = ProxyDataPlane::new(Options::new(directory.path(), "/nowhere/switchback"));
    assert!(matches!(missing.ensure_started().await, Err(Error::Spawn { .. })));
    let mut options = Options::new(directory.path(), "/bin/sh");
    options.arguments = ["-c", "echo no luck today >&2; exit 3"].map(Into::into).to_vec();
    let failed = ProxyDataPlane::new(options).ensure_started().await.unwrap_err();
    assert!(failed.to_string().contains("no luck today"), "{failed}");
    assert!(matches!(missing.report().await, Err(PortError::Unavailable(_))));
}

#[tokio::test]
async fn a_process_that_holds_the_lock_and_is_silent_is_reported_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let lock = std::fs::File::create(directory.path().join("proxy.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let silent = plane(directory.path()).ensure_started().await;
    assert!(matches!(silent, Err(Error::Silent { .. })), "{silent:?}");
}

#[tokio::test]
async fn a_deep_state_directory_gets_a_short_socket() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("d".repeat(60)).join("e".repeat(60));
    let plane = plane(&deep);
    plane.ensure_started().await.unwrap();
    let socket = switchback_domain::socket_path(&deep, "proxy");
    assert!(socket.starts_with("/tmp") && socket.exists(), "{}", socket.display());
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    plane.stop().await.unwrap();
    assert!(!socket.exists());
    std::fs::remove_dir(socket.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn a_restart_restores_the_table_and_a_broken_one_is_set_aside() {
    let (proxy, listen) = (Running::start().await, free_address());
    let table = single(1, listen, "v1", &[version("v1").await]);
    proxy.plane.publish(&table).await.unwrap();
    let directory = proxy.stop().await;
    let proxy = Running::start_in(directory).await;
    assert_eq!(ask(listen, get("/")).await.1, "v1");
    let directory = proxy.stop().await;
    std::fs::write(directory.path().join("proxy-table.json"), "{").unwrap();
    let proxy = Running::start_in(directory).await;
    let report = proxy.report().await;
    assert!(report.warnings[0].contains("set aside"), "{:?}", report.warnings);
    assert_eq!(report.generation, switchback_domain::Generation::default());
    proxy.plane.publish(&table).await.unwrap();
    assert_eq!(ask(listen, get("/")).await.1, "v1");
}

#[tokio::test]
async fn an_address_lost_during_the_absence_is_reported_and_taken_when_free() {
    let (proxy, listen, other) = (Running::start().await, free_address(), free_address());
    let mut table = single(1, listen, "v1", &[version("v1").await]);
    let mut route = table.routes[0].clone();
    route.listen = other;
    table.routes.push(route);
    proxy.plane.publish(&table).await.unwrap();
    let directory = proxy.stop().await;
    let squatter = tokio::net::TcpListener::bind(listen).await.unwrap();
    let proxy = Running::start_in(directory).await;
    assert_eq!(ask(other, get("/")).await.1, "v1", "the rest is served");
    let report = proxy.report().await;
    let lost = report.listeners.iter().find(|listener| listener.address == listen).unwrap();
    assert!(lost.error.as_ref().unwrap().contains("in use"), "{lost:?}");
    table.generation = generation(2);
    proxy.plane.publish(&table).await.unwrap();
    drop(squatter);
    eventually("it is taken back", async || {
        proxy.report().await.listeners.iter().all(|listener| listener.error.is_none())
    })
    .await;
    assert_eq!(ask(listen, get("/")).await.1, "v1");
}

#[tokio::test]
async fn a_table_that_cannot_be_saved_is_served_and_reported() {
    let (proxy, listen) = (Running::start().await, free_address());
    let obstacle = proxy.directory.path().join("proxy-table.json.new");
    std::fs::create_dir(&obstacle).unwrap();
    let instance = version("v1").await;
    proxy.plane.publish(&single(1, listen, "v1", &[instance])).await.unwrap();
    assert_eq!(ask(listen, get("/")).await.1, "v1");
    let warnings = proxy.report().await.warnings;
    assert!(warnings[0].contains("served but not saved"), "{warnings:?}");
    std::fs::remove_dir(obstacle).unwrap();
    proxy.plane.publish(&single(2, listen, "v1", &[instance])).await.unwrap();
    assert!(proxy.report().await.warnings.is_empty());
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_flight_and_takes_nothing_new() {
    let (_directory, plane, listen, gate) = started_gated().await;
    let long = tokio::spawn(async move { client(listen).await.send_request(get("/")).await });
    let in_flight = async || plane.report().await.unwrap().arms[0].in_flight;
    eventually("it is on its way", async || in_flight().await == 1).await;
    let pid = i32::try_from(plane.pid().await.unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    eventually("it takes nothing new", async || {
        tokio::net::TcpStream::connect(listen).await.is_err()
    })
    .await;
    assert!(plane.health().await.unwrap().stopping, "it still tells how it goes");
    gate.add_permits(1);
    let response = long.await.unwrap().unwrap();
    assert_eq!(response.headers()["connection"], "close");
    assert_eq!(read(response).await, (200, "done".to_owned()));
    plane.stop().await.unwrap();
    assert_eq!(plane.pid().await, None);
}

#[tokio::test]
async fn metrics_and_mistakes_on_the_admin_socket_are_answered() {
    let (proxy, listen) = (Running::start().await, free_address());
    proxy.plane.publish(&single(3, listen, "v1", &[version("v1").await])).await.unwrap();
    ask(listen, get("/")).await;
    let path = switchback_domain::socket_path(proxy.directory.path(), "proxy");
    let ask_admin = async |head: &str, body: &str| {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let length = body.len();
        let request = format!(
            "{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let metrics = ask_admin("GET /metrics", "").await;
    let labels = "service=\"sample\",environment=\"test\",version=\"v1\"";
    for line in [
        format!("http_requests_total{{{labels},status=\"2xx\"}} 1"),
        format!("http_request_duration_seconds_count{{{labels}}} 1"),
        "switchback_proxy_generation{epoch=\"1\"} 3".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    for (head, body, status) in [
        ("GET /nowhere", "", "404"),
        ("DELETE /v1/table", "", "405"),
        ("PUT /v1/table", "{\"generation\":1}", "400"),
    ] {
        let answer = ask_admin(head, body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {answer}");
    }
    let idle = tokio::time::timeout(Duration::from_secs(5), proxy.plane.health()).await;
    assert_eq!(idle.unwrap().unwrap().generation, generation(3));
}
