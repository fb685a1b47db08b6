//! Rollouts, and what was done beside them, newest first.

use switchback_api::{DeedEntry, RolloutSummary};

use crate::render::look::{Look, Tone, clean};
use crate::render::outcome::{duration_ms, versions, word};
use crate::render::progress::strategy;
use crate::render::table::{self, Cell};
use crate::render::when;

/// One line per rollout.
pub(crate) fn lines(rollouts: &[RolloutSummary], now_ms: u64, look: Look) -> Vec<String> {
    if rollouts.is_empty() {
        return vec!["no rollout yet".to_owned()];
    }
    let rows: Vec<_> = rollouts.iter().map(|rollout| row(rollout, now_ms, look)).collect();
    let headers = [
        "ROLLOUT", "SERVICE", "STRATEGY", "VERSIONS", "OUTCOME", "STARTED", "TOOK", "REQUESTS",
        "FAILED", "BY", "CAUSE",
    ];
    table::lines(&headers, &rows, look)
}

/// One line for each thing that was done beside rollouts; nothing without any.
pub(crate) fn deeds(deeds: &[DeedEntry], now_ms: u64, look: Look) -> Vec<String> {
    let cells = |deed: &DeedEntry| {
        let tone = if deed.failed { Tone::Bad } else { Tone::Plain };
        vec![
            Cell::text(when::ago(deed.at_ms, now_ms)),
            Cell::text(deed.key.as_ref().map(ToString::to_string).unwrap_or_default()),
            Cell::text(clean(&deed.text)).tone(tone),
            Cell::text(clean(&deed.by)),
            Cell::text(deed.reason.as_deref().map(clean).unwrap_or_default()),
        ]
    };
    let rows: Vec<_> = deeds.iter().map(cells).collect();
    table::lines(&["WHEN", "SERVICE", "DONE", "BY", "REASON"], &rows, look)
}

fn row(rollout: &RolloutSummary, now_ms: u64, look: Look) -> Vec<Cell> {
    let (outcome, tone) = word(rollout.outcome);
    vec![
        Cell::text(&rollout.id),
        Cell::text(rollout.key.to_string()),
        Cell::text(strategy(rollout)),
        Cell::text(versions(rollout, look)),
        Cell::text(outcome).tone(tone),
        Cell::text(when::ago(rollout.started_ms, now_ms)),
        Cell::number(when::took(duration_ms(rollout, now_ms))),
        Cell::number(rollout.candidate_requests),
        Cell::number(rollout.candidate_failed),
        Cell::text(clean(&rollout.by)),
        Cell::text(rollout.cause.as_deref().map(clean).unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn what_was_done_beside_rollouts_lines_up_too() {
        let text = deeds(&samples::deeds(), 61_000, Look::PLAIN).join("\n");
        let expected = "\
WHEN     SERVICE         DONE                               BY    REASON
30s ago  production/api  isolated                           anna  it leaks
1m ago                   data plane not upgraded: it ended  bert";
        assert_eq!(text, expected);
        assert!(deeds(&[], 0, Look::PLAIN).is_empty());
    }

    #[test]
    fn rollouts_line_up() {
        let rollouts = [samples::summary(), samples::rolled_back().summary];
        let text = lines(&rollouts, 61_000, Look::PLAIN).join("\n");
        let expected = "\
ROLLOUT  SERVICE         STRATEGY  VERSIONS  OUTCOME      STARTED    TOOK  REQUESTS  FAILED  BY    CAUSE
r12      production/api  canary    v1 -> v2  active       1m ago   1m 00s       412      21  anna
r12      production/api  canary    v1 -> v2  rolled back  1m ago    42.1s       412      21  anna  error rate 5.1% of 412 requests, limit 1%";
        assert_eq!(text, expected);
        assert_eq!(lines(&[], 0, Look::PLAIN), ["no rollout yet"]);
    }
}
