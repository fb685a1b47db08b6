//! The journal's disk is full: nothing is deployed, that is said, and traffic goes on.
//!
//! The disk is a small file system in a mount namespace of our own, where the machine lets us;
//! elsewhere it is the limit on the size of the control plane's files.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::{Pid, Resource, Rlimit};

use crate::process::Role;
use crate::site::{Site, wait_for};

/// Names the site's directory in the environment of the child on the small file system.
const DIRECTORY: &str = "SWITCHBACK_TEST_SMALL_DISK";
/// Room for a journal, logs and a few rollouts.
const DISK_BYTES: usize = 16 << 20;

#[test]
fn a_full_disk_stops_deploying_and_nothing_else() {
    let directory = tempfile::Builder::new().prefix("sb-").tempdir().expect("/tmp is there");
    if may_mount(directory.path()) {
        let program = std::env::current_exe().expect("the test is a program");
        let part = "disk::part_of_a_process_on_a_small_disk";
        let script = format!("exec '{}' --exact {part} --nocapture", program.display());
        succeeded(&on_small_disk(directory.path(), &script));
    } else {
        in_small_files(directory.path());
    }
}

#[test]
fn part_of_a_process_on_a_small_disk() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let site = Site::inside(&directory, "latency=2ms", |_| {});
    let ballast = site.state_dir().join("ballast");
    let fill = || {
        let mut file = File::create(&ballast).expect("there is room for a name");
        // Twice as much as there is room for, and the last byte too.
        for size in [64 << 10, 16] {
            let full =
                (0..2 * DISK_BYTES / (64 << 10)).any(|_| file.write_all(&vec![1; size]).is_err());
            assert!(full || size == 16, "the disk is larger than it was made");
        }
    };
    stops_deploying_and_goes_on(&site, fill, || fs::remove_file(&ballast).expect("it is ours"));
}

/// Runs a script where the state directory is a file system of its own.
fn on_small_disk(directory: &Path, script: &str) -> Output {
    let state_dir = directory.join(".switchback");
    let mount = format!(
        "mkdir -p '{0}' && mount -t tmpfs -o size={DISK_BYTES} none '{0}'",
        state_dir.display()
    );
    let script = format!("{mount} && {script}");
    let mut child = Command::new("unshare");
    child.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
    child.env(DIRECTORY, directory).output().expect("a shell is there")
}

fn may_mount(directory: &Path) -> bool {
    on_small_disk(directory, "true").status.success()
}

fn succeeded(output: &Output) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let passed = output.status.success() && stdout.contains("1 passed");
    assert!(passed, "{stdout}\n{stderr}");
}

/// The same with the size of files as the wall: only the control plane's, and only for a while.
fn in_small_files(directory: &Path) {
    let site = Site::inside(directory, "latency=2ms", |_| {});
    let limit = |bytes| {
        let control = i32::try_from(site.pid(Role::Control)).ok().and_then(Pid::from_raw);
        let limit = Rlimit { current: bytes, maximum: None };
        rustix::process::prlimit(control, Resource::Fsize, limit).expect("it is our process");
    };
    stops_deploying_and_goes_on(&site, || limit(Some(1)), || limit(None));
}

fn stops_deploying_and_goes_on(site: &Site, fill: impl Fn(), make_room: impl Fn()) {
    site.up();
    let load = site.load(150);
    fill();
    let refused = site.deploy("v2").exits(75);
    assert!(refused.stderr.contains("SB0701"), "{refused:?}");
    let degraded = site.status().control.degraded.unwrap_or_default();
    assert!(degraded.contains("full"), "{degraded:?}");
    let shown = site.run(&["status", "--plain"]).exits(0).text();
    assert!(shown.contains("nothing can be deployed"), "{shown}");
    let answered = load.snapshot().answered_total();
    wait_for("answers", || load.snapshot().answered_total() > answered + 100);
    make_room();
    assert_eq!(site.deploy("v2").exits(0).json()["outcome"], "promoted");
    assert_eq!(site.status().control.degraded, None);

    // And in mid-rollout: it stops where it is, and goes on when there is room.
    let id = site.begin("v3");
    let mut follow = site.follow(&id);
    site.event(&mut follow, "Observing", |event| event.summary.phase == "Observing");
    fill();
    wait_for("a journal that is full", || site.status().control.degraded.is_some());
    let answered = load.snapshot().answered_total();
    wait_for("answers", || load.snapshot().answered_total() > answered + 100);
    assert_eq!(site.rollout(&id).outcome, None);
    make_room();
    assert_eq!(site.ended(&id).to.as_str(), "v3");
    assert_eq!(site.stable(), "v3");
    site.settles_to(&[("v3", 2)]);
    site.nothing_was_lost(load);
}
