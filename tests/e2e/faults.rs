//! `kill -9` of the data plane, of shims and of instances: what served goes on, what died comes
//! back, and a rollout ends by what happened to its candidate.

use switchback_api::RolloutOutcome;
use switchback_demo::load::{LoadHandle, LoadReport};

use crate::crashes::is_at;
use crate::process::Role;
use crate::site::{Site, wait_for};

/// More than a load has on its way at any moment: it has 16 connections.
const ON_THEIR_WAY_MAX: u64 = 16;

/// Kills the data plane under load: the next one answers, and what failed until then was all.
fn kill_proxy(site: &Site, load: &LoadHandle) {
    let old = site.pid(Role::Proxy);
    site.kill9(old);
    wait_for("another data plane", || {
        let pid = site.status().data_plane.pid;
        pid.is_some_and(|pid| pid != old && site.pids(Role::Proxy) == [pid])
    });
    answers(load, 50);
    let lost = load.snapshot().failures;
    answers(load, 150);
    let report = load.snapshot();
    assert_eq!(report.failures, lost, "it goes on losing requests");
    assert_eq!((lost.malformed, lost.timeout), (0, 0), "{lost:?}");
    assert!(report.errors.is_empty(), "{report:#?}");
}

/// Waits for so many more answers.
fn answers(load: &LoadHandle, more: u64) {
    let answered = load.snapshot().answered_total();
    wait_for("answers", || load.snapshot().answered_total() >= answered + more);
}

/// Answers that an instance's death may have spoiled: those on their way to it.
fn few_errors(report: &LoadReport) {
    assert_eq!(report.failures.total(), 0, "{report:#?}");
    assert!(report.errors.values().sum::<u64>() <= ON_THEIR_WAY_MAX, "{report:#?}");
}

#[test]
fn the_data_plane_is_killed_in_calm_and_in_mid_canary() {
    let site = Site::started("latency=2ms");
    let load = site.load(150);
    kill_proxy(&site, &load);
    let id = site.begin("v2");
    let mut follow = site.follow(&id);
    site.event(&mut follow, "Observing at 50 %", |event| is_at(event, "Observing", 5_000));
    kill_proxy(&site, &load);
    assert_eq!(site.ended(&id).outcome, Some(RolloutOutcome::Promoted));
    site.settles_to(&[("v2", 2)]);
    assert_eq!(site.dropped(), 0, "{:#?}", site.ledger());
    // Its counts began anew with it: those of the rollout did not.
    assert!(site.rollout(&id).candidate_requests > 0);
    let report = site.stop(load);
    assert!(report.errors.is_empty(), "{report:#?}");
}

#[test]
fn the_data_plane_restores_its_table_without_a_control_plane_that_knows_it() {
    let site = Site::with("latency=2ms", |recipe| {
        recipe.set(
            "strategy",
            "{type: canary, steps: [{set_weight: 50}, {approve: {}}, {set_weight: 100}]}",
        );
    });
    site.up();
    let id = site.begin("v2");
    let mut follow = site.follow(&id);
    site.event(&mut follow, "approval", |event| event.summary.phase == "AwaitingApproval");
    site.serves(&["v1", "v2"]);
    site.kill9_control();
    site.kill9(site.pid(Role::Proxy));
    let proxy = site.start_proxy();
    site.serves(&["v1", "v2"]);
    site.up();
    assert_eq!(site.pid(Role::Proxy), proxy);
    let load = site.load(100);
    site.run(&["promote", &id]).exits(0);
    assert_eq!(site.ended(&id).outcome, Some(RolloutOutcome::Promoted));
    site.settles_to(&[("v2", 2)]);
    site.nothing_was_lost(load);
}

#[test]
fn stable_instances_and_their_shims_are_killed_in_calm() {
    let site = Site::started("latency=2ms");
    let load = site.load(150);
    let before = site.instances("v1");
    site.kill9(before[0].pid);
    heals(&site, "v1", before[0].pid);
    let before = site.instances("v1");
    site.kill9(site.shim_of(&before[1]));
    heals(&site, "v1", before[1].pid);
    few_errors(&site.stop(load));
    let load = site.load(150);
    assert_eq!(site.deploy("v2").exits(0).json()["outcome"], "promoted");
    site.settles_to(&[("v2", 2)]);
    let report = site.stop(load);
    assert_eq!((report.failures.total(), report.errors.len()), (0, 0), "{report:#?}");
}

/// Waits until two instances of a version are ready again without the killed one.
fn heals(site: &Site, version: &str, killed: u32) {
    wait_for("two ready instances", || {
        let instances = site.service().instances.into_iter();
        let ready = instances.filter(|instance| {
            let healthy = instance.report.health == switchback_domain::InstanceHealth::Ready;
            healthy && instance.version.as_str() == version && instance.pid != Some(killed)
        });
        ready.count() == 2 && site.instances(version).iter().all(|p| p.pid != killed)
    });
    site.settles_to(&[(version, 2)]);
}

#[test]
fn a_stable_instance_is_killed_in_mid_canary_and_the_rollout_goes_on() {
    let site = Site::started("latency=2ms");
    let load = site.load(150);
    let id = site.begin("v2");
    let mut follow = site.follow(&id);
    site.event(&mut follow, "Observing at 5 %", |event| is_at(event, "Observing", 500));
    site.kill9(site.instance("v1").pid);
    site.event(&mut follow, "Observing at 50 %", |event| is_at(event, "Observing", 5_000));
    let stable = site.instance("v1");
    site.kill9(site.shim_of(&stable));
    assert_eq!(site.ended(&id).outcome, Some(RolloutOutcome::Promoted));
    site.settles_to(&[("v2", 2)]);
    few_errors(&site.stop(load));
}

#[test]
fn the_only_candidate_instance_dies_under_traffic_and_is_taken_back() {
    let site = Site::started("latency=2ms");
    let load = site.load(150);
    for by_shim in [false, true] {
        let id = site.begin("v2");
        let mut follow = site.follow(&id);
        site.event(&mut follow, "Observing at 50 %", |event| is_at(event, "Observing", 5_000));
        let candidate = site.instance("v2");
        site.kill9(if by_shim { site.shim_of(&candidate) } else { candidate.pid });
        let ended = site.ended(&id);
        assert_eq!(ended.outcome, Some(RolloutOutcome::RolledBack), "{ended:#?}");
        let cause = ended.cause.unwrap_or_default();
        assert!(cause.contains("no ready instance of v2 is left"), "{cause}");
        site.settles_to(&[("v1", 2)]);
    }
    few_errors(&site.stop(load));
}

#[test]
fn a_candidate_instance_is_killed_before_and_after_it_matters() {
    let site = Site::started("latency=2ms v2:ready_delay=1s");
    let load = site.load(150);
    let id = site.begin("v2");
    let mut follow = site.follow(&id);
    site.event(&mut follow, "a candidate that starts", |event| {
        event.kind == "probe" && event.text.starts_with("v2")
    });
    let candidate = site.instance("v2");
    site.kill9(site.shim_of(&candidate));
    let mut follow = site.follow(&id);
    site.event(&mut follow, "DrainingBaseline", |event| is_at(event, "DrainingBaseline", 10_000));
    let promoted = site.instance("v2");
    site.kill9(promoted.pid);
    assert_eq!(site.ended(&id).outcome, Some(RolloutOutcome::Promoted));
    heals(&site, "v2", promoted.pid);
    few_errors(&site.stop(load));
}
