//! Many seeds: nothing that must hold is broken, and everything interesting is reached.

use std::collections::BTreeSet;

use switchback_simulator::{Mark, Trace, retell, simulate};

/// Enough for every mark below, few enough for every change.
const SEEDS: u64 = 2_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Both processors work: even and odd seeds.
fn run(seeds: u64) -> Vec<Trace> {
    let half = |first: u64| {
        (first..seeds)
            .step_by(2)
            .map(|seed| simulate(seed).unwrap_or_else(|failure| panic!("{failure}")))
            .collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let odd = scope.spawn(|| half(1));
        let mut traces = half(0);
        traces.extend(odd.join().expect("the timeline of the failure is above"));
        traces
    })
}

#[test]
fn nothing_that_must_hold_is_broken_under_any_seed() {
    if let Some(seed) = number("SWITCHBACK_SEED") {
        let trace = retell(seed).unwrap_or_else(|failure| panic!("{failure}"));
        // Shown with `--nocapture`.
        let _ = std::io::Write::write_all(&mut std::io::stdout(), trace.to_string().as_bytes());
        return;
    }
    let traces = run(number("SWITCHBACK_SEEDS").unwrap_or(SEEDS));
    let marks: BTreeSet<Mark> = traces.iter().flat_map(|trace| trace.marks.clone()).collect();
    let missing: Vec<_> = SOMETIMES.iter().filter(|mark| !marks.contains(*mark)).collect();
    assert!(missing.is_empty(), "never reached: {missing:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..50 {
        let (once, again) = (retell(seed), retell(seed));
        let (Ok(once), Ok(again)) = (once, again) else { panic!("seed {seed} fails") };
        assert_eq!(once.hash, again.hash, "seed {seed}");
        assert_eq!(once.timeline, again.timeline, "seed {seed}");
    }
}

#[test]
fn different_seeds_give_different_runs() {
    let hashes: BTreeSet<_> = run(100).into_iter().map(|trace| trace.hash).collect();
    assert!(hashes.len() >= 99, "{}", hashes.len());
}

/// What a simulation that deserves its name comes across.
const SOMETIMES: &[Mark] = &[];
