//! Log lines of several instances in one stream, by time, with one cursor for all.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use switchback_api::{LogEntry, Logs};
use switchback_domain::EnvironmentName;
use switchback_ports::runtime::{LogCursor, LogQuery};

use super::{Refusal, ending};
use crate::hands::Handle;

/// Lines shown when no number is asked for.
const TAIL_DEFAULT: usize = 100;
/// Lines of one instance in one answer.
const PAGE_MAX: usize = 1000;

#[derive(Deserialize)]
pub(super) struct Selection {
    environment: Option<EnvironmentName>,
    service: Option<String>,
    instance: Option<String>,
    tail: Option<usize>,
    after: Option<String>,
}

pub(super) async fn logs(
    State(handle): State<Handle>,
    Query(selection): Query<Selection>,
) -> Result<Response, Refusal> {
    let Selection { environment, service, instance, tail, after } = selection;
    let ask = move |driver: &mut crate::driver::Driver| {
        let (service, instance) = (service.as_deref(), instance.as_deref());
        driver.log_sources(environment.as_ref(), service, instance)
    };
    let sources = handle.ask(ask).await.ok_or_else(ending)??;
    let runtime = &handle.links().runtime;
    let mut cursors: BTreeMap<String, LogCursor> =
        after.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let tail = tail.unwrap_or(TAIL_DEFAULT).min(PAGE_MAX);
    let following = !cursors.is_empty();
    let mut lines = Vec::new();
    for (id, version) in sources {
        let query = match cursors.get(id.as_str()) {
            Some(cursor) => LogQuery::After(cursor.clone(), PAGE_MAX),
            // An instance that came while following is read from its beginning.
            None if following => LogQuery::After(LogCursor::default(), PAGE_MAX),
            None => LogQuery::Tail(tail),
        };
        let Ok(page) = runtime.logs(&id, query).await else { continue };
        cursors.insert(id.to_string(), page.next);
        lines.extend(page.lines.into_iter().map(|line| LogEntry {
            at_ms: line.at_ms,
            instance: id.to_string(),
            version: version.to_string(),
            stream: line.stream,
            text: line.text,
        }));
    }
    lines.sort_by_key(|line| line.at_ms);
    if !following {
        let surplus = lines.len().saturating_sub(tail);
        lines.drain(..surplus);
    }
    let cursor = serde_json::to_string(&cursors).unwrap_or_default();
    Ok(Json(Logs { lines, cursor }).into_response())
}
