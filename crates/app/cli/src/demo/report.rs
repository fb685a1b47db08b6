//! What the demo has shown: one table of rollouts, and the ledger. Pure.

use serde::Serialize;
use switchback_api::{Ledger, RolloutDetail, RolloutOutcome, RolloutSummary};
use switchback_demo::load::LoadReport;

use super::acts::{Act, Pace};
use crate::render::look::{Look, Tone};
use crate::render::outcome;
use crate::render::table::{self, Cell};
use crate::render::when::took;

/// One rollout and how it should have ended.
pub(super) struct Scene {
    act: Act,
    is_thorough: bool,
    summary: RolloutSummary,
    /// What condemned it, with its evidence.
    finding: Option<String>,
    phases: Vec<(String, u64)>,
}

impl Scene {
    pub(super) fn new(act: Act, pace: Pace, detail: &RolloutDetail) -> Self {
        let finding = detail.verdict.as_ref().and_then(|verdict| verdict.cause());
        let finding = finding.map(|finding| {
            let basis = switchback_analysis::Guarantee::of_rule(&finding.rule);
            format!("{} ({basis}): {}", finding.rule, finding.summary)
        });
        let (summary, phases) = (detail.summary.clone(), phases(detail));
        Self { act, is_thorough: pace.is_thorough, summary, finding, phases }
    }

    fn is_good(&self) -> bool {
        self.summary.outcome == Some(self.act.expected) && self.failed_few()
    }

    fn failed_few(&self) -> bool {
        !self.is_thorough || self.summary.candidate_failed <= self.act.failed_max
    }

    fn millis(&self) -> u64 {
        self.summary.ended_ms.unwrap_or(self.summary.started_ms) - self.summary.started_ms
    }
}

/// Time spent in each phase, in order of first appearance, in milliseconds.
fn phases(detail: &RolloutDetail) -> Vec<(String, u64)> {
    let mut times: Vec<(String, u64)> = Vec::new();
    let mut current: Option<(String, u64)> =
        Some(("Verifying".to_owned(), detail.summary.started_ms));
    let end = detail.summary.ended_ms.unwrap_or(detail.summary.started_ms);
    let changes = detail.events.iter().filter(|event| event.kind == "phase");
    let changes = changes.map(|event| (Some(event.text.clone()), event.at_ms));
    for (next, at) in changes.chain([(None, end)]) {
        if let Some((phase, since)) = current.take() {
            let spent = at.saturating_sub(since);
            match times.iter_mut().find(|(known, _)| *known == phase) {
                Some((_, total)) => *total += spent,
                None => times.push((phase, spent)),
            }
        }
        current = next.map(|phase| (phase, at));
    }
    times
}

/// Everything the demo has shown.
pub(super) struct Report {
    scenes: Vec<Scene>,
    ledger: Totals,
    sent: u64,
}

/// The ledger in one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Totals {
    /// Requests the data plane took in.
    accepted: u64,
    /// Answered by a version, whatever the answer.
    answered: u64,
    /// Failed because the version failed.
    failed_by_version: u64,
    /// Lost by us, by the data plane's count or the client's.
    dropped: u64,
}

/// The demo's JSON document.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    rollouts: Vec<Row<'a>>,
    ledger: Totals,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    version: &'a str,
    strategy: &'static str,
    outcome: Option<RolloutOutcome>,
    seconds: f64,
    candidate_requests: u64,
    candidate_failed: u64,
    cause: Option<&'a str>,
}

impl<'a> Row<'a> {
    fn of(scene: &'a Scene) -> Self {
        let Scene { act, summary, .. } = scene;
        Self {
            version: act.version,
            strategy: act.strategy_word(),
            outcome: summary.outcome,
            seconds: round(scene.millis()),
            candidate_requests: summary.candidate_requests,
            candidate_failed: summary.candidate_failed,
            cause: summary.cause.as_deref(),
        }
    }
}

impl Report {
    pub(super) fn new(scenes: Vec<Scene>, load: &LoadReport, ledger: &Ledger) -> Self {
        let sum = |count: fn(&switchback_domain::ArmStats) -> u64| -> u64 {
            ledger.versions.iter().map(|entry| count(&entry.stats)).sum()
        };
        // Both sides count: what we say we dropped, and what the client has no answer for.
        let ours = sum(|stats| stats.dropped) + ledger.unrouted + ledger.refused;
        let theirs = load.sent - load.answered_total();
        let totals = Totals {
            accepted: sum(|stats| stats.accepted),
            answered: sum(switchback_domain::ArmStats::answered),
            failed_by_version: sum(switchback_domain::ArmStats::failed),
            dropped: ours + theirs,
        };
        Self { scenes, ledger: totals, sent: load.sent }
    }

    /// All ended as they should, and nothing was dropped.
    pub(super) fn is_good(&self) -> bool {
        self.scenes.iter().all(Scene::is_good) && self.ledger.dropped == 0
    }

    pub(super) fn document(&self) -> Document<'_> {
        Document { rollouts: self.scenes.iter().map(Row::of).collect(), ledger: self.ledger }
    }

    pub(super) fn lines(&self, look: Look) -> Vec<String> {
        let headers = ["VERSION", "STRATEGY", "OUTCOME", "TIME", "REQUESTS", "FAILED", "EVIDENCE"];
        let rows: Vec<_> = self.scenes.iter().map(row).collect();
        let mut lines = vec![String::new()];
        lines.extend(table::lines(&headers, &rows, look));
        lines.push(String::new());
        let longest = |scene: &Scene| {
            let spent = scene.phases.iter().filter(|(_, millis)| *millis >= 50);
            let words: Vec<_> = spent.map(|(phase, ms)| format!("{phase} {}", took(*ms))).collect();
            format!("{:<4} {}", scene.act.version, words.join(", "))
        };
        lines.extend(self.scenes.iter().map(longest));
        lines.push(String::new());
        lines.extend(self.ledger_lines(look));
        lines
    }

    fn ledger_lines(&self, look: Look) -> Vec<String> {
        let Totals { accepted, answered, failed_by_version, dropped } = self.ledger;
        let tone = if dropped == 0 { Tone::Good } else { Tone::Bad };
        let mut lines = vec![
            format!(
                "ledger  {} requests sent, {accepted} accepted, {answered} answered",
                self.sent
            ),
            format!("        {failed_by_version} failed because the version failed"),
            look.paint(tone, &format!("        {dropped} dropped by us")),
        ];
        for scene in self.scenes.iter().filter(|scene| !scene.is_good()) {
            let (version, (word, _)) = (scene.act.version, outcome::word(scene.summary.outcome));
            let (expected, _) = outcome::word(Some(scene.act.expected));
            let text = if scene.failed_few() {
                format!("{version} ended {word}, and should have ended {expected}")
            } else {
                let (failed, max) = (scene.summary.candidate_failed, scene.act.failed_max);
                format!("{version} failed {failed} requests, which are more than {max}")
            };
            lines.push(look.paint(Tone::Bad, &text));
        }
        lines
    }
}

fn row(scene: &Scene) -> Vec<Cell> {
    let Scene { act, summary, .. } = scene;
    let (word, tone) = outcome::word(summary.outcome);
    let evidence = scene.finding.clone().or_else(|| summary.cause.clone());
    let evidence = evidence.unwrap_or_else(|| act.story.to_owned());
    vec![
        Cell::text(act.version),
        Cell::text(act.strategy_word()),
        Cell::text(word).tone(tone),
        Cell::number(took(scene.millis())),
        Cell::number(summary.candidate_requests),
        Cell::number(summary.candidate_failed),
        Cell::text(evidence),
    ]
}

#[allow(clippy::cast_precision_loss, reason = "rollouts end within 2^52 milliseconds")]
fn round(millis: u64) -> f64 {
    millis as f64 / 1000.0
}
