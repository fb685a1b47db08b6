//! The e-process property, exactly: every label sequence of a few requests with its probability.

use std::time::Duration;

use switchback_analysis::label::bins::{Bins, Slack};
use switchback_analysis::label::errors::{ErrorCounts, Errors};
use switchback_analysis::label::latency::Latency;
use switchback_analysis::label::odds::Odds;
use switchback_analysis::safe::NonInferiority;
use switchback_domain::{Histogram, Timestamp, Weight};

const WEIGHTS: [u16; 4] = [100, 500, 2500, 9000];

fn share(weight: Weight) -> f64 {
    f64::from(weight.basis_points()) / 10_000.0
}

/// The expectation of `evidence` over the labels of `events` events that are `ratio` times as
/// likely on the candidate; the share changes from event to event.
fn expectation(events: u32, ratio: f64, evidence: impl Fn(&[(Weight, bool)]) -> f64) -> f64 {
    let weights: Vec<Weight> = (0..events as usize)
        .map(|event| Weight::from_basis_points(WEIGHTS[event % WEIGHTS.len()]).unwrap())
        .collect();
    let mut mean = 0.0;
    for labels in 0..1_u32 << events {
        let mut probability = 1.0;
        let mut sequence = Vec::new();
        for (event, weight) in weights.iter().enumerate() {
            let is_candidate = labels >> event & 1 == 1;
            let odds = share(*weight) * ratio / (share(*weight) * ratio + 1.0 - share(*weight));
            probability *= if is_candidate { odds } else { 1.0 - odds };
            sequence.push((*weight, is_candidate));
        }
        mean += probability * evidence(&sequence);
    }
    mean
}

fn one(is_candidate: bool) -> ErrorCounts {
    ErrorCounts {
        candidate_requests: 1,
        baseline_requests: 1,
        candidate_failed: u64::from(is_candidate),
        baseline_failed: u64::from(!is_candidate),
    }
}

fn errors(tolerance: f64, labels: &[(Weight, bool)]) -> f64 {
    let mut now = Timestamp::default();
    let mut errors = Errors::new(tolerance, now);
    for (weight, is_candidate) in labels {
        // Three minutes apart, so that later stakes start in between.
        now = now + Duration::from_mins(3);
        errors.observe(now, *weight, one(*is_candidate));
    }
    errors.ln_evidence().exp()
}

#[test]
fn error_evidence_has_mean_one_under_the_null_and_less_below_it() {
    for events in 1..=8 {
        for tolerance in [1.0, 1.25] {
            let mean = |ratio: f64| expectation(events, ratio, |labels| errors(tolerance, labels));
            assert!((mean(tolerance) - 1.0).abs() < 1e-10, "{events}: {}", mean(tolerance));
            for ratio in [0.0, 0.3, 0.9] {
                assert!(mean(ratio * tolerance) <= 1.0, "{events} {ratio}");
            }
            assert!(mean(3.0 * tolerance) > 1.0, "{events}: power");
        }
    }
}

#[test]
fn every_bet_and_every_share_has_mean_one() {
    for bet in [0.0_f64.next_up(), 0.1, 0.5, 1.0, 1.25, 3.0, 100.0, 1e6] {
        for points in [1, 100, 500, 5000, 9999] {
            let weight = Weight::from_basis_points(points).unwrap();
            let evidence = |is_candidate: bool| {
                let mut odds = Odds::new(vec![1.0, bet]);
                odds.observe(weight, u64::from(is_candidate), u64::from(!is_candidate));
                odds.ln_evidence(0, 1..2).exp()
            };
            let share = share(weight);
            let mean = share * evidence(true) + (1.0 - share) * evidence(false);
            assert!((mean - 1.0).abs() < 1e-10, "{bet} {points}: {mean}");
        }
    }
}

#[test]
fn safety_has_mean_one_at_the_boundary_and_less_beyond_it() {
    let evidence = |labels: &[(Weight, bool)]| {
        let mut safe = NonInferiority::new(2.0);
        for (weight, is_candidate) in labels {
            safe.observe(*weight, u64::from(*is_candidate), u64::from(!is_candidate));
        }
        safe.ln_evidence().exp()
    };
    for events in 1..=8 {
        assert!((expectation(events, 2.0, evidence) - 1.0).abs() < 1e-10);
        for worse in [2.5, 10.0, 1e6] {
            assert!(expectation(events, worse, evidence) <= 1.0, "{worse}");
        }
        assert!(expectation(events, 1.0, evidence) > 1.0);
    }
}

/// Latencies in three classes; the labels of `requests` requests are enumerated with all their
/// outcomes under the candidate's and the baseline's laws.
fn latency_mean(candidate: [f64; 3], baseline: [f64; 3], requests: u32) -> f64 {
    capped_mean(candidate, baseline, requests, f64::INFINITY)
}

/// The same with an evidence cap of so many nats a second.
fn capped_mean(candidate: [f64; 3], baseline: [f64; 3], requests: u32, nats: f64) -> f64 {
    let mut history = Histogram::default();
    (0..40).for_each(|step| history.record(20_000 + 1_000 * step));
    let cases: Vec<(bool, usize)> =
        [true, false].into_iter().flat_map(|arm| (0..3).map(move |class| (arm, class))).collect();
    let mut mean = 0.0;
    for code in 0..6_usize.pow(requests) {
        let (start, slack) = (Timestamp::default(), Slack::from_percent(0));
        let mut latency = Latency::new(&history, slack, u64::MAX, nats, start);
        let (mut probability, mut code, mut now) = (1.0, code, Timestamp::default());
        for request in 0..requests as usize {
            let (is_candidate, class) = cases[code % 6];
            code /= 6;
            let weight = Weight::from_basis_points(WEIGHTS[request % 3 + 1]).unwrap();
            let law = if is_candidate { candidate } else { baseline };
            let label = if is_candidate { share(weight) } else { 1.0 - share(weight) };
            probability *= label * law[class];
            let mut seen = Histogram::default();
            seen.record([25_000, 50_000, 200_000][class]);
            let (seen, none) = (Bins::plain(&seen, 0), Bins::default());
            // More than a second apart: the guess is made anew for each, from what went before.
            now = now + Duration::from_secs(170);
            let (new, old) = if is_candidate { (&seen, &none) } else { (&none, &seen) };
            latency.observe(now, weight, new, old);
        }
        mean += probability * latency.ln_evidence().exp();
    }
    mean
}

#[test]
fn latency_evidence_has_mean_one_under_equal_laws_and_less_if_the_candidate_is_faster() {
    let law = [0.5, 0.3, 0.2];
    let equal = latency_mean(law, law, 3);
    assert!((equal - 1.0).abs() < 1e-9, "{equal}");
    for faster in [[0.7, 0.2, 0.1], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.6, 0.2, 0.2]] {
        let mean = latency_mean(faster, law, 3);
        assert!(mean <= 1.0 + 1e-12, "{faster:?}: {mean}");
    }
    assert!(latency_mean([0.1, 0.1, 0.8], law, 3) > 1.0, "power");
}

#[test]
fn a_cap_that_binds_only_ever_takes_evidence_away() {
    let law = [0.5, 0.3, 0.2];
    // 0.17 nats from one request to the next, where a slow one would bring more than one.
    let capped = capped_mean(law, law, 3, 0.001);
    assert!(capped < 1.0, "{capped}");
    let slower = capped_mean([0.1, 0.1, 0.8], law, 3, 0.001);
    assert!(slower < latency_mean([0.1, 0.1, 0.8], law, 3), "{slower}");
}
