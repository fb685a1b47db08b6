//! Two who want the same: deploys, control planes, and a file somebody edits meanwhile.

use std::fs;

use switchback_api::RolloutOutcome;

use crate::crashes::is_at;
use crate::process::{Role, signal};
use crate::site::{Site, wait_for};

#[test]
fn two_deploys_at_once_wait_refuse_or_take_over() {
    let site = Site::started("latency=2ms");
    let load = site.load(150);
    // Both at once: one begins, the other one waits, and both end well.
    let (one, other) = (site.spawn_deploy("v2"), site.spawn_deploy("v3"));
    let mut ended = [one.wait().exits(0).json(), other.wait().exits(0).json()];
    ended.sort_by_key(|rollout| rollout["id"].as_str().map(ToOwned::to_owned));
    assert_eq!((&ended[0]["from"], &ended[1]["from"]), (&"v1".into(), &ended[0]["to"]));
    let last = ended[1]["to"].as_str().expect("a version").to_owned();
    site.settles_to(&[(&last, 2)]);

    let active = site.begin("v4");
    let refused = site.run(&["deploy", "web", "--version", "v5", "--on-busy", "refuse"]).exits(75);
    assert!(refused.stderr.contains("SB0301") && refused.stderr.contains(&active), "{refused:?}");
    let newer = ["deploy", "web", "--version", "v6", "--on-busy", "supersede", "--json"];
    assert_eq!(site.run(&newer).exits(0).json()["outcome"], "promoted");
    assert_eq!(site.ended(&active).outcome, Some(RolloutOutcome::Superseded));
    site.settles_to(&[("v6", 2)]);
    site.nothing_was_lost(load);
}

#[test]
fn a_second_control_plane_is_refused_and_leftovers_are_no_obstacle() {
    let site = Site::started("");
    let first = site.pid(Role::Control);
    let state_dir = site.state_dir().to_string_lossy().into_owned();
    let second = site.run(&["control", "--state-dir", &state_dir]).exits(75);
    assert!(second.stderr.contains("SB0212"), "{second:?}");
    assert!(second.stderr.contains(&first.to_string()), "{second:?}");
    assert_eq!((site.pid(Role::Control), site.stable()), (first, "v1".to_owned()));

    site.kill9_control();
    for left in ["control.sock", "control.lock"] {
        assert!(site.state_dir().join(left).exists(), "{left} was not left behind");
    }
    // As after a reboot: the number in the lock file is somebody else's by now.
    fs::write(site.state_dir().join("control.lock"), std::process::id().to_string()).unwrap();
    assert_eq!(site.run(&["status"]).exits(69).stdout, "");
    // Two at once: one gets the lock, the other one finds it at work, and both are content.
    let (one, other) = (site.spawn(&["up", "--detach"]), site.spawn(&["up", "--detach"]));
    let codes = [one.wait(), other.wait()].map(|ended| {
        assert!([0, 75].contains(&ended.code), "{ended:?}");
        ended.code
    });
    assert!(codes.contains(&0), "{codes:?}");
    assert_eq!((site.pids(Role::Control).len(), site.stable()), (1, "v1".to_owned()));
    site.settles_to(&[("v1", 2)]);
}

#[test]
fn a_control_plane_that_is_told_to_end_leaves_everything_running() {
    let site = Site::started("latency=2ms");
    let load = site.load(100);
    let id = site.begin("v2");
    let mut follow = site.follow(&id);
    site.event(&mut follow, "Observing at 5 %", |event| is_at(event, "Observing", 500));
    signal(site.pid(Role::Control), rustix::process::Signal::TERM);
    wait_for("the control plane's end", || site.pids(Role::Control).is_empty());
    assert!(!site.state_dir().join("control.sock").exists());
    let answered = load.snapshot().answered_total();
    wait_for("answers without it", || load.snapshot().answered_total() > answered + 30);
    site.up();
    assert_eq!(site.ended(&id).outcome, Some(RolloutOutcome::Promoted));
    site.nothing_was_lost(load);
}

#[test]
fn a_config_edited_in_mid_rollout_changes_nothing_for_it() {
    let site = Site::started("latency=2ms");
    let good = site.recipe().text();
    let load = site.load(150);
    let id = site.begin("v2");
    let mut follow = site.follow(&id);
    site.event(&mut follow, "Observing at 5 %", |event| is_at(event, "Observing", 500));
    site.write_config("project: e2e\nservices: [this is: {no service\n");
    site.event(&mut follow, "Shifting at 50 %", |event| is_at(event, "Shifting", 5_000));
    // Good again, but all different: another command, one replica, no steps.
    let other = good.replace("latency=2ms", "error_rate=1").replace("replicas: 2", "replicas: 1");
    site.write_config(&other.replace(crate::recipe::CANARY, "{type: rolling}"));
    let ended = site.ended(&id);
    assert_eq!((ended.outcome, ended.steps), (Some(RolloutOutcome::Promoted), 12));
    site.settles_to(&[("v2", 2)]);
    site.nothing_was_lost(load);

    let broken =
        good.replace("replicas: 2", "replicas: two").replace("drain_timeout", "drain_time");
    site.write_config(&broken);
    let refused = site.deploy("v3").exits(78);
    let text = refused.text();
    assert!(text.contains("replicas") && text.contains("drain_time"), "{text}");
    assert_eq!(site.stable(), "v2");
    site.kill9_control();
    let refused = site.run(&["up", "--detach"]).exits(78);
    assert!(refused.text().contains("replicas"), "{refused:?}");
    site.write_config(&good);
    site.up();
    site.settles_to(&[("v2", 2)]);
}
