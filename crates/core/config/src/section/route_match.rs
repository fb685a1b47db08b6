//! `matches:` and `candidate_matches:` of a route: a list of which one has to fit, each a map of
//! which everything has to hold (as Argo and Istio read theirs).

use std::collections::BTreeMap;

use switchback_domain::network::{self, Network};
use switchback_domain::route::{Conditions, PathMatch, RequestMatch, TextMatch};
use switchback_routing::Pattern;

use crate::diagnostic::Code;
use crate::reader::{Fields, Reader, found};
use crate::table::{Kind, Table, field};
use crate::value::{Node, Value};

/// Every request of a host may be held against all of them.
const MATCHES_MAX: usize = 100;
const CONDITIONS_MAX: usize = 32;
const NETWORKS_MAX: usize = 256;
const NAME_LENGTH_MAX: usize = 256;

pub(crate) const TEXT: Kind = Kind::Either(&[Kind::Struct(&TEXT_MATCH), Kind::Text]);
pub(crate) const WORDS: Kind = Kind::Either(&[Kind::List(&Kind::Text), Kind::Text]);

static TEXT_MATCH: Table = Table::new(
    "text_match",
    "What a text must be: one of these. Text alone means `exact`.",
    &[&[
        field("exact", Kind::Text, "Exactly this."),
        field("prefix", Kind::Text, "It starts with this."),
        field("regex", Kind::Text, "This expression fits it from the first to the last character."),
        field("present", Kind::Bool, "`true`: it is there; `false`: it is not."),
    ]],
);

static PATH_MATCH: Table = Table::new(
    "path_match",
    "Which path: one of these. Text alone means `prefix`.",
    &[&[
        field("exact", Kind::Text, "Exactly this path."),
        field("prefix", Kind::Text, "This path and everything below it."),
        field("regex", Kind::Text, "This expression fits it from the first to the last character."),
    ]],
);

pub(crate) static REQUEST_MATCH: Table = Table::new(
    "request_match",
    "One kind of requests: everything given has to hold.",
    &[&[
        field(
            "path",
            Kind::Either(&[Kind::Struct(&PATH_MATCH), Kind::Text]),
            "The path, below the route's prefix.",
        ),
        field("method", WORDS, "The method, or a list of which it is one."),
        field("headers", Kind::Map(&TEXT), "Headers by name; of several lines one has to fit."),
        field("cookies", Kind::Map(&TEXT), "Cookies by name."),
        field("query", Kind::Map(&TEXT), "Parameters of the query by name."),
        field("source", WORDS, "The client is in one of these networks: `10.0.0.0/8`."),
    ]],
);

/// The kinds of requests of a route with this prefix.
pub(crate) fn matches(reader: &mut Reader, node: &Node, prefix: &str) -> Vec<RequestMatch> {
    let items = reader.list(node, "[{headers: {x-beta: \"1\"}}]");
    if items.len() > MATCHES_MAX {
        let message = format!("{} entries are more than a route can have", items.len());
        reader.report(node, Code::Limit, message, format!("use at most {MATCHES_MAX}"));
        return Vec::new();
    }
    let mut matches: Vec<RequestMatch> = Vec::new();
    for item in items {
        let Some(one) = request_match(reader, item, prefix) else { continue };
        if matches.contains(&one) {
            let hint = "keep one of the two";
            reader.report(item, Code::Contradiction, "is listed twice", hint);
            continue;
        }
        matches.push(one);
    }
    matches
}

fn request_match(reader: &mut Reader, node: &Node, prefix: &str) -> Option<RequestMatch> {
    let fields = reader.fields(node, &REQUEST_MATCH);
    let path = fields.read("path", reader, |r, node| path_match(r, node, prefix));
    let when = Conditions {
        methods: fields.get("method").map(|node| methods(reader, node)).unwrap_or_default(),
        headers: texts(reader, &fields, "headers"),
        cookies: texts(reader, &fields, "cookies"),
        query: texts(reader, &fields, "query"),
        source: fields.get("source").map(|node| networks(reader, node)).unwrap_or_default(),
    };
    if fields.is_map() && !REQUEST_MATCH.fields().any(|field| node.find(field.key).is_some()) {
        let hint = "say which: `{headers: {x-beta: \"1\"}}`, or take the entry away";
        reader.report(node, Code::Contradiction, "fits every request", hint);
        return None;
    }
    if when.count() > CONDITIONS_MAX {
        let message = format!("{} conditions are more than an entry can have", when.count());
        reader.report(node, Code::Limit, message, format!("use at most {CONDITIONS_MAX}"));
        return None;
    }
    (path.is_some() || !when.is_empty()).then_some(RequestMatch { path, when })
}

/// The one key that is given, of a map in which they exclude each other.
fn only<'n>(
    reader: &mut Reader,
    node: &'n Node,
    table: &'static Table,
    example: &str,
) -> Option<(&'static str, &'n Node)> {
    let fields = reader.fields(node, table);
    if !fields.is_map() {
        return None;
    }
    let given: Vec<_> =
        table.fields().filter_map(|field| Some((field.key, fields.get(field.key)?))).collect();
    match given.as_slice() {
        // An unknown key was reported already.
        [] if !node.entries().is_empty() => None,
        [] => {
            let hint = format!("write `{example}`");
            reader.report(node, Code::MissingKey, "says nothing", hint);
            None
        }
        [(key, value)] => Some((*key, *value)),
        [(first, _), (second, at), ..] => {
            let message = format!("`{first}` and `{second}` exclude each other");
            reader.report(at, Code::Contradiction, message, "keep one of them");
            None
        }
    }
}

fn path_match(reader: &mut Reader, node: &Node, route_prefix: &str) -> Option<PathMatch> {
    let (key, value) = match &node.value {
        Value::Scalar { .. } => ("prefix", node),
        Value::Map(_) | Value::List(_) => only(reader, node, &PATH_MATCH, "{prefix: /api}")?,
    };
    if key == "regex" {
        return pattern(reader, value).map(PathMatch::Regex);
    }
    let path = plain_path(reader, value)?;
    let below = |path: &str, prefix: &str| {
        let prefix = prefix.trim_end_matches('/');
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let exact = key == "exact";
    if below(&path, route_prefix) || (!exact && below(route_prefix, &path)) {
        return Some(if exact { PathMatch::Exact(path) } else { PathMatch::Prefix(path) });
    }
    let message = format!("no request of the route has this path: its prefix is `{route_prefix}`");
    reader.report(value, Code::Path, message, format!("write `{route_prefix}{path}`"));
    None
}

fn plain_path(reader: &mut Reader, node: &Node) -> Option<String> {
    let path = reader.text(node)?;
    let foreign = |c: char| c.is_whitespace() || c.is_control() || "?#".contains(c);
    let problem = if !path.starts_with('/') {
        "must start with `/`"
    } else if path.contains(foreign) {
        "holds characters that no request path holds"
    } else {
        return Some(path);
    };
    reader.report(node, Code::Path, problem, "write a path such as `/api`");
    None
}

fn texts(reader: &mut Reader, fields: &Fields<'_>, key: &str) -> BTreeMap<String, TextMatch> {
    let Some(node) = fields.get(key) else { return BTreeMap::new() };
    if !matches!(node.value, Value::Map(_)) {
        reader.wrong_type(node, "a map", format!("write `{key}: {{name: value}}`"));
        return BTreeMap::new();
    }
    let mut texts = BTreeMap::new();
    for entry in node.entries().iter().filter(|entry| !entry.value.is_null()) {
        let at = Node { place: entry.value.key_place, ..Node::empty_map(&entry.value) };
        let name = match key {
            "headers" => header_name(reader, &at, &entry.key),
            "cookies" => token(reader, &at, &entry.key),
            _ => Some(entry.key.clone()),
        };
        let text = text_match(reader, &entry.value);
        let (Some(name), Some(text)) = (name, text) else { continue };
        if texts.insert(name, text).is_some() {
            let message = format!("`{}` is listed twice", entry.key);
            reader.report(&at, Code::Contradiction, message, "keep one of the two");
        }
    }
    texts
}

fn text_match(reader: &mut Reader, node: &Node) -> Option<TextMatch> {
    let (key, value) = match &node.value {
        Value::Scalar { .. } => ("exact", node),
        Value::Map(_) | Value::List(_) => only(reader, node, &TEXT_MATCH, "{exact: value}")?,
    };
    match key {
        "exact" => reader.text(value).map(TextMatch::Exact),
        "regex" => pattern(reader, value).map(TextMatch::Regex),
        "present" => reader.boolean(value).map(TextMatch::Present),
        _ => {
            let prefix = reader.text(value)?;
            if prefix.is_empty() {
                let hint = "write `{present: true}` for any value";
                reader.report(value, Code::OutOfRange, "everything starts with nothing", hint);
            }
            Some(TextMatch::Prefix(prefix))
        }
    }
}

fn pattern(reader: &mut Reader, node: &Node) -> Option<String> {
    let text = reader.text(node)?;
    match Pattern::new(&text) {
        Ok(_) => Some(text),
        Err(error) => {
            let hint = "it has to fit the whole text, as `/api/v[0-9]+/.*`; quote it with ' '";
            reader.report(node, Code::Pattern, error.to_string(), hint);
            None
        }
    }
}

/// The name of a header that is matched or read: in lower case.
pub(crate) fn header(reader: &mut Reader, node: &Node) -> Option<String> {
    let name = reader.text(node)?;
    header_name(reader, node, &name)
}

fn header_name(reader: &mut Reader, at: &Node, name: &str) -> Option<String> {
    let name = token(reader, at, name)?.to_ascii_lowercase();
    let instead = match name.as_str() {
        "host" => "`hosts` of the route",
        "cookie" => "`cookies`, by name",
        _ => return Some(name),
    };
    let message = format!("`{name}` is not looked at as a header");
    reader.report(at, Code::Name, message, format!("use {instead}"));
    None
}

/// The name of a cookie or header: a token of RFC 9110.
pub(crate) fn token(reader: &mut Reader, at: &Node, name: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if (1..=NAME_LENGTH_MAX).contains(&name.len()) && name.bytes().all(allowed) {
        return Some(name.to_owned());
    }
    let name = crate::reader::shortened(name);
    let message = format!("`{name}` cannot be the name of a header, cookie or method");
    reader.report(at, Code::Name, message, "use letters, digits, `-` and `_`");
    None
}

/// One value or a list of them.
pub(crate) fn one_or_many(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(items) => items,
        Value::Scalar { .. } | Value::Map(_) => std::slice::from_ref(node),
    }
}

fn methods(reader: &mut Reader, node: &Node) -> Vec<String> {
    let mut methods = Vec::new();
    for item in one_or_many(node) {
        let Some(method) = reader.text(item).and_then(|text| token(reader, item, &text)) else {
            continue;
        };
        methods.push(method.to_ascii_uppercase());
    }
    methods.sort();
    methods.dedup();
    methods
}

/// Networks in CIDR notation.
pub(crate) fn networks(reader: &mut Reader, node: &Node) -> Vec<Network> {
    let items = one_or_many(node);
    if items.len() > NETWORKS_MAX {
        let message = format!("{} networks are more than fit here", items.len());
        reader.report(node, Code::Limit, message, format!("use at most {NETWORKS_MAX}"));
        return Vec::new();
    }
    items.iter().filter_map(|item| network(reader, item)).collect()
}

fn network(reader: &mut Reader, node: &Node) -> Option<Network> {
    let text = reader.text(node)?;
    match text.parse::<Network>() {
        Ok(network) => Some(network),
        Err(error) => {
            let hint = match &error {
                network::Error::HostBits(meant) => format!("write `{meant}`"),
                network::Error::Prefix(bits) => format!("write a prefix up to `/{bits}`"),
                network::Error::Malformed => "write `10.0.0.0/8`, `::1` or the like".to_owned(),
            };
            reader.report(node, Code::Address, format!("{} {error}", found(node)), hint);
            None
        }
    }
}
