//! `switchback demo`: six rollouts under steady load on this machine, in a directory of their
//! own, with everything as in real use: the same binary, processes, sockets and journal.

mod acts;
mod report;
mod site;

use std::time::Duration;

use switchback_api::{DeployRequest, Problem, RolloutDetail, UpRequest, code, exit};
use switchback_demo::load::{Load, LoadHandle, LoadReport};
use switchback_domain::ServiceName;
use tokio::time::Instant;

use acts::{ACTS, Act, Pace};
use report::{Report, Scene};
use site::Site;

use crate::output::Output;
use crate::watch::{self, Watched};

/// How long the data plane may take to have counted the last answer.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);
/// Time between two looks at the ledger, and at the load.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The longest the load goes on after the last rollout to reach its number of requests.
const TOP_UP_MAX: Duration = Duration::from_mins(1);

/// Runs the whole demo. 0: all six ended as they should and nothing was dropped.
pub(crate) async fn run(fast: bool, by: String, output: &mut Output) -> Result<u8, Problem> {
    let pace = if fast { Pace::FAST } else { Pace::NORMAL };
    let site = Site::new(pace)?;
    output.progress(format!("in {}:", site.directory().display()));
    let played = play(&site, pace, by, output).await;
    let down = site.down().await;
    let Some((scenes, load, ledger)) = played? else {
        output.note("interrupted; everything was stopped");
        return Ok(exit::INTERRUPTED);
    };
    down?;
    let report = Report::new(scenes, &load, &ledger);
    output.lines(report.lines(output.look()));
    output.document(&report.document());
    Ok(if report.is_good() { exit::OK } else { exit::FAILED })
}

type Played = (Vec<Scene>, LoadReport, switchback_api::Ledger);

async fn play(
    site: &Site,
    pace: Pace,
    by: String,
    output: &mut Output,
) -> Result<Option<Played>, Problem> {
    let mut scenes = Vec::new();
    let mut load: Option<LoadHandle> = None;
    for act in &ACTS {
        output.progress(format!("\n{} · {} · {}", act.version, act.strategy_word(), act.story));
        site.configure(act, pace)?;
        let Some(detail) = perform(site, act, &by, output).await? else { return Ok(None) };
        scenes.push(Scene::new(*act, pace, &detail));
        if load.is_none() {
            // From the first version on there is somebody to answer.
            load = Some(start_load(site, pace)?);
        }
    }
    let Some(load) = load else { return Err(code::INTERNAL.problem("the demo has no acts")) };
    top_up(&load, pace).await;
    let load = load.stop().await;
    let ledger = settled_ledger(site, &load).await?;
    Ok(Some((scenes, load, ledger)))
}

/// One rollout from its request to its end. `None`: Ctrl-C.
async fn perform(
    site: &Site,
    act: &Act,
    by: &str,
    output: &mut Output,
) -> Result<Option<RolloutDetail>, Problem> {
    let id = if act.is_first() { first_up(site, by).await? } else { deploy(site, act, by).await? };
    match watch::rollouts(site.client(), &[id], output).await? {
        Watched::Interrupted => Ok(None),
        Watched::Ended(mut details) => {
            let Some(detail) = details.pop() else {
                return Err(code::INTERNAL.problem("a rollout ended without a trace"));
            };
            let lines = crate::render::outcome::lines(&detail, output.look());
            for line in lines.iter().take(2) {
                output.progress(line);
            }
            Ok(Some(detail))
        }
    }
}

async fn deploy(site: &Site, act: &Act, by: &str) -> Result<String, Problem> {
    let request = DeployRequest {
        service: service()?,
        version: Some(act.version()?),
        environment: None,
        strategy: None,
        on_busy: None,
        accept_no_rollback: false,
        dry_run: false,
        by: by.to_owned(),
    };
    Ok(site.client().deploy(&request).await?.rollout)
}

/// Starts control plane and data plane; what is configured comes up with them.
async fn first_up(site: &Site, by: &str) -> Result<String, Problem> {
    site.start().await?;
    let request = UpRequest { environment: None, by: by.to_owned() };
    let mut answer = site.client().up(&request).await?;
    let first = answer.started.pop_first().map(|(_, accepted)| accepted.rollout);
    first.ok_or_else(|| code::INTERNAL.problem("the first version was not started"))
}

fn start_load(site: &Site, pace: Pace) -> Result<LoadHandle, Problem> {
    Load::start(pace.load(site.address()))
        .map_err(|error| code::INTERNAL.problem(format!("the load cannot be started: {error}")))
}

/// Goes on until enough requests were sent for the ledger to mean something.
async fn top_up(load: &LoadHandle, pace: Pace) {
    let deadline = Instant::now() + TOP_UP_MAX;
    while load.snapshot().sent < pace.requests_min && Instant::now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The data plane's ledger once it has counted everything the load sent.
async fn settled_ledger(site: &Site, load: &LoadReport) -> Result<switchback_api::Ledger, Problem> {
    let deadline = Instant::now() + SETTLES_WITHIN;
    loop {
        let ledger = site.client().ledger().await?;
        let accepted: u64 = ledger.versions.iter().map(|entry| entry.stats.accepted).sum();
        let in_flight: u64 = ledger.versions.iter().map(|entry| entry.in_flight).sum();
        let all = accepted + ledger.unrouted >= load.sent - load.failures.connect;
        if (all && in_flight == 0) || Instant::now() >= deadline {
            return Ok(ledger);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn service() -> Result<ServiceName, Problem> {
    ServiceName::new(site::SERVICE).map_err(|error| code::INTERNAL.problem(error.to_string()))
}
