//! `session_affinity:` and `version_header:` of a route: who stays with a version, and who may
//! ask for one.

use std::time::Duration;

use switchback_domain::route::{Affinity, VERSION_HEADER, VersionHeader};

use crate::diagnostic::Code;
use crate::reader::Reader;
use crate::section::route_match::{self, WORDS};
use crate::section::trigger::window;
use crate::table::{Kind, Table, field};
use crate::value::{Node, Value};

/// Flagger's: a day.
const MAX_AGE: Duration = Duration::from_hours(24);

pub(crate) static SESSION_AFFINITY: Table = Table::new(
    "session_affinity",
    "What keeps a client with its version while a rollout runs: one of the four.",
    &[&[
        field("cookie_name", Kind::Text, "A cookie of this name, set by the data plane."),
        field("max_age", Kind::Window, "How long clients keep that cookie. Default: 1d."),
        field("cookie", Kind::Text, "A cookie that the service sets."),
        field("header", Kind::Text, "A header that every request of a client has."),
        field("source_ip", Kind::Bool, "The client's address."),
    ]],
);

pub(crate) const VERSION: Kind =
    Kind::Either(&[Kind::Bool, Kind::Struct(&VERSION_HEADER_TABLE), Kind::Text]);

static VERSION_HEADER_TABLE: Table = Table::new(
    "version_header",
    "A header by which testers ask for a version.",
    &[&[
        field("header", Kind::Text, "Its name. Default: x-switchback-version."),
        field("source", WORDS, "Only clients in these networks may. Default: everybody."),
    ]],
);

/// What tells clients apart.
pub(crate) fn affinity(reader: &mut Reader, node: &Node) -> Option<Affinity> {
    let fields = reader.fields(node, &SESSION_AFFINITY);
    if !fields.is_map() {
        return None;
    }
    let ways = ["cookie_name", "cookie", "header", "source_ip"];
    let given: Vec<_> = ways.iter().filter_map(|key| Some((*key, fields.get(key)?))).collect();
    let max_age = fields.read("max_age", reader, window);
    if let Some(at) = fields.get("max_age").filter(|_| fields.get("cookie_name").is_none()) {
        let hint = "add `cookie_name`, or take `max_age` away";
        reader.report(at, Code::Contradiction, "is the age of a cookie nobody sets", hint);
    }
    if let [(first, _), (second, at), ..] = given.as_slice() {
        let message = format!("`{first}` and `{second}` exclude each other");
        reader.report(at, Code::Contradiction, message, "keep one of them");
    }
    let Some((key, value)) = given.first() else {
        let hint = "write `{cookie_name: cohort}`, `{cookie: session}`, `{header: x-user}` or \
                    `{source_ip: true}`";
        reader.report(node, Code::MissingKey, "does not say what tells clients apart", hint);
        return None;
    };
    match *key {
        "cookie_name" => Some(Affinity::OwnCookie {
            name: cookie(reader, value)?,
            max_age: max_age.unwrap_or(MAX_AGE),
        }),
        "cookie" => cookie(reader, value).map(Affinity::Cookie),
        "header" => route_match::header(reader, value).map(Affinity::Header),
        _ => {
            if !reader.boolean(value)? {
                let hint = "leave `session_affinity` out for no affinity";
                let message = "`source_ip: false` tells nobody apart";
                reader.report(value, Code::Contradiction, message, hint);
            }
            Some(Affinity::SourceIp)
        }
    }
}

fn cookie(reader: &mut Reader, node: &Node) -> Option<String> {
    let name = reader.text(node)?;
    route_match::token(reader, node, &name)
}

/// The header that asks for a version: `true`, its name, or a map.
pub(crate) fn version_header(reader: &mut Reader, node: &Node) -> Option<VersionHeader> {
    let named = |header: String| VersionHeader { header, source: Vec::new() };
    match (&node.value, node.plain()) {
        (_, Some("true")) => return Some(named(VERSION_HEADER.to_owned())),
        (_, Some("false")) => return None,
        (Value::Scalar { .. }, _) => return route_match::header(reader, node).map(named),
        (Value::Map(_) | Value::List(_), _) => {}
    }
    let fields = reader.fields(node, &VERSION_HEADER_TABLE);
    let header = fields.read("header", reader, route_match::header);
    let source = fields.get("source").map(|node| route_match::networks(reader, node));
    Some(VersionHeader {
        header: header.unwrap_or_else(|| VERSION_HEADER.to_owned()),
        source: source.unwrap_or_default(),
    })
}
