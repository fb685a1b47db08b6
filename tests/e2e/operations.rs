//! What operators have a route do instead of serving, through commands, and that it lasts.

use std::fs;

use crate::commands::{quick, site};
use crate::process::Role;
use crate::recipe::free_address;
use crate::site::{Site, wait_for};

/// What an operator has `web` do, by `status`.
fn in_force(site: &Site) -> Option<serde_json::Value> {
    let status = site.json(&["status"]);
    let newest = status["services"][0]["operations"][0].clone();
    (!newest["mode"].is_null()).then_some(newest)
}

/// Status and body of one request.
fn asked(site: &Site) -> (u16, String) {
    let client = std::net::TcpStream::connect(site.address());
    let mut stream = client.expect("the data plane listens");
    let request = "GET / HTTP/1.1\r\nhost: web.test\r\nconnection: close\r\n\r\n";
    std::io::Write::write_all(&mut stream, request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("it answers");
    let status = answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or_default();
    (status, answer)
}

#[test]
fn maintenance_under_load_answers_every_request_and_outlives_both_processes() {
    let site = site(|_| {});
    fs::write(site.path().join("page.html"), "<h1>painting the shop</h1>").expect("it is ours");
    let load = site.load(200);
    let words = ["maintenance", "on", "--page", "page.html", "--retry-after", "5m"];
    let said = site.run(&[&words[..], &["--reason", "new paint"]].concat()).exits(0).stdout;
    assert!(said.contains("in maintenance") && said.contains("5m"), "{said}");
    let (status, answer) = asked(&site);
    assert!(status == 503 && answer.contains("painting the shop"), "{answer}");
    assert!(answer.contains("retry-after: 300"), "{answer}");
    site.run(&["maintenance", "off", "web"]).exits(0);
    assert_eq!(asked(&site).0, 200, "off is off when the command returns");
    let report = site.stop(load);
    assert_eq!(report.failures.total(), 0, "{report:#?}");
    assert_eq!(report.connections_closed_by_server, 0, "{report:#?}");
    let statuses: Vec<_> = report.by_status.keys().copied().collect();
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{report:#?}");
    site.run(&["maintenance", "on", "web"]).exits(0);
    site.kill9_control();
    site.kill9(site.pid(Role::Proxy));
    site.up();
    wait_for("the page after both were killed", || {
        std::net::TcpStream::connect(site.address()).is_ok() && asked(&site).0 == 503
    });
    let operation = in_force(&site).expect("it is in force");
    assert_eq!((&operation["mode"], &operation["by"]), (&"maintenance".into(), &"tester".into()));
    assert!(site.run(&["status"]).exits(0).stdout.contains("in maintenance"));
    site.run(&["maintenance", "off"]).exits(0);
    assert_eq!(asked(&site).0, 200);
    assert_eq!(in_force(&site), None);
    assert_eq!(site.run(&["maintenance", "off", "--json"]).exits(77).json()["code"], "SB0310");
}

#[test]
fn a_service_is_isolated_diverted_and_held_each_undone_by_one_command() {
    let other = free_address();
    let site = site(|recipe| {
        let lines = recipe.text();
        let web = lines.split_once("  web:\n").expect("it has web").1.to_owned();
        let address = recipe.address.to_string();
        let api = web.replace(&address, &other.to_string()).replace("version: v1", "version: v9");
        recipe.append(&format!("  api:\n{api}"));
        quick(recipe);
    });
    site.run(&["isolate", "web", "--reason", "it leaks"]).exits(0);
    let (status, answer) = asked(&site);
    assert!(status == 503 && answer.contains("isolated"), "{answer}");
    site.deploy("v2").exits(0);
    let told = site.run(&["explain", "web"]).exits(0).stdout;
    let before = "before  beside   isolated, by tester: it leaks\n";
    assert!(told.contains(before), "{told}");
    site.run(&["rollback", "web"]).exits(0);
    site.run(&["undivert", "web"]).exits(77);
    site.run(&["unisolate", "web"]).exits(0);
    site.serves(&["v1"]);
    site.run(&["divert", "web", "--to-service", "api"]).exits(0);
    site.serves(&["v9"]);
    site.run(&["undivert", "web"]).exits(0);
    site.serves(&["v1"]);
    for (words, code) in [
        (&["divert", "web", "--to-version", "v7"][..], "SB0310"),
        (&["divert", "web", "--to-service", "web"], "SB0310"),
        (&["divert", "web", "--to-service", "nobody"], "SB0209"),
        (&["isolate", "nobody"], "SB0209"),
        (&["maintenance", "on", "--page", "missing.html"], "SB0311"),
    ] {
        let ended = site.run(&[words, &["--json"]].concat());
        assert_eq!(ended.json()["code"], code, "{words:?}");
    }
    let load = site.load(100);
    site.run(&["hold", "web", "--for", "30s"]).exits(0);
    let held = std::thread::scope(|scope| {
        let held = scope.spawn(|| asked(&site));
        site.run(&["release"]).exits(0);
        held.join().expect("it was answered").0
    });
    assert_eq!(held, 200);
    let report = site.nothing_was_lost(load);
    assert!(report.by_status.keys().eq([200].iter()), "{report:#?}");
}
