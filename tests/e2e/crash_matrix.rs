//! `kill -9` at each journal write, effect and acknowledgement of each strategy, in the binary as
//! it ships, under load: the rollout ends, nothing is left behind, and no request is lost.
//!
//! A first rollout tells which points there are; each of those picked is then died at once, in a
//! rollout of its own. Without `SWITCHBACK_CRASH_POINTS=all` only every so many is picked.

use std::fs;
use std::path::PathBuf;

use switchback_api::RolloutOutcome;
use switchback_ports::crash_point::CRASH_DIRECTORY;

use crate::process::{Role, is_alive};
use crate::site::{Ended, Running, Site, wait_for};

/// Points of each strategy that are tried every time.
const SAMPLE: usize = 22;
/// Fewer of them would say that points got lost.
const POINTS_MIN: usize = 60;
/// Points that only the data plane passes: with it the requests on their way end.
const OF_DATA_PLANE: &str = "table";

/// A site whose processes can be told where to die.
struct Matrix {
    site: Site,
    directory: PathBuf,
    serial: u32,
}

impl Matrix {
    fn new(strategy: &str) -> Self {
        let mut site = Site::with("latency=1ms", |recipe| {
            recipe.set("strategy", strategy);
            recipe.set("scale_down_delay", "100ms");
            let check = "{path: /ready, interval: 50ms, timeout: 5s, min_healthy_time: 50ms}";
            recipe.set("health_check", check);
        });
        let directory = site.path().join("crash");
        fs::create_dir(&directory).expect("the directory is ours");
        site.set_env(CRASH_DIRECTORY, &directory);
        site.up();
        Self { site, directory, serial: 1 }
    }

    /// Whoever reaches the point first from now on dies there. The version to deploy next.
    fn order(&mut self, label: &str) -> String {
        let place = |name: &str| self.directory.join(name);
        self.serial += 1;
        let _ = fs::remove_file(place("died"));
        let _ = fs::remove_file(place("reached"));
        // Half an order must not be read.
        fs::write(place("at.new"), format!("{} {label}", self.serial)).expect("ours");
        fs::rename(place("at.new"), place("at")).expect("ours");
        format!("m{}", self.serial)
    }

    /// Whether a process has died for the present order.
    fn has_died(&self) -> bool {
        let dead = || {
            let mark = fs::read_to_string(self.directory.join("died")).ok()?;
            let (order, pid) = mark.trim().split_once('\n')?;
            let ours = order.split_once(' ')?.0 == self.serial.to_string();
            pid.parse().ok().filter(|_| ours)
        };
        dead().is_some_and(|pid: u32| !is_alive(pid))
    }

    /// The points that a rollout passes, in the order of their names.
    fn points(&mut self) -> Vec<String> {
        let version = self.order("nowhere");
        self.site.deploy(&version).exits(0);
        let reached = fs::read_to_string(self.directory.join("reached")).expect("it was written");
        let mut points: Vec<String> = reached.lines().map(ToOwned::to_owned).collect();
        points.sort_unstable();
        points.dedup();
        points
    }

    /// Deploys a version while somebody dies at a point, and sees it end well. Whether somebody
    /// came by there at all: which passage is the fifth is also a matter of timing.
    fn dies_at(&mut self, label: &str) -> bool {
        let version = self.order(label);
        let deploy = self.site.spawn_deploy(&version);
        let ended = self.revives(label, deploy);
        if ended.code > 1 {
            // Nobody said that it was accepted; perhaps it was.
            self.asks_again(label, &version);
        }
        let stable = self.site.stable();
        self.site.settles_to(&[(&stable, 2)]);
        assert_eq!(self.site.status().control.degraded, None, "{label}");
        self.has_died()
    }

    /// Waits for the death, starts the control plane again if it was the one, and lets the command
    /// come to its end.
    fn revives(&self, label: &str, mut deploy: Running) -> Ended {
        wait_for(&format!("death at {label}, or the end"), || self.has_died() || deploy.is_over());
        let raise = || {
            if self.site.pids(Role::Control).is_empty() {
                self.site.up();
            }
        };
        if !deploy.is_over() {
            raise();
            return deploy.wait();
        }
        let ended = deploy.wait();
        if ended.code > 1 {
            // It lost the connection before we saw why.
            wait_for(&format!("death at {label}"), || self.has_died());
        }
        raise();
        ended
    }

    fn asks_again(&self, label: &str, version: &str) {
        let accepted = self.site.service().rollout.map(|active| active.id);
        if self.site.stable() == version {
            return;
        }
        let id = accepted.unwrap_or_else(|| self.site.begin(version));
        let outcome = self.site.ended(&id).outcome;
        let right = [Some(RolloutOutcome::Promoted), Some(RolloutOutcome::RolledBack)];
        assert!(right.contains(&outcome), "{label}: {id} ended as {outcome:?}");
    }
}

/// Every so many of the points, from the first to the last; all of them if that is asked for.
fn picked(points: &[String]) -> Vec<&String> {
    let all = std::env::var_os("SWITCHBACK_CRASH_POINTS").is_some_and(|points| points == "all");
    let step = if all { 1 } else { points.len().div_ceil(SAMPLE) };
    points.iter().step_by(step).collect()
}

#[allow(clippy::print_stdout, reason = "figures for whoever runs all of it")]
fn survives_all_deaths(strategy: &str) {
    let mut matrix = Matrix::new(strategy);
    let load = matrix.site.load(150);
    let mut points = matrix.points();
    points.retain(|label| !label.contains(OF_DATA_PLANE));
    assert!(points.len() >= POINTS_MIN, "{points:#?}");
    let picked = picked(&points);
    let mut deaths = 0;
    for label in &picked {
        deaths += usize::from(matrix.dies_at(label));
        let report = load.snapshot();
        let errors: u64 = report.errors.values().sum();
        assert_eq!((report.failures.total(), errors), (0, 0), "{label}: {report:#?}");
    }
    matrix.site.nothing_was_lost(load);
    println!("{deaths} deaths at {} of {} points", picked.len(), points.len());
    assert!(deaths * 4 >= picked.len() * 3, "{deaths} deaths at {picked:#?}");
}

#[test]
fn a_canary_survives_death_at_each_of_its_points() {
    survives_all_deaths(
        "{type: canary, steps: [{set_weight: 30%}, \
         {analysis: {duration: 300ms, error_rate: 50%, min_samples: 1}}, {set_weight: 100%}]}",
    );
}

#[test]
fn a_blue_green_release_survives_death_at_each_of_its_points() {
    survives_all_deaths(
        "{type: blue-green, steps: [{set_weight: 50%}, {pause: 100ms}, {set_weight: 100%}]}",
    );
}

#[test]
fn a_rolling_update_survives_death_at_each_of_its_points() {
    survives_all_deaths("{type: rolling, steps: [{pause: 100ms}]}");
}

/// With the data plane the requests on their way end, and nothing else.
#[test]
fn a_rollout_survives_the_death_of_the_data_plane_at_each_of_its_points() {
    let mut matrix = Matrix::new("{type: rolling, steps: [{pause: 100ms}]}");
    let mut points = matrix.points();
    points.retain(|label| label.contains(OF_DATA_PLANE));
    for label in picked(&points) {
        matrix.dies_at(label);
        matrix.site.serves(&[&matrix.site.stable()]);
    }
}
