//! Every interleaving of a few stories holds; and with anything taken away that swap and drain rely
//! on, one of them does not.

use std::thread;

use switchback_model::weakness::Weakness;
use switchback_model::world::Act::{Answer, Begin, End};
use switchback_model::world::{Script, explore};

/// One worker, with a request before the question, and one after.
static ONE_WORKER: Script = Script {
    tables: &[0, 1],
    workers: &[&[Begin, End, Answer, Begin, End]],
    interruptions: None,
    reports: true,
};

/// A request is still on its way when its worker answers.
static LONG_REQUEST: Script = Script {
    tables: &[0, 1],
    workers: &[&[Begin, Answer, End]],
    interruptions: None,
    reports: true,
};

/// Two workers; one of them answers amid its request.
static TWO_WORKERS: Script = Script {
    tables: &[0, 1],
    workers: &[&[Begin, Answer, End], &[Begin, Answer]],
    interruptions: Some(1),
    reports: false,
};

/// The version that left comes back while its last request goes on.
static BACK_AGAIN: Script = Script {
    tables: &[0, 1, 0, 1],
    workers: &[&[Begin, Answer, End, Answer, Begin, End, Answer]],
    interruptions: Some(3),
    reports: false,
};

static ALL: [&Script; 4] = [&ONE_WORKER, &LONG_REQUEST, &TWO_WORKERS, &BACK_AGAIN];

fn holds(script: &'static Script) {
    let began = std::time::Instant::now();
    match explore(script, None) {
        Ok(runs) => println!("{runs} interleavings in {:?}", began.elapsed()),
        Err(why) => panic!("{why}"),
    }
}

#[test]
fn one_worker_between_two_tables() {
    holds(&ONE_WORKER);
}

#[test]
fn a_request_that_outlives_the_answer() {
    holds(&LONG_REQUEST);
}

#[test]
fn two_workers_and_a_version_that_leaves() {
    holds(&TWO_WORKERS);
}

#[test]
fn a_version_that_comes_back_before_it_is_drained() {
    holds(&BACK_AGAIN);
}

#[test]
fn whatever_is_taken_away_is_noticed() {
    for weakness in Weakness::ALL {
        // A thread each: what a failed run leaves behind is gone with it.
        let noticed = thread::spawn(move || {
            ALL.iter().find_map(|script| explore(script, Some(weakness)).err())
        });
        let noticed = noticed.join().expect("failures are caught");
        let why = noticed.unwrap_or_else(|| panic!("{weakness:?} makes no difference"));
        println!("{weakness:?}: {why}");
    }
}
