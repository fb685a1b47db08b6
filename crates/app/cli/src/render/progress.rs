//! A rollout on its way: a line per event, and a block that is redrawn.

use switchback_api::{RolloutEvent, RolloutSummary};

use crate::render::look::{Look, Tone, clean};
use crate::render::number::count;
use crate::render::outcome::versions;
use crate::render::table::indented;
use crate::render::{verdict, when};

/// Cells of the weight bar.
const BAR_CELLS: usize = 30;

/// What an event says, in one line; a verdict that condemns brings its findings. With several
/// rollouts at once each line names its own.
pub(crate) fn lines(event: &RolloutEvent, many: bool, look: Look) -> Vec<String> {
    let whose =
        if many { format!("{} {}  ", event.summary.id, event.summary.key) } else { String::new() };
    let at = format!("{:>8}", when::since(event.at_ms, event.summary.started_ms));
    let kind = format!("{:<8}", clean(&event.kind));
    let text = look.paint(tone(event), &clean(&event.text));
    let mut lines = vec![format!("{}  {whose}{kind} {text}", look.paint(Tone::Dim, &at))];
    if let Some(given) = event.verdict.as_ref().filter(|verdict| verdict.cause().is_some()) {
        lines.extend(indented(verdict::findings(given, look), 12));
    }
    lines
}

/// The colour of what happened.
pub(crate) fn tone(event: &RolloutEvent) -> Tone {
    match (event.kind.as_str(), &event.verdict) {
        (_, Some(verdict)) => crate::render::look::outcome_tone(verdict.outcome),
        ("ended", None) => crate::render::outcome::word(event.summary.outcome).1,
        ("phase" | "step", None) => Tone::Strong,
        _ => Tone::Plain,
    }
}

/// Where a rollout is now.
pub(crate) fn block(
    summary: &RolloutSummary,
    newest: Option<&str>,
    lost: bool,
    now_ms: u64,
    look: Look,
) -> Vec<String> {
    let took = when::took(now_ms.saturating_sub(summary.started_ms));
    let head = format!("{} {}  {}", summary.id, summary.key, versions(summary, look));
    let mut lines = vec![
        String::new(),
        format!("{}  {}  {took}", look.paint(Tone::Strong, &head), strategy(summary)),
        format!("  {}", stage(summary)),
        format!(
            "  {} {:>6}   {}, {} failed",
            look.bar(summary.weight, BAR_CELLS),
            summary.weight,
            count(summary.candidate_requests, "candidate request"),
            summary.candidate_failed
        ),
    ];
    if let Some(newest) = newest {
        lines.push(look.paint(Tone::Dim, &format!("  {}", clean(newest))));
    }
    if let Some(waiting) = &summary.waiting_for {
        let text = format!("  waits for {}", clean(waiting));
        lines.push(look.paint(Tone::Warn, &text));
    }
    if lost {
        lines.push(look.paint(Tone::Warn, "  the control plane does not answer; connecting again"));
    }
    lines
}

/// Phase, step n of m, and the step in words.
pub(crate) fn stage(summary: &RolloutSummary) -> String {
    let phase = clean(&summary.phase);
    if summary.step == 0 || summary.steps == 0 {
        return phase;
    }
    format!("{phase}  step {} of {}: {}", summary.step, summary.steps, clean(&summary.doing))
}

/// The strategy's name.
pub(crate) fn strategy(summary: &RolloutSummary) -> &'static str {
    crate::render::plan::strategy(summary.strategy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn a_line_has_time_kind_and_words() {
        let event = samples::event(3, "step", "step 2 of 4: weight 25%");
        assert_eq!(
            lines(&event, false, Look::PLAIN),
            ["  +12.3s  step     step 2 of 4: weight 25%"]
        );
        assert_eq!(
            lines(&event, true, Look::PLAIN),
            ["  +12.3s  r12 production/api  step     step 2 of 4: weight 25%"]
        );
    }

    #[test]
    fn a_verdict_that_condemns_brings_its_findings() {
        let mut event = samples::event(3, "verdict", "regressed");
        event.verdict = Some(samples::verdict());
        assert_eq!(lines(&event, false, Look::PLAIN).len(), 5);
    }

    #[test]
    fn the_block_shows_stage_weight_and_what_it_waits_for() {
        let mut summary = samples::summary();
        summary.waiting_for = Some("switchback promote".to_owned());
        let block = block(&summary, Some("GET /ready 200"), true, 43_100, Look::PLAIN);
        let expected = "
r12 production/api  v1 -> v2  canary  42.1s
  Observing  step 3 of 8: weight 25%
  ########......................    25%   412 candidate requests, 21 failed
  GET /ready 200
  waits for switchback promote
  the control plane does not answer; connecting again";
        assert_eq!(block.join("\n"), expected);
    }
}
