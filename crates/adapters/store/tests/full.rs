//! A journal without room: the append says so, nothing is written, and later appends work again.
//!
//! Real walls, not mocks: the journal's own limit, the file size limit of a process, and where the
//! machine lets us mount one, a file system of 1 MiB.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail like tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use switchback_domain::Epoch;
use switchback_ports::journal::conformance::record;
use switchback_ports::journal::{Error, Journal, NewRecord, Sequence, Snapshot};
use switchback_store::SqliteJournal;

/// Names the directory in the environment of a child that plays a part.
const DIRECTORY: &str = "JOURNAL_TEST_DIRECTORY";
/// Appends this large reach any of the walls soon.
const BODY_BYTES: usize = 20_000;
/// More appends than any of the walls has room for.
const APPENDS_MAX: u64 = 1_000;

fn large(number: u64) -> NewRecord {
    NewRecord { body: vec![7; BODY_BYTES], ..record("a", number) }
}

fn snapshot(number: u64) -> Snapshot {
    let body = number.to_be_bytes().to_vec();
    Snapshot { scope: "a".to_owned(), sequence: Sequence(0), version: 1, body }
}

/// Appends until there is no room; returns how many appends were acknowledged.
fn fill(journal: &mut SqliteJournal, epoch: Epoch) -> u64 {
    for number in 1..APPENDS_MAX {
        match journal.append(epoch, &[large(number), record("b", number)], &[snapshot(number)]) {
            Ok(sequence) => assert_eq!(sequence, Sequence(number * 2)),
            Err(Error::Full) => return number - 1,
            Err(other) => panic!("append {number}: {other:?}"),
        }
    }
    panic!("never full");
}

fn holds_exactly(journal: &SqliteJournal, acknowledged: u64) {
    assert_eq!(journal.verify().unwrap(), acknowledged * 2);
    let expected = Snapshot { sequence: Sequence(acknowledged * 2), ..snapshot(acknowledged) };
    assert_eq!(journal.snapshots().unwrap(), [expected]);
}

/// Fills the journal, makes room, and goes on with the same handle.
fn fill_and_recover(path: &Path, make_room: impl FnOnce()) {
    let mut journal = SqliteJournal::open(path).unwrap();
    let epoch = journal.begin_epoch().unwrap();
    let acknowledged = fill(&mut journal, epoch);
    assert!(acknowledged > 0);
    holds_exactly(&journal, acknowledged);
    let again = journal.append(epoch, &[large(0)], &[]);
    assert!(matches!(again, Err(Error::Full)), "{again:?}");
    holds_exactly(&journal, acknowledged);
    make_room();
    for number in acknowledged + 1..acknowledged + 9 {
        let records = [large(number), record("b", number)];
        journal.append(epoch, &records, &[snapshot(number)]).unwrap();
        holds_exactly(&journal, number);
    }
    drop(journal);
    holds_exactly(&SqliteJournal::open(path).unwrap(), acknowledged + 8);
    assert!(!path.with_extension("sqlite-room").exists());
}

fn succeeded(output: &Output) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
}

/// The command line, for a shell, that plays a part of this file in a process of its own.
fn part(name: &str) -> String {
    let program = std::env::current_exe().unwrap();
    format!("exec '{}' --exact {name} --nocapture", program.display())
}

fn journal_of_child() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(|directory| Path::new(&directory).join("journal.sqlite"))
}

#[test]
fn the_limit_of_the_journal_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.sqlite");
    let mut journal = SqliteJournal::open_limited(&path, 400_000).unwrap();
    let epoch = journal.begin_epoch().unwrap();
    let acknowledged = fill(&mut journal, epoch);
    holds_exactly(&journal, acknowledged);
    let later = journal.begin_epoch().unwrap();
    drop(journal);
    let mut journal = SqliteJournal::open_limited(&path, 4_000_000).unwrap();
    let records = [large(0), record("b", 0)];
    journal.append(later, &records, &[snapshot(acknowledged + 1)]).unwrap();
    holds_exactly(&journal, acknowledged + 1);
}

#[test]
fn the_file_size_limit_of_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let script = format!("trap '' XFSZ; {}", part("part_of_a_process_with_small_files"));
    let mut child = Command::new("sh");
    child.args(["-c", &script]).env(DIRECTORY, directory.path());
    succeeded(&child.output().unwrap());
    let journal = SqliteJournal::open(&directory.path().join("journal.sqlite")).unwrap();
    assert!(journal.verify().unwrap() > 0);
}

#[test]
fn part_of_a_process_with_small_files() {
    let Some(path) = journal_of_child() else { return };
    let unlimited = getrlimit(Resource::Fsize);
    let limited = Rlimit { current: Some(300_000), ..unlimited };
    setrlimit(Resource::Fsize, limited).unwrap();
    fill_and_recover(&path, || setrlimit(Resource::Fsize, unlimited).unwrap());
}

/// Whether this machine lets us mount file systems in a namespace of our own.
fn may_mount() -> bool {
    let directory = tempfile::tempdir().unwrap();
    let mut child = in_small_file_system(directory.path(), "true");
    child.output().is_ok_and(|output| output.status.success())
}

fn in_small_file_system(directory: &Path, script: &str) -> Command {
    let script = format!("mount -t tmpfs -o size=1m none '{}' && {script}", directory.display());
    let mut child = Command::new("unshare");
    child.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
    child.env(DIRECTORY, directory);
    child
}

#[test]
fn a_file_system_without_room() {
    if !may_mount() {
        println!("this machine does not let us mount; the other walls were run into");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = part("part_of_a_process_on_a_small_file_system");
    succeeded(&in_small_file_system(directory.path(), &script).output().unwrap());
}

#[test]
fn part_of_a_process_on_a_small_file_system() {
    let Some(path) = journal_of_child() else { return };
    let ballast = path.with_extension("ballast");
    fs::write(&ballast, vec![1; 512 << 10]).unwrap();
    fill_and_recover(&path, || fs::remove_file(&ballast).unwrap());
}
