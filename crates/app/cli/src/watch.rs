//! Watches rollouts to their ends: over restarts of the control plane, until Ctrl-C. Prints what
//! happens; what it adds up to is for the caller to say.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use switchback_api::client::{Client, Error, Progress, RECONNECT_FOR_MAX};
use switchback_api::{Problem, RolloutDetail, RolloutEvent, RolloutOutcome, RolloutSummary, exit};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::output::Output;
use crate::render::{outcome, progress};
use crate::stop::Stop;

/// Time between two redraws without news: seconds pass on the screen.
const REDRAW_EVERY: Duration = Duration::from_secs(1);
/// Time between two lines of counts without a terminal.
const COUNTS_EVERY_MS: u64 = 10_000;
/// Pause before a control plane that did not answer is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// News waiting to be printed; the streams wait when there are more.
const NEWS_WAITING_MAX: usize = 256;

/// How watching ended.
#[derive(Debug)]
pub(crate) enum Watched {
    /// Every rollout has ended.
    Ended(Vec<RolloutDetail>),
    /// Ctrl-C: they go on.
    Interrupted,
}

/// How a rollout should end for the command to have succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hoped {
    /// The candidate serves.
    Promoted,
    /// It was taken back, because that was asked for.
    TakenBack,
}

impl Hoped {
    /// The exit code for how a rollout ended.
    pub(crate) fn exit(self, outcome: Option<RolloutOutcome>) -> u8 {
        match (outcome, self) {
            (Some(RolloutOutcome::Promoted), Self::Promoted)
            | (Some(RolloutOutcome::RolledBack | RolloutOutcome::Withdrawn), Self::TakenBack) => {
                exit::OK
            }
            (
                Some(
                    RolloutOutcome::Promoted
                    | RolloutOutcome::RolledBack
                    | RolloutOutcome::Withdrawn
                    | RolloutOutcome::Superseded,
                )
                | None,
                Self::Promoted | Self::TakenBack,
            ) => exit::FAILED,
        }
    }
}

/// Now, on the wall clock, in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Watches one rollout to its end, prints how it ended, and returns the exit code.
pub(crate) async fn to_end(
    client: &Client,
    rollout: &str,
    hoped: Hoped,
    output: &mut Output,
) -> Result<u8, Problem> {
    match rollouts(client, &[rollout.to_owned()], output).await? {
        Watched::Interrupted => Ok(exit::INTERRUPTED),
        Watched::Ended(details) => {
            let Some(detail) = details.first() else { return Ok(exit::INTERNAL) };
            output.lines(outcome::lines(detail, output.look()));
            output.document(&detail.summary);
            Ok(hoped.exit(detail.summary.outcome))
        }
    }
}

/// Watches rollouts until all have ended.
pub(crate) async fn rollouts(
    client: &Client,
    ids: &[String],
    output: &mut Output,
) -> Result<Watched, Problem> {
    let mut stop = Stop::listen()?;
    let (tell, mut news) = mpsc::channel(NEWS_WAITING_MAX);
    let mut tasks = JoinSet::new();
    for (index, id) in ids.iter().enumerate() {
        tasks.spawn(follow(client.clone(), id.clone(), index, tell.clone()));
    }
    drop(tell);
    let mut watch = Watch::new(ids.len());
    while !output.is_closed() {
        tokio::select! {
            item = news.recv() => match item {
                Some((index, item)) => watch.take(index, item?, output),
                None => break,
            },
            () = stop.wanted() => {
                output.finish_block();
                output.note(format!(
                    "no longer watching: {} goes on; `switchback status` shows it", ids.join(", ")
                ));
                return Ok(Watched::Interrupted);
            }
            () = tokio::time::sleep(REDRAW_EVERY) => {}
        }
        output.draw(&watch.block(output));
    }
    output.finish_block();
    let mut details = Vec::with_capacity(ids.len());
    for id in ids {
        tokio::select! {
            detail = detail(client, id) => details.push(detail?),
            () = stop.wanted() => return Ok(Watched::Interrupted),
        }
    }
    Ok(Watched::Ended(details))
}

/// How a rollout ended, also when the control plane is away just now.
async fn detail(client: &Client, id: &str) -> Result<RolloutDetail, Error> {
    let begun = Instant::now();
    loop {
        match client.rollout(id).await {
            Err(error) if error.is_passing() && begun.elapsed() < RECONNECT_FOR_MAX => {
                tokio::time::sleep(ASK_AGAIN_AFTER).await;
            }
            result => return result,
        }
    }
}

type News = (usize, Result<Progress, Error>);

/// Passes on what following a rollout brings, until its end or an error.
async fn follow(client: Client, id: String, index: usize, tell: mpsc::Sender<News>) {
    let mut follow = client.follow(&id);
    loop {
        let item = follow.next().await;
        let last = matches!(item, Ok(Progress::Ended) | Err(_));
        if tell.send((index, item)).await.is_err() || last {
            return;
        }
    }
}

/// What is known about the rollouts that are watched.
struct Watch {
    rollouts: Vec<Seen>,
}

/// What is known about one of them.
#[derive(Default)]
struct Seen {
    summary: Option<RolloutSummary>,
    /// The newest probe or verdict, for the block.
    newest: Option<String>,
    lost: bool,
    ended: bool,
    /// When the counts were printed last.
    counts_said_ms: Option<u64>,
}

impl Watch {
    fn new(count: usize) -> Self {
        Self { rollouts: (0..count).map(|_| Seen::default()).collect() }
    }

    /// Takes news in and prints what stays on the screen.
    fn take(&mut self, index: usize, item: Progress, output: &mut Output) {
        let many = self.rollouts.len() > 1;
        let Some(rollout) = self.rollouts.get_mut(index) else { return };
        match item {
            Progress::Event(event) => rollout.event(&event, many, output),
            Progress::Lost => {
                rollout.lost = true;
                output.note("the control plane does not answer; connecting again ...");
            }
            Progress::Back => {
                rollout.lost = false;
                output.note("the control plane is back");
            }
            Progress::Ended => rollout.ended = true,
        }
    }

    fn block(&self, output: &Output) -> Vec<String> {
        let running = self.rollouts.iter().filter(|rollout| !rollout.ended);
        let blocks = running.filter_map(|rollout| {
            let summary = rollout.summary.as_ref()?;
            let newest = rollout.newest.as_deref();
            Some(progress::block(summary, newest, rollout.lost, now_ms(), output.look()))
        });
        blocks.flatten().collect()
    }
}

impl Seen {
    fn event(&mut self, event: &RolloutEvent, many: bool, output: &mut Output) {
        output.event(event);
        // On a terminal the block shows weights, probes and counts as they are now.
        let passing = matches!(event.kind.as_str(), "weight" | "probe" | "progress");
        if matches!(event.kind.as_str(), "probe" | "verdict") {
            self.newest = Some(event.text.clone());
        }
        if !(passing && output.is_interactive()) && self.is_due(event) {
            for line in progress::lines(event, many, output.look()) {
                output.progress(line);
            }
        }
        self.ended = event.kind == "ended";
        self.summary = Some(event.summary.clone());
    }

    /// Counts come every second: lines that stay show them now and then only.
    fn is_due(&mut self, event: &RolloutEvent) -> bool {
        if event.kind != "progress" {
            return true;
        }
        let last = self.counts_said_ms.unwrap_or(event.summary.started_ms);
        let is_due = event.at_ms.saturating_sub(last) >= COUNTS_EVERY_MS;
        if is_due {
            self.counts_said_ms = Some(event.at_ms);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::Global;
    use crate::output::testing;
    use crate::render::samples;

    #[test]
    fn exit_codes_follow_what_was_hoped_for() {
        use RolloutOutcome::{Promoted, RolledBack, Superseded, Withdrawn};
        let exits = |hoped: Hoped| {
            [Some(Promoted), Some(RolledBack), Some(Withdrawn), Some(Superseded), None]
                .map(|outcome| hoped.exit(outcome))
        };
        assert_eq!(exits(Hoped::Promoted), [0, 1, 1, 1, 1]);
        assert_eq!(exits(Hoped::TakenBack), [1, 0, 0, 1, 1]);
    }

    #[test]
    fn a_terminal_keeps_weights_in_the_block_and_plain_output_prints_them() {
        for (interactive, printed) in [(true, false), (false, true)] {
            let (mut output, out, _) = testing::output(&Global::default(), interactive);
            let mut watch = Watch::new(1);
            let event = samples::event(7, "weight", "weight 25%");
            watch.take(0, Progress::Event(Box::new(event)), &mut output);
            assert_eq!(out.text().contains("weight 25%"), printed);
            assert!(watch.block(&output).join("\n").contains("weight 25%"));
        }
    }

    #[test]
    fn counts_are_printed_now_and_then() {
        let (mut output, out, _) = testing::output(&Global::default(), false);
        let mut watch = Watch::new(1);
        for second in 0..30 {
            let at_ms = 1_000 + second * 1_000;
            let event = RolloutEvent { at_ms, ..samples::event(0, "progress", "counts") };
            watch.take(0, Progress::Event(Box::new(event)), &mut output);
        }
        assert_eq!(out.text().matches("counts").count(), 2, "{}", out.text());
    }

    #[test]
    fn events_are_json_lines_when_asked_for() {
        let global = Global { json: true, events: true, ..Global::default() };
        let (mut output, out, _) = testing::output(&global, false);
        let event = samples::event(7, "weight", "weight 25%");
        Watch::new(1).take(0, Progress::Event(Box::new(event.clone())), &mut output);
        assert_eq!(serde_json::from_str::<RolloutEvent>(&out.text()).unwrap(), event);
    }
}
