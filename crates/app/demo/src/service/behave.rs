//! What the service does by the clock: becoming ready, dying, hanging, flooding its log.

use std::io::Write as _;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::state::State;

/// How often a burst of the log flood is written.
const FLOOD_INTERVAL: Duration = Duration::from_millis(10);

/// Starts everything; it ends with the runtime, the flood with the state.
pub(super) fn start(state: &Arc<State>) {
    let behaviour = &state.options.behaviour;
    if !behaviour.never_ready {
        tokio::spawn(become_ready(state.clone()));
    }
    after(state, behaviour.crash_after, |state| state.crash("after the configured time"));
    after(state, behaviour.hang_after, State::hang);
    let lines = behaviour.log_lines_per_second;
    if lines > 0 {
        let state = Arc::downgrade(state);
        // A thread: a log that nobody reads must not stop the requests.
        std::thread::spawn(move || flood(&state, lines));
    }
}

async fn become_ready(state: Arc<State>) {
    let behaviour = &state.options.behaviour;
    tokio::time::sleep(behaviour.ready_delay).await;
    state.become_ready();
    if let Some(delay) = behaviour.die_after_ready {
        tokio::time::sleep(delay).await;
        state.crash("some time after it became ready");
    }
}

fn after(state: &Arc<State>, delay: Option<Duration>, then: fn(&State)) {
    let Some(delay) = delay else { return };
    let state = state.clone();
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        then(&state);
    });
}

fn flood(state: &Weak<State>, lines_per_second: u32) {
    let mut written: u64 = 0;
    while let Some(state) = state.upgrade() {
        let due = state.started.elapsed().as_secs_f64() * f64::from(lines_per_second);
        drop(state);
        let mut out = std::io::stdout().lock();
        #[allow(clippy::cast_precision_loss, reason = "a log of 2^52 lines takes too long")]
        while (written as f64) < due {
            written += 1;
            let line = writeln!(out, "line {written} of a log that says nothing, over and over");
            if line.is_err() {
                return;
            }
        }
        drop(out);
        std::thread::sleep(FLOOD_INTERVAL);
    }
}
