//! `kill -9` of the control plane at every phase of a rollout, under load: no request is lost,
//! and after its restart the rollout ends as it would have ended.

use std::thread;
use std::time::Duration;

use switchback_api::client::{Follow, Progress};
use switchback_api::{RolloutEvent, RolloutOutcome};
use switchback_demo::load::LoadHandle;
use switchback_domain::InstanceHealth;

use crate::process::Role;
use crate::site::{Site, all_answered, wait_for};

/// Requests that have to be answered while there is no control plane.
const ANSWERED_MEANWHILE: u64 = 30;

/// A moment in a rollout, known by what is told of it.
struct Point {
    name: &'static str,
    is_it: fn(&RolloutEvent) -> bool,
}

/// Whether an event leaves the rollout in this phase, with the candidate at this share.
pub(crate) fn is_at(event: &RolloutEvent, phase: &str, basis_points: u16) -> bool {
    event.summary.phase == phase && event.summary.weight.basis_points() == basis_points
}

/// A canary from its first record to its last but one.
const CANARY: [Point; 11] = [
    Point { name: "accepted, Verifying", is_it: |e| is_at(e, "Verifying", 0) },
    Point { name: "Provisioning the first", is_it: |e| is_at(e, "Provisioning", 0) },
    Point { name: "Shifting at 5 %", is_it: |e| is_at(e, "Shifting", 500) },
    Point { name: "Observing at 5 %", is_it: |e| is_at(e, "Observing", 500) },
    Point { name: "Shifting at 50 %", is_it: |e| is_at(e, "Shifting", 5_000) },
    Point { name: "Observing at 50 %", is_it: |e| is_at(e, "Observing", 5_000) },
    Point { name: "Provisioning the rest", is_it: |e| is_at(e, "Provisioning", 5_000) },
    Point { name: "Shifting at 100 %", is_it: |e| is_at(e, "Shifting", 10_000) },
    Point { name: "Observing at 100 %", is_it: |e| is_at(e, "Observing", 10_000) },
    Point { name: "Promoting, DrainingBaseline", is_it: |e| is_at(e, "DrainingBaseline", 10_000) },
    Point { name: "the old version stops", is_it: |e| e.text.starts_with("hold-back time over") },
];

/// Kills the control plane; its like is started only when others have served without it.
fn kill_and_restart(site: &Site, load: &LoadHandle) {
    let proxy = site.pid(Role::Proxy);
    site.kill9_control();
    let answered = load.snapshot().answered_total();
    wait_for("answers without a control plane", || {
        load.snapshot().answered_total() >= answered + ANSWERED_MEANWHILE
    });
    assert_eq!(load.snapshot().failures.total(), 0, "{:#?}", load.snapshot());
    site.up();
    assert_eq!(site.pid(Role::Proxy), proxy, "the data plane was not adopted");
    site.has_no_twins();
}

/// Somebody who follows a rollout over all deaths of the control plane.
struct Witness {
    id: String,
    follow: Follow,
    told: Vec<RolloutEvent>,
}

impl Witness {
    fn of(site: &Site, id: &str) -> Self {
        Self { id: id.to_owned(), follow: site.follow(id), told: Vec::new() }
    }

    /// Kills the control plane at a point. What was told before is written: it is told again.
    fn kills_at(&mut self, site: &Site, load: &LoadHandle, point: &Point) {
        loop {
            match site.wait(self.follow.next()).expect("the control plane comes back") {
                Progress::Event(event) => self.told.push(*event),
                Progress::Lost | Progress::Back => continue,
                Progress::Ended => panic!("the rollout ended before {}", point.name),
            }
            if self.told.last().is_some_and(point.is_it) {
                break;
            }
        }
        kill_and_restart(site, load);
        let written = site.wait(site.client().rollout(&self.id)).expect("it is known").events;
        let place = |event: &RolloutEvent| (event.sequence, event.kind.clone(), event.text.clone());
        let written: Vec<_> = written.iter().map(place).collect();
        for event in self.told.iter().filter(|event| event.kind != "progress") {
            assert!(written.contains(&place(event)), "told, but not written: {event:#?}");
        }
    }
}

#[test]
fn the_control_plane_is_killed_at_eleven_points_of_a_canary() {
    let site = Site::started("latency=2ms");
    let load = site.load(150);
    let deploy = site.spawn_deploy("v2");
    let id = site.active();
    let mut witness = Witness::of(&site, &id);
    for point in &CANARY {
        witness.kills_at(&site, &load, point);
    }
    let ended = deploy.wait().exits(0).json();
    assert_eq!((ended["id"].as_str(), ended["outcome"].as_str()), (Some(&*id), Some("promoted")));
    site.settles_to(&[("v2", 2)]);
    assert_eq!((site.stable(), site.status().control.epoch), ("v2".to_owned(), 12));
    site.nothing_was_lost(load);
}

#[test]
fn the_control_plane_is_killed_while_a_bad_version_is_taken_back() {
    let points = [
        Point { name: "RollingBack", is_it: |e| e.summary.phase == "RollingBack" },
        Point { name: "the candidate stops", is_it: |e| e.text.contains("stopping") },
    ];
    let site = Site::started("latency=2ms v3:error_rate=0.3");
    let load = site.load(150);
    let deploy = site.spawn_deploy("v3");
    let id = site.active();
    let mut witness = Witness::of(&site, &id);
    for point in &points {
        witness.kills_at(&site, &load, point);
    }
    let ended = deploy.wait().exits(1).json();
    assert_eq!(
        (ended["id"].as_str(), ended["outcome"].as_str()),
        (Some(&*id), Some("rolled_back"))
    );
    // Whichever comes first, the exact test or the analysis.
    let is_why = |cause: &str| cause.contains("requests failed") || cause.contains("error rate");
    assert!(ended["cause"].as_str().is_some_and(is_why), "{ended}");
    site.settles_to(&[("v1", 2)]);
    let report = site.stop(load);
    assert_eq!(report.failures.total(), 0, "{report:#?}");
    assert_eq!(report.errors.keys().collect::<Vec<_>>(), ["v3"], "{report:#?}");
    assert_eq!((site.stable(), site.dropped()), ("v1".to_owned(), 0));
}

#[test]
fn the_control_plane_is_killed_while_one_waits_and_another_awaits_approval() {
    let site = Site::with("latency=2ms", |recipe| {
        recipe.set(
            "strategy",
            "{type: canary, steps: [{set_weight: 50}, {approve: {}}, {set_weight: 100}]}",
        );
    });
    site.up();
    let load = site.load(150);
    // Accepted is accepted, even if these are the last words.
    let first = site.begin("v2");
    kill_and_restart(&site, &load);
    let second = site.begin("v4");
    kill_and_restart(&site, &load);
    let mut follow = site.follow(&first);
    let waits = |event: &RolloutEvent| event.summary.phase == "AwaitingApproval";
    site.event(&mut follow, "AwaitingApproval", waits);
    kill_and_restart(&site, &load);
    let service = site.service();
    let queued: Vec<_> = service.queue.iter().map(|waiting| waiting.id.clone()).collect();
    assert_eq!(
        (service.rollout.map(|active| active.id), queued),
        (Some(first.clone()), vec![second.clone()])
    );
    site.run(&["promote", &first]).exits(0);
    kill_and_restart(&site, &load);
    assert_eq!(site.ended(&first).outcome, Some(RolloutOutcome::Promoted));
    let mut follow = site.follow(&second);
    site.event(&mut follow, "AwaitingApproval", waits);
    kill_and_restart(&site, &load);
    site.run(&["promote", &second]).exits(0);
    let ended = site.ended(&second);
    let from = ended.from.map(|version| version.to_string());
    assert_eq!((from.as_deref(), ended.outcome), (Some("v2"), Some(RolloutOutcome::Promoted)));
    site.settles_to(&[("v4", 2)]);
    site.nothing_was_lost(load);
}

/// Moments that no event marks: between a record and its effect, or between effect and answer.
#[test]
fn the_control_plane_is_killed_again_and_again_at_any_moment_of_any_strategy() {
    let site = Site::started("latency=2ms");
    let load = site.load(150);
    for (version, strategy) in [("v2", "canary"), ("v3", "rolling"), ("v4", "blue-green")] {
        let words = ["deploy", "web", "--version", version, "--strategy", strategy];
        let deploy = site.spawn(&words);
        let id = site.active();
        for number in 0..4 {
            // sleep: the moment shall be none that is awaited.
            thread::sleep(Duration::from_millis(number * 97));
            kill_and_restart(&site, &load);
        }
        // Left to its defaults a strategy watches for minutes; what was to be seen was seen.
        if site.rollout(&id).outcome.is_none() {
            let _ = site.run(&["promote", &id, "--full"]);
        }
        assert_eq!(site.ended(&id).outcome, Some(RolloutOutcome::Promoted));
        deploy.wait().exits(0);
        site.settles_to(&[(version, 2)]);
    }
    site.nothing_was_lost(load);
}

#[test]
fn the_control_plane_is_killed_while_it_takes_everything_down() {
    let site = Site::with("slow_stop=forever", |recipe| recipe.set("stop_timeout", "2s"));
    site.up();
    let down = site.spawn(&["down"]);
    wait_for("stops that have begun", || {
        let instances = site.service().instances;
        instances.iter().all(|instance| instance.report.health == InstanceHealth::Stopping)
    });
    assert_eq!((site.pids(Role::Proxy), site.instances("v1").len()), (Vec::new(), 2));
    site.kill9_control();
    // It was not there to say that all is done; whoever asked may see that.
    let _ = down.wait();
    site.up();
    site.serves(&["v1"]);
    site.settles_to(&[("v1", 2)]);
}

#[test]
fn everything_is_killed_and_comes_back_at_the_promoted_version() {
    let site = Site::started("latency=2ms");
    let load = site.load(100);
    site.deploy("v2").exits(0);
    site.nothing_was_lost(load);
    for process in site.processes() {
        site.kill9(process.pid);
    }
    assert!(site.processes().is_empty(), "{:#?}", site.processes());
    site.up();
    site.serves(&["v2"]);
    site.settles_to(&[("v2", 2)]);
    assert_eq!(site.stable(), "v2");
    let load = site.load(100);
    assert_eq!(site.deploy("v4").exits(0).json()["outcome"], "promoted");
    all_answered(&site.stop(load));
}

/// The same in mid-canary: what serves afterwards is the baseline or the candidate, never both
/// for good, and the rollout ends.
#[test]
fn everything_is_killed_in_mid_canary_and_the_rollout_ends() {
    let site = Site::started("latency=2ms");
    let id = site.begin("v2");
    let load = site.load(100);
    let mut follow = site.follow(&id);
    site.event(&mut follow, "Observing at 50 %", |event| is_at(event, "Observing", 5_000));
    site.stop(load);
    for process in site.processes() {
        site.kill9(process.pid);
    }
    site.up();
    let load = site.load_when_serving();
    let ended = site.ended(&id);
    let serving = match ended.outcome {
        Some(RolloutOutcome::Promoted) => "v2",
        Some(RolloutOutcome::RolledBack) => "v1",
        Some(RolloutOutcome::Withdrawn | RolloutOutcome::Superseded) | None => {
            panic!("{ended:#?}")
        }
    };
    site.settles_to(&[(serving, 2)]);
    assert_eq!(site.stable(), serving);
    all_answered(&site.stop(load));
}
