//! Prints what the engine needs to find regressions, how often it is wrong, and what it costs.
//! Run with `--release`; deterministic but for the costs.
#![allow(clippy::print_stdout, clippy::cast_precision_loss, missing_docs)]

#[path = "../tests/engine/random.rs"]
mod random;
#[path = "../tests/engine/world.rs"]
mod world;

use std::time::{Duration, Instant};

use switchback_analysis::label::errors::{ErrorCounts, Errors};
use switchback_analysis::{Settings, Trial};
use switchback_domain::{Outcome, Timestamp, Weight};

use random::{Random, median, wilson};
use world::{Ending, Rollout, Version, history, lognormal};

fn fine(random: &mut Random, _: Timestamp) -> Option<u64> {
    (!random.chance(0.001)).then(|| lognormal(random, 1.0))
}

fn runs(name: &str, settings: &Settings, candidate: Version<'_>, seconds: u64, runs: u64) {
    let five = |_: Timestamp| Weight::from_percent(5);
    let rollout = Rollout {
        settings: settings.clone(),
        weight: &five,
        requests_per_tick: 20,
        tick: Duration::from_millis(20),
        candidate,
        baseline: &fine,
        duration: Duration::from_secs(seconds),
    };
    let history = history();
    let endings: Vec<Ending> = (1..=runs).map(|seed| rollout.run(&history, seed)).collect();
    let fired: Vec<&Ending> = endings.iter().filter(|ending| ending.fired).collect();
    let (_, upper) = wilson(fired.len(), endings.len());
    if fired.is_empty() {
        println!("{name:36} fired 0 of {runs} (upper bound {:.2} %)", upper * 100.0);
        return;
    }
    let of = |number: &dyn Fn(&Ending) -> u64| {
        let mut numbers: Vec<u64> = fired.iter().map(|ending| number(ending)).collect();
        let middle = median(&mut numbers);
        (middle, numbers[numbers.len() * 9 / 10])
    };
    println!(
        "{name:36} fired {} of {runs}, requests {:?}, failed {:?}, ms {:?}",
        fired.len(),
        of(&|it| it.candidate_requests),
        of(&|it| it.candidate_failed),
        of(&|it| u64::try_from(it.elapsed.as_millis()).unwrap_or(0)),
    );
}

/// One candidate replica of twenty; each stalls for 300 ms every 30 s at a time of its own.
fn stalls(settings: &Settings, count: u64) {
    let mut fired = 0;
    for seed in 1..=count {
        let mut random = Random::new(seed);
        let phases: Vec<u64> = (0..20).map(|_| random.bits() % 30_000).collect();
        let pick = |random: &mut Random, now: Timestamp, replica: usize| {
            let within = (now.as_millis() + phases[replica]) % 30_000;
            let wait = if within < 300 { (300 - within) * 1000 } else { 0 };
            Some(lognormal(random, 1.0) + wait)
        };
        let candidate = |random: &mut Random, now: Timestamp| pick(random, now, 0);
        let baseline = |random: &mut Random, now: Timestamp| {
            let replica = 1 + usize::try_from(random.bits() % 19).unwrap_or(0);
            pick(random, now, replica)
        };
        let rollout = Rollout {
            settings: settings.clone(),
            weight: &|_| Weight::from_percent(5),
            requests_per_tick: 40,
            tick: Duration::from_millis(100),
            candidate: &candidate,
            baseline: &baseline,
            duration: Duration::from_mins(5),
        };
        fired += usize::from(rollout.run(&history(), seed).fired);
    }
    println!("replica stalls, 5 min: fired {fired} of {count}");
}

/// A candidate whose latency wanders around the baseline's: autoregressive by ten seconds, with
/// this standard deviation. Not a matter of alpha: for a while it really is slower.
fn noise(settings: &Settings, deviation: f64, count: u64) {
    let mut fired = 0;
    for seed in 1..=count {
        let mut random = Random::new(seed * 7919);
        let step = deviation * libm::sqrt(1.0 - 0.95 * 0.95);
        let mut factor = deviation * random.normal();
        let course: Vec<f64> = (0..61)
            .map(|_| {
                factor = 0.95 * factor + step * random.normal();
                libm::exp(factor)
            })
            .collect();
        let candidate = |random: &mut Random, now: Timestamp| {
            let at = usize::try_from(now.as_millis() / 10_000).unwrap_or(0).min(60);
            (!random.chance(0.001)).then(|| lognormal(random, course[at]))
        };
        let rollout = Rollout {
            settings: settings.clone(),
            weight: &|_| Weight::from_percent(5),
            requests_per_tick: 40,
            tick: Duration::from_millis(100),
            candidate: &candidate,
            baseline: &fine,
            duration: Duration::from_mins(10),
        };
        fired += usize::from(rollout.run(&history(), seed).fired);
    }
    let (_, upper) = wilson(fired, usize::try_from(count).unwrap_or(1));
    let (deviation, upper) = (deviation * 100.0, upper * 100.0);
    println!("noise of {deviation} %, 10 min: fired {fired} of {count} (upper bound {upper:.1} %)");
}

fn cost() {
    let five = |_: Timestamp| Weight::from_percent(5);
    let rollout = Rollout {
        settings: Settings::default(),
        weight: &five,
        requests_per_tick: 100,
        tick: Duration::from_millis(100),
        candidate: &fine,
        baseline: &fine,
        duration: Duration::ZERO,
    };
    let mut random = Random::new(1);
    let batches: Vec<_> = (1..=3000)
        .map(|tick| rollout.batch(Timestamp::from_millis(tick * 100), tick, &mut random))
        .collect();
    let usual = ErrorCounts::default();
    let mut trial =
        Trial::new(Settings::default(), &history(), usual, Timestamp::default()).expect("defaults");
    let mut nanos: Vec<u128> = Vec::new();
    for batch in &batches {
        let start = Instant::now();
        trial.feed(batch);
        nanos.push(start.elapsed().as_nanos());
    }
    let mean = nanos.iter().sum::<u128>() as f64 / 3000.0;
    nanos.sort_unstable();
    let (middle, most) = (nanos[1500], nanos[2990]);
    println!("tick: median {middle} ns, mean with refits {mean:.0} ns, p99.7 {most} ns");
    let start = Instant::now();
    let length = trial.verdict(Timestamp::from_millis(300_000)).findings.len();
    println!("verdict with {length} findings: {} ns", start.elapsed().as_nanos());
    println!("memory: {} bytes", trial.bytes());
}

/// Seconds until an equal candidate is certified safe, at a share of 25 %.
fn certified(count: u64) {
    let history = history();
    let usual = ErrorCounts::default();
    let rollout = Rollout {
        settings: Settings::default(),
        weight: &|_| Weight::from_percent(25),
        requests_per_tick: 1000,
        tick: Duration::from_secs(1),
        candidate: &fine,
        baseline: &fine,
        duration: Duration::ZERO,
    };
    let mut seconds: Vec<u64> = (1..=count)
        .map(|seed| {
            let mut random = Random::new(seed);
            let mut trial = Trial::new(Settings::default(), &history, usual, Timestamp::default())
                .expect("defaults");
            let is_safe = |second: &u64| {
                let now = Timestamp::from_millis(second * 1000);
                trial.feed(&rollout.batch(now, *second, &mut random));
                trial.verdict(now).outcome == Outcome::Safe
            };
            (1..=600).find(is_safe).unwrap_or(u64::MAX)
        })
        .collect();
    let middle = median(&mut seconds);
    println!("certified safe at 25 %: s {:?}", (middle, seconds[seconds.len() * 9 / 10]));
}

/// False rollbacks for errors alone: an hour at 1,000 requests a second, error by error.
fn healthy_hours(percent: u16, count: usize) {
    let share = Weight::from_percent(percent);
    let line = switchback_analysis::budget::line(0.01 * 5.0 / 9.0);
    let mut random = Random::new(u64::from(percent));
    let mut run = |_: &usize| {
        let mut errors = Errors::new(1.0, Timestamp::default());
        let mut requests = 0;
        while requests < 3_600_000 {
            let gap = random.geometric(0.001);
            requests += gap;
            let is_candidate = random.chance(f64::from(percent) / 100.0);
            let counts = ErrorCounts {
                candidate_requests: gap * u64::from(percent) / 100,
                candidate_failed: u64::from(is_candidate),
                baseline_requests: gap - gap * u64::from(percent) / 100,
                baseline_failed: u64::from(!is_candidate),
            };
            errors.observe(Timestamp::from_millis(requests), share, counts);
            if errors.ln_evidence() >= line && errors.is_ripe() {
                return true;
            }
        }
        false
    };
    let fired = (0..count).filter(|at| run(at)).count();
    let upper = wilson(fired, count).1 * 100.0;
    println!("healthy hour at {percent} %: fired {fired} of {count} (upper bound {upper:.2} %)");
}

fn main() {
    let part = std::env::args().nth(1).unwrap_or_default();
    let defaults = Settings::default();
    let uncapped = Settings { latency_nats_per_second: f64::INFINITY, ..defaults.clone() };
    let failing = |rate: f64| {
        move |random: &mut Random, _: Timestamp| {
            (!random.chance(rate)).then(|| lognormal(random, 1.0))
        }
    };
    let slower = |factor: f64| {
        move |random: &mut Random, _: Timestamp| {
            (!random.chance(0.001)).then(|| lognormal(random, factor))
        }
    };
    let tail = |random: &mut Random, _: Timestamp| {
        let factor = if random.chance(0.01) { 10.0 } else { 1.0 };
        (!random.chance(0.001)).then(|| lognormal(random, factor))
    };
    cost();
    if part == "cost" {
        return;
    }
    if part == "noise" {
        for deviation in [0.02, 0.05] {
            noise(&defaults, deviation, 150);
        }
        return;
    }
    runs("errors 0.1 -> 1 %", &defaults, &failing(0.01), 300, 501);
    runs("errors 0.1 -> 5 %", &defaults, &failing(0.05), 60, 501);
    runs("errors 0.1 -> 100 %", &defaults, &failing(1.0), 60, 501);
    runs("latency x1.2, uncapped", &uncapped, &slower(1.2), 120, 501);
    runs("latency x2, uncapped", &uncapped, &slower(2.0), 60, 501);
    runs("latency x1.2", &defaults, &slower(1.2), 120, 201);
    runs("latency x2", &defaults, &slower(2.0), 60, 201);
    runs("1 % of requests x10, uncapped", &uncapped, &tail, 300, 301);
    runs("1 % of requests x10", &defaults, &tail, 300, 301);
    stalls(&defaults, 100);
    certified(101);
    if part == "long" {
        for percent in [1, 5, 50] {
            healthy_hours(percent, 4000);
        }
        runs("healthy, 10 min", &defaults, &fine, 600, 300);
        runs("x1.05, at the tolerance, 10 min", &defaults, &slower(1.05), 600, 300);
    }
}
