//! `rollback.triggers:`: when a release is taken back, in the documents' words and numbers (R05).

use std::collections::BTreeSet;
use std::time::Duration;

use switchback_domain::trigger::{CustomMetric, Threshold, Triggers};

use crate::diagnostic::Code;
use crate::reader::Reader;
use crate::scalar::Bare;
use crate::section::command::command;
use crate::section::template::Scope;
use crate::table::{Field, Kind, Table, field, required};
use crate::value::{Node, Value};

/// Failed checks, more of which nobody counts.
const FAILURES_MAX: u32 = 1000;
const CUSTOM_INTERVAL: Duration = Duration::from_secs(10);
const CUSTOM_WINDOW: Duration = Duration::from_mins(2);

const WINDOW: &[Field] = &[field(
    "window",
    Kind::Window,
    "How long it must hold: a duration, or seconds as in the documents.",
)];

pub(crate) static TRIGGERS: Table = Table::new(
    "triggers",
    "When a release is taken back by itself. What is not named keeps the documents' numbers; \
     `false` switches one off.",
    &[&[
        field(
            "error_rate",
            either(&[Kind::Struct(&SHARE), Kind::Bool]),
            "Share of failed requests. Default: above 5% for 120s.",
        ),
        field(
            "response_time",
            either(&[Kind::Struct(&RATIO), Kind::Bool]),
            "Mean latency against the baseline's. Default: above 2.0 times for 180s.",
        ),
        field(
            "latency_p95",
            either(&[Kind::Struct(&LATENCY), Kind::Bool]),
            "95th percentile of the latency. Default: above 2000ms for 300s.",
        ),
        field(
            "cpu_usage",
            either(&[Kind::Struct(&CPU), Kind::Bool]),
            "CPU of an instance, in cores. Default: above 0.85 for 300s.",
        ),
        field(
            "memory_usage",
            either(&[Kind::Struct(&MEMORY), Kind::Bool]),
            "Resident memory of an instance. Default: off.",
        ),
        field(
            "health_checks",
            either(&[Kind::Struct(&FAILURES), Kind::Bool]),
            "Failed health checks. Default: 3 within 120s.",
        ),
        field("custom", Kind::List(&Kind::Struct(&CUSTOM)), "Numbers that commands print."),
    ]],
);

const fn either(kinds: &'static [Kind]) -> Kind {
    Kind::Either(kinds)
}

static SHARE: Table = Table::new(
    "error_rate",
    "Share of failed requests.",
    &[&[field("threshold", Kind::Share, "Above this: `5%` or 0.05.")], WINDOW],
);
static RATIO: Table = Table::new(
    "response_time",
    "Mean latency against the baseline's.",
    &[&[field("threshold_multiplier", Kind::Number, "Above this many times.")], WINDOW],
);
static LATENCY: Table = Table::new(
    "latency",
    "A latency.",
    &[&[field("threshold", Kind::Latency, "Above this: a duration, or milliseconds.")], WINDOW],
);
static CPU: Table = Table::new(
    "cpu_usage",
    "CPU of an instance.",
    &[
        &[field("threshold", Kind::Either(&[Kind::Number, Kind::Share]), "In cores: 0.85 or 85%.")],
        WINDOW,
    ],
);
static MEMORY: Table = Table::new(
    "memory_usage",
    "Resident memory of an instance.",
    &[&[field("threshold", Kind::Size, "Above this: `512MiB`.")], WINDOW],
);
static FAILURES: Table = Table::new(
    "health_checks",
    "Failed health checks.",
    &[
        &[field(
            "failures",
            Kind::Count { min: 1, max: FAILURES_MAX },
            "This many within the window.",
        )],
        WINDOW,
    ],
);
static CUSTOM: Table = Table::new(
    "custom",
    "A number that a command prints.",
    &[
        &[
            required("name", Kind::Text, "What it is called."),
            required("command", Kind::Command, "The first number it prints counts."),
            required("threshold", Kind::Number, "Above this, in whatever unit the command prints."),
            field("interval", Kind::Duration, "Time between two runs. Default: 10s."),
        ],
        WINDOW,
    ],
);

/// The documents' triggers.
pub(crate) fn default_triggers(error_threshold: Option<f64>) -> Triggers {
    let limit =
        |threshold, seconds| Some(Threshold { threshold, window: Duration::from_secs(seconds) });
    Triggers {
        error_rate: limit(error_threshold.unwrap_or(0.05), 120),
        response_time: limit(2.0, 180),
        latency_p95: limit(2.0, 300),
        cpu_usage: limit(0.85, 300),
        memory_usage: None,
        health_checks: limit(3.0, 120),
        custom: Vec::new(),
        metrics: Vec::new(),
    }
}

/// The user's triggers over the documents'.
pub(crate) fn triggers(reader: &mut Reader, node: &Node, defaults: &Triggers) -> Triggers {
    let fields = reader.fields(node, &TRIGGERS);
    let mut read = |key: &str, table: &'static Table, value: Reading, default| {
        fields.get(key).map_or(default, |node| trigger(reader, node, table, value, default))
    };
    let error_rate = read("error_rate", &SHARE, ("threshold", Reader::share), defaults.error_rate);
    let response_time =
        read("response_time", &RATIO, ("threshold_multiplier", multiplier), defaults.response_time);
    let latency_p95 = read("latency_p95", &LATENCY, ("threshold", latency), defaults.latency_p95);
    let cpu_usage = read("cpu_usage", &CPU, ("threshold", cores), defaults.cpu_usage);
    let memory_usage =
        read("memory_usage", &MEMORY, ("threshold", Reader::size), defaults.memory_usage);
    let health_checks =
        read("health_checks", &FAILURES, ("failures", failures), defaults.health_checks);
    let custom = fields.get("custom").map(|node| customs(reader, node));
    Triggers {
        error_rate,
        response_time,
        latency_p95,
        cpu_usage,
        memory_usage,
        health_checks,
        custom: custom.unwrap_or_default(),
        metrics: Vec::new(),
    }
}

/// The key that holds a trigger's number, and how it is read.
type Reading = (&'static str, fn(&mut Reader, &Node) -> Option<f64>);

/// One trigger: a map, `true` for the documents' numbers, or `false` for off.
fn trigger(
    reader: &mut Reader,
    node: &Node,
    table: &'static Table,
    (key, read): Reading,
    default: Option<Threshold>,
) -> Option<Threshold> {
    if matches!(node.value, Value::Scalar { .. }) {
        let on = reader.boolean(node)?;
        if on && default.is_none() {
            let hint = format!("write `{{{key}: ..., window: 5m}}`");
            reader.report(node, Code::MissingKey, "the documents have no number for this", hint);
        }
        return default.filter(|_| on);
    }
    let fields = reader.fields(node, table);
    let threshold = fields.read(key, reader, read);
    let window = fields.read("window", reader, window);
    let missing = default.is_none() && fields.is_map() && fields.get(key).is_none();
    if missing {
        reader.missing(node, key, "the documents have no number for this");
    }
    let window = window.or_else(|| default.map(|limit| limit.window)).unwrap_or(CUSTOM_WINDOW);
    let threshold = threshold.or_else(|| default.map(|limit| limit.threshold))?;
    Some(Threshold { threshold, window })
}

/// A window: a duration, or seconds as the documents write them.
pub(crate) fn window(reader: &mut Reader, node: &Node) -> Option<Duration> {
    reader.duration_or_bare(node, Bare::Seconds)
}

fn latency(reader: &mut Reader, node: &Node) -> Option<f64> {
    reader.duration_or_bare(node, Bare::Milliseconds).map(|duration| duration.as_secs_f64())
}

fn multiplier(reader: &mut Reader, node: &Node) -> Option<f64> {
    let multiplier = reader.number(node, 0.0..=1000.0)?;
    if multiplier <= 1.0 {
        let hint = "write a number above 1, such as 2.0";
        let message = "would take every release back that is not faster than the one before";
        reader.report(node, Code::OutOfRange, message, hint);
        return None;
    }
    Some(multiplier)
}

fn cores(reader: &mut Reader, node: &Node) -> Option<f64> {
    match node.scalar().and_then(crate::quantity::percent) {
        Some(percent) => Some(crate::quantity::fraction(percent)),
        None => reader.number(node, 0.001..=1024.0),
    }
}

fn failures(reader: &mut Reader, node: &Node) -> Option<f64> {
    reader.count(node, 1..=FAILURES_MAX).map(f64::from)
}

fn customs(reader: &mut Reader, node: &Node) -> Vec<CustomMetric> {
    let example = "[{name: queue, command: ./queue-length, threshold: 100}]";
    let (mut metrics, mut names) = (Vec::new(), BTreeSet::new());
    for item in reader.list(node, example) {
        let Some(metric) = custom(reader, item) else { continue };
        if !names.insert(metric.name.clone()) {
            let message = format!("there are two metrics `{}`", metric.name);
            reader.report(item, Code::Contradiction, message, "give each its own name");
        }
        metrics.push(metric);
    }
    metrics
}

fn custom(reader: &mut Reader, node: &Node) -> Option<CustomMetric> {
    let fields = reader.fields(node, &CUSTOM);
    let name = fields.read("name", reader, Reader::text);
    let argv = fields.read("command", reader, |r, node| command(r, node, Scope::Hook));
    let threshold = fields.read("threshold", reader, |r, node| r.number(node, 0.0..=1e18));
    let window = fields.read("window", reader, window).unwrap_or(CUSTOM_WINDOW);
    let interval = fields.read("interval", reader, Reader::duration_above_zero);
    let interval = interval.unwrap_or_else(|| CUSTOM_INTERVAL.min(window));
    if let Some(at) = fields.get("interval").filter(|_| interval > window) {
        let hint = "run it at least once per window";
        let message = "is longer than the window, so most windows would hold no number";
        reader.report(at, Code::Contradiction, message, hint);
    }
    let limit = Threshold { threshold: threshold?, window };
    Some(CustomMetric { name: name?, argv: argv?, limit, interval })
}
