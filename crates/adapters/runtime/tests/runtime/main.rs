//! The process runtime against real processes: its contract, and every fault it must outlive.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod faults;
mod life;
mod output;
mod world;

use world::{World, script, shell};

use switchback_ports::runtime::conformance;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_runtime_keeps_the_contract() {
    let world = World::new();
    let command = shell("echo hello from $SWITCHBACK_INSTANCE; exec sleep 1000");
    conformance::check(&world.runtime, &|ordinal| conformance::spec(&command, ordinal)).await;
    assert_eq!(world.processes(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_runtime_at_the_same_place_takes_over_what_runs() {
    let world = World::new();
    let spec = script("exec sleep 1000");
    conformance::check_adoption(&world.runtime, &world.another(), &spec).await;
    assert_eq!(world.processes(), [""; 0]);
}
