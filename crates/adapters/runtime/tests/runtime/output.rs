//! What instances say: all of it in order, and never more than there is room for.

use std::fs;
use std::time::{Duration, Instant};

use switchback_ports::Runtime;
use switchback_ports::runtime::conformance::spec;
use switchback_ports::runtime::{LogCursor, LogQuery};
use switchback_runtime::Limits;

use crate::world::{World, runs, script, shell};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_with_a_cursor_misses_nothing_over_rotation() {
    let limits = Limits { log_file_bytes: 8 << 10, log_files: 40, ..Limits::default() };
    let world = World::with(limits);
    let text = "i=0; while [ $i -lt 5000 ]; do echo $i; i=$((i+1)); done; exec sleep 1000";
    let spec = script(text);
    world.run(&spec).await;
    let (mut cursor, mut seen) = (LogCursor::default(), Vec::new());
    let deadline = Instant::now() + Duration::from_secs(30);
    while seen.len() < 5000 {
        assert!(Instant::now() < deadline, "{} lines", seen.len());
        let page = world.runtime.logs(&spec.id, LogQuery::After(cursor, 70)).await.unwrap();
        let said = page.lines.into_iter().filter(|line| line.stream == "stdout");
        seen.extend(said.map(|line| line.text));
        cursor = page.next;
    }
    let expected: Vec<String> = (0..5000).map(|number| number.to_string()).collect();
    assert_eq!(seen, expected);
    let files = fs::read_dir(world.instance_directory(&spec.id).join("log")).unwrap().count();
    assert!(files > 5, "{files}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_fills_no_disk_and_holds_up_nobody() {
    let limits = Limits {
        log_file_bytes: 64 << 10,
        log_files: 2,
        log_bytes_per_second: 256 << 10,
        log_burst_bytes: 256 << 10,
        ..Limits::default()
    };
    let world = World::with(limits);
    let flood = spec(&shell("exec yes a line of the flood"), 0);
    let endless = spec(&shell("exec cat /dev/zero"), 1);
    let quiet = spec(&shell("echo I am heard; exec sleep 1000"), 2);
    for spec in [&flood, &endless, &quiet] {
        world.run(spec).await;
    }
    world.wait_for_line(&quiet, "I am heard").await;
    world.wait_for_line(&flood, "lines were dropped here").await;
    for spec in [&flood, &endless, &quiet] {
        let log = world.instance_directory(&spec.id).join("log");
        let sizes = fs::read_dir(log).unwrap().flatten().map(|file| file.metadata().unwrap().len());
        assert!(sizes.sum::<u64>() <= 2 * (64 << 10) + (192 << 10));
        let found = world.wait(spec, runs).await;
        assert_eq!(found.restarts, 0);
    }
    world.stop(&flood).await;
    world.stop(&endless).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_streams_are_kept_with_their_names_and_strange_bytes_replaced() {
    let world = World::new();
    let text = "printf 'out \\377\\n'; echo err >&2; printf unfinished; exit 0";
    let spec = script(text);
    world.start(&spec).await;
    world.wait_for_line(&spec, "ended: exit code 0").await;
    let query = LogQuery::After(LogCursor::default(), 5);
    let page = world.runtime.logs(&spec.id, query).await.unwrap();
    let mut said: Vec<(&str, &str)> =
        page.lines.iter().map(|line| (line.stream.as_str(), line.text.as_str())).collect();
    said.retain(|(stream, _)| *stream != "switchback");
    said.sort_unstable();
    assert_eq!(said, [("stderr", "err"), ("stdout", "out \u{fffd}"), ("stdout", "unfinished")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_written_does_not_stop_the_instance() {
    let world = World::with(Limits { log_files: 1, ..Limits::default() });
    let spec = script("while :; do echo noise; sleep 0.01; done");
    // A directory in the place of the last file: it can neither be written nor removed.
    let obstacle = world.instance_directory(&spec.id).join("log").join("00000001.log");
    fs::create_dir_all(&obstacle).unwrap();
    let first = world.run(&spec).await;
    world.runtime.restart(&spec.id, "still obeys").await.unwrap();
    let again = world.wait(&spec, |found| runs(found) && found.restarts == 1).await;
    assert_ne!(again.process, first.process);
    fs::remove_dir(obstacle).unwrap();
    world.wait_for_line(&spec, "lines were dropped here").await;
    world.wait_for_line(&spec, "noise").await;
    world.stop(&spec).await;
    assert_eq!(world.processes(), [""; 0]);
}
