//! `steps:`: what a canary or blue-green rollout does, in order.

use std::time::Duration;

use switchback_domain::Weight;
use switchback_domain::strategy::{AnalysisStep, Step};
use switchback_domain::trigger::Thresholds;

use crate::diagnostic::Code;
use crate::quantity;
use crate::reader::Reader;
use crate::section::hook::{self, HOOK};
use crate::section::metric::{self, METRIC};
use crate::table::{Kind, Table, field};
use crate::value::{Entry, Node, Value};

/// Steps of one rollout. More are a schedule, not a rollout.
pub(crate) const STEPS_MAX: usize = 100;
/// How long an analysis looks when it does not say.
pub(crate) const ANALYSIS: Duration = Duration::from_mins(1);
/// Finished requests before anything is decided.
const SAMPLES_MIN: u32 = 50;
const SAMPLES_MAX: u32 = 1_000_000_000;
/// The documents' thresholds of a canary: 99.5 % must succeed, 1 % may fail.
const SUCCESS_RATE: f64 = 0.995;
const ERROR_RATE: f64 = 0.01;

pub(crate) static STEP: Table = Table {
    name: "step",
    doc: "One step of a rollout: exactly one of these keys.",
    groups: &[&[
        field("set_weight", Kind::Weight, "Give the candidate this share of traffic: 25 or 25%."),
        field(
            "pause",
            Kind::Either(&[Kind::Struct(&PAUSE), Kind::Duration, Kind::Null]),
            "Wait this long; without a duration until `switchback promote`.",
        ),
        field(
            "analysis",
            Kind::Either(&[Kind::Struct(&ANALYSIS_TABLE), Kind::Null]),
            "Judge the candidate; going on needs a verdict of safe.",
        ),
        field(
            "approve",
            Kind::Either(&[Kind::Struct(&APPROVE), Kind::Null]),
            "Wait for somebody's `switchback promote`, recorded with their name.",
        ),
        field(
            "hook",
            Kind::Either(&[Kind::Struct(&HOOK), Kind::Command]),
            "Run a command; exit code 0 goes on.",
        ),
    ]],
    exactly_one: true,
};

static PAUSE: Table = Table::new(
    "pause",
    "A pause.",
    &[&[field("duration", Kind::Duration, "How long. Default: until `switchback promote`.")]],
);

static APPROVE: Table = Table::new("approve", "An approval; it has no keys yet.", &[&[]]);

pub(crate) static ANALYSIS_TABLE: Table = Table::new(
    "analysis",
    "What the candidate must keep to, and for how long it is looked at.",
    &[&[
        field("duration", Kind::Duration, "How long to look at least. Default: 1m."),
        field(
            "success_rate",
            Kind::Share,
            "Share of requests that must succeed. Default: 99.5%, unless error_rate is given.",
        ),
        field(
            "error_rate",
            Kind::Share,
            "Share of requests that may fail. Default: 1%, unless success_rate is given.",
        ),
        field("latency_p95", Kind::Duration, "Longest 95th percentile. Default: not asked."),
        field("latency_p99", Kind::Duration, "Longest 99th percentile. Default: not asked."),
        field(
            "latency_ratio",
            Kind::Number,
            "Largest ratio of its mean latency to the baseline's. Default: not asked.",
        ),
        field(
            "min_samples",
            Kind::Count { min: 1, max: SAMPLES_MAX },
            "Finished requests before anything is decided. Default: 50.",
        ),
        field("metrics", Kind::List(&Kind::Struct(&METRIC)), "Numbers watched during the step."),
    ]],
);

/// The documents' thresholds.
pub(crate) const fn default_thresholds() -> Thresholds {
    Thresholds {
        success_rate_min: Some(SUCCESS_RATE),
        error_rate_max: Some(ERROR_RATE),
        latency_p95_max: None,
        latency_p99_max: None,
        latency_ratio_max: None,
        samples_min: SAMPLES_MIN as u64,
        metrics: Vec::new(),
    }
}

/// An analysis with the documents' thresholds.
pub(crate) const fn default_analysis(duration: Duration) -> Step {
    Step::Analysis(AnalysisStep { duration, thresholds: default_thresholds() })
}

/// Each weight followed by an analysis.
pub(crate) fn ladder(weights: &[Weight], analysis: &AnalysisStep) -> Vec<Step> {
    let rung = |weight: &Weight| [Step::SetWeight(*weight), Step::Analysis(analysis.clone())];
    weights.iter().flat_map(rung).collect()
}

/// The steps of a strategy; `with_weights` says whether it shifts traffic by steps at all.
pub(crate) fn steps(reader: &mut Reader, node: &Node, with_weights: bool) -> Vec<Step> {
    let items = reader.list(node, "[{set_weight: 5%}, {analysis: {}}, {set_weight: 100%}]");
    if items.len() > STEPS_MAX {
        let message = format!("{} steps are too many", items.len());
        reader.report(node, Code::Limit, message, format!("use at most {STEPS_MAX}"));
        return Vec::new();
    }
    let read: Vec<_> = items.iter().map(|item| (item, step(reader, item))).collect();
    if with_weights {
        check_weights(reader, node, &read);
    } else {
        for (item, step) in &read {
            if matches!(step, Some(Step::SetWeight(_))) {
                let hint = "use `strategy: canary` or `strategy: blue-green` for weights, or take \
                            `set_weight` out: a rolling update shifts with its instances";
                let message = "a rolling update has no weights of its own";
                reader.report(item, Code::Weights, message, hint);
            }
        }
    }
    read.into_iter().filter_map(|(_, step)| step).collect()
}

fn step(reader: &mut Reader, node: &Node) -> Option<Step> {
    if let Some(word) = node.plain().filter(|_| !node.is_null()) {
        return bare_step(reader, node, word);
    }
    let fields = reader.fields(node, &STEP);
    let entries = node.entries().iter().filter(|entry| STEP.knows(&entry.key));
    let given: Vec<_> = entries.collect();
    let [entry] = given.as_slice() else {
        // An unknown key was reported as such; it was meant to be the one.
        let is_foreign = |entry: &Entry| !STEP.knows(&entry.key) && !entry.key.starts_with("x-");
        let explained = given.is_empty() && node.entries().iter().any(is_foreign);
        if fields.is_map() && !explained {
            let hint = "start each step with `- `, as in `- set_weight: 5%`";
            let message = format!("a step has exactly one key, found {}", given.len());
            reader.report(node, Code::Contradiction, message, hint);
        }
        return None;
    };
    let value = &entry.value;
    match entry.key.as_str() {
        "set_weight" => set_weight(reader, value).map(Step::SetWeight),
        "pause" => pause(reader, value),
        "analysis" if value.is_null() => Some(default_analysis(ANALYSIS)),
        "analysis" => Some(Step::Analysis(analysis(reader, value))),
        "approve" => {
            if !value.is_null() {
                reader.fields(value, &APPROVE);
            }
            Some(Step::Approve)
        }
        _ => hook::hook(reader, value).map(Step::Hook),
    }
}

/// A step that is only a word.
fn bare_step(reader: &mut Reader, node: &Node, word: &str) -> Option<Step> {
    match word {
        "pause" => return Some(Step::Pause { duration_ms: None }),
        "approve" => return Some(Step::Approve),
        "analysis" => return Some(default_analysis(ANALYSIS)),
        _ => {}
    }
    reader.wrong_type(node, "a step", "write `- set_weight: 25%` or `- pause: 5m`");
    None
}

/// A share of traffic above zero.
pub(crate) fn set_weight(reader: &mut Reader, node: &Node) -> Option<Weight> {
    reader.percent(node).and_then(quantity::weight)
}

fn pause(reader: &mut Reader, node: &Node) -> Option<Step> {
    let duration = match &node.value {
        Value::Scalar { .. } if node.is_null() => None,
        Value::Scalar { .. } => Some(reader.duration_above_zero(node)?),
        Value::Map(_) | Value::List(_) => {
            let fields = reader.fields(node, &PAUSE);
            match fields.get("duration") {
                Some(duration) => Some(reader.duration_above_zero(duration)?),
                None => None,
            }
        }
    };
    let millis = duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    Some(Step::Pause { duration_ms: millis })
}

/// An analysis with what it asks.
pub(crate) fn analysis(reader: &mut Reader, node: &Node) -> AnalysisStep {
    let fields = reader.fields(node, &ANALYSIS_TABLE);
    let duration = fields.read("duration", reader, Reader::duration_above_zero);
    let rates_given = fields.get("success_rate").or_else(|| fields.get("error_rate")).is_some();
    let default = |rate: f64| (!rates_given).then_some(rate);
    let seconds = |reader: &mut Reader, node: &Node| {
        reader.duration_above_zero(node).map(|duration| duration.as_secs_f64())
    };
    let samples = fields.read("min_samples", reader, |r, node| r.count(node, 1..=SAMPLES_MAX));
    let thresholds = Thresholds {
        success_rate_min: fields
            .read("success_rate", reader, Reader::share)
            .or_else(|| default(SUCCESS_RATE)),
        error_rate_max: fields
            .read("error_rate", reader, Reader::share)
            .or_else(|| default(ERROR_RATE)),
        latency_p95_max: fields.read("latency_p95", reader, seconds),
        latency_p99_max: fields.read("latency_p99", reader, seconds),
        latency_ratio_max: fields
            .read("latency_ratio", reader, |r, node| r.number(node, 0.01..=1000.0)),
        samples_min: u64::from(samples.unwrap_or(SAMPLES_MIN)),
        metrics: fields.get("metrics").map(|n| metric::metrics(reader, n)).unwrap_or_default(),
    };
    AnalysisStep { duration: duration.unwrap_or(ANALYSIS), thresholds }
}

/// Weights ascend and end at 100 %.
fn check_weights(reader: &mut Reader, node: &Node, steps: &[(&Node, Option<Step>)]) {
    let mut last: Option<(Weight, &Node)> = None;
    for (item, step) in steps {
        let Some(Step::SetWeight(weight)) = step else { continue };
        if let Some((before, _)) = last.filter(|(before, _)| weight <= before) {
            let message = format!("{weight} does not ascend: the step before gives {before}");
            let hint = format!("use more than {before}, or take the step out");
            reader.report(item, Code::Weights, message, hint);
        }
        last = Some((*weight, item));
    }
    // A weight that could not be read may well have been the last one.
    let unread = steps.iter().any(|(_, step)| step.is_none());
    match last {
        Some((Weight::ALL, _)) => {}
        _ if unread => {}
        Some((weight, item)) => {
            let message = format!("the weights end at {weight}, not at 100%");
            reader.report(item, Code::Weights, message, "end with `- set_weight: 100%`");
        }
        None => {
            let hint = "begin with `- set_weight: 5%` and end with `- set_weight: 100%`";
            reader.report(node, Code::Weights, "no step gives the candidate traffic", hint);
        }
    }
}
