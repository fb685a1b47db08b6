//! `resilience:` of a route: what is done about slow and failing instances, and about more
//! requests than the service can take.

use std::time::Duration;

use switchback_domain::Weight;
use switchback_domain::resilience::{
    AdaptivePolicy, Balance, BreakerPolicy, Bulkhead, ClientKey, ClientRate, EjectionPolicy, Rate,
    Resilience, RetryPolicy, Timeouts,
};

use crate::diagnostic::Code;
use crate::quantity;
use crate::reader::{Fields, Reader};
use crate::section::fallback::{self, FALLBACK};
use crate::section::route_match;
use crate::table::{Field, Kind, Table, field, required};
use crate::value::{Node, Value};

/// The data plane counts with connections and buffers for each.
const REQUESTS_MAX: u32 = 100_000;
/// Finer than this the clock of a bucket does not count.
const RATE_MAX: u32 = 1_000_000;
const PENDING_TIMEOUT: Duration = Duration::from_secs(1);
const PER: Duration = Duration::from_secs(1);
/// More repetitions of one request than this only make its client wait.
const ATTEMPTS_MAX: u32 = 10;
const FAILURES_MAX: u32 = 1_000;

pub(crate) const REQUESTS: Kind = Kind::Count { min: 1, max: REQUESTS_MAX };
const FAILURES: Kind = Kind::Count { min: 1, max: FAILURES_MAX };

pub(crate) static RESILIENCE: Table = Table::new(
    "resilience",
    "What is done about slow and failing instances, and about too many requests.",
    &[&[
        field("timeouts", Kind::Struct(&TIMEOUTS), "How long each phase of a request may take."),
        field(
            "slow_start",
            Kind::Duration,
            "How long a new instance gets fewer requests; 0s is off. Default: 30s.",
        ),
        field(
            "ejection",
            Kind::Either(&[Kind::Bool, Kind::Struct(&EJECTION)]),
            "When an instance is passed over. Default: true.",
        ),
        field(
            "circuit_breaker",
            Kind::Either(&[Kind::Bool, Kind::Struct(&BREAKER)]),
            "When a version is not asked for a while. Default: false.",
        ),
        field("bulkhead", Kind::Struct(&BULKHEAD), "How many requests are let in at once."),
        field(
            "adaptive_concurrency",
            Kind::Either(&[Kind::Bool, Kind::Struct(&ADAPTIVE)]),
            "The same, found by watching response times. Default: false.",
        ),
        field("rate_limit", Kind::Struct(&RATE), "How fast requests are let in."),
        field("client_rate_limit", Kind::Struct(&CLIENT_RATE), "The same for each client."),
        field(
            "retries",
            Kind::Either(&[Kind::Bool, Kind::Struct(&RETRIES)]),
            "Which failed attempts are repeated. Default: false, only those that never left.",
        ),
        field("fallback", Kind::Struct(&FALLBACK), "What clients get when nobody answers."),
    ]],
);

static TIMEOUTS: Table = Table::new(
    "route_timeouts",
    "How long each phase of a request may take, beside `timeout`, the time to the response head.",
    &[&[
        field(
            "connect",
            Kind::Duration,
            "Opening a connection to an instance. Default: 1s, or 3s when no other is left to ask.",
        ),
        field("request_idle", Kind::Duration, "A pause of a client's upload. Default: 30s."),
        field("response_idle", Kind::Duration, "A pause of an instance. Default: no limit."),
        field("total", Kind::Duration, "The whole request. Default: no limit."),
    ]],
);

static EJECTION: Table = Table::new(
    "ejection",
    "When an instance is passed over: at most half of them, and never the last.",
    &[&[
        field("failures", FAILURES, "Failures in a row. Default: 5."),
        field("base", Kind::Duration, "How long; times the ejections so far. Default: 30s."),
    ]],
);

static BREAKER: Table = Table::new(
    "circuit_breaker",
    "When a version is not asked for a while; its requests count as failed.",
    &[&[
        field("failures", FAILURES, "Failures in a row. Default: 7."),
        field("success_rate", Kind::Weight, "The least share of good answers. Default: 50%."),
        field("min_requests", FAILURES, "In ten seconds, for that share to count. Default: 20."),
        field("open", Kind::Duration, "The first rest; doubled with each relapse. Default: 1s."),
        field("open_max", Kind::Duration, "The longest rest. Default: 1m."),
    ]],
);

static BULKHEAD: Table = Table::new(
    "bulkhead",
    "How many requests are let in at once; more get 503.",
    &[&[
        required("max_requests", REQUESTS, "On their way at once."),
        field(
            "max_pending",
            Kind::Count { min: 0, max: REQUESTS_MAX },
            "Waiting for one of these to end. Default: 0.",
        ),
        field("pending_timeout", Kind::Duration, "How long one waits at most. Default: 1s."),
    ]],
);

static ADAPTIVE: Table = Table::new(
    "adaptive_concurrency",
    "A limit of requests at once that follows response times; more get 503.",
    &[&[
        field("initial", REQUESTS, "Where it begins. Default: 20."),
        field("min", REQUESTS, "How low it may fall. Default: 20."),
        field("max", REQUESTS, "How high it may rise. Default: 200."),
    ]],
);

const RATE_FIELDS: [Field; 3] = [
    required("requests", Kind::Count { min: 1, max: RATE_MAX }, "So many requests ..."),
    field("per", Kind::Duration, "... in this time. Default: 1s."),
    field(
        "burst",
        Kind::Count { min: 1, max: RATE_MAX },
        "How many may come at once. Default: `requests`.",
    ),
];

static RATE: Table = Table::new(
    "rate_limit",
    "How fast requests are let in; more get 429 and Retry-After.",
    &[&RATE_FIELDS],
);

static CLIENT_RATE: Table = Table::new(
    "client_rate_limit",
    "How fast requests of one client are let in; more get 429 and Retry-After.",
    &[
        &RATE_FIELDS,
        &[field("header", Kind::Text, "What tells clients apart. Default: their address.")],
    ],
);

static RETRIES: Table = Table::new(
    "retries",
    "Which failed attempts are repeated: of idempotent requests without a body.",
    &[&[
        field("attempts", Kind::Count { min: 1, max: ATTEMPTS_MAX }, "Per request. Default: 2."),
        field(
            "statuses",
            Kind::List(&Kind::Count { min: 500, max: 599 }),
            "Answers that are failures too: [502, 503, 504]. Default: none.",
        ),
        field("budget", Kind::Weight, "Repetitions as a share of requests. Default: 20%."),
        field(
            "min_per_second",
            Kind::Count { min: 0, max: RATE_MAX },
            "Repetitions that are allowed beside that. Default: 10.",
        ),
        field("backoff", Kind::Duration, "The longest first pause. Default: 25ms."),
        field("backoff_max", Kind::Duration, "The longest pause. Default: 250ms."),
    ]],
);

/// All of it.
pub(crate) fn resilience(reader: &mut Reader, node: &Node) -> Option<Resilience> {
    let fields = reader.fields(node, &RESILIENCE);
    if !fields.is_map() {
        return None;
    }
    let balance = Balance::default();
    let slow_start = fields.read("slow_start", reader, Reader::duration);
    let ejection = match fields.get("ejection") {
        Some(node) => switch(reader, node, ejection),
        None => balance.ejection,
    };
    Some(Resilience {
        timeouts: fields.get("timeouts").map(|node| timeouts(reader, node)).unwrap_or_default(),
        balance: Balance { slow_start: slow_start.unwrap_or(balance.slow_start), ejection },
        breaker: fields.get("circuit_breaker").and_then(|node| switch(reader, node, breaker)),
        bulkhead: fields.read("bulkhead", reader, bulkhead),
        adaptive: fields
            .get("adaptive_concurrency")
            .and_then(|node| switch(reader, node, adaptive)),
        rate: fields.read("rate_limit", reader, |reader, node| {
            let fields = reader.fields(node, &RATE);
            rate(reader, &fields)
        }),
        client_rate: fields.read("client_rate_limit", reader, client_rate),
        retries: fields.get("retries").and_then(|node| switch(reader, node, retries)),
        fallback: fields
            .get("fallback")
            .map(|node| fallback::fallback(reader, node))
            .unwrap_or_default(),
    })
}

/// `true` for the defaults, `false` for nothing, or a map.
pub(crate) fn switch<T: Default>(
    reader: &mut Reader,
    node: &Node,
    read: fn(&mut Reader, &Node) -> T,
) -> Option<T> {
    if matches!(node.value, Value::Map(_)) {
        return Some(read(reader, node));
    }
    reader.boolean(node)?.then(T::default)
}

fn timeouts(reader: &mut Reader, node: &Node) -> Timeouts {
    let fields = reader.fields(node, &TIMEOUTS);
    let mut above_zero = |key| fields.read(key, reader, Reader::duration_above_zero);
    Timeouts {
        connect: above_zero("connect"),
        request_idle: above_zero("request_idle"),
        response_idle: above_zero("response_idle"),
        total: above_zero("total"),
    }
}

fn ejection(reader: &mut Reader, node: &Node) -> EjectionPolicy {
    let fields = reader.fields(node, &EJECTION);
    let default = EjectionPolicy::default();
    EjectionPolicy {
        failures: count(reader, &fields, "failures", FAILURES_MAX).unwrap_or(default.failures),
        base: above_zero(reader, &fields, "base", default.base),
    }
}

fn breaker(reader: &mut Reader, node: &Node) -> BreakerPolicy {
    let fields = reader.fields(node, &BREAKER);
    let default = BreakerPolicy::default();
    let open = above_zero(reader, &fields, "open", default.open);
    let open_max = above_zero(reader, &fields, "open_max", default.open_max.max(open));
    not_above(reader, &fields, ("open", "open_max"), open <= open_max);
    let least = count(reader, &fields, "min_requests", FAILURES_MAX);
    BreakerPolicy {
        failures: count(reader, &fields, "failures", FAILURES_MAX).unwrap_or(default.failures),
        success_min: share(reader, &fields, "success_rate").unwrap_or(default.success_min),
        requests_min: least.unwrap_or(default.requests_min),
        open,
        open_max,
    }
}

fn bulkhead(reader: &mut Reader, node: &Node) -> Option<Bulkhead> {
    let fields = reader.fields(node, &BULKHEAD);
    let requests = count(reader, &fields, "max_requests", REQUESTS_MAX);
    let pending = fields.read("max_pending", reader, |r, node| r.count(node, 0..=REQUESTS_MAX));
    let pending_timeout = above_zero(reader, &fields, "pending_timeout", PENDING_TIMEOUT);
    Some(Bulkhead { requests: requests?, pending: pending.unwrap_or(0), pending_timeout })
}

fn adaptive(reader: &mut Reader, node: &Node) -> AdaptivePolicy {
    let fields = reader.fields(node, &ADAPTIVE);
    let default = AdaptivePolicy::default();
    let mut of = |key| count(reader, &fields, key, REQUESTS_MAX);
    let (initial, min, max) = (of("initial"), of("min"), of("max"));
    let min = min.unwrap_or_else(|| default.min.min(initial.or(max).unwrap_or(default.min)));
    let max = max.unwrap_or_else(|| default.max.max(initial.unwrap_or(min)).max(min));
    let initial = initial.unwrap_or_else(|| default.initial.clamp(min, max.max(min)));
    not_above(reader, &fields, ("min", "max"), min <= max);
    not_above(reader, &fields, ("min", "initial"), min <= initial);
    not_above(reader, &fields, ("initial", "max"), initial <= max || min > max);
    AdaptivePolicy { initial, min, max }
}

fn rate(reader: &mut Reader, fields: &Fields<'_>) -> Option<Rate> {
    let requests = count(reader, fields, "requests", RATE_MAX);
    let per = above_zero(reader, fields, "per", PER);
    let burst = count(reader, fields, "burst", RATE_MAX);
    let requests = requests?;
    Some(Rate { requests, per, burst: burst.unwrap_or(requests) })
}

fn client_rate(reader: &mut Reader, node: &Node) -> Option<ClientRate> {
    let fields = reader.fields(node, &CLIENT_RATE);
    let header = fields.read("header", reader, route_match::header);
    let key = header.map_or(ClientKey::Address, ClientKey::Header);
    rate(reader, &fields).map(|rate| ClientRate { rate, key })
}

fn retries(reader: &mut Reader, node: &Node) -> RetryPolicy {
    let fields = reader.fields(node, &RETRIES);
    let default = RetryPolicy::default();
    let statuses = fields.get("statuses").map(|node| statuses(reader, node));
    let least = fields.read("min_per_second", reader, |r, node| r.count(node, 0..=RATE_MAX));
    let backoff = above_zero(reader, &fields, "backoff", default.backoff);
    let most = above_zero(reader, &fields, "backoff_max", default.backoff_max.max(backoff));
    not_above(reader, &fields, ("backoff", "backoff_max"), backoff <= most);
    RetryPolicy {
        attempts: count(reader, &fields, "attempts", ATTEMPTS_MAX).unwrap_or(default.attempts),
        statuses: statuses.unwrap_or_default(),
        budget: share(reader, &fields, "budget").unwrap_or(default.budget),
        per_second_min: least.unwrap_or(default.per_second_min),
        backoff,
        backoff_max: most,
    }
}

fn statuses(reader: &mut Reader, node: &Node) -> Vec<u16> {
    let items = reader.list(node, "[502, 503, 504]").iter();
    let mut statuses: Vec<u16> = items
        .filter_map(|item| reader.count(item, 500..=599))
        .filter_map(|status| u16::try_from(status).ok())
        .collect();
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

fn count(reader: &mut Reader, fields: &Fields<'_>, key: &str, max: u32) -> Option<u32> {
    fields.read(key, reader, |reader, node| reader.count(node, 1..=max))
}

fn share(reader: &mut Reader, fields: &Fields<'_>, key: &str) -> Option<Weight> {
    fields.read(key, reader, |reader, node| reader.percent(node).and_then(quantity::weight))
}

fn above_zero(reader: &mut Reader, fields: &Fields<'_>, key: &str, default: Duration) -> Duration {
    fields.read(key, reader, Reader::duration_above_zero).unwrap_or(default)
}

/// Reports a pair of which the first is above the second.
fn not_above(reader: &mut Reader, fields: &Fields<'_>, keys: (&str, &str), holds: bool) {
    let (low, high) = keys;
    if let Some(at) = fields.get(high).or_else(|| fields.get(low)).filter(|_| !holds) {
        let message = format!("`{low}` is above `{high}`");
        reader.report(at, Code::Contradiction, message, format!("make `{high}` the greater one"));
    }
}
