//! Why a rollout ended as it did: the cause first, then plan, timeline, evidence, last words.

use switchback_api::{DeedEntry, LastWords, RolloutDetail, RolloutOutcome, RolloutSummary};

use crate::render::look::{Look, Tone, clean};
use crate::render::outcome::{duration_ms, versions, word};
use crate::render::progress::{stage, strategy, tone};
use crate::render::table::indented;
use crate::render::{trial, verdict, when};
use crate::replay::Story;

/// The whole story.
pub(crate) fn lines(
    detail: &RolloutDetail,
    stories: &[Story],
    now_ms: u64,
    look: Look,
) -> Vec<String> {
    let mut lines = head(detail, now_ms, look);
    lines.extend(plan(detail, look));
    lines.extend(timeline(detail, look));
    lines.extend(evidence(detail, look));
    for story in stories {
        lines.extend(titled("Exact test", trial::lines(story, look), look));
    }
    lines.extend(detail.last_words.iter().flat_map(|words| last_words(words, look)));
    lines.extend(next(&detail.summary, detail.last_words.first(), look));
    lines
}

/// What it was, and the cause in one sentence.
fn head(detail: &RolloutDetail, now_ms: u64, look: Look) -> Vec<String> {
    let summary = &detail.summary;
    let (word, tone) = word(summary.outcome);
    let took = when::took(duration_ms(summary, now_ms));
    let after = if summary.outcome.is_some() { "after" } else { "for" };
    let title = format!("{} {}  {}", summary.id, summary.key, versions(summary, look));
    vec![
        format!(
            "{}  {}  {} {after} {took}",
            look.paint(Tone::Strong, &title),
            strategy(summary),
            look.paint(tone, word)
        ),
        look.paint(tone, &because(detail)),
        look.paint(
            Tone::Dim,
            &format!(
                "asked for by {} at {} ({})",
                clean(&summary.by),
                when::date(summary.started_ms),
                when::ago(summary.started_ms, now_ms)
            ),
        ),
    ]
}

/// One sentence.
fn because(detail: &RolloutDetail) -> String {
    let summary = &detail.summary;
    let found = detail.verdict.as_ref().and_then(|verdict| verdict.cause());
    let cause = summary.cause.as_deref().or_else(|| found.map(|finding| finding.summary.as_str()));
    let cause = cause.map_or_else(|| "no cause was written down".to_owned(), clean);
    match summary.outcome {
        Some(RolloutOutcome::Promoted) => format!(
            "{} was promoted: every step passed, {} of {} candidate requests failed.",
            summary.to, summary.candidate_failed, summary.candidate_requests
        ),
        Some(RolloutOutcome::RolledBack) => {
            format!("{} was rolled back because: {cause}", summary.to)
        }
        Some(RolloutOutcome::Withdrawn) => format!("{} was withdrawn because: {cause}", summary.to),
        Some(RolloutOutcome::Superseded) => {
            format!("{} gave way to a newer rollout: {cause}", summary.to)
        }
        None => match &summary.waiting_for {
            Some(waiting) => format!("{} waits for {}", summary.to, clean(waiting)),
            None => format!("{} is on its way: {}", summary.to, stage(summary)),
        },
    }
}

/// Every step with how far the rollout came.
fn plan(detail: &RolloutDetail, look: Look) -> Vec<String> {
    let summary = &detail.summary;
    let reached = usize::try_from(summary.step).unwrap_or(usize::MAX);
    let line = |(index, step): (usize, &String)| {
        let number = index + 1;
        let promoted = summary.outcome == Some(RolloutOutcome::Promoted);
        let (tone, note) = if promoted || number < reached {
            (Tone::Good, "")
        } else if number > reached {
            (Tone::Dim, "")
        } else if summary.outcome.is_some() {
            (Tone::Bad, "   <- it ended here")
        } else {
            (Tone::Warn, "   <- it is here")
        };
        format!("  {} {number:>2}. {}{note}", look.mark(tone), clean(step))
    };
    titled("Plan", detail.plan.iter().enumerate().map(line).collect(), look)
}

/// Everything that happened, with each verdict's findings, and what was done beside it.
fn timeline(detail: &RolloutDetail, look: Look) -> Vec<String> {
    let begun = detail.summary.started_ms;
    let line = |at: &str, kind: &str, text: &str| {
        let at = look.paint(Tone::Dim, &format!("{at:>9}"));
        format!("{at}  {kind:<8} {text}")
    };
    let (mut lines, mut beside) = (Vec::new(), detail.beside.iter().peekable());
    let deed = |deed: &DeedEntry| {
        let at = if deed.at_ms < begun { "before".into() } else { when::since(deed.at_ms, begun) };
        let why = deed.reason.as_ref().map_or_else(String::new, |why| format!(": {}", clean(why)));
        let tone = if deed.failed { Tone::Bad } else { Tone::Plain };
        let text = look.paint(tone, &clean(&deed.text));
        line(&at, "beside", &format!("{text}, by {}{why}", clean(&deed.by)))
    };
    for event in &detail.events {
        while let Some(earlier) = beside.next_if(|deed| deed.at_ms <= event.at_ms) {
            lines.push(deed(earlier));
        }
        let text = look.paint(tone(event), &clean(&event.text));
        lines.push(line(&when::since(event.at_ms, begun), &clean(&event.kind), &text));
        if let Some(given) = &event.verdict {
            lines.push(format!("{:20}{}", "", verdict::headline(given, look)));
            lines.extend(indented(verdict::findings(given, look), 20));
        }
    }
    lines.extend(beside.map(deed));
    titled("What happened", lines, look)
}

/// The last verdict, unless the timeline ends with it anyway.
fn evidence(detail: &RolloutDetail, look: Look) -> Vec<String> {
    let Some(given) = &detail.verdict else { return Vec::new() };
    let told = detail.events.iter().rev().find_map(|event| event.verdict.as_ref());
    if told == Some(given) {
        return Vec::new();
    }
    let mut lines = vec![format!("  {}", verdict::headline(given, look))];
    lines.extend(indented(verdict::findings(given, look), 2));
    titled("Last verdict", lines, look)
}

/// What an instance said last.
fn last_words(words: &LastWords, look: Look) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(probe) = &words.probe {
        lines.push(format!("  last probe   {}", clean(probe)));
    }
    if let Some(exit) = &words.exit {
        lines.push(format!("  its process  {}", clean(exit)));
    }
    if words.log.is_empty() {
        lines.push("  its log      is empty".to_owned());
    } else {
        lines.push("  its log ended with".to_owned());
        lines.extend(words.log.iter().map(|line| format!("    | {}", clean(line))));
    }
    titled(&format!("Last words of {}", clean(&words.instance)), lines, look)
}

/// What can be done now.
fn next(summary: &RolloutSummary, words: Option<&LastWords>, look: Look) -> Vec<String> {
    let text = match summary.outcome {
        Some(RolloutOutcome::RolledBack | RolloutOutcome::Withdrawn) => format!(
            "mend it and deploy again, or `switchback retry {}` as it is{}",
            summary.id,
            words.map_or_else(String::new, |words| format!(
                "; `switchback logs --instance {}` shows more of its output",
                clean(&words.instance)
            ))
        ),
        None if summary.waiting_for.is_some() => {
            format!(
                "`switchback promote {0}` goes on, `switchback abort {0}` takes it back",
                summary.id
            )
        }
        Some(RolloutOutcome::Promoted | RolloutOutcome::Superseded) | None => return Vec::new(),
    };
    vec![String::new(), look.paint(Tone::Dim, &text)]
}

/// A section, or nothing.
fn titled(title: &str, lines: Vec<String>, look: Look) -> Vec<String> {
    if lines.is_empty() {
        return lines;
    }
    let mut section = vec![String::new(), look.paint(Tone::Strong, title)];
    section.extend(lines);
    section
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn the_cause_comes_first_and_every_decision_has_its_evidence() {
        let text = lines(&samples::rolled_back(), &[], 61_000, Look::PLAIN).join("\n");
        let expected = "\
r12 production/api  v1 -> v2  canary  rolled back after 42.1s
v2 was rolled back because: error rate 5.1% of 412 requests, limit 1%
asked for by anna at 1970-01-01 00:00:01 UTC (1m ago)

Plan
  +  1. weight 5%
  +  2. analysis 30s
  x  3. weight 25%   <- it ended here
  .  4. weight 100%

What happened
    +0.0s  phase    Provisioning
   +12.3s  verdict  regressed
                    regressed - 412 requests of the candidate (21 failed), 1236 of the \
baseline (1 failed)
                    RULE         BASIS      FOUND      OBSERVED    LIMIT  BASELINE  IN WORDS
                    error_rate   heuristic  regressed      5.1%       1%      0.1%  error rate \
5.1% of 412 requests, limit 1%
                    cpu_usage    heuristic  undecided   no data  2 cores            no sample yet
                    latency_p95  heuristic  safe         120 ms   500 ms            p95 120 ms, \
limit 500 ms
   +42.1s  ended    v1 serves again

mend it and deploy again, or `switchback retry r12` as it is";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_version_that_never_became_ready_has_the_last_word() {
        let mut detail = samples::rolled_back();
        detail.verdict = None;
        detail.events.clear();
        detail.last_words = vec![samples::last_words()];
        let text = lines(&detail, &[], 61_000, Look::PLAIN).join("\n");
        let expected = "
Last words of production.api.4e5f6a7b.0
  last probe   GET /ready answered 503 Service Unavailable
  its process  exit code 1
  its log ended with
    | connecting to db:5432
    | connection refused
";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn what_was_done_beside_it_stands_where_it_was_done() {
        let mut detail = samples::rolled_back();
        let [during, before] = <[_; 2]>::try_from(samples::deeds()).unwrap();
        let upgrade = DeedEntry { at_ms: 500, ..before.clone() };
        let late = DeedEntry { at_ms: 44_000, text: "serves".to_owned(), ..during.clone() };
        detail.beside = vec![upgrade, during, late];
        let text = lines(&detail, &[], 61_000, Look::PLAIN).join("\n");
        let (_, told) = text.split_once("What happened\n").unwrap();
        let firsts: Vec<_> = told.lines().filter(|line| !line.starts_with("     ")).collect();
        assert_eq!(
            firsts,
            [
                "   before  beside   data plane not upgraded: it ended, by bert",
                "    +0.0s  phase    Provisioning",
                "   +12.3s  verdict  regressed",
                "   +30.0s  beside   isolated, by anna: it leaks",
                "   +42.1s  ended    v1 serves again",
                "   +43.0s  beside   serves, by anna: it leaks",
                "",
                "mend it and deploy again, or `switchback retry r12` as it is",
            ]
        );
    }

    #[test]
    fn a_verdict_nobody_told_yet_is_shown_once() {
        let mut detail = samples::rolled_back();
        assert!(!lines(&detail, &[], 0, Look::PLAIN).join("\n").contains("Last verdict"));
        detail.events.clear();
        assert!(lines(&detail, &[], 0, Look::PLAIN).join("\n").contains("Last verdict"));
    }

    #[test]
    fn a_running_one_says_where_it_is_and_what_it_waits_for() {
        let mut detail = samples::rolled_back();
        detail.summary = samples::summary();
        let text = lines(&detail, &[], 61_000, Look::PLAIN).join("\n");
        assert!(text.contains("v2 is on its way: Observing  step 3 of 8: weight 25%"), "{text}");
        assert!(text.contains("3. weight 25%   <- it is here"), "{text}");
        detail.summary.waiting_for = Some("an approval".to_owned());
        let text = lines(&detail, &[], 61_000, Look::PLAIN).join("\n");
        assert!(text.contains("v2 waits for an approval"), "{text}");
        assert!(text.contains("`switchback promote r12` goes on"), "{text}");
    }
}
