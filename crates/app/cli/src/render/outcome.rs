//! How a rollout ended, in a few lines: what `deploy` says last.

use switchback_api::{RolloutDetail, RolloutOutcome, RolloutSummary};

use crate::render::look::{Look, Tone, clean};
use crate::render::table::indented;
use crate::render::{verdict, when};

/// The outcome in words, with its colour; `None` runs still.
pub(crate) fn word(outcome: Option<RolloutOutcome>) -> (&'static str, Tone) {
    match outcome {
        Some(RolloutOutcome::Promoted) => ("promoted", Tone::Good),
        Some(RolloutOutcome::RolledBack) => ("rolled back", Tone::Bad),
        Some(RolloutOutcome::Withdrawn) => ("withdrawn", Tone::Bad),
        Some(RolloutOutcome::Superseded) => ("superseded", Tone::Warn),
        None => ("active", Tone::Warn),
    }
}

/// `v1 -> v2`, or `v2` when nothing served before.
pub(crate) fn versions(summary: &RolloutSummary, look: Look) -> String {
    match &summary.from {
        Some(from) => format!("{from} {} {}", look.arrow(), summary.to),
        None => summary.to.to_string(),
    }
}

/// How long it took, or takes.
pub(crate) fn duration_ms(summary: &RolloutSummary, now_ms: u64) -> u64 {
    summary.ended_ms.unwrap_or(now_ms).saturating_sub(summary.started_ms)
}

/// How it ended, why, and what serves now.
pub(crate) fn lines(detail: &RolloutDetail, look: Look) -> Vec<String> {
    let summary = &detail.summary;
    let (word, tone) = word(summary.outcome);
    let mut lines = vec![format!(
        "{} {} {} {} {} after {}, {} of {} candidate requests failed",
        look.mark(tone),
        summary.id,
        summary.key,
        summary.to,
        look.paint(tone, word),
        when::took(duration_ms(summary, summary.started_ms)),
        summary.candidate_failed,
        summary.candidate_requests,
    )];
    if summary.outcome == Some(RolloutOutcome::Promoted) {
        return lines;
    }
    if let Some(cause) = &summary.cause {
        lines.push(format!("  cause: {}", clean(cause)));
    }
    if let Some(given) = detail.verdict.as_ref().filter(|verdict| verdict.cause().is_some()) {
        lines.extend(indented(verdict::findings(given, look), 4));
    }
    lines.push(match &summary.from {
        Some(from) => format!("  {from} serves as before"),
        None => "  no version served before, and none does now".to_owned(),
    });
    lines.push(look.paint(
        Tone::Dim,
        &format!("  `switchback explain {}` shows every decision with its evidence", summary.id),
    ));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn a_failure_says_why_and_what_serves() {
        let text = lines(&samples::rolled_back(), Look::PLAIN).join("\n");
        assert!(text.starts_with(
            "x r12 production/api v2 rolled back after 42.1s, 21 of 412 candidate requests failed\n\
             \x20 cause: error rate 5.1% of 412 requests, limit 1%\n"
        ), "{text}");
        assert!(text.contains("v1 serves as before"));
        assert!(text.contains("error_rate   heuristic  regressed"));
    }

    #[test]
    fn a_success_is_one_line() {
        let mut detail = samples::rolled_back();
        detail.summary.outcome = Some(RolloutOutcome::Promoted);
        detail.summary.candidate_failed = 0;
        assert_eq!(
            lines(&detail, Look::PLAIN),
            ["+ r12 production/api v2 promoted after 42.1s, 0 of 412 candidate requests failed"]
        );
    }
}
