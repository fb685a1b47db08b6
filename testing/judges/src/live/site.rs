//! The program under test with one service under load, version after version.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use switchback_api::client::Progress;
use switchback_api::{Client, TrialRecord, TrialVerdict};
use switchback_demo::load::{Load, LoadHandle, LoadOptions};
use switchback_domain::{Outcome, socket_path};
use tempfile::TempDir;

use super::expected::{PERCENT, TOLERANCE_PERCENT};
use super::instance::READY_PATH;
use super::{Error, Measured, Options, arrivals, cannot, version_of};

/// More than are ever busy, those that hang included.
const CONNECTIONS: u16 = 400;
/// A client waits for so long.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);
/// Traffic before the first rollout: the baseline has to be known.
const CALM: Duration = Duration::from_secs(8);
/// Nobody is on trial for longer; then the rollout goes on and counts as missed.
const TRIAL_SECONDS: u64 = 120;
/// And no rollout takes longer.
const ROLLOUT_MAX: Duration = Duration::from_secs(TRIAL_SECONDS + 60);

/// A directory, what runs for it, and its load. Ends with it.
pub(super) struct Site {
    binary: PathBuf,
    directory: TempDir,
    runtime: tokio::runtime::Runtime,
    client: Client,
    load: Option<LoadHandle>,
    is_up: bool,
}

impl Site {
    /// Brings version v1 up and waits until it is known what it does.
    pub(super) fn start(options: &Options) -> Result<Self, Error> {
        let directory = tempfile::Builder::new().prefix("switchback-live-").tempdir();
        let directory = directory.map_err(cannot("make a directory"))?;
        let path = directory.path().canonicalize().map_err(cannot("find the directory"))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let address = listener.and_then(|it| it.local_addr()).map_err(cannot("find a port"))?;
        let text = configuration(&options.instance, &path, address);
        fs::write(path.join("switchback.yaml"), text).map_err(cannot("write switchback.yaml"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let mut site = Self {
            binary: options.binary.clone(),
            client: Client::new(socket_path(&path.join(".switchback"), "control")),
            directory,
            runtime: runtime.map_err(cannot("start a runtime"))?,
            load: None,
            is_up: true,
        };
        site.command(&["up", "--detach"])?;
        let load = LoadOptions {
            rate_per_second: options.rate,
            connections: CONNECTIONS,
            post_share: 0.0,
            timeout: CLIENT_PATIENCE,
            duration_max: Duration::from_hours(12),
            requests_max: u64::MAX,
            ..LoadOptions::new(address)
        };
        site.load = Some(Load::start(load).map_err(Error::Load)?);
        // sleep: traffic of some seconds is what is wanted
        std::thread::sleep(CALM);
        Ok(site)
    }

    /// Deploys a version that is bad like a scenario's, and says how it was taken back; `None` if
    /// the exact test did not do it in time.
    pub(super) fn take_back(&self, scenario: &str, round: u64) -> Result<Option<Measured>, Error> {
        let version = version_of(scenario, round);
        let words = ["deploy", "web", "--version", &version, "--no-wait", "--json"];
        let said = self.command(&words)?;
        let accepted: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
        let Some(id) = accepted["rollout"].as_str() else {
            return Err(Error::Refused { command: words.join(" "), said });
        };
        if !self.ends(id)? {
            self.command(&["abort", id])?;
            self.ends(id)?;
        }
        let told = self.runtime.block_on(self.client.trials(id)).map_err(Error::Silent)?;
        let path = arrivals(self.directory.path(), &version);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut arrived: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
        arrived.sort_unstable();
        Ok(told.last().and_then(|trial| measured(trial, &arrived)))
    }

    /// Stops the load and everything else.
    pub(super) fn end(mut self) -> Result<(), Error> {
        if let Some(load) = self.load.take() {
            self.runtime.block_on(load.stop());
        }
        self.is_up = false;
        self.command(&["down", "--force"]).map(drop)
    }

    /// Waits for the end of a rollout; whether it came in time.
    fn ends(&self, id: &str) -> Result<bool, Error> {
        let mut follow = self.client.follow(id);
        let end = async {
            while !matches!(follow.next().await.map_err(Error::Silent)?, Progress::Ended) {}
            Ok(())
        };
        let in_time = async { tokio::time::timeout(ROLLOUT_MAX, end).await };
        self.runtime.block_on(in_time).map_or(Ok(false), |ended| ended.map(|()| true))
    }

    fn command(&self, words: &[&str]) -> Result<String, Error> {
        let mut command = Command::new(&self.binary);
        command.args(words).current_dir(self.directory.path()).env("USER", "live");
        let output = command.output().map_err(cannot(self.binary.display().to_string()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if !output.status.success() {
            let said = format!("{} {}", text(&output.stdout), text(&output.stderr));
            return Err(Error::Refused { command: words.join(" "), said });
        }
        Ok(text(&output.stdout))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.is_up {
            // The check has failed already, with a better reason.
            let _ = self.command(&["down", "--force"]);
        }
    }
}

/// Nothing but the exact test takes a version back.
fn configuration(instance: &Path, directory: &Path, address: SocketAddr) -> String {
    let (instance, directory) = (instance.display(), directory.display());
    format!(
        "project: live
services:
  web:
    version: v1
    command: {instance} --instance {directory}
    replicas: 1
    health_check: {{path: {READY_PATH}, interval: 100ms, timeout: 5s, min_healthy_time: 200ms}}
    route: {{listen: \"{address}\"}}
    strategy: {{type: canary, steps: [{{set_weight: {PERCENT}}}, {{pause: {TRIAL_SECONDS}s}}, {{set_weight: 100}}]}}
    progress_deadline: 300s
    scale_down_delay: 100ms
    drain_timeout: 1s
    rollback:
      exact_test: {{warm_up: 0s, latency_tolerance: {TOLERANCE_PERCENT}%}}
      triggers: {{error_rate: false, response_time: false, latency_p95: false, cpu_usage: false, health_checks: false}}
"
    )
}

/// What a test that took its candidate back says, beside the arrivals at the candidate in
/// microseconds, ascending.
fn measured(trial: &TrialRecord, arrived: &[u64]) -> Option<Measured> {
    let is_it = |verdict: &&TrialVerdict| {
        verdict.outcome == Outcome::Regressed && verdict.evidence.fired.is_some()
    };
    let verdict = trial.verdicts.iter().find(is_it)?;
    let counts = verdict.evidence.counts;
    let at = verdict.at.as_millis() * 1000;
    let (first, last) = (*arrived.first()?, *arrived.last()?);
    let judged = usize::try_from(counts.candidate_requests).ok()?;
    // One that was refused before it arrived was judged, too.
    let judged_at = arrived.get(judged.min(arrived.len()).checked_sub(1)?)?;
    let seconds = |from: u64| at.saturating_sub(from) as f64 / 1e6;
    Some(Measured {
        seconds: seconds(first),
        requests: counts.candidate_requests as f64,
        failed: counts.candidate_failed as f64,
        delay: seconds(*judged_at),
        last_millis: last.saturating_sub(at) as f64 / 1e3,
    })
}
