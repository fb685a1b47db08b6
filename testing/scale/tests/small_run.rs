//! The benchmark itself, small: after `kill -9` every rollout goes on, and nothing else is touched.
//! How long that takes is for `cargo xtask bench scale` to say, on a quiet machine.

use std::process::Command;

use serde_json::Value;

#[test]
fn after_a_kill_every_rollout_goes_on_and_nothing_else_is_started() {
    let arguments = ["--services", "300", "--rollouts", "30", "--steady", "1", "--json"];
    let output = Command::new(env!("CARGO_BIN_EXE_switchback-scale")).args(arguments).output();
    let output = output.expect("the benchmark was built with its test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&document["services"], &document["rollouts"]), (&300.into(), &30.into()));
    let figures = document["figures"].as_array().unwrap();
    assert!(figures.iter().all(|figure| figure["value"].is_number()), "{document:#}");
}
