//! What runs beside the driver: watching, probing, measuring. Each reports by message.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchback_domain::metric::Answer;
use switchback_domain::probe::{Probe, ProbeResult};
use switchback_domain::{InstanceHealth, InstanceId, ServiceKey};
use switchback_ports::data_plane::Cursor;
use switchback_ports::metrics::Question;
use switchback_ports::runtime::Instance;
use switchback_ports::{Metrics, Prober, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::driver::{Links, Message};
use crate::hands::Handle;
use crate::vitals::{ProbeRole, pace};

/// Time between two readings of the data plane's figures: short, because drains and verdicts
/// wait for them, and cheap, because a reading is a few kilobytes.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// A data plane that reports and does not tell its table after so many questions is an older build's.
const MET_AFTER: u32 = 20;
/// Pause after the runtime could not be asked.
const RUNTIME_AGAIN: Duration = Duration::from_millis(500);

/// Longest time between two lists: should a change go unnoticed, it is seen all the same.
const LIST_EVERY: Duration = Duration::from_secs(1);
/// No list begins before so many times as long as the last one took: while thousands of instances
/// start, each a change, nothing else would be done.
const LIST_REST: u32 = 4;
/// The longest such rest: a machine that was busy elsewhere has little to do with the next list.
const LIST_REST_MAX: Duration = Duration::from_millis(100);

/// Takes charge of the runtime, then lists the instances at every change.
pub(crate) async fn watch_runtime(links: Links, handle: Handle) {
    let mut in_charge = false;
    loop {
        if !in_charge {
            let Some(life) = handle.ask(|driver| driver.generation()).await else { return };
            let taken = links.runtime.take_charge(life).await;
            in_charge = taken.is_ok();
            if let Err(error) = taken {
                handle.send(Message::Listed(Err(error))).await;
                tokio::time::sleep(RUNTIME_AGAIN).await;
                continue;
            }
        }
        let began = Instant::now();
        let listed = links.runtime.list().await;
        let (failed, took, listed_at) = (listed.is_err(), began.elapsed(), Instant::now());
        handle.send(Message::Listed(listed)).await;
        if failed {
            tokio::time::sleep(RUNTIME_AGAIN).await;
        } else {
            let _ = tokio::time::timeout(LIST_EVERY, links.runtime.changed()).await;
            let rest = (took * LIST_REST).min(LIST_REST_MAX);
            tokio::time::sleep(rest.saturating_sub(listed_at.elapsed())).await;
        }
    }
}

/// Keeps the data plane running and reads its figures, for as long as it is wanted.
pub(crate) async fn watch_data_plane(
    links: Links,
    handle: Handle,
    mut wanted: watch::Receiver<bool>,
) {
    let (mut running, mut is_met, mut asked) = (false, false, 0);
    // A control plane that begins reads all there is: what it knows, it recognises.
    let mut read = Cursor::default();
    while *wanted.borrow() {
        if !running {
            let started = links.supervision.ensure_started().await;
            running = started.is_ok();
            handle.send(Message::Supervised(started)).await;
        }
        if let Ok(batches) = links.data_plane.batches(&read).await {
            read = batches.next.clone();
            if !batches.batches.is_empty() {
                handle.send(Message::Counted(batches)).await;
            }
        }
        let found = if is_met { None } else { links.data_plane.serving().await.ok() };
        let reported = links.data_plane.report().await;
        running &= reported.is_ok();
        asked += u32::from(running && !is_met);
        if !is_met && (found.is_some() || asked == MET_AFTER) {
            handle.send(Message::Met(found.map(Box::new))).await;
            is_met = true;
        }
        handle.send(Message::Reported(reported)).await;
        // Whoever does not want it any more waits for this to end.
        let _ = tokio::time::timeout(REPORT_EVERY, wanted.changed()).await;
    }
}

/// Probes one process of an instance for as long as it is the instance's process.
pub(crate) async fn probe(
    prober: Arc<dyn Prober>,
    handle: Handle,
    instance: Instance,
    started_up: bool,
) {
    let Some(address) = instance.address else { return };
    let (id, checks) = (&instance.spec.id, &instance.spec.workload.health);
    if let Some(startup) = checks.startup.as_ref().filter(|_| !started_up) {
        let mut passes = 0;
        while passes < startup.healthy_after {
            let result = prober.probe(id, address, startup).await;
            passes = if result.passed { passes + 1 } else { 0 };
            handle.send(Message::Probed(id.clone(), ProbeRole::Startup, result)).await;
            if passes < startup.healthy_after {
                tokio::time::sleep(pace(startup.interval, InstanceHealth::Starting)).await;
            }
        }
    }
    let ready = keep_probing(&prober, &handle, &instance, ProbeRole::Readiness);
    match &checks.liveness {
        Some(_) => {
            let alive = keep_probing(&prober, &handle, &instance, ProbeRole::Liveness);
            tokio::join!(ready, alive);
        }
        None => ready.await,
    }
}

async fn keep_probing(
    prober: &Arc<dyn Prober>,
    handle: &Handle,
    instance: &Instance,
    role: ProbeRole,
) {
    let checks = &instance.spec.workload.health;
    let (Some(address), Some(probe)) = (instance.address, probe_of(instance, role)) else { return };
    let mut healthy_since: Option<Instant> = None;
    let mut passes = 0;
    loop {
        let result = prober.probe(&instance.spec.id, address, probe).await;
        if result.passed {
            passes += 1;
            healthy_since.get_or_insert_with(Instant::now);
        } else {
            (passes, healthy_since) = (0, None);
        }
        handle.send(Message::Probed(instance.spec.id.clone(), role, result)).await;
        let settled = passes >= probe.healthy_after
            && healthy_since.is_some_and(|since| since.elapsed() >= checks.min_healthy_time);
        let calm = settled || role == ProbeRole::Liveness;
        let health = if calm { InstanceHealth::Ready } else { InstanceHealth::Starting };
        tokio::time::sleep(pace(probe.interval, health)).await;
    }
}

fn probe_of(instance: &Instance, role: ProbeRole) -> Option<&Probe> {
    let checks = &instance.spec.workload.health;
    match role {
        ProbeRole::Startup => checks.startup.as_ref(),
        ProbeRole::Liveness => checks.liveness.as_ref(),
        ProbeRole::Readiness => Some(&checks.readiness),
    }
}

/// Reads what an instance uses.
pub(crate) async fn measure(
    runtime: Arc<dyn Runtime>,
    handle: Handle,
    key: ServiceKey,
    id: InstanceId,
) {
    if let Ok(usage) = runtime.usage(&id).await {
        handle.send(Message::Used(key, id, usage)).await;
    }
}

/// Asks all questions at once; the answers come in their order, each within its time.
pub(crate) async fn ask(
    metrics: &Arc<dyn Metrics>,
    questions: impl Iterator<Item = Question>,
) -> Vec<Answer> {
    let mut asked = JoinSet::new();
    for (place, question) in questions.enumerate() {
        let metrics = metrics.clone();
        asked.spawn(async move { (place, metrics.query(&question).await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(place, _)| *place);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// Runs a command beside an instance; what goes wrong is its result.
pub(crate) async fn execute(
    runtime: &dyn Runtime,
    id: &InstanceId,
    argv: &[String],
    timeout: Duration,
) -> ProbeResult {
    match runtime.execute(id, argv, timeout).await {
        Ok(result) => result,
        Err(error) => ProbeResult { passed: false, detail: switchback_domain::with_causes(&error) },
    }
}

/// The first number in what a command printed.
pub(crate) fn first_number(text: &str) -> Option<f64> {
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, ':' | ',' | ';' | '='));
    words.filter_map(|word| word.parse().ok()).find(|number: &f64| number.is_finite())
}

/// Says so if a program that is named by path is not there any more.
pub(crate) fn missing_program(program: &str, working_dir: &str) -> Option<String> {
    if !program.contains('/') || program.contains("{{") {
        return None;
    }
    let path = Path::new(working_dir).join(program);
    (!path.exists()).then(|| format!("{} is not there any more", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_counts() {
        assert_eq!(first_number("queue depth: 12.5 (max 20)"), Some(12.5));
        assert_eq!(first_number("3"), Some(3.0));
        assert_eq!(first_number("inf NaN none"), None);
    }

    #[test]
    fn a_program_on_the_path_is_not_looked_for() {
        assert_eq!(missing_program("nginx", "/"), None);
        assert!(missing_program("./gone", "/nowhere").is_some());
        assert_eq!(missing_program("/bin/sh", "/nowhere"), None);
    }
}
