//! `switchback proxy upgrade`: the shipped binary under load, what `history` tells of it, and
//! `kill -9` of either process at each phase of the handover.

use std::fs;
use std::path::PathBuf;

use switchback_ports::crash_point::CRASH_DIRECTORY;

use crate::process::{Role, is_alive};
use crate::site::{Site, wait_for};

/// Where the new process dies before it has said that it serves: the old one goes on.
const SUCCESSOR: [&str; 5] = [
    "successor before hello",
    "successor after descriptors",
    "successor before ready",
    "successor after ready",
    "successor before serving",
];
/// Where the old one dies after that, with nothing left to lose.
const REPLACED: [&str; 2] = ["replaced before it is done", "replaced before its farewell"];

/// What `history` tells beside rollouts, newest first.
fn deeds(site: &Site) -> Vec<serde_json::Value> {
    site.json(&["history", "--deeds"]).as_array().expect("a list").clone()
}

#[test]
fn an_upgrade_under_load_loses_nothing_and_is_in_the_history() {
    let site = Site::started("latency=1ms");
    let load = site.load(200);
    let before = site.pid(Role::Proxy);
    let said = site.json(&["proxy", "upgrade"]);
    assert_eq!(said["from"]["pid"], before);
    let after = u32::try_from(said["to"]["pid"].as_u64().expect("a number")).expect("a pid");
    assert_ne!(after, before);
    // Programs that are none: one that ends, one that is not there.
    let failing = site.path().join("failing");
    fs::write(&failing, "#!/bin/sh\necho it is too old >&2\nexit 7\n").expect("ours");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(&failing, mode).expect("ours");
    for (binary, words) in [("failing", "it is too old"), ("nowhere", "cannot run")] {
        let problem = site.run(&["proxy", "upgrade", "--binary", binary, "--json"]).exits(1).json();
        assert_eq!(problem["code"], "SB0605", "{problem}");
        assert!(problem["message"].as_str().is_some_and(|it| it.contains(words)), "{problem}");
        assert!(site.pids(Role::Proxy).contains(&after), "the old one serves");
    }
    let report = site.nothing_was_lost(load);
    assert_eq!(report.connections_closed_by_server, 0, "{report:#?}");
    let deeds = deeds(&site);
    let (mut failed, mut told) = (Vec::new(), Vec::new());
    for deed in &deeds {
        assert_eq!(deed["by"], "tester", "{deed}");
        failed.push(deed["failed"].as_bool().expect("a word"));
        told.push(deed["text"].as_str().expect("words"));
    }
    assert_eq!(failed, [true, false, true, false, false, false], "{told:#?}");
    let upgraded = format!("from 0.1.0 (process {before}) to 0.1.0 (process {after})");
    assert!(told[4].contains(&upgraded), "{told:#?}");
    assert!(told[2].contains("it is too old"), "{told:#?}");
    // It outlives the control plane.
    site.kill9_control();
    site.up();
    assert_eq!(self::deeds(&site), deeds);
    assert!(site.run(&["history"]).exits(0).stdout.contains(&upgraded));
}

/// A site whose processes can be told where to die.
struct Mortal {
    site: Site,
    directory: PathBuf,
    serial: u32,
}

impl Mortal {
    fn new() -> Self {
        let mut site = Site::new("latency=1ms");
        let directory = site.path().join("crash");
        fs::create_dir(&directory).expect("the directory is ours");
        site.set_env(CRASH_DIRECTORY, &directory);
        site.up();
        Self { site, directory, serial: 0 }
    }

    fn order(&mut self, point: &str) {
        let place = |name: &str| self.directory.join(name);
        self.serial += 1;
        let _ = fs::remove_file(place("died"));
        // Half an order must not be read.
        fs::write(place("at.new"), format!("{} {point}#1", self.serial)).expect("ours");
        fs::rename(place("at.new"), place("at")).expect("ours");
    }

    /// Waits for the death that was ordered; who died.
    fn dead(&self) -> u32 {
        let mut dead = None;
        wait_for("the death that was ordered", || {
            let mark = fs::read_to_string(self.directory.join("died")).unwrap_or_default();
            let line = mark.trim().split_once('\n').filter(|(at, _)| {
                at.split_once(' ').is_some_and(|(serial, _)| serial == self.serial.to_string())
            });
            dead = line.and_then(|(_, pid)| pid.parse().ok());
            dead.is_some_and(|pid| !is_alive(pid))
        });
        dead.unwrap_or_default()
    }
}

#[test]
fn the_death_of_either_process_in_the_handover_loses_nothing_that_the_other_one_has() {
    let mut mortal = Mortal::new();
    let load = mortal.site.load(200);
    for point in SUCCESSOR {
        let before = mortal.site.pid(Role::Proxy);
        mortal.order(point);
        let problem = mortal.site.run(&["proxy", "upgrade", "--json"]).exits(1).json();
        assert_eq!(problem["code"], "SB0605", "{point}: {problem}");
        assert_ne!(mortal.dead(), before, "{point}");
        assert_eq!(mortal.site.pid(Role::Proxy), before, "{point}: the old one goes on");
        assert_eq!(load.snapshot().failures.total(), 0, "{point}");
    }
    for point in REPLACED {
        let before = mortal.site.pid(Role::Proxy);
        mortal.order(point);
        mortal.site.run(&["proxy", "upgrade"]).exits(0);
        assert_eq!(mortal.dead(), before, "{point}");
        assert_ne!(mortal.site.pid(Role::Proxy), before, "{point}: the new one goes on");
        assert_eq!(load.snapshot().failures.total(), 0, "{point}");
    }
    let report = mortal.site.nothing_was_lost(load);
    assert_eq!(report.connections_closed_by_server, 0, "{report:#?}");
    // With its connections go the requests that come by them in that moment, and nothing else.
    let before = mortal.site.pid(Role::Proxy);
    mortal.order("replaced before its connections");
    mortal.site.run(&["proxy", "upgrade"]).exits(0);
    assert_eq!(mortal.dead(), before);
    mortal.site.serves(&["v1"]);
    let load = mortal.site.load(200);
    mortal.site.run(&["proxy", "upgrade"]).exits(0);
    mortal.site.nothing_was_lost(load);
}
