//! The wall clock jumps by an hour, forwards and backwards, in mid-rollout.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use switchback_api::RolloutOutcome;

use crate::site::{Site, require_package};

/// Where the rollout waits; longer than a busy machine needs to tell us of it.
const PAUSE: Duration = Duration::from_secs(3);
const HOUR_MS: u64 = 3_600_000;

/// Debian's libfaketime, wherever its architecture keeps it.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("there is a /usr/lib").flatten();
    let mut paths = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    paths.find(|path| path.is_file()).expect("faketime brings its library")
}

#[test]
fn an_hour_forwards_and_an_hour_back_skip_no_delay_and_miss_no_deadline() {
    if !require_package("faketime", "faketime") {
        return;
    }
    let mut site = Site::with("latency=2ms", |recipe| {
        recipe.set(
            "strategy",
            "{type: canary, steps: [{set_weight: 50}, {pause: {duration: 3s}}, \
             {set_weight: 100}, {pause: {duration: 3s}}]}",
        );
    });
    let offset = site.path().join("offset");
    let jump = |to: &str| fs::write(&offset, to).expect("the directory is ours");
    jump("+0");
    for (name, value) in [("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")] {
        site.set_env(name, value);
    }
    site.set_env("FAKETIME_TIMESTAMP_FILE", &offset);
    site.set_env("LD_PRELOAD", library());
    site.up();
    let load = site.load(100);
    let id = site.begin("v2");
    let mut follow = site.follow(&id);
    let mut times = Vec::new();
    for (weight, to) in [(5_000, "+3600"), (10_000, "+0")] {
        let paused = site.event(&mut follow, "a pause", |event| {
            event.summary.doing.starts_with("pause")
                && event.summary.weight.basis_points() == weight
        });
        let begun = Instant::now();
        jump(to);
        let over = site.event(&mut follow, "the pause's end", |event| {
            event.sequence > 0 && !event.summary.doing.starts_with("pause")
        });
        // What was told late began earlier: half of it leaves room for that.
        assert!(begun.elapsed() >= PAUSE / 2, "{weight}: skipped after {:?}", begun.elapsed());
        times.push((paused.at_ms, over.at_ms));
    }
    assert_eq!(site.ended(&id).outcome, Some(RolloutOutcome::Promoted));
    // The clock did jump, and people see it.
    assert!(times[0].1 > times[0].0 + HOUR_MS / 2, "{times:?}");
    assert!(times[1].1 + HOUR_MS / 2 < times[1].0, "{times:?}");
    site.settles_to(&[("v2", 2)]);
    site.nothing_was_lost(load);
}
