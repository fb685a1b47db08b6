//! What every Runtime must do, as checks that panic when it does not. Adapters run [`check`] in
//! their tests against the real thing, the fake runs it against itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use switchback_domain::probe::{HealthChecks, Probe, ProbeAction};
use switchback_domain::workload::RuntimeKind;
use switchback_domain::{
    EnvironmentName, Epoch, Generation, InstanceId, ProjectName, ReleaseId, ServiceKey,
    ServiceName, Version, Workload,
};

use super::{Error, Instance, InstanceSpec, LogCursor, LogQuery, ProcessState, Runtime};

/// How long anything may take before it counts as never happening.
const PATIENCE: Duration = Duration::from_secs(30);
/// Looks again even if nobody said that something changed: logs do not.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// An instance description around a command, for conformance and other tests.
///
/// # Panics
/// Never: the names are fixed and valid.
pub fn spec(command: &[String], ordinal: u32) -> InstanceSpec {
    let key = ServiceKey::new(
        EnvironmentName::new("test").expect("a valid name"),
        ServiceName::new("conformance").expect("a valid name"),
    );
    let release = ReleaseId::from_stored("c0ffee00c0ffee00");
    let readiness = Probe {
        action: ProbeAction::Tcp,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        healthy_after: 1,
        unhealthy_after: 1,
    };
    let min_healthy_time = Duration::ZERO;
    InstanceSpec {
        id: InstanceId::new(&key, &release, ordinal),
        project: ProjectName::new("conformance").expect("a valid name"),
        key,
        release,
        version: Version::new("v1").expect("a valid version"),
        workload: Arc::new(Workload {
            runtime: RuntimeKind::Process,
            command: command.to_vec(),
            working_dir: "/".to_owned(),
            env: BTreeMap::new(),
            config: Vec::new(),
            health: HealthChecks { startup: None, liveness: None, readiness, min_healthy_time },
            route: None,
            stop_timeout: Duration::from_secs(5),
        }),
    }
}

/// Runs every check on an empty runtime. `spec` describes the instance of an ordinal: a process
/// that says at least one line when it starts, runs on, and ends on SIGTERM.
///
/// # Panics
/// When the runtime breaks its contract.
pub async fn check(runtime: &dyn Runtime, spec: &(dyn Fn(u32) -> InstanceSpec + Sync)) {
    running_twice_is_running_once(runtime, &spec(0)).await;
    a_restart_is_no_crash(runtime, &spec(1)).await;
    a_stopped_instance_leaves_its_log(runtime, &spec(2)).await;
    a_stopped_instance_can_run_again(runtime, &spec(3)).await;
    a_cursor_goes_on_where_it_was(runtime, &spec(4)).await;
    commands_run_beside_an_instance(runtime, &spec(5)).await;
    changes_are_announced(runtime, &spec(6)).await;
    unknown_instances_are_unknown(runtime, &spec(7)).await;
    a_command_that_does_not_end_fails_in_time(runtime, &spec(8)).await;
    a_start_nobody_waited_for_is_no_failure(runtime, &spec(9)).await;
    an_older_writer_is_fenced(runtime, &spec(10)).await;
    whoever_takes_charge_fences_everybody_before(runtime, &spec(11)).await;
}

/// Runs the checks of a runtime that ended and of the next one at the same place, which `again`
/// opens. Both are there at once: the first is never asked again.
///
/// # Panics
/// When the runtime breaks its contract.
pub async fn check_adoption(first: &dyn Runtime, again: &dyn Runtime, spec: &InstanceSpec) {
    first.ensure_running(spec, generation(1)).await.expect("it can be started");
    let before = wait_for(first, &spec.id, runs).await;
    let adopted = wait_for(again, &spec.id, runs).await;
    assert_eq!(adopted, before, "the same process, as it was asked for");
    again.ensure_running(spec, generation(2)).await.expect("it runs");
    assert_eq!(wait_for(again, &spec.id, runs).await, before, "nothing was started");
    let refused = again.ensure_stopped(&spec.id, Generation::first(Epoch(0))).await;
    let is_fenced = matches!(refused, Err(Error::Fenced { .. }));
    assert!(is_fenced, "what the first one had seen is remembered: {refused:?}");
    again.ensure_stopped(&spec.id, generation(2)).await.expect("it can be stopped");
    assert_eq!(find(again, &spec.id).await, None);
}

fn generation(counter: u64) -> Generation {
    Generation { epoch: Epoch(1), counter }
}

async fn find(runtime: &dyn Runtime, id: &InstanceId) -> Option<Instance> {
    let listed = runtime.list().await.expect("the runtime can be asked");
    let mut found = listed.into_iter().filter(|instance| instance.spec.id == *id);
    let first = found.next();
    assert!(found.next().is_none(), "{id} is listed twice");
    first
}

/// Waits until an instance is as wanted, and returns it.
///
/// # Panics
/// When that takes longer than 30 seconds.
pub async fn wait_for(
    runtime: &dyn Runtime,
    id: &InstanceId,
    wanted: impl Fn(&Instance) -> bool,
) -> Instance {
    let mut last = None;
    let look = async {
        loop {
            last = find(runtime, id).await;
            if let Some(found) = last.as_ref().filter(|found| wanted(found)) {
                return found.clone();
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, runtime.changed()).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, look).await;
    found.unwrap_or_else(|_| panic!("{id} did not become as wanted; last seen: {last:?}"))
}

fn runs(instance: &Instance) -> bool {
    matches!(instance.process, ProcessState::Running { .. })
}

async fn run(runtime: &dyn Runtime, spec: &InstanceSpec) -> Instance {
    runtime.ensure_running(spec, generation(1)).await.expect("it can be started");
    wait_for(runtime, &spec.id, runs).await
}

async fn stop(runtime: &dyn Runtime, id: &InstanceId) {
    runtime.ensure_stopped(id, generation(1)).await.expect("it can be stopped");
    assert_eq!(find(runtime, id).await, None, "{id} is stopped");
}

async fn running_twice_is_running_once(runtime: &dyn Runtime, spec: &InstanceSpec) {
    let race = async {
        tokio::join!(
            runtime.ensure_running(spec, generation(1)),
            runtime.ensure_running(spec, generation(1))
        )
    };
    let (first, second) = race.await;
    first.and(second).expect("both calls succeed");
    let before = wait_for(runtime, &spec.id, runs).await;
    runtime.ensure_running(spec, generation(1)).await.expect("again");
    let after = wait_for(runtime, &spec.id, runs).await;
    assert_eq!(after, before);
    assert_eq!((&after.spec, after.restarts, after.last_exit), (spec, 0, None));
    assert!(after.address.is_some(), "a running instance has an address");
    stop(runtime, &spec.id).await;
}

async fn a_restart_is_no_crash(runtime: &dyn Runtime, spec: &InstanceSpec) {
    let before = run(runtime, spec).await;
    for count in 1..=4 {
        runtime.restart(&spec.id, "conformance").await.expect("it can be restarted");
        let after = wait_for(runtime, &spec.id, |instance| {
            let backs_off = matches!(instance.process, ProcessState::BackingOff { .. });
            assert!(!backs_off, "a restart is at once: {instance:?}");
            runs(instance) && instance.restarts == count
        })
        .await;
        assert_ne!(after.process, before.process, "it is another process");
        assert!(after.last_exit.is_some(), "the old one ended");
    }
    stop(runtime, &spec.id).await;
}

async fn texts(runtime: &dyn Runtime, id: &InstanceId, query: LogQuery) -> Vec<String> {
    let page = runtime.logs(id, query).await.expect("there is a log");
    page.lines.into_iter().map(|line| line.text).collect()
}

/// Waits until the log has more than `count` lines; returns them all.
async fn await_lines(runtime: &dyn Runtime, id: &InstanceId, count: usize) -> Vec<String> {
    let look = async {
        loop {
            let lines = texts(runtime, id, LogQuery::After(LogCursor::default(), 1000)).await;
            if lines.len() > count {
                return lines;
            }
            // sleep: a log can only be read again; bounded by the caller.
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("the instance says something")
}

async fn a_stopped_instance_leaves_its_log(runtime: &dyn Runtime, spec: &InstanceSpec) {
    run(runtime, spec).await;
    let lines = await_lines(runtime, &spec.id, 0).await;
    stop(runtime, &spec.id).await;
    stop(runtime, &spec.id).await;
    let kept = texts(runtime, &spec.id, LogQuery::Tail(1000)).await;
    assert!(kept.starts_with(&lines), "{kept:?} goes on from {lines:?}");
}

async fn a_stopped_instance_can_run_again(runtime: &dyn Runtime, spec: &InstanceSpec) {
    run(runtime, spec).await;
    stop(runtime, &spec.id).await;
    let again = run(runtime, spec).await;
    assert_eq!(again.restarts, 0, "a new life");
    stop(runtime, &spec.id).await;
}

async fn a_cursor_goes_on_where_it_was(runtime: &dyn Runtime, spec: &InstanceSpec) {
    run(runtime, spec).await;
    await_lines(runtime, &spec.id, 0).await;
    let page = runtime.logs(&spec.id, LogQuery::Tail(1)).await.expect("there is a log");
    assert_eq!(page.lines.len(), 1);
    runtime.restart(&spec.id, "conformance").await.expect("it can be restarted");
    wait_for(runtime, &spec.id, |instance| runs(instance) && instance.restarts == 1).await;
    stop(runtime, &spec.id).await;
    let newer = texts(runtime, &spec.id, LogQuery::After(page.next.clone(), 1000)).await;
    assert!(!newer.is_empty(), "the restart left lines");
    let all = texts(runtime, &spec.id, LogQuery::Tail(1000)).await;
    assert!(all.ends_with(&newer) && all.len() > newer.len());
    let first = runtime.logs(&spec.id, LogQuery::After(page.next, 1)).await.expect("a page");
    assert_eq!(first.lines.len(), 1, "no more than asked for");
    let rest = texts(runtime, &spec.id, LogQuery::After(first.next, 1000)).await;
    assert_eq!([vec![first.lines[0].text.clone()], rest].concat(), newer);
}

async fn commands_run_beside_an_instance(runtime: &dyn Runtime, spec: &InstanceSpec) {
    run(runtime, spec).await;
    for (program, passes) in [("true", true), ("false", false)] {
        let argv = [program.to_owned()];
        let result = runtime.execute(&spec.id, &argv, PATIENCE).await.expect("it can run");
        assert_eq!(result.passed, passes, "{program}: {}", result.detail);
    }
    stop(runtime, &spec.id).await;
}

async fn a_command_that_does_not_end_fails_in_time(runtime: &dyn Runtime, spec: &InstanceSpec) {
    run(runtime, spec).await;
    let argv = ["sleep".to_owned(), "1000".to_owned()];
    let call = runtime.execute(&spec.id, &argv, LOOK_AGAIN);
    let result = tokio::time::timeout(PATIENCE, call).await.expect("it is given up");
    assert!(result.is_ok_and(|result| !result.passed), "too late is failed");
    stop(runtime, &spec.id).await;
}

/// The answer may be lost; what was asked for may have happened. Asking again finds out.
async fn a_start_nobody_waited_for_is_no_failure(runtime: &dyn Runtime, spec: &InstanceSpec) {
    let call = runtime.ensure_running(spec, generation(1));
    let _ = tokio::time::timeout(Duration::ZERO, call).await;
    let found = run(runtime, spec).await;
    assert_eq!((found.restarts, found.last_exit), (0, None), "started once");
    stop(runtime, &spec.id).await;
}

async fn changes_are_announced(runtime: &dyn Runtime, spec: &InstanceSpec) {
    // What was announced before is not what is waited for here.
    while tokio::time::timeout(LOOK_AGAIN, runtime.changed()).await.is_ok() {}
    let (announced, started) = tokio::join!(
        tokio::time::timeout(PATIENCE, runtime.changed()),
        runtime.ensure_running(spec, generation(1))
    );
    started.expect("it can be started");
    announced.expect("a start is a change");
    stop(runtime, &spec.id).await;
    tokio::time::timeout(PATIENCE, runtime.changed()).await.expect("a stop is a change");
}

async fn unknown_instances_are_unknown(runtime: &dyn Runtime, spec: &InstanceSpec) {
    let id = &spec.id;
    let unknown = |error: Error| assert!(matches!(error, Error::Unknown(_)), "{error}");
    unknown(runtime.restart(id, "x").await.expect_err("unknown"));
    unknown(runtime.usage(id).await.expect_err("unknown"));
    unknown(runtime.logs(id, LogQuery::Tail(1)).await.expect_err("unknown"));
    unknown(runtime.execute(id, &["true".to_owned()], PATIENCE).await.expect_err("unknown"));
    runtime.ensure_stopped(id, generation(1)).await.expect("stopped already");
}

async fn an_older_writer_is_fenced(runtime: &dyn Runtime, spec: &InstanceSpec) {
    run(runtime, spec).await;
    let newer = Generation::first(Epoch(2));
    runtime.ensure_running(spec, newer).await.expect("a newer writer takes over");
    refuses(runtime, spec, generation(1), newer).await;
    runtime.ensure_stopped(&spec.id, newer).await.expect("the newer writer may");
}

async fn whoever_takes_charge_fences_everybody_before(runtime: &dyn Runtime, spec: &InstanceSpec) {
    let (older, newer) = (Generation::first(Epoch(2)), Generation::first(Epoch(3)));
    runtime.ensure_running(spec, older).await.expect("it is in charge");
    wait_for(runtime, &spec.id, runs).await;
    runtime.take_charge(newer).await.expect("a newer one takes over, and writes nothing");
    refuses(runtime, spec, older, newer).await;
    is_fenced(runtime.take_charge(older).await, older, newer);
    runtime.take_charge(newer).await.expect("once more changes nothing");
    runtime.ensure_stopped(&spec.id, newer).await.expect("the newer writer may");
}

/// No write of a generation is taken, and the instance runs on.
async fn refuses(runtime: &dyn Runtime, spec: &InstanceSpec, old: Generation, newer: Generation) {
    is_fenced(runtime.ensure_stopped(&spec.id, old).await, old, newer);
    is_fenced(runtime.ensure_running(spec, old).await, old, newer);
    assert!(find(runtime, &spec.id).await.is_some_and(|found| runs(&found)), "it still runs");
}

fn is_fenced(result: Result<(), Error>, old: Generation, newer: Generation) {
    match result.expect_err("too old") {
        Error::Fenced { given, seen } => assert_eq!((given, seen), (old, newer)),
        other @ (Error::Unknown(_) | Error::Failed { .. } | Error::Unavailable(_)) => {
            panic!("not fenced: {other}")
        }
    }
}
