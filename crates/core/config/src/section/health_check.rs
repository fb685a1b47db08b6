//! `health_check:`: how to ask an instance whether it is up. Flat fields hold for all probes;
//! `startup:`, `liveness:` and `readiness:` add to them or say otherwise.

use std::time::Duration;

use switchback_domain::probe::{HealthChecks, Probe, ProbeAction};

use crate::diagnostic::Code;
use crate::reader::Reader;
use crate::section::command::command;
use crate::section::template::{self, Scope};
use crate::table::{Field, Kind, Table, field};
use crate::value::{Node, Value, merge};

const PATH: &str = "/up";
const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);
const HEALTHY_AFTER: u32 = 2;
const UNHEALTHY_AFTER: u32 = 3;
/// Nomad waits 10 s. Two seconds catch a version that dies right after its start and do not slow
/// every instance of every rollout down.
const MIN_HEALTHY_TIME: Duration = Duration::from_secs(2);
/// More tries in a row than this are a wrong interval.
const TRIES_MAX: u32 = 1000;

const PROBE_FIELDS: &[Field] = &[
    field("path", Kind::Text, "GET this path; 200 to 399 passes. Default: /up."),
    field("tcp", Kind::Bool, "Open a connection to the instance's port."),
    field("command", Kind::Command, "Run this beside the instance; exit code 0 passes."),
    field("interval", Kind::Duration, "Time between two tries. Default: 1s."),
    field("timeout", Kind::Duration, "How long one try may take. Default: 5s."),
    field("healthy_after", COUNT, "Passes in a row before it counts as healthy. Default: 2."),
    field("unhealthy_after", COUNT, "Failures in a row before it counts as unhealthy. Default: 3."),
];

const COUNT: Kind = Kind::Count { min: 1, max: TRIES_MAX };

const READINESS_FIELDS: &[Field] = &[field(
    "min_healthy_time",
    Kind::Duration,
    "How long an instance must stay ready before it counts as ready. Default: 2s.",
)];

pub(crate) static PROBE: Table = Table::new(
    "probe",
    "One probe; what it does not say comes from the flat fields.",
    &[PROBE_FIELDS],
);

pub(crate) static READINESS: Table = Table::new(
    "readiness",
    "While it fails, the instance gets no traffic.",
    &[PROBE_FIELDS, READINESS_FIELDS],
);

pub(crate) static HEALTH_CHECK: Table = Table::new(
    "health_check",
    "How to ask an instance whether it is up.",
    &[
        PROBE_FIELDS,
        READINESS_FIELDS,
        &[
            field("startup", Kind::Struct(&PROBE), "Until it passes, the other two do not run."),
            field("liveness", Kind::Struct(&PROBE), "When it fails, the instance is restarted."),
            field("readiness", Kind::Struct(&READINESS), "While it fails: no traffic."),
        ],
    ],
);

/// The probes of a service without `health_check:`.
pub(crate) fn default_checks() -> HealthChecks {
    let readiness = Probe {
        action: default_action(),
        interval: INTERVAL,
        timeout: TIMEOUT,
        healthy_after: HEALTHY_AFTER,
        unhealthy_after: UNHEALTHY_AFTER,
    };
    HealthChecks { startup: None, liveness: None, readiness, min_healthy_time: MIN_HEALTHY_TIME }
}

/// The probes a service asks for.
pub(crate) fn health_checks(reader: &mut Reader, node: &Node) -> HealthChecks {
    let fields = reader.fields(node, &HEALTH_CHECK);
    let flat = flat_part(node);
    let nested = |reader: &mut Reader, key: &str, table: &'static Table| {
        let own = fields.get(key)?;
        reader.fields(own, table);
        let merged = merge::merge(&flat, own, key).placed_as(own);
        Some((probe(reader, &merged), merged))
    };
    let startup = nested(reader, "startup", &PROBE).map(|(probe, _)| probe);
    let liveness = nested(reader, "liveness", &PROBE).map(|(probe, _)| probe);
    let (readiness, merged) = match nested(reader, "readiness", &READINESS) {
        Some(own) => own,
        None => (probe(reader, &flat), flat.clone()),
    };
    let settle = merged.find("min_healthy_time").and_then(|node| reader.duration(node));
    let min_healthy_time = settle.unwrap_or(MIN_HEALTHY_TIME);
    HealthChecks { startup, liveness, readiness, min_healthy_time }
}

/// The fields that hold for all probes.
fn flat_part(node: &Node) -> Node {
    let flat = node.entries().iter().filter(|entry| READINESS.knows(&entry.key)).cloned();
    Node { value: Value::Map(flat.collect()), ..Node::empty_map(node) }
}

fn probe(reader: &mut Reader, node: &Node) -> Probe {
    let count = |reader: &mut Reader, key: &str, default: u32| {
        node.find(key).and_then(|node| reader.count(node, 1..=TRIES_MAX)).unwrap_or(default)
    };
    let pace = |reader: &mut Reader, key: &str, default: Duration| {
        node.find(key).and_then(|node| reader.duration_above_zero(node)).unwrap_or(default)
    };
    Probe {
        action: action(reader, node).unwrap_or_else(default_action),
        interval: pace(reader, "interval", INTERVAL),
        timeout: pace(reader, "timeout", TIMEOUT),
        healthy_after: count(reader, "healthy_after", HEALTHY_AFTER),
        unhealthy_after: count(reader, "unhealthy_after", UNHEALTHY_AFTER),
    }
}

fn default_action() -> ProbeAction {
    ProbeAction::Http { path: PATH.to_owned() }
}

fn action(reader: &mut Reader, node: &Node) -> Option<ProbeAction> {
    let given: Vec<_> =
        ["path", "tcp", "command"].iter().filter_map(|key| Some((*key, node.find(key)?))).collect();
    if let [(first, _), (second, at), ..] = given.as_slice() {
        let message = format!("`{first}` and `{second}` exclude each other");
        reader.report(at, Code::Contradiction, message, "keep one of them");
    }
    let (key, node) = given.first()?;
    match *key {
        "path" => http_path(reader, node).map(|path| ProbeAction::Http { path }),
        "tcp" => {
            if !reader.boolean(node)? {
                let hint = "leave `tcp` out, and give a `path` or a `command`";
                reader.report(node, Code::Contradiction, "`tcp: false` is no probe", hint);
            }
            Some(ProbeAction::Tcp)
        }
        _ => command(reader, node, Scope::Instance).map(|argv| ProbeAction::Command { argv }),
    }
}

fn http_path(reader: &mut Reader, node: &Node) -> Option<String> {
    let path = template::text(reader, node, Scope::Instance)?;
    if path.contains("://") {
        let hint = "write the path alone: `/health`; the address is the instance's";
        reader.report(node, Code::Path, "is an address, not a path", hint);
        return None;
    }
    if !path.starts_with('/') {
        let hint = format!("write `/{}`", path.trim());
        reader.report(node, Code::Path, "must start with `/`", hint);
        return None;
    }
    // Between the braces of a template spaces are fine; they are gone when it is filled in.
    let bare = path.replace("{{ ", "{{").replace(" }}", "}}");
    if bare.chars().any(|c| c.is_whitespace() || c.is_control()) || bare.contains('#') {
        let hint = "write `%20` for a space, and leave fragments out";
        reader.report(node, Code::Path, "holds characters that no request path holds", hint);
        return None;
    }
    Some(path)
}
