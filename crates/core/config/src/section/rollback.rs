//! `rollback:`: when a release is taken back, as the documents' `pipeline_config.yaml` has it.

use std::time::Duration;

use switchback_domain::strategy::{AnalysisStep, Step};
use switchback_domain::trigger::{ExactTest, Triggers};

use crate::reader::Reader;
use crate::section::exact_test::{self, EXACT_TEST};
use crate::section::service::REVISIONS_MAX;
use crate::section::step::default_thresholds;
use crate::section::trigger::{self, TRIGGERS};
use crate::table::{Kind, Table, field};
use crate::value::Node;

pub(crate) static ROLLBACK: Table = Table::new(
    "rollback",
    "When a release is taken back.",
    &[&[
        field("enabled", Kind::Bool, "false switches triggers and exact test off. Default: true."),
        field(
            "error_threshold",
            Kind::Share,
            "Share of failed requests: the limit of the monitoring window, and of \
             triggers.error_rate where that has none of its own.",
        ),
        field(
            "monitoring_window",
            Kind::Window,
            "How long the candidate is judged at 100 % before it is promoted: a duration, or \
             seconds as in the documents. Default: 5m for blue-green, 1m for canary.",
        ),
        field("revisions", REVISIONS, "Revisions kept; the same as revision_history_limit."),
        field(
            "exact_test",
            Kind::Either(&[Kind::Struct(&EXACT_TEST), Kind::Bool]),
            "The test of both versions' requests with a stated chance of error. Default: on.",
        ),
        field("triggers", Kind::Struct(&TRIGGERS), "When a release is taken back by itself."),
    ]],
);

const REVISIONS: Kind = Kind::Count { min: 1, max: REVISIONS_MAX };

/// What is looked at once all traffic is on the candidate.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Monitoring {
    /// As given; each strategy has its own default.
    pub(crate) window: Option<Duration>,
    /// The share of requests that may fail, as given.
    pub(crate) error_threshold: Option<f64>,
}

impl Monitoring {
    /// The documents watch the logs for five minutes after the switch.
    pub(crate) const WINDOW: Duration = Duration::from_mins(5);

    /// The analysis at 100 %.
    pub(crate) fn analysis(&self, duration: Duration) -> Step {
        let mut thresholds = default_thresholds();
        if let Some(error_threshold) = self.error_threshold {
            thresholds.error_rate_max = Some(error_threshold);
            thresholds.success_rate_min = None;
        }
        Step::Analysis(AnalysisStep { duration, thresholds })
    }
}

/// The rollback section, read.
pub(crate) struct Rollback {
    pub(crate) monitoring: Monitoring,
    pub(crate) triggers: Triggers,
    pub(crate) exact_test: Option<ExactTest>,
    pub(crate) revisions: Option<u32>,
}

/// The documents' numbers.
pub(crate) fn default_rollback() -> Rollback {
    let triggers = trigger::default_triggers(None);
    let (monitoring, exact_test) = (Monitoring::default(), Some(ExactTest::DEFAULT));
    Rollback { monitoring, triggers, exact_test, revisions: None }
}

/// Reads the section.
pub(crate) fn rollback(reader: &mut Reader, node: &Node) -> Rollback {
    let fields = reader.fields(node, &ROLLBACK);
    let enabled = fields.read("enabled", reader, Reader::boolean).unwrap_or(true);
    let error_threshold = fields.read("error_threshold", reader, Reader::share);
    let window = fields.read("monitoring_window", reader, trigger::window);
    let revisions = fields.read("revisions", reader, |r, node| r.count(node, 1..=REVISIONS_MAX));
    let defaults = trigger::default_triggers(error_threshold);
    let triggers = match fields.get("triggers") {
        Some(node) => trigger::triggers(reader, node, &defaults),
        None => defaults,
    };
    let triggers = if enabled { triggers } else { Triggers::default() };
    let exact_test = match fields.get("exact_test") {
        Some(node) => exact_test::exact_test(reader, node),
        None => Some(ExactTest::DEFAULT),
    };
    let exact_test = exact_test.filter(|_| enabled);
    Rollback { monitoring: Monitoring { window, error_threshold }, triggers, exact_test, revisions }
}
