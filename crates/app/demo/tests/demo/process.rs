//! The service as a process of its own: SIGTERM, its log, its exit code.

use std::io::{BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use switchback_demo::{ServiceOptions, service};

use crate::support::{get, until_ready};

const SETTINGS: &str = "DEMO_TEST_SETTINGS";

/// A part that other tests play in a child: without its setting there is nothing to do.
#[test]
fn part_of_a_service_process() {
    let Ok(settings) = std::env::var(SETTINGS) else { return };
    let options = ServiceOptions::from_environment(settings.split_whitespace()).unwrap();
    println!("exit code {}", service::run(options).unwrap());
}

struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
}

impl Process {
    fn start(settings: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "process::part_of_a_service_process", "--nocapture"]);
        command.env(SETTINGS, settings).env("PORT", "0").env("SWITCHBACK_VERSION", "v5");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = until(&mut lines, "v5 listening on ");
        let address = line.split_whitespace().last().unwrap().parse().unwrap();
        Self { child, lines, address }
    }

    fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(lines: &mut Lines<BufReader<ChildStdout>>, words: &str) -> String {
    let found = lines.by_ref().map_while(Result::ok).find(|line| line.contains(words));
    found.unwrap_or_else(|| panic!("the log ended without {words:?}"))
}

#[tokio::test]
async fn stops_on_sigterm() {
    let mut process = Process::start("");
    until_ready(process.address).await;
    assert!(get(process.address, "/").await.body.starts_with("v5 "));
    process.terminate();
    until(&mut process.lines, "SIGTERM received");
    until(&mut process.lines, "exit code 0");
    assert!(process.child.wait().unwrap().success());
}

#[tokio::test]
async fn ignores_sigterm_for_ever() {
    let mut process = Process::start("slow_stop=forever");
    until_ready(process.address).await;
    process.terminate();
    until(&mut process.lines, "SIGTERM received");
    assert_eq!(get(process.address, "/").await.status, 200);
    assert!(process.child.try_wait().unwrap().is_none());
}

#[tokio::test]
async fn floods_its_log_and_still_answers() {
    let mut process = Process::start("log_lines_per_second=20000");
    for number in [1, 1000, 5000] {
        until(&mut process.lines, &format!("line {number} of a log"));
    }
    // Nobody reads the log now: it fills up, and the requests do not care.
    until_ready(process.address).await;
    assert_eq!(get(process.address, "/").await.status, 200);
}

#[tokio::test]
async fn leaks_memory_that_can_be_seen() {
    let process = Process::start("leak_kib=1024");
    until_ready(process.address).await;
    let resident_kib = || {
        let path = format!("/proc/{}/status", process.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = resident_kib();
    for _ in 0..20 {
        assert_eq!(get(process.address, "/").await.status, 200);
    }
    assert!(resident_kib() >= before + 19 * 1024, "{before} KiB, then {}", resident_kib());
}

#[test]
fn exits_with_the_code_of_the_crash() {
    let mut process = Process::start("crash_after=100ms");
    until(&mut process.lines, "crashed after the configured time");
    until(&mut process.lines, "exit code 101");
}
