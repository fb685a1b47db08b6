//! Many seeds: nothing that must hold is broken, and everything interesting is reached.

use std::collections::BTreeSet;

use switchback_simulator::{Mark, Trace, retell, simulate};

/// Enough for every mark below, few enough for every change.
const SEEDS: u64 = 2_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Both processors work: even and odd seeds. Of failures, the shortest one is told.
fn run(seeds: u64) -> Vec<Trace> {
    let half = |first: u64| (first..seeds).step_by(2).map(simulate).collect::<Vec<_>>();
    let results = std::thread::scope(|scope| {
        let odd = scope.spawn(|| half(1));
        let mut results = half(0);
        results.extend(odd.join().expect("a simulation does not panic"));
        results
    });
    let (traces, failures): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let failures: Vec<_> = failures.into_iter().filter_map(Result::err).collect();
    if let Some(shortest) = failures.iter().min_by_key(|failure| failure.trace.events) {
        let list: Vec<_> =
            failures.iter().map(|f| format!("{}: {}", f.trace.seed, f.what)).collect();
        panic!("{shortest}\n{} of {seeds} seeds fail:\n{}", failures.len(), list.join("\n"));
    }
    traces.into_iter().filter_map(Result::ok).collect()
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
const SOMETIMES: &[Mark] = &[
    ("cause", "aborted"),
    ("cause", "check failed"),
    ("cause", "crash loop"),
    ("cause", "deadline"),
    ("cause", "died"),
    ("cause", "no evidence"),
    ("cause", "not ready"),
    ("cause", "not verified"),
    ("cause", "regressed"),
    ("cause", "superseded"),
    ("clock", "stepped forward"),
    ("commanded", "abort"),
    ("commanded", "pause"),
    ("commanded", "promote"),
    ("commanded", "promote in full"),
    ("commanded", "resume"),
    ("crash", "amid the effects"),
    ("crash", "before the append"),
    ("crash", "before the effects"),
    ("crash", "between events"),
    ("crash in", "AwaitingApproval"),
    ("crash in", "DrainingBaseline"),
    ("crash in", "Idle"),
    ("crash in", "Observing"),
    ("crash in", "Provisioning"),
    ("crash in", "RollingBack"),
    ("crash in", "Shifting"),
    ("crash in", "Stuck"),
    ("crash in", "Validating"),
    ("crash in", "Verifying"),
    ("crash in", "Withdrawing"),
    ("data plane", "a table was lost"),
    ("data plane", "could not be reached for minutes"),
    ("data plane", "got a table twice"),
    ("data plane", "its answer was lost"),
    ("data plane", "refused an older table"),
    ("ending", "ended: promoted"),
    ("ending", "ended: rolled back"),
    ("ending", "ended: superseded"),
    ("ending", "ended: withdrawn"),
    ("ending after a crash", "ended: promoted"),
    ("ending after a crash", "ended: rolled back"),
    ("ending after a crash", "ended: superseded"),
    ("ending after a crash", "ended: withdrawn"),
    ("paused in", "AwaitingApproval"),
    ("paused in", "Observing"),
    ("paused in", "Provisioning"),
    ("paused in", "Shifting"),
    ("paused in", "Validating"),
    ("queue", "what waited served already"),
    ("refused", "aborted"),
    ("refused", "busy"),
    ("refused", "no rollout"),
    ("refused", "paused"),
    ("refused", "promoted"),
    ("refused", "resumed"),
    ("refused", "unchanged"),
    ("requested", "a rollback"),
    ("same release", "fewer"),
    ("same release", "more"),
    ("settled", "empty"),
    ("settled", "serving"),
    ("stuck", "healed"),
    ("taken back in", "AwaitingApproval"),
    ("taken back in", "Observing"),
    ("taken back in", "Provisioning"),
    ("taken back in", "Shifting"),
    ("taken back in", "Validating"),
    ("way back", "in parts, as capacity came"),
];
