//! One measurement from beginning to end, through the API and `kill -9`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use switchback_api::DeployRequest;
use switchback_api::client::{Client, RolloutsQuery};
use switchback_domain::{ServiceName, Version};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Size;
use crate::control::{BEGIN, SOCKET, STARTS};
use crate::figures::{Figures, Times};
use crate::prepare::{AFTER, name, prepare};
use crate::process::{Measured, now_ms};

/// Requests to the API at a time.
const AT_ONCE: usize = 8;
/// How long anything may take before it counts as never happening.
const PATIENCE: Duration = Duration::from_mins(10);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Prepares, deploys, waits, kills, and says what was measured.
pub(crate) fn measure(size: Size) -> Result<Figures> {
    // Under the build directory: a journal in memory would be none.
    let exe = std::env::current_exe()?;
    let dir = tempfile::tempdir_in(exe.parent().context("a program lies in a directory")?)?;
    let dir = dir.path().canonicalize()?;
    prepare(&dir, size).context("cannot prepare the state directory")?;
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    threads.block_on(all(&dir, size))
}

async fn all(dir: &Path, size: Size) -> Result<Figures> {
    let measured = Measured::start(dir, None)?;
    let client = Client::new(dir.join(SOCKET));
    until("the control plane answers", async || Ok(active(&client, 1).await.is_ok())).await?;
    // sleep: what a start leaves to do is no part of the calm.
    tokio::time::sleep(LOOK_EVERY * 4).await;
    let calm = cores(&measured, size.steady).await?;
    let asked = deploy_all(&client, size).await?;
    until("every candidate has its share", async || {
        Ok(active(&client, size.rollouts).await? == size.rollouts)
    })
    .await?;
    let decisions = decisions(dir, &asked)?;
    let busy = cores(&measured, size.steady).await?;
    let memory_before = measured.memory_peak_mib()?;
    measured.kill();

    // Every rollout has something to be done at once: its candidate's instance is gone.
    let killed = now_ms();
    let measured = Measured::start(dir, Some(AFTER))?;
    let resumed = || resumed(dir, killed);
    until("every rollout goes on", async || Ok(resumed()?.len() >= size.rollouts)).await?;
    let resumed = resumed()?;
    ensure!(resumed.keys().eq(asked.keys()), "others than the rollouts' instances were started");
    let memory = memory_before.max(measured.memory_peak_mib()?);
    measured.kill();
    ensure!(decisions.len() == size.rollouts, "{} of the starts are known", decisions.len());
    Ok(Figures {
        services: size.services,
        rollouts: size.rollouts,
        memory_mib: memory,
        calm_cores: calm,
        busy_cores: busy,
        decision: Times::of(decisions),
        resume: Times::of(resumed.into_values().collect()),
    })
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !holds().await? {
        ensure!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        // sleep: polls with a deadline.
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Rollouts whose candidate has its share, of the newest so many.
async fn active(client: &Client, limit: usize) -> Result<usize> {
    let query = RolloutsQuery { limit: u32::try_from(limit).ok(), ..RolloutsQuery::default() };
    let found = client.rollouts(&query).await?;
    let with_share = found.iter().filter(|rollout| rollout.phase == "Observing");
    Ok(with_share.count())
}

/// Processors used on average.
async fn cores(measured: &Measured, over: Duration) -> Result<f64> {
    let (before, began) = (measured.processor_time()?, Instant::now());
    // sleep: the time that is measured.
    tokio::time::sleep(over).await;
    let used = measured.processor_time()?.saturating_sub(before);
    Ok(used.as_secs_f64() / began.elapsed().as_secs_f64())
}

/// Asks for every rollout. Says when each was asked for, by service.
async fn deploy_all(client: &Client, size: Size) -> Result<BTreeMap<String, f64>> {
    let (gate, mut tasks) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for number in 0..size.rollouts {
        let (client, gate) = (client.clone(), gate.clone());
        tasks.spawn(async move {
            let _permit = gate.acquire_owned().await?;
            let name = name(number);
            let request = DeployRequest {
                service: ServiceName::new(name.as_str())?,
                version: Some(Version::new(AFTER)?),
                environment: None,
                strategy: None,
                on_busy: None,
                accept_no_rollback: true,
                dry_run: false,
                by: "bench".to_owned(),
            };
            let asked = now_ms();
            client.deploy(&request).await?;
            anyhow::Ok((name, asked))
        });
    }
    let mut asked = BTreeMap::new();
    while let Some(result) = tasks.join_next().await {
        let (name, at) = result??;
        asked.insert(name, at);
    }
    Ok(asked)
}

/// Moments and words, as the measured process wrote them.
fn noted(dir: &Path) -> Result<Vec<(f64, String)>> {
    let text = std::fs::read_to_string(dir.join(STARTS))?;
    let line = |line: &str| {
        let (at, word) = line.split_once(' ')?;
        Some((at.parse().ok()?, word.to_owned()))
    };
    Ok(text.lines().filter_map(line).collect())
}

fn service_of(instance: &str) -> &str {
    instance.split('.').nth(1).unwrap_or_default()
}

/// From asking for a rollout to the order to start its candidate.
fn decisions(dir: &Path, asked: &BTreeMap<String, f64>) -> Result<Vec<f64>> {
    let mut first = BTreeMap::new();
    for (at, word) in noted(dir)?.iter().rev().filter(|(_, word)| word != BEGIN) {
        first.insert(service_of(word).to_owned(), *at);
    }
    let took = |(service, asked): (&String, &f64)| Some(first.get(service)? - asked);
    Ok(asked.iter().filter_map(took).collect())
}

/// From the beginning of the control plane after a crash to each service's first order.
fn resumed(dir: &Path, killed: f64) -> Result<BTreeMap<String, f64>> {
    let noted = noted(dir)?;
    let later = noted.iter().filter(|(at, _)| *at > killed);
    let Some((began, _)) = later.clone().find(|(_, word)| word == BEGIN) else {
        return Ok(BTreeMap::new());
    };
    let mut first = BTreeMap::new();
    for (at, word) in later.rev().filter(|(_, word)| word != BEGIN) {
        first.insert(service_of(word).to_owned(), at - began);
    }
    Ok(first)
}
