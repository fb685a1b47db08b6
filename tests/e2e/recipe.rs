//! The `switchback.yaml` of a site: one service `web`, the demo's, on a canary of three rungs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{self, UnixDatagram};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_switchback");

/// A canary of three rungs that judges for a second on each: a rollout takes about five seconds.
pub(crate) const CANARY: &str = "\
{type: canary, steps: [\
{set_weight: 5}, {analysis: {duration: 1s, error_rate: 2%, min_samples: 5}}, \
{set_weight: 50}, {analysis: {duration: 1s, error_rate: 2%, min_samples: 20}}, \
{set_weight: 100}, {analysis: {duration: 1s, error_rate: 2%, min_samples: 20}}]}";

/// Listeners get ports below those that the kernel hands out and above those of instances'
/// usual range's beginning: a port that is free for a moment is not taken by a passing client.
const PORTS: std::ops::Range<u16> = 10_000..19_000;

/// What a site is made from.
pub(crate) struct Recipe {
    /// Where the service's route listens.
    pub(crate) address: SocketAddr,
    /// The service's keys, each with its value in YAML's flow style.
    keys: BTreeMap<String, String>,
    /// Whole lines at the end: other services, environments.
    tail: String,
}

impl Recipe {
    /// Version v1 of the demo's service with these settings, on two instances.
    pub(crate) fn new(settings: &str) -> Self {
        let address = free_address();
        let mut recipe = Self { address, keys: BTreeMap::new(), tail: String::new() };
        recipe.set("version", "v1");
        recipe.set("command", format!("{BINARY} demo-service {settings}"));
        recipe.set("replicas", "2");
        recipe.set(
            "health_check",
            "{path: /ready, interval: 100ms, timeout: 5s, min_healthy_time: 200ms}",
        );
        recipe.set("route", format!("{{listen: \"{address}\"}}"));
        recipe.set("strategy", CANARY);
        recipe.set("progress_deadline", "60s");
        recipe.set("scale_down_delay", "1s");
        recipe.set("drain_timeout", "10s");
        recipe
    }

    /// Sets a key of the service, replacing the one before.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<String>) {
        self.keys.insert(key.to_owned(), value.into());
    }

    /// Adds whole lines at the end of the file: another service (indented by two), environments.
    pub(crate) fn append(&mut self, lines: &str) {
        self.tail.push_str(lines);
        self.tail.push('\n');
    }

    /// The file's text.
    pub(crate) fn text(&self) -> String {
        let mut text = "project: e2e\nservices:\n  web:\n".to_owned();
        for (key, value) in &self.keys {
            let _ = writeln!(text, "    {key}: {value}");
        }
        text + &self.tail
    }
}

/// An address on the loopback interface that nobody listens on, and that no other test is given,
/// also in other processes of these tests.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static RESERVED: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());
    // Processes begin at different places, so that they rarely meet.
    let begin = u16::try_from(std::process::id() % 181).unwrap_or(0) * 50;
    for _ in PORTS {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(begin);
        let port = PORTS.start + offset % (PORTS.end - PORTS.start);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let Some(reservation) = reserve(port) else { continue };
        if TcpListener::bind(address).is_ok() {
            RESERVED.lock().expect("nobody panics with it").push(reservation);
            return address;
        }
    }
    panic!("no free port in {PORTS:?}");
}

/// Takes a port among all tests on this machine, for as long as the answer is kept: a name in the
/// kernel's own space goes with its process, and is as far-reaching as ports are.
fn reserve(port: u16) -> Option<UnixDatagram> {
    let name = format!("switchback-e2e-{port}");
    let name = net::SocketAddr::from_abstract_name(name).expect("it is a short name");
    UnixDatagram::bind_addr(&name).ok()
}
