//! The examples as their READMEs show them, with other ports and shorter times: programs that
//! nobody here wrote for Switchback, under load.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use switchback_demo::load::{Load, LoadHandle, LoadOptions, LoadReport};

use crate::recipe::free_address;
use crate::site::{Site, all_answered, require_package, wait_for};

/// What is written differently in a copy of an example: file, words, other words.
type Change = (&'static str, &'static str, String);

/// A copy of an example.
fn copy(name: &str, changes: &[Change]) -> Site {
    let site = Site::new("");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../examples").join(name);
    copy_directory(&example, site.path());
    for (file, from, to) in changes {
        let path = site.path().join(file);
        let text = fs::read_to_string(&path).expect("the example has this file");
        assert!(text.contains(from), "{file} has no {from:?}:\n{text}");
        fs::write(&path, text.replace(from, to)).expect("the directory is ours");
    }
    site
}

fn copy_directory(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("it is in the tree") {
        let entry = entry.expect("it can be listed");
        // A state directory of somebody who tried the example out stays where it is.
        if entry.file_name() == ".switchback" {
            continue;
        }
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir_all(&target).expect("the directory is ours");
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("the directory is ours");
        }
    }
}

fn load(address: SocketAddr, path: &str, post_share: f64) -> LoadHandle {
    let path = path.to_owned();
    let options =
        LoadOptions { path, post_share, rate_per_second: 200, ..LoadOptions::new(address) };
    Load::start(options).expect("the load can be started")
}

/// Every request got a complete answer, whatever it said, and the data plane dropped none.
fn stopped_without_loss(site: &Site, load: LoadHandle) -> LoadReport {
    let report = site.stop(load);
    assert!(report.sent > 0, "no load at all");
    assert_eq!(report.failures.total(), 0, "{report:#?}");
    assert_eq!(report.answered_total(), report.sent, "{report:#?}");
    assert_eq!(site.dropped(), 0, "{:#?}", site.ledger());
    report
}

fn deploy(site: &Site, service: &str, version: &str) -> crate::site::Ended {
    site.run(&["deploy", service, "--version", version, "--json"])
}

/// Why the newest rollout of a service was taken back, and everything `explain` says about it.
fn explained(site: &Site, service: &str) -> (String, String) {
    let document = site.json(&["explain", service]);
    let cause = document["summary"]["cause"].as_str().unwrap_or_default().to_owned();
    (cause, site.run(&["explain", service, "--plain"]).exits(0).text())
}

struct Nginx {
    site: Site,
    rolling: SocketAddr,
    blue_green: SocketAddr,
}

/// nginx is told to close its connections after 40 requests, as a long run would make it.
fn nginx() -> Option<Nginx> {
    if !require_package("nginx", "nginx") {
        return None;
    }
    let (rolling, blue_green) = (free_address(), free_address());
    let site = copy(
        "nginx",
        &[
            ("switchback.yaml", "127.0.0.1:8081", rolling.to_string()),
            ("switchback.yaml", "127.0.0.1:8082", blue_green.to_string()),
            ("switchback.yaml", "scale_down_delay: 3s", "scale_down_delay: 500ms".to_owned()),
            ("switchback.yaml", "duration: 4s", "duration: 1s".to_owned()),
            ("nginx.conf", "keepalive_requests 1000;", "keepalive_requests 40;".to_owned()),
        ],
    );
    site.run(&["up", "--detach"]).exits(0);
    Some(Nginx { site, rolling, blue_green })
}

#[test]
fn nginx_goes_from_one_configuration_to_another_in_both_ways_and_drops_nothing() {
    let Some(Nginx { site, rolling, blue_green }) = nginx() else { return };
    for (service, address) in [("web-rolling", rolling), ("web-blue-green", blue_green)] {
        let load = load(address, "/", 0.1);
        deploy(&site, service, "v2").exits(0);
        let report = stopped_without_loss(&site, load);
        all_answered(&report);
        let seen: Vec<_> = report.answered.keys().map(String::as_str).collect();
        assert_eq!(seen, ["v1", "v2"], "{service}: {report:#?}");
    }
}

#[test]
fn an_nginx_that_does_not_start_or_fails_requests_is_taken_back() {
    let Some(Nginx { site, rolling, blue_green }) = nginx() else { return };
    let loads = [load(rolling, "/", 0.1), load(blue_green, "/", 0.1)];
    deploy(&site, "web-rolling", "v3").exits(1);
    let (_, story) = explained(&site, "web-rolling");
    assert!(story.contains("is not terminated by \";\""), "{story}");
    deploy(&site, "web-blue-green", "v4").exits(1);
    let (cause, _) = explained(&site, "web-blue-green");
    assert!(cause.contains("requests failed") || cause.contains("error rate"), "{cause}");
    let [on_rolling, on_blue_green] = loads.map(|load| stopped_without_loss(&site, load));
    all_answered(&on_rolling);
    assert_eq!(on_rolling.answered.keys().collect::<Vec<_>>(), ["v1"]);
    let of_v4 = |version: &switchback_api::LedgerEntry| version.version.as_str() == "v4";
    let ledger = site.ledger();
    let failed = ledger.versions.into_iter().find(of_v4).expect("v4 had traffic").stats.failed();
    assert_eq!(on_blue_green.errors.values().sum::<u64>(), failed, "only v4 failed requests");
}

/// The example in its environment for trying it out, up on v1.2.2.
fn ontology_download() -> Option<(Site, SocketAddr)> {
    if !require_package("python3", "python3") {
        return None;
    }
    let address = free_address();
    let interval = "traffic_increase_interval_minutes: 0.1";
    let latency = "response_time: {threshold_multiplier: 10.0, window: 4s}";
    let site = copy(
        "ontology-download",
        &[
            ("switchback.yaml", "127.0.0.1:8010", address.to_string()),
            ("switchback.yaml", interval, interval.replace("0.1", "0.02")),
            // A machine that runs all tests at once makes any latency.
            ("switchback.yaml", latency, "response_time: false".to_owned()),
            ("switchback.yaml", "scale_down_delay: 3s", "scale_down_delay: 500ms".to_owned()),
        ],
    );
    site.run(&["up", "--env", "trial", "--detach"]).exits(0);
    Some((site, address))
}

#[test]
fn the_ontology_service_is_promoted_by_the_documents_canary_and_taken_back_when_it_is_bad() {
    let Some((site, address)) = ontology_download() else { return };
    let service = "ontology-download";
    let under_load = load(address, "/api/ontologies", 0.0);
    deploy(&site, service, "v1.2.3").exits(0);
    let report = stopped_without_loss(&site, under_load);
    all_answered(&report);
    assert_eq!(report.answered.keys().collect::<Vec<_>>(), ["v1.2.2", "v1.2.3"]);

    let under_load = load(address, "/api/ontologies/go/download", 0.0);
    deploy(&site, service, "v1.2.4").exits(1);
    let (cause, story) = explained(&site, service);
    // The exact test or, if it is quicker, the rule of the document.
    assert!(cause.contains("requests failed") || cause.contains("rate"), "{cause}");
    assert!(story.contains("metrics and version passed"), "{story}");
    let report = stopped_without_loss(&site, under_load);
    assert_eq!(report.errors.keys().collect::<Vec<_>>(), ["v1.2.4"], "{report:#?}");

    site.run(&["rollback", service]).exits(0);
    serves(&site, address, "v1.2.2");
}

#[test]
fn the_ontology_service_is_not_ready_without_its_catalogue() {
    let Some((site, address)) = ontology_download() else { return };
    deploy(&site, "ontology-download", "v1.2.5").exits(1);
    let (cause, _) = explained(&site, "ontology-download");
    assert!(cause.contains("GET /ready: 503"), "{cause}");
    serves(&site, address, "v1.2.2");
    // One instance loses the file that it needs; the other one serves on.
    let instances = site.state_dir().join("runtime/instances");
    let first = fs::read_dir(instances).expect("there are instances").flatten().next();
    let catalogue = first.expect("there is one").path().join("work/catalogue.sqlite");
    fs::remove_file(&catalogue).expect("every instance has its own");
    wait_for("the instance to be seen as not ready", || {
        let services = site.status().services;
        let ready = |i: &&switchback_api::InstanceStatus| i.report.reason.is_none();
        services.iter().any(|service| service.instances.iter().filter(ready).count() == 1)
    });
    serves(&site, address, "v1.2.2");
}

#[test]
fn the_figures_of_the_deployment_guide_are_in_the_example_as_they_stand_there() {
    let site = copy("ontology-download", &[]);
    site.run(&["lint"]).exits(0);
    let text = fs::read_to_string(site.path().join("switchback.yaml")).expect("it was copied");
    let guide = site.path().join("deployment/canary-config.yml");
    for line in fs::read_to_string(guide).expect("it was copied").lines().skip(1) {
        assert!(text.contains(line.trim()), "{line:?} is not in switchback.yaml");
    }
}

/// Waits until the route answers with one version only.
fn serves(site: &Site, address: SocketAddr, version: &str) {
    wait_for("the version on the route", || {
        let options = LoadOptions {
            path: "/api/version".to_owned(),
            post_share: 0.0,
            requests_max: 20,
            ..LoadOptions::new(address)
        };
        let report = site.wait(Load::start(options).expect("it starts").wait());
        report.answered.keys().eq([version])
            && report.failures.total() == 0
            && report.errors.is_empty()
    });
}
