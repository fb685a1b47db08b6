//! The binary as its users meet it: arguments in, text and exit codes out, against a control
//! plane of a few lines.

#![allow(clippy::unwrap_used, reason = "a test that fails should fail loudly")]

mod control;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use control::{CAUSE, Control, Reply, detail, event, problem, status};
use serde_json::{Value, json};

const CONFIG: &str = "project: shop\nservices:\n  api: {command: ./api}\n";

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchback"));
    command.current_dir(directory).args(arguments).env("USER", "anna").env("LANG", "C");
    command.env_remove("LC_ALL").env_remove("LC_CTYPE").stdin(Stdio::null());
    command
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    command(directory, arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn exit(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn accepted() -> Reply {
    Reply::Json(200, json!({"rollout": "r1", "queued": false, "note": null}))
}

/// Answers as if r1 were deployed and ended so.
fn ending(outcome: &'static str) -> impl FnMut(&str) -> Reply + Send {
    move |request| match request {
        _ if request.starts_with("GET /v1/rollouts/r1/events") => Reply::Events(vec![
            event(1, "phase", "Provisioning", None),
            event(2, "weight", "weight 5%", None),
            event(3, "ended", "it ended", Some(outcome)),
        ]),
        "GET /v1/rollouts/r1" => Reply::Json(200, detail(Some(outcome))),
        "GET /v1/status" => Reply::Json(200, status()),
        _ => accepted(),
    }
}

#[test]
fn a_promoted_deploy_ends_with_0_and_shows_its_way() {
    let control = Control::answering(ending("promoted"));
    let output = run(control.directory(), &["deploy", "api", "--version", "v2"]);
    let text = out(&output);
    assert_eq!(exit(&output), 0, "{text}{}", err(&output));
    for line in ["rollout r1 accepted", "phase    Provisioning", "weight   weight 5%"] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(text.ends_with(
        "r1 production/api v2 promoted after 4.0s, 0 of 10 candidate requests failed\n"
    ));
    assert!(text.is_ascii() && !text.contains('\x1b'), "no terminal, LANG=C: {text}");
    let asked: Value =
        serde_json::from_str(&control.requests()[0]["POST /v1/deploy ".len()..]).unwrap();
    assert_eq!((&asked["service"], &asked["version"]), (&json!("api"), &json!("v2")));
    assert_eq!(asked["by"], "anna");
}

#[test]
fn a_deploy_that_was_taken_back_ends_with_1_and_its_cause() {
    for outcome in ["rolled_back", "withdrawn", "superseded"] {
        let control = Control::answering(ending(outcome));
        let output = run(control.directory(), &["deploy", "api"]);
        assert_eq!(exit(&output), 1, "{outcome}");
        assert!(out(&output).contains(CAUSE), "{}", out(&output));
        assert!(out(&output).contains("switchback explain r1"));
    }
}

#[test]
fn json_is_one_document_and_events_come_before_it_when_asked() {
    let control = Control::answering(ending("rolled_back"));
    let output = run(control.directory(), &["deploy", "api", "--json"]);
    let document: Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!((exit(&output), &document["outcome"]), (1, &json!("rolled_back")));
    let output = run(control.directory(), &["deploy", "api", "--json", "--events"]);
    let text = out(&output);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(
        (&lines[1]["kind"], &lines[3]["outcome"]),
        (&json!("weight"), &json!("rolled_back"))
    );
}

#[test]
fn a_killed_control_plane_is_found_again_and_nothing_is_said_twice() {
    let mut ending = ending("promoted");
    let mut first = true;
    let control = Control::answering(move |request| {
        if request.contains("/events") && std::mem::take(&mut first) {
            return Reply::EventsThenKilled(vec![event(1, "phase", "Provisioning", None)]);
        }
        ending(request)
    });
    let output = run(control.directory(), &["deploy", "api"]);
    let text = out(&output);
    assert_eq!(exit(&output), 0, "{text}{}", err(&output));
    assert_eq!(text.matches("Provisioning").count(), 1, "{text}");
    assert!(err(&output).contains("the control plane is back"), "{}", err(&output));
    let requests = control.requests();
    let streams = requests.iter().filter(|request| request.contains("/events?after=")).count();
    assert_eq!(streams, 2, "{requests:?}");
}

#[test]
fn ctrl_c_stops_the_watching_only_and_says_so() {
    let mut ending = ending("promoted");
    let control = Control::answering(move |request| {
        if request.contains("/events") {
            return Reply::EventsThenSilence(vec![event(1, "phase", "Provisioning", None)]);
        }
        ending(request)
    });
    let mut child = command(control.directory(), &["deploy", "api"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("Provisioning")));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut said = String::new();
    child.stderr.unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("r1 goes on"), "{said}");
    assert!(!control.requests().iter().any(|request| request.contains("abort")));
}

#[test]
fn the_control_planes_no_keeps_its_code_hint_and_exit_code() {
    for (status, code, expected) in [(409, "SB0301", 75), (422, "SB0302", 77), (404, "SB0209", 64)]
    {
        let control =
            Control::answering(move |_| problem(status, code, u8::try_from(expected).unwrap()));
        let output = run(control.directory(), &["deploy", "api", "--version", "v2"]);
        assert_eq!(exit(&output), expected);
        let said = err(&output);
        assert!(said.starts_with(&format!("error[{code}]: no\n")), "{said}");
        assert!(said.contains("hint: do something else"), "{said}");
        let output = run(control.directory(), &["deploy", "api", "--json"]);
        let document: Value = serde_json::from_str(&out(&output)).unwrap();
        assert_eq!(document["code"], code);
    }
}

#[test]
fn without_a_control_plane_commands_say_how_to_start_one() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), &["status"]);
    assert_eq!((exit(&output), err(&output).contains("SB0150")), (78, true), "{}", err(&output));
    std::fs::write(directory.path().join("switchback.yaml"), CONFIG).unwrap();
    for arguments in [&["status"][..], &["deploy", "api"], &["logs", "-f"], &["ledger"], &["down"]]
    {
        let output = run(directory.path(), arguments);
        assert_eq!((exit(&output), err(&output).contains("SB0201")), (69, true), "{arguments:?}");
        assert!(err(&output).contains("switchback "), "{}", err(&output));
    }
}

#[test]
fn a_wrong_command_line_ends_with_64_and_help_with_0() {
    let here = tempfile::tempdir().unwrap();
    for arguments in [&["deploy"][..], &["frobnicate"], &[], &["explain", "SB9999"]] {
        assert_eq!(exit(&run(here.path(), arguments)), 64, "{arguments:?}");
    }
    for arguments in [["--help"], ["--version"], ["help"]] {
        assert_eq!(exit(&run(here.path(), &arguments)), 0, "{arguments:?}");
    }
}

#[test]
fn commands_find_the_only_active_rollout() {
    for word in ["promote", "pause", "resume"] {
        let control = Control::answering(ending("promoted"));
        let output = run(control.directory(), &[word, "--reason", "seen enough"]);
        assert_eq!(exit(&output), 0, "{}", err(&output));
        let told = control.requests().pop().unwrap();
        assert!(told.starts_with(&format!("POST /v1/rollouts/r1/{word} ")), "{told}");
        assert!(told.contains("seen enough"), "{told}");
    }
    let control = Control::answering(ending("rolled_back"));
    let output = run(control.directory(), &["abort", "api"]);
    assert_eq!(exit(&output), 0, "taken back, as asked: {}", err(&output));
    let output = run(control.directory(), &["rollback", "api"]);
    assert_eq!(exit(&output), 0, "taken back, as asked: {}", err(&output));
}

#[test]
fn explain_names_the_probe_its_answer_and_the_last_log_lines() {
    let control = Control::answering(ending("withdrawn"));
    let output = run(control.directory(), &["explain", "r1"]);
    let text = out(&output);
    for part in [CAUSE, "last probe   GET /ready answered 503", "| no database", "it ended here"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(exit(&output), 0);
}

#[test]
fn explain_knows_every_code_without_a_control_plane() {
    let here = tempfile::tempdir().unwrap();
    let output = run(here.path(), &["explain", "sb0201"]);
    assert!(out(&output).starts_with("# SB0201: "), "{}", out(&output));
    assert!(err(&output).is_empty());
}

#[test]
fn a_reader_that_goes_away_ends_following_without_an_error() {
    let control = Control::answering(|_| {
        let line = json!({
            "at_ms": 1, "instance": "i", "version": "v1", "stream": "stdout", "text": "hello",
        });
        Reply::Json(200, json!({"lines": [line], "cursor": "next 1"}))
    });
    let mut child = command(control.directory(), &["logs", "-f"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "00:00:00.001Z i | hello");
    drop(lines);
    let output = child.wait_with_output().unwrap();
    assert_eq!((exit(&output), err(&output)), (0, String::new()));
    assert!(control.requests()[1].ends_with("?after=next%201"), "{:?}", control.requests());
}

#[test]
fn init_writes_what_lint_accepts_and_keeps_what_is_there() {
    let here = tempfile::tempdir().unwrap();
    std::fs::write(here.path().join("package.json"), r#"{"name":"web","main":"s.js"}"#).unwrap();
    let output = run(here.path(), &["init"]);
    assert_eq!(exit(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("found package.json: service web"), "{}", out(&output));
    assert_eq!(exit(&run(here.path(), &["lint"])), 0);
    let output = run(here.path(), &["init"]);
    assert_eq!((exit(&output), err(&output).contains("--force")), (64, true));
    assert_eq!(exit(&run(here.path(), &["init", "--force"])), 0);
}

#[test]
fn lint_and_up_list_every_mistake_and_end_with_78() {
    let here = tempfile::tempdir().unwrap();
    let bad = "project: shop\nservices:\n  api:\n    comand: ./api\n    replicas: 0\n    \
               drain_timeout: 3\n    strategy: slow\n";
    std::fs::write(here.path().join("switchback.yaml"), bad).unwrap();
    let output = run(here.path(), &["lint"]);
    assert_eq!(exit(&output), 78);
    let text = out(&output);
    for line in [4, 5, 6, 7] {
        assert!(text.contains(&format!("switchback.yaml:{line}:")), "{line} in {text}");
    }
    let output = run(here.path(), &["lint", "--json"]);
    let document: Value = serde_json::from_str(&out(&output)).unwrap();
    let mistakes = document["mistakes"].as_array().unwrap();
    assert!(mistakes.len() >= 4);
    let whole = |mistake: &Value| mistake["line"].is_u64() && mistake["hint"].is_string();
    assert!(mistakes.iter().all(whole), "{document}");
    let output = run(here.path(), &["up", "--detach"]);
    assert_eq!((exit(&output), err(&output).contains("SB0151")), (78, true));
    assert!(!here.path().join(".switchback").exists(), "nothing was begun");
}

#[test]
fn a_state_directory_that_cannot_be_made_is_said() {
    let here = tempfile::tempdir().unwrap();
    std::fs::write(here.path().join("switchback.yaml"), CONFIG).unwrap();
    std::fs::write(here.path().join("file"), "").unwrap();
    let output = run(here.path(), &["up", "--detach", "--state-dir", "file/state"]);
    assert_eq!(
        (exit(&output), err(&output).contains("--state-dir")),
        (74, true),
        "{}",
        err(&output)
    );
}

#[test]
fn up_with_a_running_control_plane_follows_every_rollout() {
    let mut ending = ending("promoted");
    let control = Control::answering(move |request| {
        if request.starts_with("POST /v1/up") {
            let started = json!({"rollout": "r1", "queued": false, "note": null});
            let answer = json!({"started": {"api": started}, "kept": {"web": "it serves already"}});
            return Reply::Json(200, answer);
        }
        ending(request)
    });
    let output = run(control.directory(), &["up", "--detach", "--json"]);
    assert_eq!(exit(&output), 0, "{}", err(&output));
    let document: Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(document["rollouts"][0]["outcome"], "promoted");
    assert_eq!(document["kept"]["web"], "it serves already");
}

#[test]
fn generated_files_are_the_same_each_time() {
    let here = tempfile::tempdir().unwrap();
    for directory in ["one", "two"] {
        assert_eq!(exit(&run(here.path(), &["generate", directory])), 0);
        assert_eq!(exit(&run(here.path(), &["man", directory])), 0);
    }
    let names = |directory: &str| {
        let entries = std::fs::read_dir(here.path().join(directory)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names("one"), names("two"));
    assert!(names("one").len() > 15);
    for name in names("one") {
        let read =
            |directory: &str| std::fs::read(here.path().join(directory).join(&name)).unwrap();
        assert_eq!(read("one"), read("two"), "{}", name.display());
    }
}
