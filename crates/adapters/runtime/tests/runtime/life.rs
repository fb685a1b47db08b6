//! An instance's ordinary life: what it is told, what it is asked, who finds it again.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchback_domain::workload::ConfigFile;
use switchback_domain::{Epoch, Generation};
use switchback_ports::Runtime;
use switchback_ports::runtime::conformance::{spec, wait_for};
use switchback_ports::runtime::{Error, LogQuery, ProcessState};
use switchback_runtime::Limits;

use crate::world::{World, executable, generation, pid_of, runs, script, shell};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_told_who_and_where_it_is() {
    let world = World::new();
    let text = "cat conf/a.txt; echo $GREETING $PORT; env | grep ^SWITCHBACK_ | sort; \
                  echo said-all; exec sleep 1000";
    let mut spec = script(text);
    let workload = Arc::make_mut(&mut spec.workload);
    workload.working_dir = "{{dir}}".to_owned();
    workload.env.insert("GREETING".to_owned(), "hello {{instance}}".to_owned());
    workload.env.insert("PORT".to_owned(), "1".to_owned());
    workload.config.push(ConfigFile {
        target: "conf/a.txt".to_owned(),
        content: "port {{port}} of {{dir}} {{other}}\n".to_owned(),
    });
    let address = world.run(&spec).await.address.unwrap();
    let lines = world.wait_for_line(&spec, "said-all").await;
    let dir = world.instance_directory(&spec.id).join("work").display().to_string();
    let (port, id) = (address.port(), &spec.id);
    for expected in [
        format!("port {port} of {dir} {{{{other}}}}"),
        format!("hello {id} {port}"),
        "SWITCHBACK_ENVIRONMENT=test".to_owned(),
        "SWITCHBACK_SERVICE=conformance".to_owned(),
        "SWITCHBACK_VERSION=v1".to_owned(),
        format!("SWITCHBACK_INSTANCE={id}"),
        format!("SWITCHBACK_DIR={dir}"),
    ] {
        assert!(lines.contains(&expected), "{expected} in {lines:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_file_cannot_leave_its_directory() {
    let world = World::new();
    let mut spec = script("exec sleep 1000");
    let target = "../../../escaped".to_owned();
    Arc::make_mut(&mut spec.workload).config.push(ConfigFile { target, content: "x".to_owned() });
    world.start(&spec).await;
    let held = world.wait(&spec, |instance| instance.last_exit.is_some()).await;
    assert!(held.last_exit.unwrap().contains("\"../../../escaped\": it must be"));
    assert!(!world.root().join("escaped").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_control_plane_adopts_what_runs() {
    let world = World::new();
    let spec = script("exec sleep 1000");
    let before = world.run(&spec).await;
    let next = world.another();
    assert_eq!(next.list().await.unwrap(), std::slice::from_ref(&before));
    let newer = Generation::first(Epoch(2));
    next.ensure_running(&spec, newer).await.unwrap();
    assert_eq!(next.list().await.unwrap(), [before]);
    next.restart(&spec.id, "adopted").await.unwrap();
    wait_for(&next, &spec.id, |instance| runs(instance) && instance.restarts == 1).await;
    let old = world.runtime.ensure_stopped(&spec.id, generation(9)).await;
    assert!(matches!(old, Err(Error::Fenced { .. })), "{old:?}");
    next.ensure_stopped(&spec.id, newer).await.unwrap();
    assert_eq!(world.processes(), [""; 0]);
    assert_eq!(world.runtime.list().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_control_planes_that_race_start_one_instance() {
    let world = World::new();
    for ordinal in 0..5 {
        let spec = spec(&shell("exec sleep 1000"), ordinal);
        let (left, right) = (world.another(), world.another());
        let (first, second) = tokio::join!(
            left.ensure_running(&spec, generation(1)),
            right.ensure_running(&spec, generation(1))
        );
        first.and(second).unwrap();
        world.wait(&spec, runs).await;
        // A shim that came second goes as soon as it finds that out.
        world.wait_for_processes(2).await;
        world.stop(&spec).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_instances_started_at_once_have_thirty_ports() {
    let world = World::new();
    let command = [executable().display().to_string(), "listen".to_owned()];
    let specs: Vec<_> = (0..30).map(|ordinal| spec(&command, ordinal)).collect();
    let starts = specs.iter().map(|spec| world.runtime.ensure_running(spec, generation(1)));
    // Joined by hand: all of them are on their way before the first is awaited.
    let mut starts: Vec<_> = starts.collect();
    let started = std::future::poll_fn(|context| {
        starts.retain_mut(|start| match start.as_mut().poll(context) {
            std::task::Poll::Ready(done) => {
                done.unwrap();
                false
            }
            std::task::Poll::Pending => true,
        });
        if starts.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    started.await;
    let mut ports = BTreeSet::new();
    for spec in &specs {
        let port = world.wait(spec, runs).await.address.unwrap().port();
        assert!((20_000..30_000).contains(&port), "{port}");
        ports.insert(port);
        world.wait_for_line(spec, "listening").await;
    }
    assert_eq!(ports.len(), 30);
    let listed = world.runtime.list().await.unwrap();
    assert!(listed.iter().all(|instance| runs(instance) && instance.restarts == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_is_kept_until_a_stranger_takes_it() {
    let world = World::new();
    let spec = script("exec sleep 1000");
    let first = world.run(&spec).await.address;
    world.runtime.restart(&spec.id, "once").await.unwrap();
    let second = world.wait(&spec, |instance| runs(instance) && instance.restarts == 1).await;
    assert_eq!(second.address, first);
    let stranger = TcpListener::bind(first.unwrap()).unwrap();
    world.runtime.restart(&spec.id, "twice").await.unwrap();
    let third = world.wait(&spec, |instance| runs(instance) && instance.restarts == 2).await;
    assert_ne!(third.address, first);
    drop(stranger);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_free_port_an_instance_waits_for_one() {
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port();
    let leases = tempfile::tempdir().unwrap();
    // All ports of the kernel's are left out, too: find one outside of its range.
    let free = (30_000..32_000).find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    let free = free.unwrap();
    let only = free.local_addr().unwrap().port();
    assert_ne!(only, port);
    let port_directory = Some(leases.path().join("ports"));
    let (port_first, port_last) = (only, only);
    let world = World::with(Limits { port_first, port_last, port_directory, ..Limits::default() });
    let spec = script("exec sleep 1000");
    world.start(&spec).await;
    let waiting = world.wait(&spec, |instance| instance.last_exit.is_some()).await;
    assert_eq!(waiting.last_exit, Some(format!("no port from {only} to {only} is free")));
    drop(free);
    assert_eq!(world.wait(&spec, runs).await.address.unwrap().port(), only);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_beside_an_instance_is_bounded_in_time_and_words() {
    let world = World::new();
    let spec = script("exec sleep 1000");
    world.run(&spec).await;
    let patience = Duration::from_secs(20);
    let execute = |script: &str, timeout| {
        let argv = shell(script);
        let (runtime, id) = (&world.runtime, &spec.id);
        async move { runtime.execute(id, &argv, timeout).await.unwrap() }
    };
    let told = execute("echo $SWITCHBACK_VERSION at {{port}} in {{instance}}", patience).await;
    let port = world.wait(&spec, runs).await.address.unwrap().port();
    assert!(told.passed);
    assert_eq!(told.detail, format!("v1 at {port} in {}", spec.id));
    let failed = execute("echo out; echo err >&2; exit 7", patience).await;
    assert!(!failed.passed && failed.detail.starts_with("exit code 7: "), "{}", failed.detail);
    assert!(failed.detail.contains("out") && failed.detail.contains("err"));
    let killed = execute("kill -9 $$", patience).await;
    assert_eq!(killed.detail, "killed by signal 9 (SIGKILL)");
    let flood = execute("yes | head -c 1000000; echo end; exit 1", patience).await;
    assert!(flood.detail.len() < 4200 && flood.detail.ends_with("end"));
    let hanging = execute("trap '' TERM; echo waiting; sleep 1000 & sleep 1000", patience / 100);
    assert_eq!(hanging.await.detail, "timed out after 200ms: waiting");
    let missing = ["./no-such".to_owned()];
    let missing = world.runtime.execute(&spec.id, &missing, patience).await.unwrap();
    let reason = "exit code 127: cannot execute \"./no-such\": No such file or directory";
    assert!(missing.detail.starts_with(reason), "{}", missing.detail);
    world.wait_for_processes(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_of_processor_and_memory_is_of_all_its_processes() {
    let world = World::new();
    let spec = script("(while :; do :; done) & while :; do :; done");
    world.run(&spec).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    let usage = async || world.runtime.usage(&spec.id).await.unwrap();
    while usage().await.cpu_seconds < 0.3 {
        assert!(Instant::now() < deadline);
        // sleep: processor time can only be read again; bounded by the deadline.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let before = usage().await;
    assert!(before.memory_bytes > 100_000, "{before:?}");
    world.runtime.restart(&spec.id, "to see that nothing is forgotten").await.unwrap();
    world.wait(&spec, |instance| runs(instance) && instance.restarts == 1).await;
    assert!(usage().await.cpu_seconds >= before.cpu_seconds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lets_the_last_worker_finish() {
    let world = World::new();
    let text = "sh -c 'trap \"\" TERM; echo up; sleep 0.5; echo worker done' & wait";
    let spec = script(text);
    world.run(&spec).await;
    world.wait_for_line(&spec, "up").await;
    world.stop(&spec).await;
    let page = world.runtime.logs(&spec.id, LogQuery::Tail(10)).await.unwrap();
    assert!(page.lines.iter().any(|line| line.text == "worker done"), "{page:?}");
    assert_eq!(world.processes(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_of_stopped_instances_are_kept_up_to_a_number() {
    let world = World::with(Limits { stopped_kept: 2, ..Limits::default() });
    let specs: Vec<_> = (0..4).map(|ordinal| spec(&shell("exec sleep 1000"), ordinal)).collect();
    for spec in &specs {
        world.run(spec).await;
        world.stop(spec).await;
    }
    let mut kept = Vec::new();
    for spec in &specs {
        kept.push(world.runtime.logs(&spec.id, LogQuery::Tail(1)).await.is_ok());
    }
    assert_eq!(kept, [false, false, true, true]);
    assert_eq!(fs::read_dir(world.root().join("supervision")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_while_it_waits_starts_it_at_once() {
    let world = World::with(Limits { backoff_min: Duration::from_mins(10), ..Limits::default() });
    let go = world.outside().join("go");
    let text = format!("test -e {} && exec sleep 1000", go.display());
    let spec = script(&text);
    world.start(&spec).await;
    let waits = |process: &ProcessState| matches!(process, ProcessState::BackingOff { .. });
    world.wait(&spec, |instance| waits(&instance.process)).await;
    fs::write(go, "").unwrap();
    world.runtime.restart(&spec.id, "it may go now").await.unwrap();
    assert!(pid_of(&world.wait(&spec, runs).await) > 0);
}
