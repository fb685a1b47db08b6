//! `strategy:`: rolling, blue-green or canary, and the ladder of steps that comes with it.

use std::time::Duration;

use switchback_domain::Weight;
use switchback_domain::strategy::{AnalysisStep, Step, StrategyKind};

use crate::diagnostic::Code;
use crate::quantity;
use crate::reader::Reader;
use crate::section::canary_document::{self, CANARY};
use crate::section::rollback::Monitoring;
use crate::section::step::{self, ANALYSIS, STEP, STEPS_MAX, default_thresholds, ladder};
use crate::table::{Kind, Table, field};
use crate::value::{Node, Value};

/// The documents' gradual switch of blue-green, with a short look at each step.
const BLUE_GREEN: [u16; 4] = [10, 25, 50, 100];
const BLUE_GREEN_ANALYSIS: Duration = Duration::from_secs(30);
/// The documents' canary.
const CANARY_WEIGHTS: [u16; 4] = [5, 25, 50, 100];

pub(crate) const KINDS: [(&str, StrategyKind); 3] = [
    ("rolling", StrategyKind::Rolling),
    ("blue-green", StrategyKind::BlueGreen),
    ("canary", StrategyKind::Canary),
];

pub(crate) const WORDS: &[&str] = &["rolling", "blue-green", "canary"];

pub(crate) static STRATEGY: Table = Table::new(
    "strategy",
    "How a release is brought in. Without steps, each strategy has its own: canary 5, 25, 50, \
     100 % with an analysis of 1m at each; blue-green 10, 25, 50, 100 % with 30s at each and the \
     monitoring window at the end; rolling goes instance by instance.",
    &[&[
        field("type", Kind::Word(WORDS), "Which way."),
        field(
            "steps",
            Kind::List(&Kind::Either(&[Kind::Struct(&STEP), Kind::Word(&STEP_WORDS)])),
            "What to do, in order. Weights ascend and end at 100 %.",
        ),
        field("step_weight", Kind::Weight, "The weight grows by this much at each step."),
        field("max_weight", Kind::Weight, "The last weight before 100. Default: 50."),
        field("step_weights", Kind::List(&Kind::Weight), "The weights, as a list."),
        field("step_duration", Kind::Duration, "The analysis at each of these. Default: 1m."),
        field("canary", Kind::Struct(&CANARY), "The canary-config.yml of the documents."),
    ]],
);

static STEP_WORDS: [&str; 3] = ["pause", "analysis", "approve"];

/// What the user asked for.
pub(crate) struct Strategy {
    pub(crate) kind: StrategyKind,
    /// `None` takes the ladder of the kind.
    pub(crate) steps: Option<Vec<Step>>,
}

/// Reads the strategy: a word, or a map.
pub(crate) fn strategy(reader: &mut Reader, node: &Node) -> Option<Strategy> {
    if !matches!(node.value, Value::Map(_)) {
        let kind = reader.word(node, &KINDS)?;
        return Some(Strategy { kind, steps: None });
    }
    let fields = reader.fields(node, &STRATEGY);
    let ways = ["canary", "steps", "step_weights", "step_weight"];
    let given: Vec<_> = ways.iter().filter_map(|key| Some((*key, fields.get(key)?))).collect();
    if let [(first, _), (second, at), ..] = given.as_slice() {
        let message = format!("`{first}` and `{second}` both say what the steps are");
        reader.report(at, Code::Contradiction, message, "keep one of them");
    }
    let way = given.first().copied();
    let kind = match (fields.get("type"), way) {
        (Some(kind), _) => reader.word(kind, &KINDS).unwrap_or(StrategyKind::Canary),
        (None, Some(("canary" | "step_weights" | "step_weight", _))) => StrategyKind::Canary,
        (None, _) => {
            reader.missing(node, "type", "write `type: canary`, `blue-green` or `rolling`");
            StrategyKind::Canary
        }
    };
    check_shorthand_keys(reader, node, way.map(|(key, _)| key));
    let with_weights = kind != StrategyKind::Rolling;
    let steps = match way {
        None => None,
        Some(("steps", node)) => Some(step::steps(reader, node, with_weights)),
        Some((key, at)) => {
            check_shorthand_kind(reader, at, key, kind);
            Some(shorthand(reader, node, key, at))
        }
    };
    Some(Strategy { kind, steps })
}

/// Keys that only mean something beside another one.
fn check_shorthand_keys(reader: &mut Reader, node: &Node, way: Option<&str>) {
    let partners: [(&str, &[&str]); 2] =
        [("max_weight", &["step_weight"]), ("step_duration", &["step_weight", "step_weights"])];
    for (key, needs) in partners {
        let Some(at) = node.find(key) else { continue };
        if !way.is_some_and(|way| needs.contains(&way)) {
            let message = format!("`{key}` means nothing without `{}`", needs.join("` or `"));
            let hint = "add it, or take this key out";
            reader.report(at, Code::Contradiction, message, hint);
        }
    }
}

fn check_shorthand_kind(reader: &mut Reader, at: &Node, key: &str, kind: StrategyKind) {
    let fits = match kind {
        StrategyKind::Rolling => false,
        StrategyKind::BlueGreen => key != "canary",
        StrategyKind::Canary => true,
    };
    if !fits {
        let message = format!("`{key}` does not fit this `type`");
        reader.report(at, Code::Contradiction, message, "write `type: canary`, or take it out");
    }
}

fn shorthand(reader: &mut Reader, node: &Node, key: &str, at: &Node) -> Vec<Step> {
    if key == "canary" {
        return canary_document::steps(reader, at);
    }
    let duration = node.find("step_duration").and_then(|node| reader.duration_above_zero(node));
    let weights = if key == "step_weights" {
        listed_weights(reader, at)
    } else {
        let max = node.find("max_weight").and_then(|node| reader.percent(node)).unwrap_or(50.0);
        reader.percent(at).map(|step| linear_weights(step, max)).unwrap_or_default()
    };
    if weights.len() > STEPS_MAX {
        let message = format!("gives {} steps, which are too many", weights.len());
        reader.report(at, Code::Limit, message, "write a larger weight");
        return Vec::new();
    }
    let duration = duration.unwrap_or(ANALYSIS);
    ladder(&weights, &AnalysisStep { duration, thresholds: default_thresholds() })
}

/// Flagger's `stepWeights`: promotion comes after the last one, so 100 % need not be written.
fn listed_weights(reader: &mut Reader, node: &Node) -> Vec<Weight> {
    let mut weights: Vec<Weight> = Vec::new();
    for item in reader.list(node, "[5, 25, 50, 100]") {
        let Some(weight) = step::set_weight(reader, item) else { continue };
        if let Some(before) = weights.last().filter(|before| weight <= **before) {
            let message = format!("{weight} does not ascend: the step before gives {before}");
            let hint = format!("use more than {before}, or take it out");
            reader.report(item, Code::Weights, message, hint);
        }
        weights.push(weight);
    }
    if weights.last() != Some(&Weight::ALL) {
        weights.push(Weight::ALL);
    }
    weights
}

/// Flagger's `stepWeight` and `maxWeight`.
fn linear_weights(step: f64, max: f64) -> Vec<Weight> {
    let mut weights = Vec::new();
    let mut next = step;
    while next <= max && next < 100.0 && weights.len() <= STEPS_MAX {
        weights.extend(quantity::weight((next * 100.0).round() / 100.0));
        next += step;
    }
    weights.push(Weight::ALL);
    weights
}

/// The steps of a rollout: the user's, or those that come with the strategy. The monitoring
/// window is the analysis at 100 %; the user's own analysis there wins.
pub(crate) fn steps_of(
    kind: StrategyKind,
    own: Option<&Vec<Step>>,
    monitoring: &Monitoring,
) -> Vec<Step> {
    let Some(own) = own else { return default_steps(kind, monitoring) };
    let mut steps = own.clone();
    let last_weight = steps.iter().rposition(|step| matches!(step, Step::SetWeight(_)));
    let tail = &steps[last_weight.unwrap_or(0)..];
    let is_watched = tail.iter().any(|step| matches!(step, Step::Analysis(_)));
    if !is_watched && let Some(window) = monitoring.window {
        steps.push(monitoring.analysis(window));
    }
    steps
}

fn default_steps(kind: StrategyKind, monitoring: &Monitoring) -> Vec<Step> {
    let (weights, look, at_all) = match kind {
        StrategyKind::Rolling => {
            return monitoring
                .window
                .map(|window| monitoring.analysis(window))
                .into_iter()
                .collect();
        }
        StrategyKind::BlueGreen => (BLUE_GREEN, BLUE_GREEN_ANALYSIS, Monitoring::WINDOW),
        StrategyKind::Canary => (CANARY_WEIGHTS, ANALYSIS, ANALYSIS),
    };
    let below_all = weights.iter().filter(|percent| **percent < 100);
    let weights: Vec<_> = below_all.map(|percent| Weight::from_percent(*percent)).collect();
    let mut steps =
        ladder(&weights, &AnalysisStep { duration: look, thresholds: default_thresholds() });
    let last = monitoring.analysis(monitoring.window.unwrap_or(at_all));
    steps.extend([Step::SetWeight(Weight::ALL), last]);
    steps
}
