//! `bench switch`: what users see of a change of version, by each way of changing it, and of an
//! upgrade of our own process.
//!
//! Open-loop load over keep-alive connections, GET and POST; nothing is retried by the client.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use switchback_demo::load::{Load, LoadHandle, LoadOptions, LoadReport};

use super::address::local;
use super::peers::{METHODS, Method};
use super::plan::{Plan, VERSIONS};
use super::report::{Report, Table, cell};
use super::statistics::{median, quantile};
use super::upstream::Witness;
use super::world::{World, say};

const CONNECTIONS: u16 = 200;
const RATE_PER_SECOND: u32 = 2_000;
/// The rest are GETs.
const POST_SHARE: f64 = 0.3;
/// Load before the first switch, so that every connection has served, and after the last.
pub(super) const CALM: Duration = Duration::from_millis(600);

/// What one method did.
struct Outcome {
    load: LoadReport,
    /// Milliseconds that each command took.
    commands: Vec<f64>,
    /// Milliseconds from each command to the last request that reached the old version.
    last_old: Vec<f64>,
}

/// Runs every method that is there.
pub(super) fn run(world: &World) -> Result<Report> {
    let mut report = Report::new("switch", world)?;
    let mut rows = Vec::new();
    for method in METHODS.iter().filter(|method| method.peer.can(world, method.routes)) {
        let title = format!("{}: {}", method.peer.title(world)?, method.words);
        say(&title);
        let outcome = measure(world, method).with_context(|| format!("{title} failed"))?;
        rows.push(row(title, &outcome));
        outcome.figures(method.key, &mut report);
    }
    let head = vec![
        "Method",
        "switches",
        "requests",
        "failed",
        "connections closed",
        "command ms, median",
        "last on the old version ms, median",
        "the same, p99",
        "latency p99 ms",
    ];
    let title = format!(
        "{RATE_PER_SECOND} requests/s over {CONNECTIONS} keep-alive connections, {:.0} % POST",
        POST_SHARE * 100.0
    );
    report.tables.push(Table { title, head, rows });
    super::upgrade::run(world, &mut report)?;
    Ok(report)
}

fn measure(world: &World, method: &Method) -> Result<Outcome> {
    let witness = Witness::start()?;
    let plan =
        Plan { routes: method.routes, upstreams: witness.ports, second_percent: 0 }.all_on(0);
    let mut running = method.peer.start(world, plan)?;
    let load = start_load(running.port(), plan)?;
    std::thread::sleep(CALM);
    let (mut commands, mut last_old) = (Vec::new(), Vec::new());
    for turn in 0..method.times[usize::from(!world.quick)] {
        world.go_on()?;
        let (old, new) = if turn % 2 == 0 { (0, 1) } else { (1, 0) };
        running.prepare(plan.all_on(new))?;
        let start = Instant::now();
        running.switch()?;
        commands.push(start.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(method.pause_ms));
        last_old.push(witness.last_after(old, start) * 1e3);
    }
    std::thread::sleep(CALM);
    let load = finish_load(load)?;
    let served = VERSIONS.iter().all(|version| load.answered.contains_key(*version));
    ensure!(served, "no switch took effect: {:?}", load.answered);
    Ok(Outcome { load, commands, last_old })
}

/// The load that every change is made under.
pub(super) fn start_load(port: u16, plan: Plan) -> Result<LoadHandle> {
    let (host, path) = plan.sample();
    let options = LoadOptions {
        host: host.to_owned(),
        path: path.to_owned(),
        rate_per_second: RATE_PER_SECOND,
        connections: CONNECTIONS,
        post_share: POST_SHARE,
        ..LoadOptions::new(local(port))
    };
    Load::start(options).context("cannot start the load")
}

/// Stops it.
pub(super) fn finish_load(load: LoadHandle) -> Result<LoadReport> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(runtime.block_on(load.stop()))
}

/// Requests that were not answered with 200.
#[allow(clippy::cast_precision_loss, reason = "counts of one run stay far below 2^52")]
pub(super) fn failed(load: &LoadReport) -> f64 {
    let good = load.by_status.get(&200).copied().unwrap_or(0);
    load.sent.saturating_sub(good) as f64
}

#[allow(clippy::cast_precision_loss, reason = "counts of one run stay far below 2^52")]
impl Outcome {
    fn figures(&self, key: &str, report: &mut Report) {
        let closed = self.load.connections_closed_by_server as f64;
        report.figure(format!("switch_failed_{key}"), Some(failed(&self.load)));
        report.figure(format!("switch_closed_{key}"), Some(closed));
        report.figure(format!("switch_count_{key}"), Some(self.commands.len() as f64));
        report.figure(format!("switch_requests_{key}"), Some(self.load.sent as f64));
        report.figure(format!("switch_skipped_{key}"), Some(self.load.skipped as f64));
        report.figure(format!("switch_command_p50_ms_{key}"), median(&self.commands));
        report.figure(format!("switch_last_old_p50_ms_{key}"), median(&self.last_old));
        let p99 = quantile(&self.last_old, 0.99);
        report.figure(format!("switch_last_old_p99_ms_{key}"), p99);
        report.figure(format!("switch_latency_p99_ms_{key}"), self.latency_p99_ms());
    }

    fn latency_p99_ms(&self) -> Option<f64> {
        self.load.latency.quantile(0.99).map(|micros| micros as f64 / 1e3)
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of one run stay far below 2^52")]
fn row(title: String, outcome: &Outcome) -> Vec<String> {
    let numbers = [
        Some(outcome.commands.len() as f64),
        Some(outcome.load.sent as f64),
        Some(failed(&outcome.load)),
        Some(outcome.load.connections_closed_by_server as f64),
        median(&outcome.commands),
        median(&outcome.last_old),
        quantile(&outcome.last_old, 0.99),
        outcome.latency_p99_ms(),
    ];
    [title].into_iter().chain(numbers.map(cell)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_not_a_200_has_failed() {
        let load = LoadReport {
            sent: 10,
            by_status: [(200, 7), (502, 1)].into(),
            ..LoadReport::default()
        };
        let outcome = Outcome { load, commands: vec![1.0], last_old: vec![2.0] };
        assert!((failed(&outcome.load) - 3.0).abs() < f64::EPSILON);
        assert_eq!(row("x".to_owned(), &outcome)[3], "3");
    }
}
