//! Every command as its users type it: what it does. How it prints is in `printed`.

use std::fs;
use std::net::TcpListener;

use switchback_demo::load::{Load, LoadOptions};

use crate::process::Role;
use crate::recipe::{self, BINARY, Recipe};
use crate::site::{Site, all_answered, wait_for};

/// Half of the traffic until somebody promotes.
const APPROVED: &str = "{type: canary, steps: [{set_weight: 50}, approve, {set_weight: 100}]}";
/// No evidence asked for: commands are what is tested here.
const AT_ONCE: &str = "{type: canary, steps: [{set_weight: 100}]}";

/// One instance, and nobody waits for anything.
pub(crate) fn quick(recipe: &mut Recipe) {
    recipe.set("replicas", "1");
    recipe.set("strategy", AT_ONCE);
    recipe.set("scale_down_delay", "0s");
    recipe.set("stop_timeout", "2s");
}

/// A site that is up, of one instance.
pub(crate) fn site(change: impl FnOnce(&mut Recipe)) -> Site {
    let site = Site::with("", |recipe| {
        quick(recipe);
        change(recipe);
    });
    site.up();
    site
}

fn approved() -> Site {
    site(|recipe| recipe.set("strategy", APPROVED))
}

/// Waits until the active rollout waits for somebody's word; its id.
fn awaits_word(site: &Site) -> String {
    let mut id = String::new();
    wait_for("a rollout that waits for approval", || {
        let waiting = site.service().rollout.filter(|rollout| rollout.waiting_for.is_some());
        waiting.inspect(|rollout| id.clone_from(&rollout.id)).is_some()
    });
    id
}

/// A variable of the environment of the only instance of a version.
fn variable(site: &Site, version: &str, name: &str) -> Option<String> {
    site.settles_to(&[(version, 1)]);
    let pid = site.instances(version)[0].pid;
    let environment = fs::read(format!("/proc/{pid}/environ")).expect("it runs");
    let text = String::from_utf8_lossy(&environment).into_owned();
    text.split('\0').find_map(|entry| Some(entry.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

#[test]
fn a_newcomer_writes_checks_and_starts_a_configuration() {
    let site = Site::new("");
    fs::remove_file(site.path().join("switchback.yaml")).expect("it was written");
    assert_eq!(site.run(&["up", "--json"]).exits(78).json()["code"], "SB0150");
    let procfile = format!("web: {BINARY} demo-service latency=1ms\n");
    fs::write(site.path().join("Procfile"), procfile).expect("the directory is ours");
    let said = site.run(&["init"]).exits(0).stdout;
    assert!(said.contains("Procfile") && said.contains("switchback up"), "{said}");
    assert_eq!(site.run(&["init", "--json"]).exits(64).json()["code"], "SB0153");
    site.run(&["lint"]).exits(0);
    let path = site.path().join("switchback.yaml");
    let text = fs::read_to_string(&path).expect("it was written");
    assert!(text.contains("127.0.0.1:8080"), "{text}");
    // Other tests run on this machine: the port is not for them all.
    site.write_config(&text.replace("127.0.0.1:8080", &site.address().to_string()));
    let said = site.up().stdout;
    assert!(said.contains("v1") && said.contains("promoted"), "{said}");
    all_answered(&site.wait(short_load(&site, 20).wait()));
}

fn short_load(site: &Site, requests: u64) -> switchback_demo::load::LoadHandle {
    let options = LoadOptions { requests_max: requests, ..LoadOptions::new(site.address()) };
    Load::start(options).expect("the load can be started")
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let site = Site::started("");
    let before = site.processes().len();
    let load = site.load(200);
    let plan =
        site.run(&["deploy", "web", "--version", "v2", "--dry-run", "--json"]).exits(0).json();
    assert_eq!((&plan["from"], &plan["to"]), (&"v1".into(), &"v2".into()));
    let words =
        |key: &str| plan[key].as_array().map(|list| format!("{list:?}")).unwrap_or_default();
    assert!(words("steps").contains("weight 5%") && words("steps").contains("weight 100%"));
    let finds = words("finds");
    assert!(finds.contains("requests a second, 5% for"), "{finds}");
    assert!(finds.contains("% of its requests failing, or more (now: 0%)"), "{finds}");
    site.nothing_was_lost(load);
    assert!(words("rollback").contains("2 of 2 instances ready"), "{plan:#}");
    assert!(words("changes").contains("version: v1 -> v2"), "{plan:#}");
    let said =
        site.run(&["deploy", "web", "--version", "v2", "--dry-run", "--strategy", "rolling"]);
    assert!(said.exits(0).stdout.contains("dry run"));
    assert_eq!(site.json(&["history"]).as_array().map(Vec::len), Some(1));
    assert_eq!((site.processes().len(), site.stable().as_str()), (before, "v1"));
}

#[test]
fn a_rollout_is_paused_resumed_and_promoted() {
    let site = approved();
    let load = site.load(100);
    let deploy = site.spawn_deploy("v2");
    let id = awaits_word(&site);
    site.run(&["pause", "web", "--reason", "lunch"]).exits(0);
    let waits = site.rollout(&id).waiting_for.unwrap_or_default();
    assert!(waits.contains("paused by tester: lunch"), "{waits}");
    assert_eq!(site.run(&["pause", &id, "--json"]).exits(77).json()["code"], "SB0306");
    site.run(&["resume"]).exits(0);
    assert_eq!(site.rollout(&id).waiting_for.as_deref(), Some("promote"));
    site.run(&["resume", "web"]).exits(77);
    site.run(&["promote", "web", "--reason", "it looks good"]).exits(0);
    assert_eq!(deploy.wait().exits(0).json()["outcome"], "promoted");
    site.run(&["promote", "web"]).exits(64);
    let report = site.nothing_was_lost(load);
    assert!(report.answered.contains_key("v1") && report.answered.contains_key("v2"));
    let told = site.run(&["explain", &id]).exits(0).stdout;
    for part in ["paused by tester: lunch", "resumed by tester", "promoted by tester"] {
        assert!(told.contains(part), "{part:?} is not in\n{told}");
    }
}

#[test]
fn a_rollout_is_aborted_and_tried_again_to_the_end_in_one_go() {
    let site = approved();
    let load = site.load(100);
    let deploy = site.spawn_deploy("v2");
    let first = awaits_word(&site);
    let aborted = site.run(&["abort", "web", "--reason", "not today", "--json"]).exits(0).json();
    assert_eq!(aborted["outcome"], "rolled_back");
    assert_eq!(aborted["cause"], "aborted by tester: not today");
    assert_eq!(deploy.wait().exits(1).json()["outcome"], "rolled_back");
    assert_eq!(site.stable(), "v1");
    let retry = site.spawn(&["retry", &first, "--watch", "--json"]);
    let second = awaits_word(&site);
    assert_ne!(first, second);
    site.run(&["promote", "--full"]).exits(0);
    assert_eq!(retry.wait().exits(0).json()["outcome"], "promoted");
    assert_eq!(site.stable(), "v2");
    site.nothing_was_lost(load);
}

#[test]
fn one_that_waits_is_taken_out_of_the_queue_and_the_running_one_goes_on() {
    let site = approved();
    let load = site.load(100);
    let running = site.begin("v2");
    let waits = site.begin("v3");
    assert_eq!(awaits_word(&site), running);
    let refused = site.run(&["promote", &waits]).exits(77);
    assert!(refused.stderr.contains("it waits for its turn"), "{refused:?}");
    let abort = ["abort", &waits, "--reason", "not today", "--json"];
    let cancelled = site.run(&abort).exits(0).json();
    assert_eq!(cancelled["outcome"], "withdrawn");
    assert_eq!(cancelled["cause"], "cancelled by tester: not today");
    let told = site.run(&["explain", &waits]).exits(0).stdout;
    assert!(told.contains("v3 was withdrawn because: cancelled by tester"), "{told}");
    assert!(site.run(&abort).exits(77).stderr.contains("history"));
    site.kill9_control();
    site.up();
    assert_eq!(awaits_word(&site), running, "it goes on, after a replay too");
    site.run(&["promote", "--full"]).exits(0);
    assert_eq!(site.ended(&running).outcome, Some(switchback_api::RolloutOutcome::Promoted));
    site.settles_to(&[("v2", 1)]);
    site.nothing_was_lost(load);
}

#[test]
fn without_auto_promote_somebody_has_to_say_so() {
    let site = site(|recipe| recipe.set("auto_promote", "false"));
    let deploy = site.spawn_deploy("v2");
    let id = awaits_word(&site);
    let rollout = site.rollout(&id);
    assert_eq!(
        (rollout.phase.as_str(), rollout.weight.to_string().as_str()),
        ("AwaitingApproval", "100%")
    );
    assert_eq!(site.stable(), "v1");
    assert_eq!(site.instances("v1").len(), 1, "the way back stays");
    site.run(&["isolate", "web", "--reason", "a look"]).exits(0);
    site.run(&["unisolate", "web"]).exits(0);
    site.run(&["promote"]).exits(0);
    deploy.wait().exits(0);
    let told = site.run(&["explain", &id]).exits(0).stdout;
    assert_eq!(told.matches("isolated, by tester: a look").count(), 1, "{told}");
    assert_eq!(site.stable(), "v2");
}

#[test]
fn one_goes_back_to_the_previous_and_to_a_given_revision() {
    let site = site(|_| {});
    assert_eq!(site.run(&["rollback", "web", "--json"]).exits(77).json()["code"], "SB0305");
    let load = site.load(150);
    site.deploy("v2").exits(0);
    site.deploy("v3").exits(0);
    let back = site.run(&["rollback", "web", "--reason", "worse", "--json"]).exits(0).json();
    assert_eq!((&back["outcome"], &back["to"]), (&"promoted".into(), &"v2".into()));
    assert_eq!(site.stable(), "v2");
    site.run(&["rollback", "web", "--to", "1"]).exits(0);
    assert_eq!(site.stable(), "v1");
    let unknown = site.run(&["rollback", "web", "--to", "99", "--json"]).exits(77).json();
    assert_eq!(unknown["code"], "SB0304");
    let same = site.run(&["rollback", "web", "--to", "5", "--json"]).exits(0).json();
    assert_eq!(same["rollout"], "", "it serves already: {same}");
    site.nothing_was_lost(load);
    let versions: Vec<_> =
        site.service().revisions.iter().map(|revision| revision.version.to_string()).collect();
    assert_eq!(versions, ["v1", "v2", "v3", "v2", "v1"]);
}

#[test]
fn a_rollout_under_way_is_taken_back_by_rollback() {
    let site = approved();
    let deploy = site.spawn_deploy("v2");
    awaits_word(&site);
    assert_eq!(site.run(&["rollback", "web", "--json"]).exits(0).json()["outcome"], "rolled_back");
    deploy.wait().exits(1);
    assert_eq!(site.stable(), "v1");
}

#[test]
fn only_the_configuration_goes_back() {
    let site = site(|recipe| recipe.set("env", "{LEVEL: one}"));
    site.write_config(&site.recipe().text().replace("LEVEL: one", "LEVEL: two"));
    site.deploy("v2").exits(0);
    assert_eq!(variable(&site, "v2", "LEVEL").as_deref(), Some("two"));
    site.run(&["rollback", "web", "--config-only"]).exits(0);
    assert_eq!(variable(&site, "v2", "LEVEL").as_deref(), Some("one"));
    assert_eq!(site.stable(), "v2");
}

#[test]
fn three_replicas_are_replaced_rolling_and_blue_green_with_nothing_lost() {
    let site = site(|recipe| {
        recipe.set("replicas", "3");
        recipe.set("strategy", "rolling");
        recipe.set("max_surge", "1");
    });
    let load = site.load(250);
    site.deploy("v2").exits(0);
    site.settles_to(&[("v2", 3)]);
    let steps = "{type: blue-green, steps: [{set_weight: 10}, {pause: 300ms}, {set_weight: 50}, \
                 {pause: 300ms}, {set_weight: 100}]}";
    let text = site.recipe().text().replace("strategy: rolling", &format!("strategy: {steps}"));
    site.write_config(&text);
    site.deploy("v3").exits(0);
    site.settles_to(&[("v3", 3)]);
    let report = site.nothing_was_lost(load);
    assert!(["v1", "v2", "v3"].iter().all(|version| report.answered.contains_key(*version)));
}

#[test]
fn what_serves_already_is_left_alone() {
    let site = site(|_| {});
    let before = site.instances("v1");
    let document = site.deploy("v1").exits(0).json();
    assert_eq!(document["rollout"], "");
    assert!(document["note"].as_str().is_some_and(|note| note.contains("serves already")));
    let again = site.run(&["up", "--detach", "--json"]).exits(0).json();
    assert!(again["kept"]["web"].as_str().is_some_and(|why| why.contains("serves already")));
    assert_eq!(site.instances("v1"), before);
    assert_eq!(site.json(&["history"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn up_brings_an_edited_version_in_and_leaves_a_deployed_one() {
    let site = site(|_| {});
    let load = site.load(100);
    site.deploy("v2").exits(0);
    let kept = site.run(&["up", "--detach", "--json"]).exits(0).json();
    assert!(kept["kept"]["web"].as_str().is_some_and(|why| why.contains("v2 was deployed")));
    site.write_config(&site.recipe().text().replace("version: v1", "version: v3"));
    let document = site.run(&["up", "--detach", "--json"]).exits(0).json();
    assert_eq!(document["rollouts"][0]["outcome"], "promoted", "{document:#}");
    assert_eq!(site.stable(), "v3");
    site.nothing_was_lost(load);
}

#[test]
fn down_and_up_comes_back_at_the_deployed_version() {
    let site = site(|recipe| {
        recipe.set("replicas", "2");
        recipe.set("command", format!("{BINARY} demo-service ready_delay=1s"));
    });
    site.deploy("v2").exits(0);
    site.run(&["down"]).exits(0);
    assert!(site.processes().is_empty(), "{:#?}", site.processes());
    assert_eq!(site.run(&["down", "--json"]).exits(69).json()["code"], "SB0201");
    site.up();
    // `up` returns when everything serves, and so the first request is answered.
    let report = site.wait(short_load(&site, 20).wait());
    all_answered(&report);
    assert_eq!(report.answered.keys().collect::<Vec<_>>(), ["v2"]);
    site.settles_to(&[("v2", 2)]);
    assert_eq!(site.deploy("v3").exits(0).json()["outcome"], "promoted");
}

#[test]
fn what_was_edited_while_everything_was_down_is_brought_in_by_up() {
    let site = site(|_| {});
    site.run(&["down"]).exits(0);
    site.write_config(&site.recipe().text().replace("version: v1", "version: v2"));
    let document = site.run(&["up", "--detach", "--json"]).exits(0).json();
    assert_eq!(document["rollouts"][0]["outcome"], "promoted", "{document:#}");
    site.settles_to(&[("v2", 1)]);
}

#[test]
fn an_address_in_use_is_named_before_anything_is_touched() {
    let site = Site::with("", quick);
    let taken = TcpListener::bind(site.address()).expect("the port was free");
    let ended = site.run(&["up", "--detach", "--json"]).exits(77);
    assert_eq!(ended.json()["code"], "SB0601");
    assert!(ended.stderr.contains(&site.address().to_string()), "{}", ended.stderr);
    assert!(site.pids(Role::Instance).is_empty());
    drop(taken);
    site.up();
    let load = site.load(100);
    let taken = TcpListener::bind(recipe::free_address()).expect("the port was free");
    let other = taken.local_addr().expect("it listens").to_string();
    site.write_config(&site.recipe().text().replace(&site.address().to_string(), &other));
    let ended = site.deploy("v2").exits(77);
    assert_eq!(ended.json()["code"], "SB0601");
    assert!(ended.stderr.contains(&other), "{}", ended.stderr);
    assert_eq!(site.stable(), "v1");
    site.nothing_was_lost(load);
}

#[test]
fn two_environments_live_beside_each_other() {
    let other = recipe::free_address();
    let site = Site::with("", |recipe| {
        quick(recipe);
        recipe.append(&format!(
            "environments:\n  production: {{}}\n  staging:\n    services:\n      web:\n        \
             version: s1\n        route: {{listen: \"{other}\"}}"
        ));
    });
    site.up();
    let load = site.load(100);
    let staging = site.run(&["up", "--detach", "--env", "staging", "--json"]).exits(0).json();
    assert_eq!(staging["rollouts"][0]["key"], "staging/web", "{staging:#}");
    let deployed = site.run(&["deploy", "web", "--version", "s2", "--env", "staging", "--json"]);
    assert_eq!(deployed.exits(0).json()["key"], "staging/web");
    let stable = |environment: &str| {
        let status = site.json(&["status", "--env", environment]);
        assert_eq!(status["services"].as_array().map(Vec::len), Some(1), "{status:#}");
        status["services"][0]["stable"]["version"].clone()
    };
    assert_eq!((stable("production"), stable("staging")), ("v1".into(), "s2".into()));
    let report = site.nothing_was_lost(load);
    assert_eq!(report.answered.keys().collect::<Vec<_>>(), ["v1"]);
    let options = LoadOptions { requests_max: 10, ..LoadOptions::new(other) };
    let report = site.wait(Load::start(options).expect("the load can be started").wait());
    assert_eq!(report.answered.keys().collect::<Vec<_>>(), ["s2"]);
    let all = site.json(&["history", "--env", "staging"]);
    assert!(all.as_array().is_some_and(|list| list.iter().all(|r| r["key"] == "staging/web")));
}

#[test]
fn hooks_run_between_the_steps_and_take_a_rollout_back_when_they_fail() {
    let directory = tempfile::tempdir().expect("/tmp is there");
    let note = directory.path().join("note");
    let site = site(|recipe| {
        let words = "{{service}} {{version}} {{environment}} {{address}}";
        let script = format!("echo {words} > {}; test {{{{version}}}} != bad", note.display());
        recipe.set(
            "strategy",
            format!(
                "{{type: canary, steps: [{{set_weight: 50}}, \
                 {{hook: {{name: tell, command: [sh, -c, \"{script}\"]}}}}, {{set_weight: 100}}]}}"
            ),
        );
    });
    let load = site.load(100);
    site.deploy("v2").exits(0);
    let told = fs::read_to_string(&note).expect("the hook wrote it");
    assert!(told.starts_with("web v2 default 127.0.0.1:"), "{told}");
    let failed = site.deploy("bad").exits(1).json();
    assert!(failed["cause"].as_str().is_some_and(|cause| cause.contains("tell")), "{failed:#}");
    assert_eq!(site.stable(), "v2");
    site.nothing_was_lost(load);
}
