//! Certificates that are ordered from a real authority: the first one, its renewal under load, and
//! every way in which there is none.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::authority::{Authority, kept, plain};
use crate::process::Role;
use crate::site::{Site, require_package, wait_for};

fn site(authority: &Authority, hosts: &str) -> Site {
    let site = Site::with("", |recipe| {
        recipe.set("replicas", "1");
        authority.certify(recipe, hosts);
    });
    site.up();
    site
}

/// The one certificate of `status`.
fn certificate(site: &Site) -> serde_json::Value {
    site.json(&["status"])["certificates"][0].clone()
}

fn error(site: &Site) -> String {
    certificate(site)["error"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_certificate_is_obtained_at_the_start_and_renewed_without_a_failed_request() {
    if !require_package("pebble", "pebble") {
        return;
    }
    let mut authority = Authority::new(Duration::from_secs(9));
    authority.start();
    let client = authority.client();
    let site = site(&authority, "a.test, b.test");
    let get = |name| client.get(site.address(), name, "/");
    wait_for("the first certificate", || get("a.test").is_ok());
    let (first, answer) = get("b.test").expect("one for both");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("v1"), "{answer}");
    let (path, _) = kept(site.state_dir(), ".pem").pop().expect("it is kept");
    let mode = |path: &std::path::Path| path.metadata().expect("ours").permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().expect("acme"))), (0o600, 0o700));
    // What is in nobody's table is not answered, and everything else is sent on.
    let challenge = "/.well-known/acme-challenge/unknown";
    assert!(plain(authority.plain, "a.test", challenge).starts_with("HTTP/1.1 308"));
    // The next one comes at two thirds of its life, while another process takes over.
    site.run(&["maintenance", "on"]).exits(0);
    site.run(&["proxy", "upgrade"]).exits(0);
    let mut seen = BTreeSet::from([first]);
    wait_for("another certificate", || {
        let (shown, answer) = get("a.test").expect("every request is answered");
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        seen.insert(shown);
        seen.len() > 1
    });
    let told = site.run(&["history"]).exits(0).stdout;
    for part in
        ["certificate for a.test, b.test obtained", "certificate for a.test, b.test renewed"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(error(&site).is_empty(), "{}", certificate(&site));
    let status = site.run(&["status"]).exits(0).stdout;
    for part in ["certificate    a.test, b.test", "https://a.test:"] {
        assert!(status.contains(part), "{part}: {status}");
    }
}

#[test]
fn without_a_certificate_it_is_said_why_and_asked_again_later() {
    if !require_package("pebble", "pebble") {
        return;
    }
    let mut authority = Authority::new(Duration::from_hours(24));
    let site = site(&authority, "a.test, gone.test");
    wait_for("an authority that is away", || error(&site).contains("cannot connect"));
    authority.start();
    let client = authority.client();
    let refused = client.get(site.address(), "a.test", "/").expect_err("there is nothing to show");
    assert!(refused.contains("AccessDenied"), "{refused}");
    assert!(plain(authority.plain, "a.test", "/").starts_with("HTTP/1.1 308"), "the rest works");
    let told = certificate(&site);
    let now = now_ms();
    let next = told["next_ms"].as_u64().expect("it is told");
    assert!(next > now + 60_000, "not before two minutes have passed: {told}");
    // Whoever has mended something says so.
    authority.hide("gone.test", true);
    site.up();
    wait_for("a name that leads nowhere", || error(&site).contains("gone.test: "));
    let status = site.run(&["status"]).exits(0).stdout;
    for part in ["not there yet: clients are refused", "could not be had, 1 time: "] {
        assert!(status.contains(part), "{part}: {status}");
    }
    authority.hide("gone.test", false);
    site.up();
    wait_for("the certificate", || client.get(site.address(), "gone.test", "/").is_ok());
    let history = site.json(&["history", "--deeds"]);
    let failed: Vec<_> =
        history.as_array().expect("a list").iter().map(|deed| &deed["failed"]).collect();
    assert_eq!(failed, [false, true, true], "{history}");
    // A life later everything is as it was: the same account, the same certificate.
    let (before, orders) = (kept(site.state_dir(), ""), authority.log());
    site.kill9_control();
    site.kill9(site.pid(Role::Proxy));
    site.up();
    wait_for("the same certificate", || client.get(site.address(), "a.test", "/").is_ok());
    assert_eq!(kept(site.state_dir(), ""), before);
    assert_eq!(count(&authority.log(), "/order-plz"), count(&orders, "/order-plz"));
    // An authority that has forgotten us is introduced to us again.
    authority.start();
    let (path, _) = kept(site.state_dir(), ".pem").pop().expect("it is kept");
    std::fs::remove_file(path).expect("ours");
    let client = authority.client();
    wait_for("one by a new account", || client.get(site.address(), "a.test", "/").is_ok());
}

fn count(log: &str, part: &str) -> usize {
    log.matches(part).count()
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.expect("it is later").as_millis()).expect("it fits")
}
