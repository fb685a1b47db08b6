//! `bench proxy`: throughput, tail, CPU per request and memory, all proxies in one run.
//!
//! In every round each proxy is measured once, in another order; ratios are taken within a round.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::seq::SliceRandom;

use super::idle;
use super::load::{Load, Protocol};
use super::peers::{OURS, PEERS, Peer, REFERENCES, Running};
use super::plan::{Plan, Routes};
use super::report::{Report, Table, cell};
use super::sample;
use super::statistics::{median, median_ratio};
use super::upstream::{LARGE_PATH, Memory};
use super::world::{World, say};

/// One kind of load.
struct Scenario {
    /// In the figures' names, between metric and reference.
    suffix: &'static str,
    words: &'static str,
    routes: Routes,
    connections: u16,
    path: &'static str,
    protocol: Protocol,
    /// In a quick run and in a full one.
    rounds: [usize; 2],
}

const SCENARIOS: [Scenario; 5] = [
    Scenario {
        suffix: "",
        words: "10,000 routes, 90/10 split, 1 KiB, 64 connections",
        routes: Routes::Many,
        connections: 64,
        path: "/",
        protocol: Protocol::Http1,
        rounds: [3, 7],
    },
    Scenario {
        suffix: "_plain",
        words: "One route, 1 KiB, 64 connections",
        routes: Routes::One,
        connections: 64,
        path: "/",
        protocol: Protocol::Http1,
        rounds: [1, 7],
    },
    Scenario {
        suffix: "_4",
        words: "One route, 1 KiB, 4 connections",
        routes: Routes::One,
        connections: 4,
        path: "/",
        protocol: Protocol::Http1,
        rounds: [2, 5],
    },
    Scenario {
        suffix: "_100k",
        words: "One route, 100 KiB, 64 connections",
        routes: Routes::One,
        connections: 64,
        path: LARGE_PATH,
        protocol: Protocol::Http1,
        rounds: [2, 5],
    },
    Scenario {
        suffix: "_h2",
        words: "HTTP/2 to HTTP/1.1, one route, 1 KiB, 16 connections with 8 streams",
        routes: Routes::One,
        connections: 16,
        path: "/",
        protocol: Protocol::Http2 { streams: 8 },
        rounds: [2, 7],
    },
];

/// Seconds per proxy and round, in a quick run and in a full one.
const SECONDS: [u64; 2] = [1, 3];
/// Idle connections held, in a quick run and in a full one.
const IDLE: [u16; 2] = [2_000, 8_000];

/// One proxy in one round.
#[derive(Debug, Clone, Copy)]
struct Sample {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us: f64,
    errors: f64,
}

type Metric = fn(&Sample) -> f64;

/// What is compared, and how it is read from a sample.
const METRICS: [(&str, Metric); 4] = [
    ("throughput", |sample| sample.per_second),
    ("p50", |sample| sample.p50_ms),
    ("p99", |sample| sample.p99_ms),
    ("cpu", |sample| sample.cpu_us),
];

/// A started proxy.
struct Contender {
    key: &'static str,
    title: String,
    running: Box<dyn Running>,
}

/// The rounds of one scenario by proxy.
type Rounds = BTreeMap<&'static str, Vec<Option<Sample>>>;

/// Runs it all.
pub(super) fn run(world: &World) -> Result<Report> {
    let upstream = Memory::start(world)?;
    let mut report = Report::new("proxy", world)?;
    say("measuring what it costs to account for a request");
    report.figure("accounting_ns".to_owned(), Some(accounting(world)?));
    let mut memory = BTreeMap::new();
    for routes in [Routes::Many, Routes::One] {
        let second_percent = if routes == Routes::Many { 10 } else { 0 };
        let plan = Plan { routes, upstreams: upstream.ports, second_percent };
        let contenders = start(world, plan)?;
        for scenario in SCENARIOS.iter().filter(|scenario| scenario.routes == routes) {
            if !scenario.protocol.can(world) {
                let words = "HTTP/2 is left out: install the Debian package nghttp2-client";
                say(words);
                report.notes.push(format!("{words}."));
                continue;
            }
            let rounds = measure(world, scenario, &contenders)?;
            conclude(scenario, &contenders, &rounds, &mut report);
        }
        hold(world, routes, &contenders, &mut memory)?;
    }
    conclude_memory(&memory, &mut report);
    Ok(report)
}

/// Nanoseconds to account for one request, by the proxy's own code in a loop: no proxy runs yet.
fn accounting(world: &World) -> Result<f64> {
    let words = ["run", "--quiet", "--release", "--package", "switchback-proxy"];
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(words).args(["--features", "measuring", "--example", "accounting"]);
    let output = command.current_dir(&world.root).stderr(Stdio::inherit()).output();
    let output = output.context("cannot start cargo")?;
    ensure!(output.status.success(), "the example `accounting` of switchback-proxy failed");
    String::from_utf8_lossy(&output.stdout).trim().parse().context("it gave no number")
}

fn start(world: &World, plan: Plan) -> Result<Vec<Contender>> {
    let able = |peer: &&&dyn Peer| peer.can(world, plan.routes);
    let start = |peer: &&dyn Peer| -> Result<Contender> {
        world.go_on()?;
        let title = peer.title(world)?;
        say(&format!("starting {title}"));
        let running = peer.start(world, plan).with_context(|| format!("cannot start {title}"))?;
        Ok(Contender { key: peer.key(), title, running })
    };
    PEERS.iter().filter(able).map(start).collect()
}

fn measure(world: &World, scenario: &Scenario, contenders: &[Contender]) -> Result<Rounds> {
    let count = scenario.rounds[usize::from(!world.quick)];
    let mut rounds = Rounds::new();
    for round in 0..count {
        say(&format!("{}: round {} of {count}", scenario.words, round + 1));
        let mut order: Vec<_> = contenders.iter().collect();
        order.shuffle(&mut rand::rng());
        for contender in order {
            world.go_on()?;
            let sample = once(world, scenario, contender)
                .with_context(|| format!("cannot measure {}", contender.title))?;
            rounds.entry(contender.key).or_default().push(sample);
        }
    }
    Ok(rounds)
}

/// `None` when the proxy does not speak the protocol.
fn once(world: &World, scenario: &Scenario, contender: &Contender) -> Result<Option<Sample>> {
    let &Scenario { connections, routes, path, protocol, .. } = scenario;
    let duration = Duration::from_secs(SECONDS[usize::from(!world.quick)]);
    let (running, pid) = (&contender.running, contender.running.pid());
    let port = match protocol {
        Protocol::Http1 => running.port(),
        Protocol::Http2 { .. } => match running.http2_port() {
            Some(port) => port,
            None => return Ok(None),
        },
    };
    let load = Load { port, connections, duration, routes, path, protocol };
    let before = sample::cpu_seconds(pid)?;
    let outcome = load.run(world)?;
    let cpu = sample::cpu_seconds(pid)? - before;
    Ok(Some(Sample {
        per_second: outcome.requests / outcome.seconds,
        p50_ms: outcome.p50_ms,
        p99_ms: outcome.p99_ms,
        cpu_us: cpu * 1e6 / outcome.requests,
        errors: outcome.errors,
    }))
}

/// One metric of one proxy, round by round.
fn series(rounds: &Rounds, key: &str, metric: Metric) -> Vec<Option<f64>> {
    let samples = rounds.get(key).map(Vec::as_slice).unwrap_or_default();
    samples.iter().map(|sample| sample.as_ref().map(metric)).collect()
}

fn conclude(scenario: &Scenario, contenders: &[Contender], rounds: &Rounds, report: &mut Report) {
    let mut rows = Vec::new();
    let took_part = |key: &str| series(rounds, key, |it| it.errors).iter().any(Option::is_some);
    for Contender { key, title, .. } in contenders.iter().filter(|it| took_part(it.key)) {
        let mut row = vec![title.clone()];
        for (_, metric) in METRICS {
            row.push(cell(middle(rounds, key, metric)));
        }
        for (name, metric) in METRICS {
            let ours = series(rounds, key, metric);
            let ratio = |other| median_ratio(&ours, &series(rounds, other, metric));
            row.push(cell(ratio("nginx")));
            for reference in REFERENCES.iter().filter(|_| key.starts_with(OURS)) {
                let variant = key.strip_prefix(OURS).unwrap_or_default();
                let suffix = scenario.suffix;
                report.figure(format!("{name}{suffix}{variant}_vs_{reference}"), ratio(reference));
            }
        }
        let errors: f64 = series(rounds, key, |it| it.errors).iter().flatten().sum();
        report.figure(format!("errors{}_{key}", scenario.suffix), Some(errors));
        row.push(cell(Some(errors)));
        rows.push(row);
    }
    let head = vec![
        "Proxy",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "CPU µs/request",
        "requests/s / nginx",
        "p50 / nginx",
        "p99 / nginx",
        "CPU / nginx",
        "errors",
    ];
    report.tables.push(Table { title: scenario.words.to_owned(), head, rows });
}

fn middle(rounds: &Rounds, key: &str, metric: Metric) -> Option<f64> {
    median(&series(rounds, key, metric).into_iter().flatten().collect::<Vec<_>>())
}

/// Memory of one proxy.
#[derive(Debug, Clone, Default)]
struct Held {
    title: String,
    routes_mb: Option<f64>,
    idle_bytes: Option<f64>,
}

/// Memory with 10,000 routes, and of idle connections with one.
#[allow(clippy::cast_precision_loss, reason = "memory of one machine stays far below 2^52")]
fn hold(
    world: &World,
    routes: Routes,
    contenders: &[Contender],
    memory: &mut BTreeMap<&'static str, Held>,
) -> Result<()> {
    for Contender { key, title, running } in contenders {
        world.go_on()?;
        let held = memory.entry(key).or_default();
        held.title.clone_from(title);
        match routes {
            Routes::Many => {
                held.routes_mb = Some(sample::memory_bytes(running.pid())? as f64 / 1e6);
            }
            Routes::One => {
                say(&format!("holding idle connections to {title}"));
                let count = IDLE[usize::from(!world.quick)];
                let bytes = idle::bytes_per_connection(running.port(), running.pid(), count)?;
                held.idle_bytes = Some(bytes);
            }
        }
    }
    Ok(())
}

fn conclude_memory(memory: &BTreeMap<&'static str, Held>, report: &mut Report) {
    for (key, held) in memory {
        report.figure(format!("routes_mb_{key}"), held.routes_mb);
        report.figure(format!("idle_bytes_{key}"), held.idle_bytes);
    }
    let row = |held: &Held| vec![held.title.clone(), cell(held.routes_mb), cell(held.idle_bytes)];
    let count = IDLE[usize::from(!report.quick)];
    report.tables.push(Table {
        title: format!("Memory (PSS), {count} idle connections"),
        head: vec!["Proxy", "MB with 10,000 routes, after load", "bytes per idle connection"],
        rows: memory.values().map(row).collect(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(per_second: [f64; 3]) -> Vec<Option<Sample>> {
        let sample =
            |per_second| Sample { per_second, p50_ms: 1.0, p99_ms: 2.0, cpu_us: 4.0, errors: 1.0 };
        per_second.map(sample).map(Some).to_vec()
    }

    struct Nowhere;

    impl Running for Nowhere {
        fn port(&self) -> u16 {
            0
        }

        fn pid(&self) -> u32 {
            0
        }

        fn prepare(&mut self, _: Plan) -> Result<()> {
            Ok(())
        }

        fn switch(&mut self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn figures_are_named_by_metric_scenario_variant_and_reference() {
        let keys = ["ours", "ours_own", "nginx"];
        let contender = |key| Contender { key, title: String::new(), running: Box::new(Nowhere) };
        let rounds = Rounds::from([
            ("ours", samples([30.0, 20.0, 50.0])),
            ("ours_own", samples([40.0; 3])),
            ("nginx", samples([10.0, 20.0, 25.0])),
        ]);
        let mut report = Report {
            benchmark: "proxy",
            quick: true,
            binary_given: false,
            setting: String::new(),
            tables: Vec::new(),
            notes: Vec::new(),
            figures: BTreeMap::new(),
        };
        conclude(&SCENARIOS[3], &keys.map(contender), &rounds, &mut report);
        let figure = |name: &str| report.figures.get(name).copied();
        assert_eq!(figure("throughput_100k_vs_nginx"), Some(2.0));
        assert_eq!(figure("throughput_100k_own_vs_nginx"), Some(2.0));
        assert_eq!(figure("cpu_100k_vs_nginx"), Some(1.0));
        assert_eq!(figure("errors_100k_ours"), Some(3.0));
        assert_eq!(figure("throughput_100k_vs_haproxy"), None);
        let table = &report.tables[0];
        assert_eq!(table.rows.len(), 3);
        assert!(table.rows.iter().all(|row| row.len() == table.head.len()));
    }
}
