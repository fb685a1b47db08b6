//! Requests that take their time: cohorts of arrivals against the order of completion.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use switchback_analysis::cohort::{Arm, Cohorts, End, Ticket};
use switchback_analysis::label::errors::ErrorCounts;
use switchback_analysis::{Batch, Settings, Trial};
use switchback_domain::{Timestamp, Weight};

use crate::random::{Random, wilson};
use crate::world::{history, lognormal};

/// One request a millisecond at a share of 25 %; `latency` in microseconds, `None` if it hangs.
fn run(seed: u64, millis: u64, latency: &dyn Fn(&mut Random, Arm) -> Option<u64>) -> Trial {
    let settings =
        Settings { alpha: 0.1, cap_age: Duration::from_millis(800), ..Settings::default() };
    let (start, usual) = (Timestamp::default(), ErrorCounts::default());
    let mut trial = Trial::new(settings, &history(), usual, start).unwrap();
    let (tick, cap) = (Duration::from_millis(100), Duration::from_millis(800));
    let mut cohorts = Cohorts::new("proxy".to_owned(), tick, cap);
    let mut running: BTreeMap<Reverse<(u64, u64)>, (Ticket, u64)> = BTreeMap::new();
    let mut random = Random::new(seed);
    let weight = Weight::from_percent(25);
    for at in 0..millis {
        let now = Timestamp::from_millis(at);
        let arm = if random.chance(0.25) { Arm::Candidate } else { Arm::Baseline };
        let ticket = cohorts.arrive(now, weight, arm);
        if let Some(micros) = latency(&mut random, arm) {
            running.insert(Reverse((at + micros / 1000, at)), (ticket, micros));
        }
        while running.last_key_value().is_some_and(|(Reverse((end, _)), _)| *end <= at) {
            let (_, (ticket, micros)) = running.pop_last().unwrap();
            cohorts.end(&ticket, now, End::Answered(micros, false));
        }
        if at % 100 == 99 {
            cohorts.close(now).iter().for_each(|batch: &Batch| {
                trial.feed(batch);
            });
        }
    }
    trial
}

#[test]
fn a_candidate_that_is_no_slower_stays_whatever_order_requests_end_in() {
    // A tenth faster, and both hang once in five hundred.
    let latency = |random: &mut Random, arm: Arm| {
        let factor = if arm == Arm::Candidate { 0.9 } else { 1.0 };
        (!random.chance(0.002)).then(|| lognormal(random, factor))
    };
    let runs = 60;
    let fired = (1..=60).filter(|seed| run(*seed, 8000, &latency).fired().is_some()).count();
    assert!(wilson(fired, runs).0 <= 0.1 && fired <= 6, "{fired} of {runs} rolled back");
}

#[test]
fn a_hang_of_the_candidate_is_found_one_cap_age_after_its_first_requests() {
    let latency =
        |random: &mut Random, arm: Arm| (arm == Arm::Baseline).then(|| lognormal(random, 1.0));
    let trial = run(1, 1400, &latency);
    let fired = trial.fired().expect("a candidate that never answers is bad");
    assert!(fired.blamed[0] && fired.at <= Timestamp::from_millis(1100), "{fired:?}");
}
