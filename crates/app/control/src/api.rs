//! HTTP over a Unix socket that only its owner may open. Handlers ask the driver and answer.

mod logs;
mod stream;

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use axum::extract::{Path as Segment, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use switchback_api::{
    CommandRequest, DeployRequest, DownRequest, LastWords, OperationRequest, Problem, ProxyProcess,
    ProxyUpgradeRequest, ProxyUpgraded, RollbackRequest, RolloutDetail, UpRequest, code, exit,
};
use switchback_domain::{EnvironmentName, InstanceHealth};
use switchback_ports::runtime::LogQuery;
use switchback_ports::{Replaced, crash_point, data_plane};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use crate::Error;
use crate::calls::DeployAnswer;
use crate::driver::Driver;
use crate::forecast::{self, Forecast};
use crate::hands::Handle;
use crate::lookups::Dossier;
use crate::problem::journal;
use crate::record::Deed;
use crate::views::{self, parse_id};

/// Rollouts listed when no limit is asked for.
const LIST_DEFAULT: usize = 20;
/// How long an operation is waited for: the data plane takes milliseconds, its restart a second.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(5);
const IN_FORCE_LOOK: Duration = Duration::from_millis(2);
/// Log lines of a failed instance that are kept with the explanation.
const LAST_LINES: usize = 20;

/// Starts answering. The socket of a dead predecessor is replaced: the lock says that it is dead.
pub(crate) fn serve(socket: &Path, handle: Handle) -> Result<JoinHandle<()>, Error> {
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { operation, path, source }
    };
    if let Some(directory) = socket.parent() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(directory).map_err(failed("create", directory))?;
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed("replace", socket)(error));
        }
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(socket).map_err(failed("listen on", socket))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))
        .map_err(failed("protect", socket))?;
    Ok(tokio::spawn(async move {
        // Ends with the driver; axum retries accepting by itself.
        let _ = axum::serve(listener, router(handle)).await;
    }))
}

fn router(handle: Handle) -> Router {
    Router::new()
        .route("/v1/health", get(|| async { "ok" }))
        .route("/v1/status", get(status))
        .route("/v1/ledger", get(ledger))
        .route("/v1/logs", get(logs::logs))
        .route("/v1/deploy", post(deploy))
        .route("/v1/rollback", post(rollback))
        .route("/v1/up", post(up))
        .route("/v1/down", post(down))
        .route("/v1/operations", post(operate))
        .route("/v1/deeds", get(deeds))
        .route("/v1/proxy/upgrade", post(upgrade_proxy))
        .route("/v1/rollouts", get(rollouts))
        .route("/v1/rollouts/{id}", get(detail))
        .route("/v1/rollouts/{id}/events", get(stream::events))
        .route("/v1/rollouts/{id}/trials", get(trials))
        .route("/v1/rollouts/{id}/{verb}", post(steer))
        .with_state(handle)
}

/// A problem as an answer: its exit code says whose fault it is.
pub(crate) struct Refusal(pub(crate) Problem);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.0.exit_code {
            exit::USAGE => StatusCode::NOT_FOUND,
            exit::BUSY | exit::REJECTED => StatusCode::CONFLICT,
            exit::CONFIG => StatusCode::UNPROCESSABLE_ENTITY,
            exit::FAILED | exit::INTERNAL => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        (status, Json(self.0)).into_response()
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

/// The driver has ended: so will this process.
pub(crate) fn ending() -> Refusal {
    Refusal(
        code::SHUTTING_DOWN.problem("the control plane is ending").hint("try again in a moment"),
    )
}

#[derive(Deserialize)]
struct Selection {
    environment: Option<EnvironmentName>,
    service: Option<String>,
    limit: Option<usize>,
}

async fn status(
    State(handle): State<Handle>,
    Query(selection): Query<Selection>,
) -> Result<Response, Refusal> {
    let status = handle.ask(move |driver| driver.status(selection.environment.as_ref())).await;
    Ok(Json(status.ok_or_else(ending)?).into_response())
}

async fn ledger(State(handle): State<Handle>) -> Result<Response, Refusal> {
    // Asked for now: what was counted a moment ago would lack the newest requests.
    let report = handle.links().data_plane.report().await.map_err(|error| {
        code::DATA_PLANE_SILENT
            .problem(switchback_domain::with_causes(&error))
            .hint("it is started again within a moment; `switchback status` shows it")
    })?;
    Ok(Json(views::ledger(&report)).into_response())
}

/// Certificates that cannot be used are found now, not when traffic is to move. The data plane
/// looks: the files are its own to read. Where it does not answer, it will look when it serves.
async fn check_files(handle: &Handle, request: DeployRequest) -> Result<(), Refusal> {
    let table = handle.ask(move |driver| driver.encrypted(&request)).await.ok_or_else(ending)??;
    let Some(table) = table else { return Ok(()) };
    match handle.links().data_plane.check(&table).await {
        Err(data_plane::Error::Refused(why)) => Err(Refusal(
            code::CONFIG_UNREADABLE
                .problem(why)
                .hint("paths are relative to the configuration file; the data plane reads them"),
        )),
        Ok(()) | Err(data_plane::Error::Fenced { .. } | data_plane::Error::Unavailable(_)) => {
            Ok(())
        }
    }
}

async fn deploy(
    State(handle): State<Handle>,
    Json(request): Json<DeployRequest>,
) -> Result<Response, Refusal> {
    check_files(&handle, request.clone()).await?;
    let answer = handle.ask(move |driver| driver.deploy(request)).await.ok_or_else(ending)??;
    crash_point("before answer");
    match answer {
        DeployAnswer::Accepted(accepted) => Ok(Json(accepted).into_response()),
        DeployAnswer::Plan(mut plan, forecast) => {
            if let Some(forecast) = forecast {
                plan.finds = foretell(&handle, &forecast).await;
            }
            Ok(Json(plan).into_response())
        }
    }
}

/// Looks at the traffic for a moment.
async fn foretell(handle: &Handle, forecast: &Forecast) -> Vec<String> {
    if let Some(words) = forecast.told_at_once() {
        return vec![words];
    }
    let plane = &handle.links().data_plane;
    let earlier = plane.report().await;
    let begun = tokio::time::Instant::now();
    tokio::time::sleep(forecast::LOOK).await;
    match (earlier, plane.report().await) {
        (Ok(earlier), Ok(later)) => forecast.tell(&earlier, &later, begun.elapsed()),
        (Err(_), _) | (_, Err(_)) => vec!["unknown: the data plane does not answer".to_owned()],
    }
}

async fn rollback(
    State(handle): State<Handle>,
    Json(request): Json<RollbackRequest>,
) -> Result<Response, Refusal> {
    let accepted =
        handle.ask(move |driver| driver.rollback(request)).await.ok_or_else(ending)??;
    Ok(Json(accepted).into_response())
}

async fn up(
    State(handle): State<Handle>,
    Json(request): Json<UpRequest>,
) -> Result<Response, Refusal> {
    let answer = handle.ask(move |driver| driver.up(request)).await.ok_or_else(ending)??;
    Ok(Json(answer).into_response())
}

async fn down(
    State(handle): State<Handle>,
    Json(_request): Json<DownRequest>,
) -> Result<Response, Refusal> {
    handle.ask(Driver::down).await.ok_or_else(ending)?;
    Ok(Json(serde_json::json!({})).into_response())
}

/// Answers when the data plane does what it is to do, so that "done" means done; or says, after a
/// while, that it is written down and will be.
async fn operate(
    State(handle): State<Handle>,
    Json(request): Json<OperationRequest>,
) -> Result<Response, Refusal> {
    let asked = handle.ask(move |driver| driver.operate(&request)).await.ok_or_else(ending)?;
    let (mut answer, modes) = asked?;
    let deadline = tokio::time::Instant::now() + IN_FORCE_WITHIN;
    while !answer.in_force && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(IN_FORCE_LOOK).await;
        let modes = modes.clone();
        let look = move |driver: &mut Driver| driver.is_in_force(&modes);
        answer.in_force = handle.ask(look).await.ok_or_else(ending)?;
    }
    Ok(Json(answer).into_response())
}

async fn upgrade_proxy(
    State(handle): State<Handle>,
    Json(request): Json<ProxyUpgradeRequest>,
) -> Result<Response, Refusal> {
    // A task of its own: a caller that hangs up changes nothing about what was begun.
    let upgrade = tokio::spawn(async move { audited_upgrade(&handle, request).await });
    let replaced = upgrade.await.map_err(|error| code::INTERNAL.problem(error.to_string()))??;
    let process = |(pid, version)| ProxyProcess { pid, version };
    let took_ms = u64::try_from(replaced.took.as_millis()).unwrap_or(u64::MAX);
    let (from, to) = (process(replaced.from), process(replaced.to));
    Ok(Json(ProxyUpgraded { from, to, took_ms }).into_response())
}

/// What is asked for is in the journal before it is begun, and what came of it after.
async fn audited_upgrade(
    handle: &Handle,
    request: ProxyUpgradeRequest,
) -> Result<Replaced, Refusal> {
    let ProxyUpgradeRequest { binary, by } = request;
    let program =
        binary.as_ref().map_or_else(String::new, |path| format!(" to {}", path.display()));
    let deed = |text: String, failed| {
        let deed = Deed { by: by.clone(), text, failed };
        handle.ask(move |driver| driver.book.note_deed(deed))
    };
    let asked = deed(format!("upgrade of the data plane{program} asked for"), false).await;
    asked.ok_or_else(ending)?.map_err(|error| journal(&error))?;
    crash_point("before proxy upgrade");
    let replaced = handle.links().supervision.upgrade(binary.as_deref()).await;
    crash_point("after proxy upgrade");
    match replaced {
        Ok(replaced) => {
            let (from, to) = (told(&replaced.from), told(&replaced.to));
            let took = replaced.took.as_millis();
            // It is done, whether that can be written or not.
            let _ =
                deed(format!("data plane upgraded from {from} to {to} in {took} ms"), false).await;
            let pid = replaced.to.0;
            handle.ask(move |driver| driver.data_plane_pid = Some(pid)).await;
            Ok(replaced)
        }
        Err(why) => {
            let _ = deed(format!("data plane not upgraded{program}: {why}"), true).await;
            let problem = code::NOT_REPLACED.problem(why.to_string());
            Err(Refusal(problem.hint("the old process serves on; try again")))
        }
    }
}

fn told((pid, version): &(u32, String)) -> String {
    let version = if version.is_empty() { "an older version" } else { version };
    format!("{version} (process {pid})")
}

async fn rollouts(
    State(handle): State<Handle>,
    Query(selection): Query<Selection>,
) -> Result<Response, Refusal> {
    list(&handle, selection, Driver::rollouts).await
}

async fn deeds(
    State(handle): State<Handle>,
    Query(selection): Query<Selection>,
) -> Result<Response, Refusal> {
    list(&handle, selection, Driver::deeds).await
}

/// How the driver lists something.
type List<T> =
    fn(&Driver, Option<&EnvironmentName>, Option<&str>, usize) -> Result<Vec<T>, Problem>;

async fn list<T: Serialize + Send + 'static>(
    handle: &Handle,
    Selection { environment, service, limit }: Selection,
    list: List<T>,
) -> Result<Response, Refusal> {
    let limit = limit.unwrap_or(LIST_DEFAULT);
    let ask =
        move |driver: &mut Driver| list(driver, environment.as_ref(), service.as_deref(), limit);
    Ok(Json(handle.ask(ask).await.ok_or_else(ending)??).into_response())
}

async fn steer(
    State(handle): State<Handle>,
    Segment((id, verb)): Segment<(String, String)>,
    Json(request): Json<CommandRequest>,
) -> Result<Response, Refusal> {
    let id = rollout_id(&id)?;
    let steer = move |driver: &mut Driver| driver.steer(id, &verb, request);
    let answer = handle.ask(steer).await.ok_or_else(ending)??;
    crash_point("before answer");
    Ok(Json(answer).into_response())
}

async fn detail(
    State(handle): State<Handle>,
    Segment(id): Segment<String>,
) -> Result<Response, Refusal> {
    let id = rollout_id(&id)?;
    let ask = move |driver: &mut Driver| driver.dossier(id);
    let dossier = handle.ask(ask).await.ok_or_else(ending)?;
    let Dossier { summary, plan, events, beside, verdict, last_seen } = dossier?;
    let runtime = &handle.links().runtime;
    let mut last_words = Vec::new();
    for seen in last_seen {
        let page = runtime.logs(&seen.id, LogQuery::Tail(LAST_LINES)).await.unwrap_or_default();
        let mut ends = page.lines.iter().rev().filter(|line| line.stream == "switchback");
        let end = ends.find_map(|line| line.text.strip_prefix("ended: "));
        // The reason is the last probe's answer, or how its process ended.
        let had_ended = matches!(seen.health, InstanceHealth::Exited | InstanceHealth::CrashLoop);
        let (probe, exit) = if had_ended { (None, seen.reason) } else { (seen.reason, None) };
        last_words.push(LastWords {
            instance: seen.id.to_string(),
            probe,
            exit: exit.or_else(|| end.map(ToOwned::to_owned)),
            log: page.lines.into_iter().map(|line| line.text).collect(),
        });
    }
    Ok(Json(RolloutDetail { summary, plan, events, beside, verdict, last_words }).into_response())
}

async fn trials(
    State(handle): State<Handle>,
    Segment(id): Segment<String>,
) -> Result<Response, Refusal> {
    let id = rollout_id(&id)?;
    let ask = move |driver: &mut Driver| driver.trials_of(id);
    Ok(Json(handle.ask(ask).await.ok_or_else(ending)??).into_response())
}

pub(crate) fn rollout_id(text: &str) -> Result<switchback_engine::RolloutId, Refusal> {
    parse_id(text).ok_or_else(|| {
        let problem = code::UNKNOWN_ROLLOUT.problem(format!("{text:?} is no rollout id"));
        Refusal(problem.hint("ids look like r12"))
    })
}
