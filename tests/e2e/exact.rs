//! The exact test end to end: a bad version costs a handful of failed requests, its verdict can be
//! explained and done again, and a killed control plane counts nothing twice.

use std::fs;

use crate::recipe::Recipe;
use crate::site::{Site, wait_for};

/// A fifth of the traffic for as long as any of these tests takes.
const WATCHED: &str = "{type: canary, steps: [{set_weight: 20}, {pause: 50s}, {set_weight: 100}]}";

/// Nothing but the exact test takes a version back.
fn tested(recipe: &mut Recipe) {
    let off = ["error_rate", "response_time", "latency_p95", "cpu_usage", "health_checks"];
    let off = off.map(|name| format!("{name}: false")).join(", ");
    recipe.set("replicas", "1");
    recipe.set("strategy", WATCHED);
    recipe.set("scale_down_delay", "100ms");
    recipe.set("rollback", format!("{{exact_test: {{warm_up: 0s}}, triggers: {{{off}}}}}"));
}

#[test]
fn a_version_that_fails_is_back_after_a_handful_of_requests_and_the_verdict_can_be_had_again() {
    let site = Site::with("latency=2ms bad:error_rate=0.05", tested);
    site.up();
    let load = site.load(300);
    let (id, failed) = site.bad_is_taken_back("errors");
    assert!((3..=20).contains(&failed), "{failed} requests failed");
    let report = site.stop(load);
    assert_eq!(report.failures.total(), 0, "{report:#?}");
    assert_eq!(report.errors.keys().collect::<Vec<_>>(), ["bad"], "{report:#?}");

    let drawing = site.path().join("evidence.svg");
    let drawn = drawing.to_string_lossy();
    let told = site.run(&["explain", &id, "--svg", &drawn]).exits(0).stdout;
    for part in ["Exact test", "regressed by errors after", "error ratio new : old", "ln E"] {
        assert!(told.contains(part), "{part:?} is not in\n{told}");
    }
    let svg = fs::read_to_string(&drawing).expect("it was drawn");
    assert!(svg.starts_with("<svg") && svg.contains("polyline"), "{svg}");

    let again = site.run(&["analyze", "--replay", &id]).exits(0).stdout;
    assert!(again.contains("reproduced to the bit"), "{again}");
    let other = site.path().join("other.yaml");
    let patient = site.recipe().text().replace("warm_up: 0s", "warm_up: 0s, alpha: 0.1%");
    fs::write(&other, patient).expect("the directory is ours");
    let with = other.to_string_lossy();
    let judged = site.json(&["analyze", "--replay", &id, "--with", &with]);
    let line = |document: &serde_json::Value| document[0]["story"]["evidence"]["line"].as_f64();
    let strict = line(&site.json(&["analyze", "--replay", &id]));
    assert!(line(&judged) > strict, "a smaller alpha needs more evidence: {judged:#}");
    let past = site.run(&["analyze", "--backtest", "--with", &with]).exits(0).stdout;
    assert!(past.contains(&id) && past.contains("regressed after"), "{past}");
}

#[test]
fn a_version_that_is_only_slower_is_taken_back_without_a_failed_request() {
    let site = Site::with("latency=20ms bad:latency=60ms", tested);
    site.up();
    let load = site.load(300);
    let (_, failed) = site.bad_is_taken_back("latency");
    assert_eq!(failed, 0);
    site.nothing_was_lost(load);
}

#[test]
fn a_control_plane_that_is_killed_goes_on_testing_where_it_was() {
    let site = Site::with("latency=2ms", tested);
    site.up();
    let load = site.load(200);
    let id = site.begin("v2");
    let tested = |least: usize| {
        let records = || site.wait(site.client().trials(&id)).unwrap_or_default();
        wait_for("batches are written down", || {
            records().first().is_some_and(|record| record.batches.len() >= least)
        });
        records()
    };
    let before = tested(12)[0].batches.len();
    site.kill9_control();
    site.up();
    let records = tested(before + 20);
    assert_eq!(records.len(), 1, "the same test goes on");
    let numbers: Vec<_> = records[0].batches.iter().map(|batch| batch.sequence).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "each once, none missing");
    let counted: u64 = records[0].batches.iter().map(|batch| batch.candidate.requests()).sum();
    let ledger = site.ledger().versions.into_iter().find(|entry| entry.version.as_str() == "v2");
    assert!(counted <= ledger.expect("it has traffic").stats.accepted, "{counted}");
    site.run(&["abort", &id]).exits(0);
    site.nothing_was_lost(load);
    site.run(&["analyze", "--replay", &id]).exits(0);
}
