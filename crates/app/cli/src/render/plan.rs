//! What `deploy --dry-run` says.

use switchback_api::Plan;
use switchback_domain::strategy::StrategyKind;

use crate::render::look::{Look, Tone, clean};

/// A strategy's name, as in the configuration.
pub(crate) const fn strategy(strategy: StrategyKind) -> &'static str {
    match strategy {
        StrategyKind::Rolling => "rolling",
        StrategyKind::BlueGreen => "blue-green",
        StrategyKind::Canary => "canary",
    }
}

/// The plan, the way back, and what differs.
pub(crate) fn lines(plan: &Plan, look: Look) -> Vec<String> {
    let from = plan.from.as_ref().map(|from| format!("{from} {} ", look.arrow()));
    let from = from.unwrap_or_default();
    let head = format!("{}  {from}{}  {}", plan.key, plan.to, strategy(plan.strategy));
    let mut lines = vec![look.paint(Tone::Strong, &head)];
    section("Steps", &plan.steps, true, &mut lines);
    section("What the exact test finds", &plan.finds, false, &mut lines);
    section("Way back", &plan.rollback, false, &mut lines);
    section("Changes", &plan.changes, false, &mut lines);
    if plan.changes.is_empty() {
        lines.push("Changes".to_owned());
        lines.push("  none: the same release".to_owned());
    }
    lines.push(look.paint(Tone::Dim, "Nothing was done: this was a dry run."));
    lines
}

fn section(title: &str, entries: &[String], numbered: bool, lines: &mut Vec<String>) {
    if entries.is_empty() {
        return;
    }
    lines.push(title.to_owned());
    for (index, entry) in entries.iter().enumerate() {
        let number = if numbered { format!("{:>2}. ", index + 1) } else { String::new() };
        lines.push(format!("  {number}{}", clean(entry)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn a_plan_lists_steps_way_back_and_changes() {
        let text = lines(&samples::plan(), Look::PLAIN).join("\n");
        let expected = "\
production/api  v1 -> v2  canary
Steps
   1. weight 5%
   2. analysis 30s
What the exact test finds
  12% of its requests failing, or more (now: 0.1%)
Way back
  v1 keeps 2 instances until 30s after promotion
Changes
  env.LEVEL: info -> debug
Nothing was done: this was a dry run.";
        assert_eq!(text, expected);
    }
}
