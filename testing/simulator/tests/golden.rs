//! Journals of released builds lead this build to the same states.
//!
//! `SWITCHBACK_RECORD=NAME cargo test -p switchback-simulator --test golden` writes the journals of
//! this build as `testing/golden/NAME-*.jsonl`; those that are there are never written anew.

use std::fs;
use std::path::{Path, PathBuf};

use switchback_simulator::{record_golden, replay_golden};

/// The scenarios whose journals are kept.
const SCENARIOS: [&str; 6] = [
    "canary-with-analysis",
    "canary-regresses",
    "crash-while-shifting",
    "queue",
    "exact-test",
    "pause-and-progress",
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

#[test]
fn every_build_comes_to_the_states_that_the_journals_led_to() {
    if let Ok(name) = std::env::var("SWITCHBACK_RECORD") {
        record_all(&name);
    }
    let mut count = 0;
    for entry in fs::read_dir(folder("golden")).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let golden = fs::read_to_string(&path).expect("it can be read");
        let (states, expected) =
            replay_golden(&golden).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        assert_eq!(states, expected, "{}", path.display());
        count += 1;
    }
    assert!(count >= SCENARIOS.len(), "only {count} journals");
}

fn record_all(name: &str) {
    for scenario in SCENARIOS {
        let script = folder("scenarios").join(format!("{scenario}.txt"));
        let script = fs::read_to_string(script).expect("the scenario is there");
        let path = folder("golden").join(format!("{name}-{scenario}.jsonl"));
        assert!(!path.exists(), "{} is there already", path.display());
        fs::write(path, record_golden(&script).expect("it can be played")).expect("written");
    }
}

#[test]
fn a_changed_record_is_noticed() {
    let path = folder("golden").join("1-queue.jsonl");
    let golden = fs::read_to_string(path).expect("it is there");
    let changed = golden.replacen("\"wall_ms\":", "\"wall_ms\":1", 1);
    assert!(replay_golden(&changed).is_err_and(|why| why.contains("another hash")));
}
