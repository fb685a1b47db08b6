//! The scenarios of the protocol (design page, 11).

use switchback_domain::Weight;

use crate::arm::{Grain, Version};
use crate::law::Law;
use crate::scenario::{Kind, Scenario, Script, Sticky};

/// Errors of a version that is as it should be.
const BASE: f64 = 0.001;
/// Memory and period of noise between replicas: 0.95 per ten seconds.
const NOISE: Script = Script::Noise { every: 10.0, memory: 0.95 };

/// A version that is as it should be.
pub fn usual() -> Version {
    Version::new(Law::usual(), BASE)
}

/// Both versions alike.
fn healthy(name: &str) -> Scenario {
    Scenario {
        name: name.to_owned(),
        kind: Kind::Healthy,
        rate: 1000.0,
        weight: Weight::from_percent(5),
        replicas: 3,
        baseline: vec![usual()],
        candidate: vec![usual()],
        script: Script::Steady,
        grain: Grain::Coarse,
        warm_up: 0,
        sticky: None,
        group_millis_max: 5120,
        group_part: 40,
    }
}

fn alike(name: &str, versions: Vec<Version>, script: Script) -> Scenario {
    Scenario { baseline: versions.clone(), candidate: versions, script, ..healthy(name) }
}

/// A candidate that is worse.
fn worse(name: &str, candidate: Version) -> Scenario {
    Scenario {
        kind: Kind::Regression,
        candidate: vec![candidate],
        grain: Grain::Fine,
        group_millis_max: 1000,
        group_part: 100,
        ..healthy(name)
    }
}

fn slower(name: &str, law: Law) -> Scenario {
    worse(name, Version::new(law, BASE))
}

fn failing(name: &str, fails: f64) -> Scenario {
    worse(name, Version::new(Law::usual(), fails))
}

/// Everything.
pub fn all() -> Vec<Scenario> {
    let parts =
        [shared(), replicas(), sessions(), shares(), errors(), latencies(), later(), rates()];
    parts.into_iter().flatten().collect()
}

/// Healthy candidates and what happens to both versions.
fn shared() -> Vec<Scenario> {
    let level = |law: Law, fails: f64| Version::new(law, fails);
    let usual_law = Law::usual;
    let drift = (0..11).map(|at| {
        let rate = BASE * libm::pow(10.0, f64::from(at) / 10.0 - 0.5);
        level(usual_law(), rate)
    });
    let busy = (0..3).map(|at| level(usual_law().times(1.0 + 0.15 * f64::from(at)), BASE));
    let clients = (0..8).map(|at| {
        let factor = libm::exp2(f64::from(at) / 2.0 - 1.75);
        level(usual_law().times(factor), BASE * (1.0 + f64::from(at)))
    });
    let burst = Script::Periodic { every: 120.0, lasts: 10.0, rate: 1.0 };
    let outage = Script::Periodic { every: 600.0, lasts: 30.0, rate: 1.0 };
    let storm = Script::Periodic { every: 300.0, lasts: 20.0, rate: 2.5 };
    let bimodal = Law::LogNormal(5_000.0, 0.5).with(0.2, Law::LogNormal(80_000.0, 0.5));
    let heavy = Law::Pareto(20_000.0, 1.8);
    vec![
        healthy("iid"),
        alike("diurnal x5", busy.collect(), Script::Diurnal),
        alike("error drift x10", drift.collect(), Script::Drift),
        alike("shared outage", vec![usual(), level(usual_law(), 0.3)], outage),
        alike("shared latency bursts", vec![usual(), level(usual_law().times(5.0), BASE)], burst),
        alike("bimodal", vec![level(bimodal, BASE)], Script::Steady),
        alike("pareto tail", vec![level(heavy, BASE)], Script::Steady),
        alike("retry storms", vec![usual(), level(usual_law().times(2.0), 0.1)], storm),
        alike("pinned connections", clients.collect(), Script::Mixes { every: 10.0 }),
        alike("no base errors", vec![level(usual_law(), 0.0)], Script::Steady),
        Scenario {
            candidate: vec![level(usual_law().times(0.9), 0.9 * BASE)],
            ..healthy("10 % better")
        },
        Scenario {
            candidate: vec![level(usual_law().times(1.05), BASE)],
            grain: Grain::Fine,
            ..healthy("latency x1.05, at the tolerance")
        },
    ]
}

/// Healthy candidates with troubles of single replicas.
fn replicas() -> Vec<Scenario> {
    let noise = |percent: u32, replicas: u32| {
        let deviation = f64::from(percent) / 100.0;
        let factor = |at: i32| libm::exp(deviation * f64::from(at) / 4.0);
        let levels: Vec<i32> = (-16..=16).collect();
        let part = |at: &i32| {
            let z = f64::from(*at) / 4.0;
            (libm::exp(-z * z / 2.0), Law::usual().times(factor(*at)))
        };
        let parts: Vec<(f64, Law)> = levels.iter().map(part).collect();
        let all: f64 = parts.iter().map(|(share, _)| share).sum();
        let mixed = Law::Mix(parts.into_iter().map(|(share, law)| (share / all, law)).collect());
        let version = |at: &i32| Version::new(Law::usual().times(factor(*at)), BASE);
        Scenario {
            kind: Kind::Outside,
            replicas,
            baseline: vec![Version::new(mixed, BASE)],
            candidate: levels.iter().map(version).collect(),
            script: NOISE,
            group_millis_max: 1000,
            ..healthy(&format!("replica noise {percent} %, {replicas} replicas"))
        }
    };
    let stalls = |replicas: u32| {
        let stalled = |share: f64| Version::new(Law::usual().stalled(share, 300_000.0), BASE);
        Scenario {
            kind: Kind::Outside,
            replicas,
            baseline: vec![stalled(0.01)],
            candidate: (0..=40).map(|at| stalled(f64::from(at) / 40.0)).collect(),
            script: Script::Stalls { every: 30.0, lasts: 0.3 },
            group_millis_max: 1000,
            ..healthy(&format!("pauses of 300 ms, {replicas} replicas"))
        }
    };
    let cold = |warm_up: u64, name: &str| Scenario {
        kind: if warm_up > 0 { Kind::Healthy } else { Kind::Outside },
        // Three times as slow at first; at 120 s within the tolerance for good.
        candidate: (0..=160)
            .map(|at| Version::new(Law::usual().times(1.0 + f64::from(at) / 80.0), BASE))
            .collect(),
        script: Script::Cold { decay: 30.0 },
        grain: Grain::Fine,
        group_millis_max: 1000,
        warm_up,
        ..healthy(name)
    };
    vec![
        noise(2, 1),
        noise(5, 1),
        noise(5, 3),
        noise(5, 10),
        noise(10, 3),
        stalls(1),
        stalls(3),
        cold(120, "cold start, warm-up 120 s"),
        cold(0, "cold start, no warm-up"),
    ]
}

/// Errors that come in sessions.
fn sessions() -> Vec<Scenario> {
    let sticky = |errors: u32, by_session: bool| {
        let how = if by_session { "" } else { ", counted by request" };
        Scenario {
            kind: if by_session { Kind::Healthy } else { Kind::Outside },
            sticky: Some(Sticky { errors, by_session }),
            ..healthy(&format!("sticky sessions, {errors} errors each{how}"))
        }
    };
    vec![sticky(2, true), sticky(5, true), sticky(20, true), sticky(5, false)]
}

/// Healthy candidates with other shares and rates.
fn shares() -> Vec<Scenario> {
    let share = |percent: u16| Scenario {
        weight: Weight::from_percent(percent),
        ..healthy(&format!("iid, {percent} %"))
    };
    let rate = |rate: f64| Scenario { rate, ..healthy(&format!("iid, {rate:.0} requests/s")) };
    let percents = vec![1, 5, 25, 50];
    vec![
        Scenario {
            script: Script::Weights { every: 30.0, percents: percents.clone() },
            ..healthy("weight changed every 30 s")
        },
        Scenario {
            script: Script::Ramp { every: 600.0, percents, bad_above: 100 },
            ..healthy("ramp 1, 5, 25, 50 %")
        },
        share(1),
        share(10),
        share(25),
        share(50),
        rate(1.0),
        rate(10.0),
        rate(100.0),
        rate(10_000.0),
    ]
}

fn errors() -> Vec<Scenario> {
    let from = |old: f64, new: f64, name: &str| Scenario {
        baseline: vec![Version::new(Law::usual(), old)],
        ..failing(name, new)
    };
    let hanging = |hangs: f64, name: &str| worse(name, Version { hangs, ..usual() });
    vec![
        failing("errors 0.1 -> 0.2 %", 0.002),
        failing("errors 0.1 -> 0.5 %", 0.005),
        failing("errors 0.1 -> 1 %", 0.01),
        failing("errors 0.1 -> 5 %", 0.05),
        failing("errors 0.1 -> 100 %", 1.0),
        from(0.0001, 0.001, "errors 0.01 -> 0.1 %"),
        from(0.0, 0.005, "errors 0 -> 0.5 %"),
        hanging(0.01, "1 % hang"),
        hanging(1.0, "all hang"),
        // A tenth of the requests, and a twentieth of the users.
        failing("errors 0.1 -> 5 %, one route of ten", BASE + 0.1 * 0.049),
        failing("errors 0.1 -> 5 %, one tenant of twenty", BASE + 0.05 * 0.049),
    ]
}

fn latencies() -> Vec<Scenario> {
    let law = Law::usual;
    // The median moves, the tail does not: what is fast gets slower.
    let middle = Law::LogNormal(62_500.0, 0.49);
    vec![
        slower("latency x1.1", law().times(1.1)),
        slower("latency x1.2", law().times(1.2)),
        slower("latency x1.5", law().times(1.5)),
        slower("latency x2", law().times(2.0)),
        slower("latency x5", law().times(5.0)),
        slower("latency +20 ms", law().plus(20_000.0)),
        slower("1 % of requests x10", law().with(0.01, law().times(10.0))),
        slower("5 % of requests x3", law().with(0.05, law().times(3.0))),
        slower("p50 only, x1.25", middle),
        slower("latency x2, one route of ten", law().with(0.1, law().times(2.0))),
    ]
}

/// Regressions that begin later.
fn later() -> Vec<Scenario> {
    let from_then = |scenario: Scenario, script: Script, name: &str| {
        let candidate = std::iter::once(usual()).chain(scenario.candidate.clone()).collect();
        Scenario { name: name.to_owned(), candidate, script, ..scenario }
    };
    let onset = || Script::Onset { after: 300.0 };
    let ramp = Script::Ramp { every: 120.0, percents: vec![1, 5, 25, 50], bad_above: 25 };
    let five = || failing("", 0.05);
    vec![
        from_then(five(), onset(), "errors 0.1 -> 5 % after 5 min"),
        from_then(slower("", Law::usual().times(1.5)), onset(), "latency x1.5 after 5 min"),
        from_then(five(), ramp, "errors 0.1 -> 5 % above 25 %"),
    ]
}

/// The main regressions at other rates.
fn rates() -> Vec<Scenario> {
    let mut found = Vec::new();
    for rate in [1.0, 10.0, 100.0, 10_000.0] {
        let percent = if rate < 5.0 { 25 } else { 5 };
        let cases = [
            failing("errors 0.1 -> 1 %", 0.01),
            failing("errors 0.1 -> 5 %", 0.05),
            failing("errors 0.1 -> 100 %", 1.0),
            slower("latency x1.2", Law::usual().times(1.2)),
            slower("latency x2", Law::usual().times(2.0)),
        ];
        found.extend(cases.map(|scenario| Scenario {
            name: format!("{}, {rate:.0} requests/s at {percent} %", scenario.name),
            rate,
            weight: Weight::from_percent(percent),
            ..scenario
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different() {
        let mut names: Vec<String> = all().into_iter().map(|scenario| scenario.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
