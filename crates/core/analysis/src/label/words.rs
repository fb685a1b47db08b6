//! The verdict of a trial in the words of the domain, for people and for the engine.

use switchback_domain::{Finding, Outcome, Timestamp, Verdict};

use super::bins::Bins;
use super::trial::Trial;
use crate::hold::Trouble;
use crate::math::{count, exp};
use crate::text;

/// Quantiles the latency is shown by: whichever differs most.
const SHOWN: [f64; 3] = [0.5, 0.9, 0.99];

pub(super) fn verdict(trial: &Trial, now: Timestamp) -> Verdict {
    let mut findings = vec![errors(trial), latency(trial)];
    findings.extend(events(trial));
    findings.extend(holds(trial, now));
    let counts = trial.counts();
    let all_safe = findings.iter().all(|finding| finding.outcome == Outcome::Safe);
    let outcome = match (trial.fired(), all_safe) {
        (Some(_), _) => Outcome::Regressed,
        (None, true) => Outcome::Safe,
        (None, false) => Outcome::Undecided,
    };
    Verdict {
        outcome,
        findings,
        candidate_requests: counts.candidate_requests,
        candidate_failed: counts.candidate_failed,
        baseline_requests: counts.baseline_requests,
        baseline_failed: counts.baseline_failed,
    }
}

fn outcome(trial: &Trial, metric: usize, is_certified: bool) -> Outcome {
    match trial.fired() {
        Some(fired) if fired.blamed[metric] => Outcome::Regressed,
        Some(_) | None if is_certified => Outcome::Safe,
        Some(_) | None => Outcome::Undecided,
    }
}

/// `evidence 812 : 1 of 180 : 1`.
fn odds((ln_evidence, line): (f64, f64)) -> String {
    let written = |ln: f64| {
        let odds = exp(ln.min(60.0));
        if odds >= 10.0 { format!("{odds:.0}") } else { format!("{odds:.2}") }
    };
    format!("evidence {} : 1 of {} : 1", written(ln_evidence), written(line))
}

fn errors(trial: &Trial) -> Finding {
    let counts = trial.counts();
    let limit = counts.baseline_rate() * trial.settings().error_ratio;
    let (new, old) = (counts.candidate_rate(), counts.baseline_rate());
    Finding {
        rule: "errors".to_owned(),
        outcome: outcome(trial, 0, trial.certified()[0]),
        observed: (counts.candidate_requests > 0).then_some(new),
        limit,
        baseline: (counts.baseline_requests > 0).then_some(old),
        summary: format!(
            "{} of {} requests failed ({}), baseline {} of {} ({}): {}",
            counts.candidate_failed,
            counts.candidate_requests,
            text::percent(new),
            counts.baseline_failed,
            counts.baseline_requests,
            text::percent(old),
            odds(trial.metrics()[0]),
        ),
    }
}

/// A quantile of both versions in seconds, and its name.
fn quantile(new: &Bins, old: &Bins, quantile: f64) -> Option<(f64, f64, f64)> {
    let seconds = |bins: &Bins| bins.quantile(quantile).map(|micros| count(micros) / 1e6);
    Some((quantile, seconds(new)?, seconds(old)?))
}

fn latency(trial: &Trial) -> Finding {
    let (new, old) = trial.shown();
    let shown = SHOWN.iter().filter_map(|share| quantile(new, old, *share));
    let worst = shown.max_by(|a, b| (a.1 / a.2).total_cmp(&(b.1 / b.2)));
    let factor = trial.settings().slack.factor();
    let evidence = odds(trial.metrics()[1]);
    let summary = worst.map_or_else(
        || format!("latency unknown: no answered request of both versions; {evidence}"),
        |(share, new, old)| {
            let (new, old) = (text::seconds(new), text::seconds(old));
            let slack = text::times(factor);
            format!("p{:.0} {new}, baseline {old}, allowed {slack}: {evidence}", share * 100.0)
        },
    );
    Finding {
        rule: "latency".to_owned(),
        outcome: outcome(trial, 1, trial.certified()[1]),
        observed: worst.map(|(_, new, _)| new),
        limit: worst.map_or(0.0, |(_, _, old)| old * factor),
        baseline: worst.map(|(_, _, old)| old),
        summary,
    }
}

fn events(trial: &Trial) -> Option<Finding> {
    let ((new, old), evidence, line) = trial.events()?;
    let certified = new > 0 && old > 0 && evidence < 0.0;
    Some(Finding {
        rule: "events".to_owned(),
        outcome: outcome(trial, 2, certified),
        observed: Some(count(new)),
        limit: 0.0,
        baseline: Some(count(old)),
        summary: format!("{new} events, baseline {old}: {}", odds((evidence, line))),
    })
}

/// Whatever keeps a candidate from passing that is no evidence against it.
fn holds(trial: &Trial, now: Timestamp) -> Vec<Finding> {
    let hold = |rule: &str, summary: String| Finding {
        rule: rule.to_owned(),
        outcome: Outcome::Undecided,
        observed: None,
        limit: 0.0,
        baseline: None,
        summary,
    };
    let stale_after = trial.settings().stale_after;
    let mut holds = Vec::new();
    match trial.last() {
        None => holds.push(hold("data", "hold: no data yet".to_owned())),
        Some(last) if now.since(last) > stale_after => {
            let silent = text::span(now.since(last));
            holds.push(hold("data", format!("hold: no data for {silent}")));
        }
        Some(_) => {}
    }
    if trial.gap().is_some_and(|gap| now.since(gap) <= stale_after) {
        holds.push(hold("data", "hold: batches of the data plane were lost".to_owned()));
    }
    if trial.guard().is_broken() {
        let (new, old) = trial.guard().counts();
        let summary = format!(
            "hold: {new} candidate and {old} baseline requests do not fit the shares drawn"
        );
        holds.push(hold("assignment", summary));
    }
    match trial.trouble() {
        Trouble::None => {}
        Trouble::Baseline => {
            holds.push(hold("both_arms", "hold: the baseline is in trouble".to_owned()));
        }
        Trouble::Both => holds.push(hold("both_arms", "hold: both versions fail alike".to_owned())),
    }
    holds
}
