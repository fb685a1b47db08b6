//! The journal is restored from an older copy, or lost: what serves and is unknown to it serves on
//! until what it wants can take its place, and no request is lost.

use std::fs;
use std::path::{Path, PathBuf};

use crate::site::Site;

/// The journal's files, as a backup of a control plane that does not run has them.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the directory is there");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let is_journal = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("journal.db"))
    };
    paths.filter(is_journal).collect()
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let name = file.file_name().expect("it has one");
        fs::copy(&file, to.join(name)).expect("it can be copied");
    }
}

fn lose(directory: &Path) {
    for file in files(directory) {
        fs::remove_file(file).expect("it is ours");
    }
}

/// v1 serves again after its journal is all that there is, and v2 answers until then.
fn goes_back_without_a_gap(site: &Site, put_in_place: impl FnOnce(&Path)) {
    let load = site.load(150);
    assert_eq!(site.deploy("v2").exits(0).json()["outcome"], "promoted");
    site.settles_to(&[("v2", 2)]);
    site.kill9_control();
    put_in_place(site.state_dir());
    site.up();
    site.settles_to(&[("v1", 2)]);
    site.serves(&["v1"]);
    site.nothing_was_lost(load);
    let told = site.run(&["history", "--plain"]).exits(0).text();
    assert!(told.contains("the journal is older than what runs"), "{told}");
    assert_eq!(site.status().control.degraded, None);
}

#[test]
fn a_journal_of_an_earlier_life_takes_nobody_away_who_answers() {
    let site = Site::started("latency=2ms");
    let backup = tempfile::tempdir().expect("/tmp is there");
    site.kill9_control();
    copy(site.state_dir(), backup.path());
    site.up();
    goes_back_without_a_gap(&site, |directory| {
        lose(directory);
        copy(backup.path(), directory);
    });
}

#[test]
fn a_lost_journal_takes_nobody_away_who_answers() {
    let site = Site::started("latency=2ms");
    goes_back_without_a_gap(&site, lose);
}
