//! A few seeds in every test run; `cargo xtask simulate` runs them by the ten thousand.

use std::collections::BTreeSet;

use switchback_simulator::{retell, run_many};

/// Enough to notice that something is badly wrong; CI's own step runs many more.
const SEEDS: u64 = 300;

#[test]
fn nothing_that_must_hold_is_broken_under_any_seed() {
    let tally = run_many(0, SEEDS, 2);
    let Some((seed, what)) = tally.failures.first_key_value() else { return };
    panic!("seed {seed}: {what}\nsee it with `cargo xtask simulate --seed {seed}`");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..30 {
        let (once, again) = (retell(seed), retell(seed));
        let (Ok(once), Ok(again)) = (once, again) else { panic!("seed {seed} fails") };
        assert_eq!(once.hash, again.hash, "seed {seed}");
        assert_eq!(once.timeline, again.timeline, "seed {seed}");
    }
}

#[test]
fn the_result_does_not_depend_on_the_number_of_threads() {
    let (one, two) = (run_many(1_000, 60, 1), run_many(1_000, 60, 3));
    assert_eq!((one.hash, one.events, one.marks), (two.hash, two.events, two.marks));
}

#[test]
fn different_seeds_give_different_runs() {
    let hashes: BTreeSet<_> = (0..60).filter_map(|seed| Some(retell(seed).ok()?.hash)).collect();
    assert!(hashes.len() >= 59, "{}", hashes.len());
}
