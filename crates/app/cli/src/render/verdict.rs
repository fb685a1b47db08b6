//! What the judge said: one line, or every finding in a table.

use switchback_analysis::Guarantee;
use switchback_domain::{Finding, Outcome, Verdict};

use crate::render::look::{Look, clean, outcome_tone};
use crate::render::number::{count, of_baseline, of_rule};
use crate::render::table::{self, Cell};

/// The verdict in a word.
fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Regressed => "regressed",
        Outcome::Safe => "safe",
        Outcome::Undecided => "undecided",
    }
}

/// The verdict on one line, with what it rests on.
pub(crate) fn headline(verdict: &Verdict, look: Look) -> String {
    let tone = outcome_tone(verdict.outcome);
    let rests_on = format!(
        "{} of the candidate ({} failed), {} of the baseline ({} failed)",
        count(verdict.candidate_requests, "request"),
        verdict.candidate_failed,
        verdict.baseline_requests,
        verdict.baseline_failed,
    );
    format!("{} {} {rests_on}", look.paint(tone, word(verdict.outcome)), look.dot())
}

/// Every finding, worst first: rule, what kind of promise stands behind it, observed, limit, baseline, words.
pub(crate) fn findings(verdict: &Verdict, look: Look) -> Vec<String> {
    let mut findings: Vec<&Finding> = verdict.findings.iter().collect();
    findings.sort_by_key(|finding| match finding.outcome {
        Outcome::Regressed => 0,
        Outcome::Undecided => 1,
        Outcome::Safe => 2,
    });
    let rows: Vec<_> = findings.into_iter().map(row).collect();
    let headers = ["RULE", "BASIS", "FOUND", "OBSERVED", "LIMIT", "BASELINE", "IN WORDS"];
    table::lines(&headers, &rows, look)
}

fn row(finding: &Finding) -> Vec<Cell> {
    let number = |number: f64| of_rule(&finding.rule, number);
    let observed = finding.observed.map_or_else(|| "no data".to_owned(), number);
    vec![
        Cell::text(clean(&finding.rule)),
        Cell::text(Guarantee::of_rule(&finding.rule).to_string()),
        Cell::text(word(finding.outcome)).tone(outcome_tone(finding.outcome)),
        Cell::number(observed),
        Cell::number(number(finding.limit)),
        Cell::number(
            finding.baseline.map(|number| of_baseline(&finding.rule, number)).unwrap_or_default(),
        ),
        Cell::text(clean(&finding.summary)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn the_worst_finding_comes_first_and_missing_data_is_named() {
        let verdict = samples::verdict();
        let lines = findings(&verdict, Look::PLAIN);
        let expected = "\
RULE         BASIS FOUND      OBSERVED   LIMIT  BASELINE  IN WORDS
error_rate   heuristic regressed      5.1%      1%      0.1%  error rate 5.1% of 412 requests, limit 1%
cpu_usage    heuristic undecided   no data  2 cores            no sample yet
latency_p95  heuristic safe         120 ms  500 ms            p95 120 ms, limit 500 ms";
        let normal = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(normal(&lines.join("\n")), normal(expected));
        assert_eq!(
            headline(&verdict, Look::PLAIN),
            "regressed - 412 requests of the candidate (21 failed), 1236 of the baseline \
             (1 failed)"
        );
    }
}
