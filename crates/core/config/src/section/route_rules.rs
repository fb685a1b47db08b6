//! What a route says beside where requests come in: which of them, who gets them, and what
//! happens while it does not serve.

use std::time::Duration;

use switchback_domain::Weight;
use switchback_domain::resilience::Resilience;
use switchback_domain::route::{
    LogFormat, Maintenance, Mirror, Observation, PauseLimits, Preview, RouteRules,
};

use crate::diagnostic::Code;
use crate::quantity;
use crate::reader::{Fields, Reader};
use crate::section::resilience::{self, RESILIENCE};
use crate::section::route::{host_names, listen};
use crate::section::route_affinity::{self, SESSION_AFFINITY, VERSION};
use crate::section::route_match::{self, REQUEST_MATCH};
use crate::table::{Field, Kind, Table, field, required};
use crate::value::{Node, Value};

/// Every worker holds it in every table.
const PAGE_LENGTH_MAX: usize = 64 * 1024;
const RETRY_AFTER: Duration = Duration::from_mins(1);
/// Kamal-proxy's patience with a paused service.
const PAUSE_DEADLINE: Duration = Duration::from_secs(30);
const PAUSE_CAP: u32 = 1000;
/// Each one that waits holds a connection and its buffers.
const PAUSE_CAP_MAX: u32 = 100_000;

const FORMATS: [(&str, Option<LogFormat>); 3] =
    [("off", None), ("json", Some(LogFormat::Json)), ("common", Some(LogFormat::Common))];

pub(crate) static RULES: [Field; 11] = [
    field(
        "matches",
        Kind::List(&Kind::Struct(&REQUEST_MATCH)),
        "Only requests that fit one of these. Default: all.",
    ),
    field(
        "candidate_matches",
        Kind::List(&Kind::Struct(&REQUEST_MATCH)),
        "Requests that fit one of these go to the candidate. Default: none.",
    ),
    field(
        "session_affinity",
        Kind::Struct(&SESSION_AFFINITY),
        "What keeps a client with its version. Default: nothing, each request is drawn.",
    ),
    field("version_header", VERSION, "Whether a header may ask for a version. Default: false."),
    field("preview", Kind::Struct(&PREVIEW), "Where the candidate alone answers."),
    field(
        "mirror",
        Kind::Either(&[Kind::Struct(&MIRROR), Kind::Weight]),
        "The share of requests that the candidate gets a copy of. Default: none.",
    ),
    field("maintenance", Kind::Struct(&MAINTENANCE), "What clients get in maintenance mode."),
    field("pause", Kind::Struct(&PAUSE), "How much is held back while the service is paused."),
    field(
        "resilience",
        Kind::Struct(&RESILIENCE),
        "What is done about slow and failing instances, and about too many requests.",
    ),
    field(
        "access_log",
        Kind::Word(&["off", "json", "common"]),
        "How each request is written to `access.log` in the state directory. Default: off.",
    ),
    field(
        "trace_sample",
        Kind::Weight,
        "The share of the traces begun here that are marked to be recorded. Default: 1%.",
    ),
];

static PREVIEW: Table = Table::new(
    "route_preview",
    "Where the candidate alone answers; without a candidate, what serves.",
    &[&[
        field("listen", Kind::Listen, "An address of its own. Default: the route's."),
        field("hosts", Kind::List(&Kind::Text), "Host names of its own; none takes every host."),
        field("host", Kind::Text, "One host name."),
    ]],
);

static MIRROR: Table = Table::new(
    "route_mirror",
    "Copies of requests for the candidate, whose answers nobody sees.",
    &[&[
        required("fraction", Kind::Weight, "The share of the baseline's requests."),
        field(
            "unsafe_methods",
            Kind::Bool,
            "Also those that may change something (not GET, HEAD, OPTIONS). Default: false.",
        ),
    ]],
);

static MAINTENANCE: Table = Table::new(
    "route_maintenance",
    "What clients get in maintenance mode: 503, and this.",
    &[&[
        field("page", Kind::Text, "The body, HTML. Default: a plain page."),
        field("retry_after", Kind::Duration, "When to come again. Default: 1m."),
    ]],
);

static PAUSE: Table = Table::new(
    "route_pause",
    "How much is held back while the service is paused.",
    &[&[
        field("deadline", Kind::Duration, "How long a request waits at most. Default: 30s."),
        field(
            "cap",
            Kind::Count { min: 1, max: PAUSE_CAP_MAX },
            "How many wait at most; more get 503 at once. Default: 1000.",
        ),
    ]],
);

/// The rules among the fields of a route with this prefix.
pub(crate) fn rules(reader: &mut Reader, fields: &Fields<'_>, prefix: &str) -> RouteRules {
    let mut matches = |key: &str| {
        let node = fields.get(key);
        node.map(|node| route_match::matches(reader, node, prefix)).unwrap_or_default()
    };
    let (all, to_candidate) = (matches("matches"), matches("candidate_matches"));
    RouteRules {
        matches: all,
        to_candidate,
        affinity: fields.read("session_affinity", reader, route_affinity::affinity),
        version_header: fields.read("version_header", reader, route_affinity::version_header),
        preview: fields.read("preview", reader, preview),
        mirror: fields.read("mirror", reader, mirror),
        maintenance: fields.get("maintenance").map(|node| maintenance(reader, node)),
        pause: fields.get("pause").map(|node| pause(reader, node)),
        resilience: fields
            .read("resilience", reader, resilience::resilience)
            .filter(|resilience| *resilience != Resilience::default())
            .map(Box::new),
        observation: Observation {
            access_log: fields
                .read("access_log", reader, |r, node| r.word(node, &FORMATS))
                .flatten(),
            trace_sample: fields.read("trace_sample", reader, fraction),
        },
    }
}

fn preview(reader: &mut Reader, node: &Node) -> Option<Preview> {
    let fields = reader.fields(node, &PREVIEW);
    let hosts = host_names(reader, &fields);
    let own = fields.read("listen", reader, listen);
    let nothing = ["listen", "hosts", "host"].iter().all(|key| fields.get(key).is_none());
    if fields.is_map() && nothing {
        let hint = "write `{host: preview.example.com}` or `{listen: 8090}`";
        reader.report(node, Code::MissingKey, "has no place of its own", hint);
    }
    (own.is_some() || !hosts.is_empty()).then_some(Preview { listen: own, hosts })
}

fn mirror(reader: &mut Reader, node: &Node) -> Option<Mirror> {
    if matches!(node.value, Value::Scalar { .. }) {
        return fraction(reader, node).map(|fraction| Mirror { fraction, unsafe_methods: false });
    }
    let fields = reader.fields(node, &MIRROR);
    let fraction = fields.read("fraction", reader, fraction);
    let unsafe_methods = fields.read("unsafe_methods", reader, Reader::boolean).unwrap_or(false);
    Some(Mirror { fraction: fraction?, unsafe_methods })
}

fn fraction(reader: &mut Reader, node: &Node) -> Option<Weight> {
    reader.percent(node).and_then(quantity::weight)
}

fn maintenance(reader: &mut Reader, node: &Node) -> Maintenance {
    let fields = reader.fields(node, &MAINTENANCE);
    let page = fields.read("page", reader, Reader::text).unwrap_or_default();
    if let Some(at) = fields.get("page").filter(|_| page.len() > PAGE_LENGTH_MAX) {
        let hint =
            format!("use at most {PAGE_LENGTH_MAX} bytes; pictures can stand in them as links");
        reader.report(at, Code::Limit, "is longer than a page can be", hint);
    }
    let retry_after = fields.read("retry_after", reader, Reader::duration_above_zero);
    Maintenance { page, retry_after: retry_after.unwrap_or(RETRY_AFTER) }
}

fn pause(reader: &mut Reader, node: &Node) -> PauseLimits {
    let fields = reader.fields(node, &PAUSE);
    let deadline = fields.read("deadline", reader, Reader::duration_above_zero);
    let cap = fields.read("cap", reader, |r, node| r.count(node, 1..=PAUSE_CAP_MAX));
    PauseLimits { deadline: deadline.unwrap_or(PAUSE_DEADLINE), cap: cap.unwrap_or(PAUSE_CAP) }
}
