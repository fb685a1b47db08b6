//! A configuration with mistakes, through the binary: every one named, nothing started by it, and
//! nothing that runs disturbed.

use std::fs;
use std::path::Path;

use crate::process::Role;
use crate::recipe::BINARY;
use crate::site::{Ended, Site, all_answered};

/// Ten mistakes of ten kinds, and what is to be said about them.
fn ten_mistakes() -> (String, String) {
    let samples =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/sample-configs/invalid");
    let read = |name: &str| fs::read_to_string(samples.join(name)).expect("it is in the tree");
    let messages = read("ten-mistakes.txt").replace("ten-mistakes.yaml", "switchback.yaml");
    (read("ten-mistakes.yaml"), messages)
}

/// Lines that begin with the file, a line and a column.
fn places(ended: &Ended) -> Vec<(u32, u32)> {
    let place = |line: &str| {
        let mut parts = line.trim_start().strip_prefix("switchback.yaml:")?.splitn(3, ':');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    ended.text().lines().filter_map(place).collect()
}

/// Lines that are hints.
fn hints(ended: &Ended) -> usize {
    ended.text().lines().filter(|line| line.trim_start().starts_with("hint: ")).count()
}

#[test]
fn ten_mistakes_get_ten_messages_with_line_column_and_hint() {
    let site = Site::new("");
    let (text, messages) = ten_mistakes();
    site.write_config(&text);
    for words in [&["lint"][..], &["up"], &["up", "--detach"]] {
        let ended = site.run(words).exits(78);
        assert_eq!(places(&ended).len(), 10, "{words:?}: {}", ended.text());
        let said = ended.text();
        assert!(hints(&ended) >= 10, "{words:?}: {said}");
        for line in messages.lines() {
            assert!(said.contains(line.trim_start()), "{words:?}: {line:?} is not in\n{said}");
        }
    }
    assert!(site.processes().is_empty(), "{:#?}", site.processes());
}

#[test]
fn a_program_reads_every_mistake_with_its_place_and_hint() {
    let site = Site::new("");
    site.write_config(&ten_mistakes().0);
    let document = site.run(&["lint", "--json"]).exits(78).json();
    let mistakes = document["mistakes"].as_array().expect("a list");
    assert_eq!(mistakes.len(), 10, "{document:#}");
    for mistake in mistakes {
        let number = |key: &str| mistake[key].as_u64().unwrap_or_default();
        assert!(number("line") > 0 && number("column") > 0, "{mistake:#}");
        let word = |key: &str| mistake[key].as_str().unwrap_or_default();
        assert!(!word("message").is_empty() && !word("hint").is_empty(), "{mistake:#}");
        assert!(word("code").starts_with("SB01"), "{mistake:#}");
    }
    let problem = site.run(&["up", "--detach", "--json"]).exits(78).json();
    assert_eq!((&problem["code"], &problem["exit_code"]), (&"SB0151".into(), &78.into()));
}

#[test]
fn mistakes_of_what_runs_together_are_found_too() {
    let site = Site::new("");
    let service = |name: &str, keys: &str| format!("  {name}:\n    command: ./{name}\n{keys}");
    let route = "    route: {listen: \"127.0.0.1:8080\", path_prefix: /}\n";
    let text = |services: &[String]| format!("project: shop\nservices:\n{}", services.concat());
    for (config, words) in [
        (text(&[service("api", route), service("web", route)]), &["web", "api"][..]),
        (text(&["  api: {replicas: 2}\n".to_owned()]), &["command", "is missing"]),
        (text(&[service("api", "    drain_timeout: 30\n")]), &["needs a unit", "30s"]),
        (text(&[service("api", "    replica: 3\n")]), &["replica", "did you mean `replicas`"]),
    ] {
        site.write_config(&config);
        let said = site.run(&["lint"]).exits(78);
        assert_eq!(places(&said).len(), 1, "{}", said.text());
        for word in words {
            assert!(said.text().contains(word), "{word:?} is not in\n{}", said.text());
        }
    }
}

#[test]
fn a_file_that_is_not_there_or_not_readable_is_said_to_be_so() {
    let site = Site::new("");
    let codes = |ended: Ended| ended.exits(78).json()["code"].clone();
    assert_eq!(codes(site.run(&["lint", "--file", "other.yaml", "--json"])), "SB0150");
    assert_eq!(codes(site.run(&["-f", "other.yaml", "up", "--json"])), "SB0150");
    fs::write(site.path().join("latin.yaml"), b"project: caf\xe9").expect("the directory is ours");
    assert_eq!(codes(site.run(&["lint", "--file", "latin.yaml", "--json"])), "SB0152");
    assert_eq!(codes(site.run(&["up", "--env", "moon", "--json"])), "SB0151");
    site.run(&["lint", "--env", "moon"]).exits(78);
}

#[test]
fn a_configuration_that_breaks_under_a_running_system_disturbs_nothing() {
    let site = Site::started("latency=1ms");
    let load = site.load(100);
    let good = site.recipe().text();
    site.write_config(&ten_mistakes().0);
    for words in [&["deploy", "web", "--version", "v2"][..], &["up", "--detach"]] {
        let ended = site.run(words).exits(78);
        assert_eq!(places(&ended).len(), 10, "{words:?}: {}", ended.text());
        assert!(hints(&ended) >= 10, "{words:?}: {}", ended.text());
    }
    assert_eq!(site.service().rollout, None);
    site.run(&["status"]).exits(0);
    site.write_config(&good);
    assert_eq!(site.deploy("v2").exits(0).json()["outcome"], "promoted");
    site.nothing_was_lost(load);
}

#[test]
fn a_configuration_edited_in_mid_rollout_changes_the_next_one_only() {
    let site = Site::with("", |recipe| {
        recipe.set("env", "{LEVEL: one}");
        recipe.set(
            "strategy",
            "{type: canary, steps: [{set_weight: 50}, approve, {set_weight: 100}]}",
        );
    });
    site.up();
    let load = site.load(100);
    let running = site.spawn_deploy("v2");
    crate::site::wait_for("the approval", || {
        site.service().rollout.is_some_and(|rollout| rollout.waiting_for.is_some())
    });
    site.write_config(&site.recipe().text().replace("LEVEL: one", "LEVEL: two"));
    site.run(&["promote", "web"]).exits(0);
    running.wait().exits(0);
    all_have(&site, "v2", "LEVEL=one");
    let running = site.spawn(&["deploy", "web", "--version", "v2", "--strategy", "rolling"]);
    running.wait().exits(0);
    all_have(&site, "v2", "LEVEL=two");
    all_answered(&site.stop(load));
}

fn all_have(site: &Site, version: &str, variable: &str) {
    site.settles_to(&[(version, 2)]);
    for instance in site.instances(version) {
        let environment = fs::read(format!("/proc/{}/environ", instance.pid)).expect("it runs");
        let mut variables = environment.split(|byte| *byte == 0);
        assert!(variables.any(|found| found == variable.as_bytes()), "{instance:?}");
    }
}

#[test]
fn the_configuration_is_found_from_below_and_by_name() {
    let site = Site::new("");
    let below = site.path().join("a/b");
    fs::create_dir_all(&below).expect("the directory is ours");
    let run = |words: &[&str]| {
        let output = std::process::Command::new(BINARY).args(words).current_dir(&below).output();
        let output = output.expect("the binary was built");
        assert!(output.status.success(), "{words:?}: {output:?}");
    };
    run(&["lint"]);
    run(&["up", "--detach"]);
    assert_eq!(site.pids(Role::Control).len(), 1, "beside the configuration");
    run(&["status"]);
    run(&["-f", "../../switchback.yaml", "status"]);
}
