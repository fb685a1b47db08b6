//! `metrics:` and `metric_templates:`: numbers of metric sources and what they must keep to.

use std::time::Duration;

use switchback_domain::condition::Condition;
use switchback_domain::metric::{
    Endpoint, MetricQueries, MetricRule, MetricSource, MetricSpec, OnInsufficient,
};

use crate::diagnostic::Code;
use crate::reader::{Fields, Reader};
use crate::section::exact_test::chance;
use crate::section::template::{self, Scope};
use crate::table::{Field, Kind, Table, field};
use crate::value::{Node, Value};

/// Metrics in one place. More are a dashboard.
const METRICS_MAX: usize = 50;
const LIMIT_MAX: u32 = 1_000_000;
const INTERVAL: Duration = Duration::from_secs(10);
/// Sources are not asked more often than this.
const INTERVAL_MIN: Duration = Duration::from_millis(200);
/// Argo Rollouts' number.
const ERRORS: u32 = 4;
/// The share of custom counters in a rollout's budget of false alarms.
const ALPHA: f64 = 0.001;

/// What the data plane can be asked for.
const FIGURES: [(&str, &str); 7] = [
    ("error_rate", "error_rate"),
    ("success_rate", "success_rate"),
    ("requests", "requests"),
    ("latency_mean", "latency_mean"),
    ("latency_p50", "latency_p50"),
    ("latency_p95", "latency_p95"),
    ("latency_p99", "latency_p99"),
];
const ON_INSUFFICIENT: [(&str, OnInsufficient); 3] = [
    ("hold", OnInsufficient::Hold),
    ("extend", OnInsufficient::Extend),
    ("ask", OnInsufficient::Ask),
];

/// What a metric and a template of metrics have in common.
pub(crate) const SHARED: &[Field] = &[
    field("name", Kind::Text, "What it is called. Default: the template's name."),
    field(
        "source",
        Kind::Either(SOURCES),
        "Where numbers come from. Default: data_plane, what was counted since the last \
         measurement.",
    ),
    field(
        "query",
        Kind::Text,
        "The candidate's number: PromQL, a JSON pointer, or one of the data plane's figures \
         (error_rate, success_rate, requests, latency_mean, latency_p50, latency_p95, \
         latency_p99; latencies in seconds).",
    ),
    field("baseline_query", Kind::Text, "The baseline's; {{version}} is its version there."),
    field(
        "numerator",
        Kind::Text,
        "A counter of bad events, asked for both versions: with denominator, an exact test.",
    ),
    field("denominator", Kind::Text, "A counter of all events, asked for both versions."),
    field("odds_ratio", Kind::Number, "Of counters: tolerated odds ratio, 1 to 10. Default: 1."),
    field("alpha", Kind::Share, "Of counters: chance of a false alarm. Default: 0.1%."),
    field("success_condition", Kind::Text, "Such as `result < 0.05`. A number without it fails."),
    field("failure_condition", Kind::Text, "Such as `result > baseline * 1.5`. One with it fails."),
    field("threshold_range", Kind::Struct(&RANGE), "A number outside fails."),
    field("interval", Kind::Duration, "Time between two measurements. Default: 10s."),
    field("initial_delay", Kind::Duration, "Time before the first one. Default: none."),
    field("failure_limit", LIMIT, "Bad measurements that are forgiven. Default: 0."),
    field("consecutive_error_limit", LIMIT, "Errors of the source in a row. Default: 4."),
    field("inconclusive_limit", LIMIT, "Empty measurements in a row. Default: 4."),
    field("dry_run", Kind::Bool, "Only says what it would have done. Default: false."),
    field("critical", Kind::Bool, "false: when it fails, it only holds. Default: true."),
    field(
        "on_insufficient",
        Kind::Word(&["hold", "extend", "ask"]),
        "What to do without numbers: hold the step until its deadline, extend the deadline once, \
         or pause and ask. None of them ever passes. Default: hold.",
    ),
];

const SOURCES: &[Kind] = &[Kind::Struct(&SOURCE), Kind::Word(&["data_plane"])];
const LIMIT: Kind = Kind::Count { min: 0, max: LIMIT_MAX };

pub(crate) static METRIC: Table = Table::new(
    "metric",
    "A number and what it must keep to: conditions, a range, or the exact test of two counters.",
    &[
        &[
            field("template", Kind::Text, "Take what is not given here from this template."),
            field("arguments", Kind::Map(&Kind::Text), "Values for the template's arguments."),
        ],
        SHARED,
    ],
);

static SOURCE: Table = Table::new(
    "metric_source",
    "Where numbers come from.",
    &[&[
        field("prometheus", Kind::Text, "URL of a Prometheus: `http://127.0.0.1:9090`."),
        field("json", Kind::Text, "URL of a JSON document."),
        field("pointer", Kind::Text, "The default query of a JSON document: `/errors/rate`."),
        field(
            "authorization_env",
            Kind::Text,
            "Environment variable with the Authorization header: `Bearer ...`.",
        ),
    ]],
);

static RANGE: Table = Table::new(
    "threshold_range",
    "Good numbers.",
    &[&[
        field("min", Kind::Number, "Smallest. Default: none."),
        field("max", Kind::Number, "Largest. Default: none."),
    ]],
);

/// Reports unknown keys below a metric; its own are the caller's.
pub(crate) fn check_keys(reader: &mut Reader, node: &Node) {
    for (key, table) in [("source", &SOURCE), ("threshold_range", &RANGE)] {
        if let Some(inner) = node.find(key).filter(|it| matches!(it.value, Value::Map(_))) {
            reader.fields(inner, table);
        }
    }
}

/// A list of metrics, templates applied.
pub(crate) fn metrics(reader: &mut Reader, node: &Node) -> Vec<MetricSpec> {
    let example = "[{name: errors, query: error_rate, threshold_range: {max: 0.05}}]";
    let items = reader.list(node, example);
    if items.len() > METRICS_MAX {
        let message = format!("{} metrics are too many", items.len());
        reader.report(node, Code::Limit, message, format!("use at most {METRICS_MAX}"));
        return Vec::new();
    }
    let mut metrics: Vec<MetricSpec> = Vec::new();
    for item in items {
        let Some(metric) = metric(reader, item) else { continue };
        if metrics.iter().any(|earlier| earlier.name == metric.name) {
            let message = format!("there are two metrics `{}`", metric.name);
            reader.report(item, Code::Contradiction, message, "give each its own name");
        }
        metrics.push(metric);
    }
    metrics
}

fn metric(reader: &mut Reader, node: &Node) -> Option<MetricSpec> {
    let fields = reader.fields(node, &METRIC);
    if !fields.is_map() || fields.get("template").is_some() {
        // A template that is left was not found, which was reported.
        return None;
    }
    let name = fields.read("name", reader, Reader::text);
    if fields.get("name").is_none() {
        reader.missing(node, "name", "give it a name: `name: errors`");
    }
    let interval = fields.read("interval", reader, interval).unwrap_or(INTERVAL);
    let initial_delay = fields.read("initial_delay", reader, Reader::duration);
    let mut limit = |key: &str, default| {
        fields.read(key, reader, |r, node| r.count(node, 0..=LIMIT_MAX)).unwrap_or(default)
    };
    let failure_limit = limit("failure_limit", 0);
    let consecutive_error_limit = limit("consecutive_error_limit", ERRORS);
    let inconclusive_limit = limit("inconclusive_limit", ERRORS);
    let dry_run = fields.read("dry_run", reader, Reader::boolean).unwrap_or(false);
    let critical = fields.read("critical", reader, Reader::boolean).unwrap_or(true);
    let on_insufficient =
        fields.read("on_insufficient", reader, |r, node| r.word(node, &ON_INSUFFICIENT));
    let (source, pointer) = match fields.get("source") {
        Some(node) => source(reader, node)?,
        None => (MetricSource::DataPlane, None),
    };
    let rule = rule(reader, &fields);
    let queries = queries(reader, &fields, &source, pointer);
    let (rule, queries) = (rule?, queries?);
    check_baseline(reader, &fields, &rule, &queries);
    Some(MetricSpec {
        name: name?,
        source,
        queries,
        rule,
        interval,
        initial_delay: initial_delay.unwrap_or_default(),
        failure_limit,
        consecutive_error_limit,
        inconclusive_limit,
        dry_run,
        critical,
        on_insufficient: on_insufficient.unwrap_or(OnInsufficient::Hold),
    })
}

fn interval(reader: &mut Reader, node: &Node) -> Option<Duration> {
    let interval = reader.duration_above_zero(node)?;
    if interval >= INTERVAL_MIN {
        return Some(interval);
    }
    reader.report(node, Code::OutOfRange, "is shorter than 200ms", "write 200ms or more");
    None
}

/// A source, and the query that comes with it.
fn source(reader: &mut Reader, node: &Node) -> Option<(MetricSource, Option<Node>)> {
    if matches!(node.value, Value::Scalar { .. }) {
        let word = reader.word(node, &[("data_plane", ())]);
        return word.map(|()| (MetricSource::DataPlane, None));
    }
    let fields = reader.fields(node, &SOURCE);
    let pointer = fields.get("pointer").cloned();
    let authorization_env = fields.read("authorization_env", reader, variable);
    let prometheus = fields.get("prometheus");
    match (prometheus, fields.get("json")) {
        (Some(url_node), None) => {
            if let Some(pointer) = &pointer {
                let hint = "write `query:`, or `json:` instead of `prometheus:`";
                reader.report(pointer, Code::Contradiction, "belongs to a JSON document", hint);
            }
            let url = url(reader, url_node)?;
            Some((MetricSource::Prometheus(Endpoint { url, authorization_env }), None))
        }
        (None, Some(url_node)) => {
            let url = url(reader, url_node)?;
            Some((MetricSource::Json(Endpoint { url, authorization_env }), pointer))
        }
        (first, _) => {
            let message = if first.is_some() { "names two sources" } else { "names no source" };
            let hint = "write `{prometheus: URL}` or `{json: URL, pointer: /path}`";
            reader.report(node, Code::Contradiction, message, hint);
            None
        }
    }
}

fn url(reader: &mut Reader, node: &Node) -> Option<String> {
    let url = template::text(reader, node, Scope::Metric)?;
    let rest = url.strip_prefix("http://");
    let authority = rest.and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
    let (message, hint) = if rest.is_none() {
        ("is no URL that can be asked", "write `http://HOST:PORT`; other schemes need a proxy")
    } else if authority.contains('@') {
        ("holds a name or password", "put the whole header into a variable: `authorization_env`")
    } else if authority.is_empty() || url.contains(|c: char| c.is_whitespace() || c == '#') {
        ("is not a URL", "write `http://HOST:PORT/PATH`")
    } else {
        return Some(url);
    };
    reader.report(node, Code::Address, message, hint);
    None
}

fn variable(reader: &mut Reader, node: &Node) -> Option<String> {
    let name = reader.text(node)?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if is_name {
        return Some(name);
    }
    // What stands here may be the secret itself, which is not repeated.
    let hint = "write the variable's name, such as `PROMETHEUS_TOKEN`, never the token";
    reader.report(node, Code::Name, "is not a name of an environment variable", hint);
    None
}

fn rule(reader: &mut Reader, fields: &Fields<'_>) -> Option<MetricRule> {
    let success = fields.get("success_condition");
    let failure = fields.get("failure_condition");
    let conditions = success.or(failure);
    let (range, counters) = (fields.get("threshold_range"), fields.get("numerator"));
    let ways: Vec<_> = [conditions, range, counters].into_iter().flatten().collect();
    if let [_, second, ..] = ways[..] {
        let message = "a second rule: a metric has conditions, a range, or counters";
        reader.report(second, Code::Contradiction, message, "make it two metrics");
        return None;
    }
    for key in ["odds_ratio", "alpha"] {
        if let Some(at) = fields.get(key).filter(|_| counters.is_none()) {
            let message = format!("`{key}` belongs to `numerator` and `denominator`");
            reader.report(at, Code::Contradiction, message, "add those, or take it out");
        }
    }
    if let Some(range) = range {
        return self::range(reader, range);
    }
    if counters.is_some() {
        let ratio_max = fields.read("odds_ratio", reader, |r, node| r.number(node, 1.0..=10.0));
        let alpha = fields.read("alpha", reader, |r, node| chance(r, node, "0.1%"));
        let alpha = alpha.unwrap_or(ALPHA);
        return Some(MetricRule::Odds { ratio_max: ratio_max.unwrap_or(1.0), alpha });
    }
    if conditions.is_none() {
        let hint = "write `success_condition: result < 0.05`, a `failure_condition`, a \
                    `threshold_range`, or `numerator` and `denominator`";
        reader.missing(fields.node(), "success_condition", hint);
        return None;
    }
    let success = success.map(|node| condition(reader, node));
    let failure = failure.map(|node| condition(reader, node));
    let complete = |it: Option<Option<Condition>>| it.map_or(Some(None), |it| it.map(Some));
    Some(MetricRule::Conditions { success: complete(success)?, failure: complete(failure)? })
}

fn range(reader: &mut Reader, node: &Node) -> Option<MetricRule> {
    let fields = reader.fields(node, &RANGE);
    let min = fields.read("min", reader, |r, node| r.number(node, 0.0..=1e18));
    let max = fields.read("max", reader, |r, node| r.number(node, 0.0..=1e18));
    let message = match (min, max) {
        (Some(min), Some(max)) if min > max => "holds no number: `min` is above `max`",
        (None, None) if fields.is_map() => "has neither `min` nor `max`",
        (None, None) => return None,
        (Some(_), _) | (None, Some(_)) => return Some(MetricRule::Range { min, max }),
    };
    reader.report(
        node,
        Code::Contradiction,
        message,
        "write `{min: 0.1, max: 0.5}`, or one of them",
    );
    None
}

fn condition(reader: &mut Reader, node: &Node) -> Option<Condition> {
    let text = reader.text(node)?;
    match Condition::parse(&text) {
        Ok(condition) => Some(condition),
        Err(error) => {
            let hint = "write such as `result < 0.05 and result <= baseline * 1.5`";
            reader.report(node, Code::Syntax, error.to_string(), hint);
            None
        }
    }
}

fn queries(
    reader: &mut Reader,
    fields: &Fields<'_>,
    source: &MetricSource,
    pointer: Option<Node>,
) -> Option<MetricQueries> {
    let query = fields.get("query").cloned().or(pointer);
    let (numerator, denominator) = (fields.get("numerator"), fields.get("denominator"));
    match (query, numerator, denominator) {
        (None, Some(bad), Some(all)) => {
            if matches!(source, MetricSource::DataPlane) {
                let hint = "name a `source`; the data plane's requests have `exact_test`";
                reader.report(bad, Code::Contradiction, "the data plane has no counters", hint);
                return None;
            }
            let numerator = query_text(reader, bad, source);
            let denominator = query_text(reader, all, source);
            Some(MetricQueries::Counters { numerator: numerator?, denominator: denominator? })
        }
        (Some(query), None, None) => {
            let candidate = query_text(reader, &query, source);
            let own = fields.get("baseline_query");
            let baseline = own.map(|node| query_text(reader, node, source));
            let candidate = candidate?;
            let baseline = match (baseline, source) {
                (Some(baseline), _) => Some(baseline?),
                // The same figure of the other version costs nothing.
                (None, MetricSource::DataPlane) => Some(candidate.clone()),
                (None, MetricSource::Prometheus(_) | MetricSource::Json(_)) => None,
            };
            Some(MetricQueries::Number { candidate, baseline })
        }
        (None, None, None) => {
            reader.missing(fields.node(), "query", "write `query: error_rate`, or PromQL");
            None
        }
        (None, one, other) => {
            let at = one.or(other).unwrap_or_else(|| fields.node());
            let hint = "write `numerator` and `denominator`";
            reader.report(at, Code::Contradiction, "is one counter; the test needs two", hint);
            None
        }
        (Some(query), _, _) => {
            let message = "says something else than `numerator` and `denominator`";
            reader.report(&query, Code::Contradiction, message, "keep one of the two");
            None
        }
    }
}

fn query_text(reader: &mut Reader, node: &Node, source: &MetricSource) -> Option<String> {
    if *source == MetricSource::DataPlane {
        return reader.word(node, &FIGURES).map(str::to_owned);
    }
    let text = template::text(reader, node, Scope::Metric)?;
    let (is_good, code, message, hint) = match source {
        MetricSource::DataPlane | MetricSource::Prometheus(_) => {
            (!text.trim().is_empty(), Code::OutOfRange, "asks for nothing", "write PromQL")
        }
        MetricSource::Json(_) => {
            let hint = "write a JSON pointer such as `/errors/rate`";
            (text.starts_with('/'), Code::Path, "is not a JSON pointer", hint)
        }
    };
    if is_good {
        return Some(text);
    }
    reader.report(node, code, message, hint);
    None
}

fn check_baseline(
    reader: &mut Reader,
    fields: &Fields<'_>,
    rule: &MetricRule,
    queries: &MetricQueries,
) {
    let has_baseline = !matches!(queries, MetricQueries::Number { baseline: None, .. });
    let MetricRule::Conditions { success, failure } = rule else { return };
    let mut conditions = success.iter().chain(failure);
    if has_baseline || !conditions.any(Condition::needs_baseline) {
        return;
    }
    let at = fields.get("success_condition").or_else(|| fields.get("failure_condition"));
    let message = "speaks of the baseline, but there is no `baseline_query`";
    let hint = "add one, with `{{version}}` for the baseline's version";
    reader.report(at.unwrap_or_else(|| fields.node()), Code::Contradiction, message, hint);
}

/// What a working metric could do better.
pub(crate) fn advice(metric: &MetricSpec) -> Option<String> {
    let texts = match &metric.queries {
        MetricQueries::Number { candidate, baseline } => [Some(candidate), baseline.as_ref()],
        MetricQueries::Counters { numerator, denominator } => [Some(numerator), Some(denominator)],
    };
    let has_quantile = texts.into_iter().flatten().any(|it| it.contains("histogram_quantile"));
    has_quantile.then(|| {
        format!(
            "metric {}: a quantile of a histogram is a guess between two buckets and cannot be \
             tested with a stated error. Prefer two counters: as `numerator` the requests slower \
             than the limit (`_count` minus the bucket at the limit), as `denominator` all of them",
            metric.name
        )
    })
}
