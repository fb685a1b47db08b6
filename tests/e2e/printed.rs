//! What commands print: one JSON document, log lines, and errors with their own exit codes.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::commands::{quick, site};
use crate::process;
use crate::recipe::BINARY;
use crate::site::{Site, wait_for};

#[test]
fn the_only_thing_json_prints_is_one_document() {
    let site = Site::new("");
    let document = |words: &[&str], code: i32| -> Value {
        let ended = site.run(&[words, &["--json"]].concat()).exits(code);
        let one = serde_json::from_str(&ended.stdout);
        one.unwrap_or_else(|error| panic!("{words:?}: {error}: {}", ended.stdout))
    };
    assert_eq!(document(&["init"], 64)["code"], "SB0153");
    document(&["lint"], 0);
    document(&["schema"], 0);
    assert_eq!(document(&["status"], 69)["code"], "SB0201");
    assert_eq!(document(&["up", "--detach"], 0)["rollouts"][0]["to"], "v1");
    assert_eq!(
        document(&["deploy", "web", "--version", "v2", "--strategy", "rolling"], 0)["to"],
        "v2"
    );
    let accepted = document(&["deploy", "web", "--version", "v3", "--no-wait"], 0);
    let id = accepted["rollout"].as_str().expect("an id").to_owned();
    assert_eq!(document(&["pause", &id], 0)["rollout"], *id);
    assert_eq!(document(&["resume", &id], 0)["rollout"], *id);
    assert_eq!(document(&["abort", &id], 0)["outcome"], "rolled_back");
    assert_eq!(document(&["status"], 0)["services"][0]["stable"]["version"], "v2");
    assert_eq!(document(&["history"], 0)[0]["id"], *id);
    assert_eq!(document(&["explain", &id], 0)["summary"]["id"], *id);
    assert_eq!(document(&["explain", "SB0101"], 0)["code"], "SB0101");
    assert_eq!(document(&["rollback", "web"], 0)["to"], "v1");
    assert!(document(&["logs", "web"], 0)["lines"].is_array());
    assert!(document(&["ledger"], 0)["versions"].is_array());
    assert_eq!(document(&["promote"], 64)["code"], "SB0206");
    assert_eq!(document(&["down"], 0)["stopped"], true);
}

#[test]
fn events_come_before_the_document_as_json_lines() {
    let site = site(|_| {});
    let ended = site.run(&["deploy", "web", "--version", "v2", "--json", "--events"]).exits(0);
    let mut lines: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert_eq!(lines.pop().expect("a document")["outcome"], "promoted");
    let kinds: Vec<_> = lines.iter().filter_map(|event| event["kind"].as_str()).collect();
    assert_eq!(kinds.first(), Some(&"command"), "{kinds:?}");
    assert_eq!(kinds.last(), Some(&"ended"), "{kinds:?}");
    for kind in ["step", "phase", "probe", "weight"] {
        assert!(kinds.contains(&kind), "{kind} is not in {kinds:?}");
    }
}

#[test]
fn logs_show_so_many_lines_of_whom_was_asked_for() {
    let site = site(|recipe| {
        recipe.set("command", format!("{BINARY} demo-service log_lines_per_second=200"));
    });
    let instance = site.service().instances[0].report.id.to_string();
    wait_for("enough lines", || {
        site.json(&["logs", "-n", "50"])["lines"].as_array().is_some_and(|lines| lines.len() == 50)
    });
    let lines = |words: &[&str]| site.run(words).exits(0).stdout.lines().count();
    assert_eq!(lines(&["logs", "web", "-n", "7"]), 7);
    assert_eq!(lines(&["logs", "--instance", &instance, "--tail", "3"]), 3);
    for (words, code) in [
        (&["logs", "nope"][..], "SB0209"),
        (&["logs", "web", "--instance", "nope"], "SB0213"),
        (&["history", "nope"], "SB0209"),
    ] {
        assert_eq!(site.run(&[words, &["--json"]].concat()).exits(64).json()["code"], code);
    }
}

#[test]
fn followed_logs_go_on_with_the_next_version_until_ctrl_c() {
    let site = site(|recipe| {
        recipe.set("command", format!("{BINARY} demo-service log_lines_per_second=50"));
    });
    let path = site.path().join("followed");
    let mut command = Command::new(BINARY);
    command.args(["logs", "-f", "web", "-n", "5"]).current_dir(site.path()).stdin(Stdio::null());
    command.stdout(File::create(&path).expect("the directory is ours"));
    let mut child = command.spawn().expect("the binary was built");
    let followed = || fs::read_to_string(&path).unwrap_or_default();
    wait_for("the first lines", || followed().lines().count() > 20);
    site.deploy("v2").exits(0);
    wait_for("lines of the new version", || followed().contains("v2 listening on"));
    process::signal(child.id(), Signal::INT);
    let mut status = None;
    wait_for("its end", || {
        status = child.try_wait().expect("the child is ours");
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(0));
}

#[test]
fn an_instance_that_is_gone_still_has_its_log() {
    let site = Site::with("v2:exit_code=9", quick);
    site.up();
    let failed = site.deploy("v2").exits(1).json();
    let id = failed["id"].as_str().expect("an id");
    let explained = site.json(&["explain", id]);
    let instance = explained["last_words"][0]["instance"].as_str().expect("its name").to_owned();
    assert!(site.instances("v2").is_empty());
    let said = site.run(&["logs", "--instance", &instance]).exits(0).stdout;
    assert!(said.contains("exits at once with code 9"), "{said}");
}

#[test]
fn what_is_unknown_is_said_with_its_own_exit_code() {
    let site = site(|_| {});
    for (words, code, name) in [
        (&["deploy", "nope", "--version", "v2"][..], 64, "SB0209"),
        (&["deploy", "web", "--version", "v2", "--env", "moon"], 78, "SB0154"),
        (&["rollback", "nope"], 77, "SB0305"),
        (&["promote", "r99"], 64, "SB0208"),
        (&["explain", "r99"], 64, "SB0208"),
        (&["explain", "SB9999"], 64, "SB0210"),
        (&["retry", "r99"], 64, "SB0208"),
        (&["abort", "nope"], 64, "SB0209"),
        (&["pause"], 64, "SB0206"),
    ] {
        let ended = site.run(&[words, &["--json"]].concat()).exits(code);
        assert_eq!(ended.json()["code"], name, "{words:?}: {}", ended.text());
        assert!(ended.stderr.starts_with(&format!("error[{name}]: ")), "{}", ended.stderr);
    }
    for words in [&["frobnicate"][..], &["deploy"], &["deploy", "Web"], &["status", "--events"]] {
        site.run(words).exits(64);
    }
    assert_eq!(site.json(&["history"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn without_a_control_plane_commands_say_so() {
    let site = Site::new("");
    for words in [
        &["deploy", "web", "--version", "v2"][..],
        &["status"],
        &["history"],
        &["explain", "r1"],
        &["rollback", "web"],
        &["promote"],
        &["logs"],
        &["ledger"],
        &["down"],
    ] {
        let ended = site.run(words).exits(69);
        assert!(ended.stderr.contains("SB0201") && ended.stderr.contains("hint: "), "{words:?}");
    }
}

#[test]
fn completions_and_man_pages_are_printed_without_a_configuration() {
    let site = Site::new("");
    fs::remove_file(site.path().join("switchback.yaml")).expect("it was written");
    for shell in ["bash", "zsh", "fish"] {
        let script = site.run(&["completions", shell]).exits(0).stdout;
        assert!(script.contains("switchback") && script.contains("deploy"), "{shell}");
        assert!(!script.contains("demo-service"), "{shell} offers what is hidden");
    }
    site.run(&["completions", "tcl"]).exits(64);
    site.run(&["man", "pages"]).exits(0);
    for page in ["switchback.1", "switchback-deploy.1", "switchback-rollback.1"] {
        let text = fs::read_to_string(site.path().join("pages").join(page)).expect(page);
        assert!(text.contains(".TH"), "{page}");
    }
    let version = site.run(&["--version"]).exits(0).stdout;
    assert!(version.starts_with("switchback "), "{version}");
    let help = site.run(&["help", "deploy"]).exits(0).stdout;
    assert!(help.contains("--dry-run"), "{help}");
}
