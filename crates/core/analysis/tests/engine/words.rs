//! What a verdict on labels says, word for word, and what memory it takes to say it.

use switchback_analysis::label::Direction;
use switchback_analysis::label::errors::ErrorCounts;
use switchback_analysis::{ArmBatch, Batch, Settings, Trial};
use switchback_domain::{Finding, Histogram, Outcome, Timestamp, Verdict, Weight};

fn trial(settings: Settings) -> Trial {
    let (history, usual) = (Histogram::default(), ErrorCounts::default());
    Trial::new(settings, &history, usual, Timestamp::default()).unwrap()
}

/// Answers of so many milliseconds.
fn answers(count: u64, millis: u64) -> ArmBatch {
    let mut latency = Histogram::default();
    (0..count).for_each(|_| latency.record(1000 * millis));
    ArmBatch { latency, ..ArmBatch::default() }
}

/// What half of the requests of a second each came to.
fn feed(trial: &mut Trial, sequence: u64, candidate: ArmBatch, baseline: ArmBatch) -> Verdict {
    let (at, weight) = (Timestamp::from_millis(1000 * sequence), Weight::from_percent(50));
    let source = "proxy".to_owned();
    trial.feed(&Batch { at, source, sequence, weight, candidate, baseline });
    trial.verdict(at)
}

fn finding<'a>(verdict: &'a Verdict, rule: &str) -> &'a Finding {
    verdict.findings.iter().find(|finding| finding.rule == rule).unwrap()
}

#[test]
fn a_verdict_says_how_many_failed_how_slow_it_was_and_what_that_weighs() {
    let mut trial = trial(Settings { events: Some(Direction::Fewer), ..Settings::default() });
    let candidate = ArmBatch { failed_answers: 1, events: 3, ..answers(20, 200) };
    let baseline = ArmBatch { events: 5, ..answers(10, 100) };
    let verdict = feed(&mut trial, 1, candidate, baseline);
    let said: Vec<_> = verdict.findings.iter().map(|finding| finding.summary.as_str()).collect();
    let errors =
        "1 of 20 requests failed (5%), baseline 0 of 10 (0%): evidence 1.63 : 1 of 200 : 1";
    let latency = "p99 212.99 ms, baseline 106.5 ms, allowed 1.05x: evidence 1.00 : 1 of 250 : 1";
    let events = "3 events, baseline 5: evidence 0.93 : 1 of 1000 : 1";
    assert_eq!(said, [errors, latency, events]);
    let numbers = |rule| {
        let Finding { observed, limit, baseline, .. } = finding(&verdict, rule);
        (*observed, *limit, *baseline)
    };
    assert_eq!(numbers("errors"), (Some(0.05), 0.0, Some(0.0)));
    assert_eq!(numbers("events"), (Some(3.0), 0.0, Some(5.0)));
    let (new, limit, old) = numbers("latency");
    let (new, old) = (new.unwrap(), old.unwrap());
    assert!((new - 0.213).abs() < 0.001 && (old - 0.1065).abs() < 0.001, "{new} {old}");
    assert!((limit - 1.05 * old).abs() < 1e-9, "{limit}");
}

#[test]
fn without_requests_a_verdict_has_no_numbers() {
    let verdict = trial(Settings::default()).verdict(Timestamp::default());
    let said: Vec<_> = verdict.findings.iter().map(|finding| finding.summary.as_str()).collect();
    let errors = "0 of 0 requests failed (0%), baseline 0 of 0 (0%): evidence 1.00 : 1 of 180 : 1";
    let latency =
        "latency unknown: no answered request of both versions; evidence 1.00 : 1 of 225 : 1";
    assert_eq!(said, [errors, latency, "hold: no data yet"]);
    for finding in &verdict.findings {
        assert_eq!((finding.observed, finding.baseline), (None, None), "{}", finding.summary);
    }
}

#[test]
fn events_are_safe_when_both_versions_have_them() {
    let events = |candidate, baseline| {
        let mut trial = trial(Settings { events: Some(Direction::Fewer), ..Settings::default() });
        let arm = |events| ArmBatch { events, ..answers(1000, 10) };
        let verdict = feed(&mut trial, 1, arm(candidate), arm(baseline));
        finding(&verdict, "events").outcome
    };
    assert_eq!(events(100, 100), Outcome::Safe);
    assert_eq!(events(0, 0), Outcome::Undecided, "nobody knows");
    assert_eq!(events(5, 0), Outcome::Undecided, "nothing to compare with");
    assert_eq!(events(0, 100), Outcome::Regressed);
}

#[test]
fn what_is_slow_is_not_said_before_enough_answers_of_the_baseline() {
    let mut trial = trial(Settings::default());
    for sequence in 1..=2 {
        feed(&mut trial, sequence, answers(200, 100), answers(200, 10));
        assert!(trial.evidence().safe_latency.0.abs() < 1e-9, "at {sequence}");
    }
    feed(&mut trial, 3, ArmBatch::default(), answers(200, 10));
    feed(&mut trial, 4, answers(200, 100), answers(200, 10));
    assert!(trial.evidence().safe_latency.0 < -1.0, "600 are enough");
}

#[test]
fn metrics_that_do_not_share_a_history_are_not_added_up() {
    let mut trial = trial(Settings { sticky: true, ..Settings::default() });
    let candidate = ArmBatch { failed_answers: 2, ..answers(20, 10) };
    feed(&mut trial, 1, candidate, answers(20, 10));
    let evidence = trial.evidence();
    let alone = [(5.0 / 9.0, evidence.errors), (4.0 / 9.0, evidence.latency)]
        .map(|(share, evidence): (f64, f64)| share.ln() + evidence);
    assert!((evidence.together - alone[0].max(alone[1])).abs() < 1e-12, "{evidence:?}");
}

#[test]
fn the_names_of_sources_are_counted_as_memory() {
    let bytes = |source: String| {
        let mut trial = trial(Settings::default());
        let (at, weight) = (Timestamp::from_millis(1000), Weight::from_percent(50));
        let (candidate, baseline) = (ArmBatch::default(), ArmBatch::default());
        trial.feed(&Batch { at, source, sequence: 1, weight, candidate, baseline });
        trial.bytes()
    };
    assert_eq!(bytes("a".repeat(1000)) - bytes("a".to_owned()), 999);
}
