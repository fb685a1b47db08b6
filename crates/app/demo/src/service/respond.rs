//! One request, one answer, or what the service was told to do instead.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::json;

use super::clock;
use super::lasting;
use super::state::State;
use super::stream::Spoil;

/// Says which version answered, whatever the body says.
const VERSION_HEADER: HeaderName = HeaderName::from_static("x-version");

pub(super) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Answers, or never returns where it was told to hang or crash.
pub(super) async fn respond(
    state: Arc<State>,
    spoil: Spoil,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    if state.is_hung() {
        return pending().await;
    }
    let mut answer = match request.uri().path() {
        "/health" => report(&state, true, "healthy"),
        "/ready" => readiness(&state),
        "/metrics" => metrics(&state),
        "/api/version" => version(&state),
        "/wait" => lasting::wait(&state, request.uri()).await,
        "/events" => lasting::events(request.uri()),
        "/echo" => lasting::echo(&state, request),
        _ => application(&state, &spoil, request).await,
    };
    if let Ok(version) = HeaderValue::from_str(&state.options.version) {
        answer.headers_mut().insert(VERSION_HEADER, version);
    }
    // One that is given away has nothing to come after it.
    if state.is_stopping() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(answer)
}

fn readiness(state: &State) -> Answer {
    if state.is_stopping() {
        return report(state, false, "stopping");
    }
    if state.is_ready() { report(state, true, "ready") } else { report(state, false, "starting") }
}

fn report(state: &State, good: bool, status: &str) -> Answer {
    let (version, timestamp) = (&state.options.version, clock::now());
    let body = json!({ "status": status, "timestamp": timestamp, "version": version });
    let code = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(code, "application/json", body.to_string())
}

fn metrics(state: &State) -> Answer {
    let text = state.metrics.render(&state.options.version, state.is_ready());
    answer(StatusCode::OK, "text/plain; version=0.0.4", text)
}

fn version(state: &State) -> Answer {
    let uptime = state.started.elapsed().as_secs();
    let body = json!({ "version": state.options.version, "uptime_seconds": uptime });
    answer(StatusCode::OK, "application/json", body.to_string())
}

async fn application(state: &State, spoil: &Spoil, request: Request<Incoming>) -> Answer {
    let begun = Instant::now();
    let _in_flight = state.metrics.begin();
    let behaviour = &state.options.behaviour;
    let number = state.next_request();
    if behaviour.crash_after_requests.is_some_and(|limit| number > limit) {
        state.crash(&format!("on request {number}"));
        return pending().await;
    }
    if happens(behaviour.hang_rate) {
        return pending().await;
    }
    let method = request.method().clone();
    let Some(length) = body_length(request).await else {
        return plain(state, StatusCode::BAD_REQUEST, "could not read the body");
    };
    pause(behaviour.latency).await;
    state.leak(behaviour.leak_kib as usize * 1024);
    if happens(behaviour.garbage_rate) {
        spoil.now();
        let mut answer = plain(state, StatusCode::OK, "");
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return answer;
    }
    let answer = if !state.is_ready() {
        plain(state, StatusCode::SERVICE_UNAVAILABLE, "is not ready")
    } else if happens(behaviour.error_rate) {
        plain(state, StatusCode::INTERNAL_SERVER_ERROR, "failed, as configured")
    } else if method == Method::POST || method == Method::PUT {
        plain(state, StatusCode::OK, &format!("received {length} bytes"))
    } else {
        plain(state, StatusCode::OK, "says hello")
    };
    state.metrics.answered(answer.status().as_u16(), begun.elapsed());
    answer
}

/// Reads the body to its end; `None` when it broke off.
async fn body_length(request: Request<Incoming>) -> Option<u64> {
    let mut body = request.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame.ok()?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Some(length)
}

/// A body that begins with the version, and is as long as configured.
pub(super) fn plain(state: &State, status: StatusCode, words: &str) -> Answer {
    let mut body = format!("{} {words}\n", state.options.version);
    let padding = (state.options.behaviour.body_bytes as usize).saturating_sub(body.len());
    body.extend(std::iter::repeat_n('.', padding));
    answer(status, "text/plain; charset=utf-8", body)
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn happens(rate: f64) -> bool {
    rate > 0.0 && rand::random::<f64>() < rate
}

async fn pause(latency: Duration) {
    if !latency.is_zero() {
        tokio::time::sleep(latency.mul_f64(0.9 + 0.2 * rand::random::<f64>())).await;
    }
}
