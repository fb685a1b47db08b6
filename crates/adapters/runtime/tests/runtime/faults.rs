//! Everything that goes wrong: bad commands, bad processes, killed processes, killed shims.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use switchback_ports::Runtime;
use switchback_ports::runtime::{Instance, LogQuery, ProcessState};

use crate::world::{World, pid_of, runs, script, send};

fn crash_loops(instance: &Instance) -> bool {
    matches!(instance.process, ProcessState::BackingOff { crash_loop: true, .. })
}

fn is_lost(instance: &Instance) -> bool {
    instance.process == ProcessState::Lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_exits_at_once_is_in_a_crash_loop() {
    let world = World::new();
    let spec = script("echo no; exit 3");
    world.start(&spec).await;
    let found = world.wait(&spec, crash_loops).await;
    assert_eq!(found.last_exit.as_deref(), Some("exit code 3"));
    assert!(found.restarts >= 2);
    world.stop(&spec).await;
    assert_eq!(world.processes(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_later_is_started_again() {
    let world = World::new();
    let spec = script("sleep 0.2; exit 1");
    let first = world.run(&spec).await;
    let backs_off = |instance: &Instance| {
        matches!(instance.process, ProcessState::BackingOff { crash_loop: false, .. })
    };
    world.wait(&spec, backs_off).await;
    let again = world.wait(&spec, |instance| runs(instance) && instance.restarts == 1).await;
    assert_ne!(pid_of(&again), pid_of(&first));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_cannot_be_executed_says_why() {
    let world = World::new();
    let plain = world.outside().join("plain");
    fs::write(&plain, "not a program").unwrap();
    let directory = world.outside().display().to_string();
    for (program, working_dir, reason) in [
        ("./server", &directory, "cannot execute \"./server\": No such file or directory"),
        ("no-such-program", &directory, "cannot execute \"no-such-program\": No such file"),
        ("./plain", &directory, "cannot execute \"./plain\": Permission denied (os error 13)"),
        ("true", &"/no/where".to_owned(), "cannot enter working directory \"/no/where\": No such"),
        ("", &directory, "the command is empty"),
    ] {
        let mut spec = script("");
        let workload = Arc::make_mut(&mut spec.workload);
        workload.command = vec![program.to_owned()];
        workload.working_dir.clone_from(working_dir);
        world.start(&spec).await;
        let found = world.wait(&spec, crash_loops).await;
        assert!(found.last_exit.as_ref().unwrap().starts_with(reason), "{:?}", found.last_exit);
        world.stop(&spec).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ignores_sigterm_is_killed_after_its_time() {
    let world = World::new();
    let mut spec = script("trap '' TERM INT HUP; echo deaf; while :; do sleep 1000; done");
    Arc::make_mut(&mut spec.workload).stop_timeout = Duration::from_millis(300);
    world.run(&spec).await;
    world.wait_for_line(&spec, "deaf").await;
    let started_at = Instant::now();
    world.stop(&spec).await;
    assert!(started_at.elapsed() >= Duration::from_millis(300));
    assert_eq!(world.processes(), [""; 0]);
    let page = world.runtime.logs(&spec.id, LogQuery::Tail(10)).await.unwrap();
    let said: Vec<_> = page.lines.iter().map(|line| line.text.as_str()).collect();
    assert!(said.contains(&"ended: killed by signal 9 (SIGKILL)"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_is_started_again_without_its_leftovers() {
    let world = World::new();
    let spec = script("(trap '' TERM; exec sleep 1000) & echo up; wait");
    let first = world.run(&spec).await;
    world.wait_for_line(&spec, "up").await;
    world.wait_for_processes(3).await;
    send(pid_of(&first), Signal::KILL);
    let again = world.wait(&spec, |instance| runs(instance) && instance.restarts == 1).await;
    assert_eq!(again.last_exit.as_deref(), Some("killed by signal 9 (SIGKILL)"));
    world.wait_for_processes(3).await;
}

/// A process with two more that hear nothing, one of them in a session of its own.
const STUBBORN_FAMILY: &str = "trap '' TERM INT HUP; sleep 1000 & setsid sleep 1000 & \
                               echo up; while :; do sleep 1000; done";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_shim_leaves_no_orphan_and_is_replaced() {
    let world = World::new();
    let spec = script(STUBBORN_FAMILY);
    let first = world.run(&spec).await;
    world.wait_for_line(&spec, "up").await;
    world.wait_for_processes(5).await;
    let shim = world.shim(&spec.id);
    send(shim, Signal::KILL);
    world.wait(&spec, is_lost).await;
    world.wait_for_processes(0).await;
    let again = world.run(&spec).await;
    assert_ne!(pid_of(&again), pid_of(&first));
    assert_eq!((again.restarts, again.address), (1, first.address));
    assert_ne!(world.shim(&spec.id), shim);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_shim_takes_its_process_with_it_even_if_nobody_looks() {
    let world = World::new();
    let spec = script("exec sleep 1000");
    world.run(&spec).await;
    send(world.shim(&spec.id), Signal::KILL);
    world.wait_for_processes(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_a_shim_wakes_the_control_plane() {
    let world = World::new();
    let spec = script("exec sleep 1000");
    world.run(&spec).await;
    // What was announced before is not what is waited for here.
    let quiet = Duration::from_millis(200);
    while tokio::time::timeout(quiet, world.runtime.changed()).await.is_ok() {}
    send(world.shim(&spec.id), Signal::KILL);
    let woken = tokio::time::timeout(Duration::from_secs(30), world.runtime.changed()).await;
    assert!(woken.is_ok(), "nobody said that the shim is dead");
    // One instance, lost and looked at, does not keep the control plane busy.
    world.wait(&spec, is_lost).await;
    while tokio::time::timeout(quiet, world.runtime.changed()).await.is_ok() {}
    world.runtime.list().await.unwrap();
    assert!(tokio::time::timeout(quiet, world.runtime.changed()).await.is_err());
}

/// A dying shim closes its files before it counts as dead: looking in between is looking too soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_looks_only_when_woken_sees_every_death() {
    let world = World::new();
    let spec = script("exec sleep 1000");
    let quiet = Duration::from_millis(100);
    for _ in 0..10 {
        world.run(&spec).await;
        while tokio::time::timeout(quiet, world.runtime.changed()).await.is_ok() {}
        send(world.shim(&spec.id), Signal::KILL);
        while !world.runtime.list().await.unwrap().iter().all(is_lost) {
            let woken = tokio::time::timeout(Duration::from_secs(5), world.runtime.changed()).await;
            assert!(woken.is_ok(), "the death was looked at too soon, and never again");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_shim_left_is_stopped_with_the_instance() {
    let world = World::new();
    let spec = script(STUBBORN_FAMILY);
    world.run(&spec).await;
    world.wait_for_line(&spec, "up").await;
    world.wait_for_processes(5).await;
    send(world.shim(&spec.id), Signal::KILL);
    world.stop(&spec).await;
    assert_eq!(world.processes(), [""; 0]);
    assert_eq!(world.runtime.list().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_that_was_stopped_can_be_stopped_for_good() {
    let world = World::new();
    let spec = script("exec sleep 1000");
    world.run(&spec).await;
    send(world.shim(&spec.id), Signal::STOP);
    world.stop(&spec).await;
    // It went on, and did what it was told: it was not killed.
    world.wait_for_line(&spec, "stopped").await;
    assert_eq!(world.processes(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_with_the_id_of_a_dead_shim_is_left_alone() {
    let world = World::new();
    let spec = script("exec sleep 1000");
    world.run(&spec).await;
    let mut state = world.state(&spec.id);
    send(world.shim(&spec.id), Signal::KILL);
    world.wait(&spec, is_lost).await;
    // Processes are told apart by when they started, in ticks of 10 ms. A process id is not used
    // again within one, but this test would be that quick.
    // sleep: a tick has to pass.
    tokio::time::sleep(Duration::from_millis(30)).await;
    // The leader of a session, as the shim was, with a child.
    let mut stranger = Family(
        Command::new("setsid")
            .args(["sh", "-c", "sleep 1000 & wait"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    state["shim"]["pid"] = stranger.0.id().into();
    fs::write(world.state_file(&spec.id), state.to_string()).unwrap();
    let next = world.another();
    assert_eq!(next.list().await.unwrap()[0].process, ProcessState::Lost);
    world.run(&spec).await;
    send(world.shim(&spec.id), Signal::KILL);
    world.wait(&spec, is_lost).await;
    fs::write(world.state_file(&spec.id), state.to_string()).unwrap();
    world.stop(&spec).await;
    assert!(stranger.0.try_wait().unwrap().is_none(), "the stranger was killed");
}

/// The leader of a session and of a group; the group ends with the test.
struct Family(Child);

impl Drop for Family {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_made_instance_is_repaired_or_removed() {
    let world = World::new();
    let spec = script("exec sleep 1000");
    let directory = world.instance_directory(&spec.id);
    fs::create_dir(&directory).unwrap();
    assert_eq!(world.runtime.list().await.unwrap(), []);
    world.stop(&spec).await;
    assert!(!directory.exists());
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("spec.json"), "{\"id\":").unwrap();
    world.run(&spec).await;
    world.stop(&spec).await;
    assert!(!directory.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_instance_gets_its_lost_description_back() {
    let world = World::new();
    let spec = script("exec sleep 1000");
    let before = world.run(&spec).await;
    fs::remove_file(world.instance_directory(&spec.id).join("spec.json")).unwrap();
    assert_eq!(world.runtime.list().await.unwrap(), []);
    assert_eq!(world.run(&spec).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_was_interrupted_is_finished_before_a_new_start() {
    let world = World::new();
    let spec = script("exec sleep 1000");
    let first = world.run(&spec).await;
    fs::write(world.instance_directory(&spec.id).join("stopping"), "").unwrap();
    let listed = world.runtime.list().await.unwrap();
    assert_eq!(listed[0].process, ProcessState::Stopping);
    let again = world.run(&spec).await;
    assert_ne!(pid_of(&again), pid_of(&first));
    assert_eq!(again.restarts, 0);
    world.wait_for_processes(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binary_that_is_no_shim_is_an_error_and_not_a_hang() {
    let world = World::new();
    let spec = script("exec sleep 1000");
    let mut options = world.options.clone();
    options.executable = "/bin/false".into();
    let broken = switchback_runtime::ProcessRuntime::new(options).unwrap();
    let error = broken.ensure_running(&spec, crate::world::generation(1)).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.starts_with("its supervisor ended"), "{cause}");
    assert_eq!(broken.list().await.unwrap()[0].process, ProcessState::Lost);
    world.run(&spec).await;
}
