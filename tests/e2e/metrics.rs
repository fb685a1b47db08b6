//! Metrics of the user's end to end: a number of a JSON document takes a version back, and a
//! source that is not there promotes nobody.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use switchback_domain::Weight;

use crate::recipe::{Recipe, free_address};
use crate::site::Site;

/// A document that says 0.01 of every version and 0.5 of the version `bad`. Its thread ends with
/// the tests.
fn figures() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap_or_default();
            let is_bad = String::from_utf8_lossy(&head[..length]).contains("of=bad");
            let body = format!(r#"{{"refunds": {{"rate": {}}}}}"#, if is_bad { 0.5 } else { 0.01 });
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            // Who asked may be gone already.
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
    address
}

fn watched(recipe: &mut Recipe, source: SocketAddr, more: &str) {
    recipe.set("replicas", "1");
    recipe.set("rollback", "{triggers: {error_rate: false}}");
    recipe.set(
        "metrics",
        format!(
            "[{{name: refunds, source: {{json: \"http://{source}/figures?of={{{{version}}}}\", \
             pointer: /refunds/rate}}, success_condition: result < 0.1, interval: 200ms, \
             failure_limit: 2{more}}}]"
        ),
    );
}

#[test]
fn a_number_of_a_json_document_takes_a_version_back_and_passes_a_good_one() {
    let source = figures();
    let site = Site::with("", |recipe| watched(recipe, source, ""));
    site.up();
    let load = site.load_when_serving();
    let (id, _) = site.bad_is_taken_back("metric.refunds");
    let told = site.run(&["explain", &id]).exits(0).stdout;
    for part in ["refunds (JSON", "0.5", "success `result < 0.1`"] {
        assert!(told.contains(part), "{part:?} is not in\n{told}");
    }
    let ended = site.deploy("v2").exits(0).json();
    assert_eq!(ended["outcome"], "promoted", "{ended:#}");
    site.nothing_was_lost(load);
}

#[test]
fn a_source_that_is_not_there_holds_the_step_and_asks() {
    let nobody = free_address();
    let site = Site::with("", |recipe| {
        watched(recipe, nobody, ", consecutive_error_limit: 2, on_insufficient: ask");
    });
    site.up();
    let load = site.load_when_serving();
    let id = site.begin("v2");
    let mut follow = site.follow(&id);
    let asked = site.event(&mut follow, "somebody is asked", |event| {
        event.text.contains("refunds (JSON") && event.summary.waiting_for.is_some()
    });
    assert!(asked.text.contains("the source failed: cannot connect"), "{}", asked.text);
    assert_eq!(site.rollout(&id).weight, Weight::from_percent(5), "it has not gone on");
    site.run(&["abort"]).exits(0);
    site.ended(&id);
    site.nothing_was_lost(load);
}
