//! How a release is brought in: strategy, steps and limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Weight;
use crate::metric::{MetricRule, MetricSpec};
use crate::trigger::{ExactTest, Thresholds, Triggers};

/// The three ways to bring a release in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StrategyKind {
    /// Instance by instance: start new ones, shift their share, stop old ones.
    Rolling,
    /// A full second set, checked before it gets traffic, switched in steps or at once.
    BlueGreen,
    /// A growing share of traffic with a verdict at each step.
    Canary,
}

/// One step of a rollout as users write it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Give the candidate this share of traffic.
    SetWeight(Weight),
    /// Wait this long, or until `switchback promote` when no duration is given.
    Pause {
        /// Milliseconds; `None` waits for an operator.
        duration_ms: Option<u64>,
    },
    /// Judge the candidate for a while; going on needs a verdict of safe.
    Analysis(AnalysisStep),
    /// Wait for an operator's `switchback promote`, recorded with their name.
    Approve,
    /// Run a command; exit code 0 goes on.
    Hook(Hook),
}

/// An analysis step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnalysisStep {
    /// How long to look at least.
    #[serde(with = "crate::time::millis")]
    pub duration: Duration,
    /// What the candidate must keep to.
    pub thresholds: Thresholds,
}

/// A command of the user's, run by the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// What it is called in the output.
    pub name: String,
    /// Program and arguments, with templates; `{{address}}` is the first candidate's address.
    pub argv: Vec<String>,
    /// How long it may take.
    #[serde(with = "crate::time::millis")]
    pub timeout: Duration,
}

/// What to do when a rollout fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureAction {
    /// Bring the baseline back (the default).
    Rollback,
    /// Stop where it is and wait for an operator.
    Pause,
    /// Write it down and go on.
    Continue,
}

/// What to do with a second `deploy` while one runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BusyPolicy {
    /// Start it when the running one has ended.
    Queue,
    /// Take the running one back, then start it. A queued one is replaced.
    Supersede,
    /// Say no.
    Refuse,
}

/// Everything that says how a release of one service is brought in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutPolicy {
    /// Instances at full strength.
    pub replicas: u32,
    /// Which way.
    pub strategy: StrategyKind,
    /// The user's steps, or the strategy's own. Weights ascend and end at 100 %; a rolling update
    /// has none of its own, its steps (pause, analysis, approve, hook) run when all is shifted.
    pub steps: Vec<Step>,
    /// Instances above `replicas` that may run during a rolling update, at least 1.
    pub max_surge: u32,
    /// Instances below `replicas` that may be missing during a rolling update.
    pub max_unavailable: u32,
    /// How long one step may make no progress before the rollout fails.
    #[serde(with = "crate::time::millis")]
    pub progress_deadline: Duration,
    /// How long requests on their way may take to end once an instance gets no new ones.
    #[serde(with = "crate::time::millis")]
    pub drain_timeout: Duration,
    /// How long the baseline stays at strength after promotion.
    #[serde(with = "crate::time::millis")]
    pub scale_down_delay: Duration,
    /// When it fails.
    pub failure_action: FailureAction,
    /// Whether the last step promotes by itself; otherwise it waits for `switchback promote`.
    pub auto_promote: bool,
    /// When another one runs.
    pub on_busy: BusyPolicy,
    /// When to take it back at any time.
    pub triggers: Triggers,
    /// The exact test of the candidate while both versions have traffic; `None` is off.
    #[serde(default = "ExactTest::default_of_a_policy")]
    pub exact_test: Option<ExactTest>,
    /// Checks of the candidate before it gets traffic.
    pub smoke_tests: Vec<Hook>,
    /// Revisions kept for `switchback rollback`, at least 1.
    pub revision_history_limit: u32,
}

impl RolloutPolicy {
    /// The exact test of the requests, with what its alpha leaves them: each metric of counters that
    /// can take the candidate back has its own part of it, so that all of them together keep to the
    /// whole (a union bound, whatever they measure). At least half stays with the requests: metrics
    /// that are given more than the other half spend it beyond alpha.
    pub fn exact_test_of_requests(&self) -> Option<ExactTest> {
        let rules = self.exact_test.as_ref()?;
        let of_step = |step: &Step| match step {
            Step::Analysis(analysis) => analysis.thresholds.metrics.iter().map(spends).sum(),
            Step::SetWeight(_) | Step::Pause { .. } | Step::Approve | Step::Hook(_) => 0.0,
        };
        let in_steps: f64 = self.steps.iter().map(of_step).sum();
        let throughout: f64 = self.triggers.metrics.iter().map(spends).sum();
        let left = (rules.alpha - in_steps - throughout).max(rules.alpha / 2.0);
        Some(ExactTest { alpha: left, ..rules.clone() })
    }
}

/// Chance that a metric takes a candidate back that keeps to it, where it has a stated one.
fn spends(metric: &MetricSpec) -> f64 {
    match metric.rule {
        MetricRule::Odds { alpha, .. } if !metric.dry_run => alpha,
        MetricRule::Odds { .. } | MetricRule::Conditions { .. } | MetricRule::Range { .. } => 0.0,
    }
}
