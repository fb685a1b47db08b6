//! `fallback:` of a route: what clients get when nobody answers.

use std::time::Duration;

use switchback_domain::resilience::{Fallback, StalePolicy, StaticAnswer};

use crate::diagnostic::Code;
use crate::reader::Reader;
use crate::section::resilience::switch;
use crate::table::{Kind, Table, field};
use crate::value::{Node, Value};

/// Every worker holds it in every table.
const BODY_LENGTH_MAX: usize = 64 * 1024;
/// What one route may keep of answers: of 10,000 routes that do, memory is the limit.
const STALE_BYTES_MAX: u32 = 64 << 20;
const CONTENT_TYPE: &str = "text/plain; charset=utf-8";
const CONTENT_TYPE_LENGTH_MAX: usize = 256;

pub(crate) static FALLBACK: Table = Table::new(
    "fallback",
    "What clients get when nobody answers: the first of these that can be had.",
    &[&[
        field(
            "version",
            Kind::Bool,
            "The baseline's answer when the candidate cannot be asked. Default: false.",
        ),
        field(
            "stale",
            Kind::Either(&[Kind::Bool, Kind::Struct(&STALE), Kind::Duration]),
            "The last good answer, up to this age. Default: false.",
        ),
        field("answer", Kind::Struct(&ANSWER), "Always the same answer."),
    ]],
);

static STALE: Table = Table::new(
    "stale",
    "The last good answer to a GET, if anybody may see it.",
    &[&[
        field("max_age", Kind::Duration, "No older answer is given. Default: 5m."),
        field("size", Kind::Size, "What is kept for the route. Default: 1MiB."),
    ]],
);

static ANSWER: Table = Table::new(
    "static_answer",
    "An answer that is always the same.",
    &[&[
        field("status", Kind::Count { min: 200, max: 599 }, "Its status. Default: 503."),
        field("body", Kind::Text, "Its body. Default: empty."),
        field("content_type", Kind::Text, "Its content type. Default: text/plain."),
    ]],
);

/// What clients get.
pub(crate) fn fallback(reader: &mut Reader, node: &Node) -> Fallback {
    let fields = reader.fields(node, &FALLBACK);
    Fallback {
        version: fields.read("version", reader, Reader::boolean).unwrap_or(false),
        stale: fields.read("stale", reader, stale),
        answer: fields.get("answer").map(|node| answer(reader, node)),
    }
}

/// A bare duration is the age.
fn stale(reader: &mut Reader, node: &Node) -> Option<StalePolicy> {
    let is_switch =
        matches!(node.plain(), Some("true" | "True" | "TRUE" | "false" | "False" | "FALSE"));
    if matches!(node.value, Value::Scalar { .. }) && !is_switch {
        let max_age = reader.duration_above_zero(node)?;
        return Some(StalePolicy { max_age, ..StalePolicy::default() });
    }
    switch(reader, node, stale_policy)
}

fn stale_policy(reader: &mut Reader, node: &Node) -> StalePolicy {
    let fields = reader.fields(node, &STALE);
    let default = StalePolicy::default();
    let max_age: Option<Duration> = fields.read("max_age", reader, Reader::duration_above_zero);
    let bytes = fields.read("size", reader, bytes);
    StalePolicy {
        max_age: max_age.unwrap_or(default.max_age),
        bytes: bytes.unwrap_or(default.bytes),
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and STALE_BYTES_MAX"
)]
fn bytes(reader: &mut Reader, node: &Node) -> Option<u32> {
    let size = reader.size(node)?;
    if size > f64::from(STALE_BYTES_MAX) {
        let hint = format!("use at most {}MiB", STALE_BYTES_MAX >> 20);
        reader.report(node, Code::Limit, "is more than a route may keep", hint);
        return None;
    }
    Some(size as u32)
}

fn answer(reader: &mut Reader, node: &Node) -> StaticAnswer {
    let fields = reader.fields(node, &ANSWER);
    let status = fields.read("status", reader, status);
    let body = fields.read("body", reader, Reader::text).unwrap_or_default();
    if let Some(at) = fields.get("body").filter(|_| body.len() > BODY_LENGTH_MAX) {
        let hint = format!("use at most {BODY_LENGTH_MAX} bytes");
        reader.report(at, Code::Limit, "is longer than a fallback can be", hint);
    }
    let content_type = fields.read("content_type", reader, content_type);
    StaticAnswer {
        status: status.unwrap_or(503),
        body,
        content_type: content_type.unwrap_or_else(|| CONTENT_TYPE.to_owned()),
    }
}

fn status(reader: &mut Reader, node: &Node) -> Option<u16> {
    let status = u16::try_from(reader.count(node, 200..=599)?).ok()?;
    if matches!(status, 204 | 205 | 304) {
        let message = format!("{status} is an answer without a body");
        reader.report(node, Code::OutOfRange, message, "use 200 with an empty `body`");
        return None;
    }
    Some(status)
}

fn content_type(reader: &mut Reader, node: &Node) -> Option<String> {
    let text = reader.text(node)?;
    let plain = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if plain && text.contains('/') && text.len() <= CONTENT_TYPE_LENGTH_MAX {
        return Some(text);
    }
    let hint = "write `application/json`";
    reader.report(node, Code::OutOfRange, "is not a content type", hint);
    None
}
