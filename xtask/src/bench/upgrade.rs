//! What users see while the data plane's own process is replaced: a part of `bench switch`.
//!
//! Ours alone: no peer here moves connections, so a reload's figures stand for theirs.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, getrlimit};
use switchback_demo::load::LoadReport;

use super::idle;
use super::peers::ours::{Ours, Serving};
use super::plan::{Plan, Routes};
use super::report::{Report, Table, cell};
use super::statistics::{median, quantile};
use super::switch::{CALM, failed, finish_load, start_load};
use super::upstream::Witness;
use super::world::{World, say};

/// In a quick run and in a full one.
const TIMES: [u32; 2] = [10, 100];
/// From one upgrade's end to the next: the process before has gone by then, nearly always.
const PAUSE: Duration = Duration::from_millis(100);
/// What the goal speaks of.
const IDLE: u32 = 10_000;
/// Descriptors that a process needs beside those of connections.
const DESCRIPTORS_BESIDE: u64 = 200;
/// Longest that connections are waited for.
const MOVE_MAX: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// What came of resting connections.
struct Moved {
    count: u32,
    /// From the command until the last one was there.
    millis: f64,
    /// They gave no second answer.
    closed: u32,
}

/// Measures, and adds a table and its figures.
pub(super) fn run(world: &World, report: &mut Report) -> Result<()> {
    let times = TIMES[usize::from(!world.quick)];
    say(&format!("switchback: {times} upgrades of itself"));
    let (load, upgrades) = under_load(world, times).context("upgrades under load failed")?;
    say("switchback: an upgrade with resting connections");
    let moved = with_idle(world).context("an upgrade with resting connections failed")?;
    figures(report, &load, &upgrades, &moved);
    report.tables.push(table(&load, &upgrades, &moved));
    Ok(())
}

fn start(world: &World) -> Result<(Serving, Witness, Plan)> {
    let witness = Witness::start()?;
    let plan = Plan { routes: Routes::One, upstreams: witness.ports, second_percent: 0 }.all_on(0);
    Ok((Ours::SHIPPED.serve(world, plan)?, witness, plan))
}

/// The load's report, and the milliseconds that each upgrade took.
fn under_load(world: &World, times: u32) -> Result<(LoadReport, Vec<f64>)> {
    let (mut serving, _witness, plan) = start(world)?;
    let load = start_load(serving.port, plan)?;
    std::thread::sleep(CALM);
    let mut upgrades = Vec::new();
    for _ in 0..times {
        world.go_on()?;
        upgrades.push(serving.upgrade()?.as_secs_f64() * 1e3);
        std::thread::sleep(PAUSE);
    }
    std::thread::sleep(CALM);
    Ok((finish_load(load)?, upgrades))
}

fn with_idle(world: &World) -> Result<Moved> {
    let (mut serving, _witness, _) = start(world)?;
    let count = idle_count();
    let mut held = idle::hold(serving.port, count)?;
    let start = Instant::now();
    serving.upgrade()?;
    while serving.health()?.taken_over < u64::from(count) {
        world.go_on()?;
        ensure!(start.elapsed() < MOVE_MAX, "connections stay behind: {:?}", serving.health()?);
        std::thread::sleep(POLL_INTERVAL);
    }
    let millis = start.elapsed().as_secs_f64() * 1e3;
    let is_closed = |stream: &mut TcpStream| idle::ask(stream).is_err();
    let closed = held.iter_mut().map(|stream| u32::from(is_closed(stream))).sum();
    Ok(Moved { count, millis, closed })
}

/// As many as the goal speaks of, or as the limit on descriptors lets a data plane have: it keeps
/// a second one back for each.
fn idle_count() -> u32 {
    let granted = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let fitting = granted.saturating_sub(DESCRIPTORS_BESIDE) / 2;
    u32::try_from(fitting).unwrap_or(IDLE).clamp(1, IDLE)
}

impl Moved {
    /// What as many as the goal speaks of would take at the same pace.
    fn of_all_ms(&self) -> f64 {
        self.millis * f64::from(IDLE) / f64::from(self.count)
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of one run stay far below 2^52")]
fn closed(load: &LoadReport) -> f64 {
    load.connections_closed_by_server as f64
}

#[allow(clippy::cast_precision_loss, reason = "counts of one run stay far below 2^52")]
fn latency_p99_ms(load: &LoadReport) -> Option<f64> {
    load.latency.quantile(0.99).map(|micros| micros as f64 / 1e3)
}

#[allow(clippy::cast_precision_loss, reason = "counts of one run stay far below 2^52")]
fn figures(report: &mut Report, load: &LoadReport, upgrades: &[f64], moved: &Moved) {
    let all = [
        ("upgrade_failed_ours", Some(failed(load))),
        ("upgrade_closed_ours", Some(closed(load))),
        ("upgrade_count", Some(upgrades.len() as f64)),
        ("upgrade_requests", Some(load.sent as f64)),
        ("upgrade_median_ms", median(upgrades)),
        ("upgrade_p99_ms", quantile(upgrades, 0.99)),
        ("upgrade_latency_p99_ms", latency_p99_ms(load)),
        ("upgrade_idle_10000_ms", Some(moved.of_all_ms())),
        ("upgrade_idle_count", Some(f64::from(moved.count))),
        ("upgrade_idle_closed", Some(f64::from(moved.closed))),
    ];
    for (name, value) in all {
        report.figure(name, value);
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of one run stay far below 2^52")]
fn table(load: &LoadReport, upgrades: &[f64], moved: &Moved) -> Table {
    let head = vec![
        "Connections",
        "upgrades",
        "requests",
        "failed",
        "connections closed",
        "upgrade ms, median",
        "the same, p99",
        "latency p99 ms",
    ];
    let numbers = [
        Some(upgrades.len() as f64),
        Some(load.sent as f64),
        Some(failed(load)),
        Some(closed(load)),
        median(upgrades),
        quantile(upgrades, 0.99),
        latency_p99_ms(load),
    ];
    let busy = ["200, under load".to_owned()].into_iter().chain(numbers.map(cell)).collect();
    let numbers =
        [Some(1.0), None, None, Some(f64::from(moved.closed)), Some(moved.millis), None, None];
    let name = format!("{} at rest, until the last has moved", moved.count);
    let resting = [name].into_iter().chain(numbers.map(cell)).collect();
    let title = "Upgrades of switchback's own data plane".to_owned();
    Table { title, head, rows: vec![busy, resting] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_connections_are_no_faster_than_the_goal_asks() {
        let moved = Moved { count: 5_000, millis: 100.0, closed: 0 };
        assert!((moved.of_all_ms() - 200.0).abs() < 1e-9);
        assert!((1..=IDLE).contains(&idle_count()));
    }

    #[test]
    fn a_row_says_what_was_lost() {
        let load = LoadReport { sent: 10, by_status: [(200, 9)].into(), ..LoadReport::default() };
        let moved = Moved { count: 10, millis: 5.0, closed: 2 };
        let table = table(&load, &[1.0, 3.0], &moved);
        assert_eq!((table.rows[0][3].as_str(), table.rows[1][4].as_str()), ("1", "2"));
        assert!(table.rows.iter().all(|row| row.len() == table.head.len()));
    }
}
