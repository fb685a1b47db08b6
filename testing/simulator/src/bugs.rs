//! Bugs on purpose: for each of them, how many schedules it takes until it is noticed.
//!
//! The places are calls of `switchback_domain::seeded::bug` in the code that is shipped; without
//! the feature `seeded-bugs` they are nothing.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// Schedules run with each bug, at most.
pub const SCHEDULES: u64 = 20_000;
/// After so many schedules that fail, the rate is known well enough.
#[cfg(feature = "seeded-bugs")]
const ENOUGH: u64 = 20;

/// A bug and what it does.
pub type Bug = (&'static str, &'static str);

/// Every bug there is.
pub const BUGS: &[Bug] = &[
    ("weight-before-ready", "gives a version weight before its instances are ready"),
    ("shift-unacknowledged", "goes on before the data plane has acknowledged a shift"),
    ("promoted-unready", "promotes with too few ready instances"),
    ("approval-skipped", "does not wait for an approval"),
    ("pause-cut-short", "ends a timed pause early"),
    ("pause-ignored", "goes on while paused"),
    ("hold-back-forgotten", "stops the old version without the hold-back time"),
    ("revision-skipped", "skips a revision's number"),
    ("analysis-skipped", "does not wait for the judge"),
    ("acknowledged-blindly", "takes any acknowledgement for one of the newest shift"),
    ("stuck-for-ever", "stays stuck when its need is met"),
    ("way-back-unverified", "begins although the way back is blocked"),
    ("hook-ignored", "takes a failed hook for one that passed"),
    ("undecided-passes", "takes \"undecided\" for a pass"),
    ("gone-unnoticed", "does not notice that the last instance is gone"),
    ("back-before-capacity", "shifts back before the old version can carry it"),
    ("shrink-before-shift", "stops the candidate before its traffic is gone"),
    ("back-unacknowledged", "stops the candidate before the data plane has left it"),
    ("baseline-not-restored", "does not bring the old version back to strength"),
    ("never-says-stuck", "never says that it is stuck"),
    ("queue-forgets", "accepts a request and forgets it"),
    ("superseded-dropped", "drops a superseded rollout instead of taking it back"),
    ("batch-counted-twice", "counts requests twice that it was told of twice"),
    ("pause-in-full", "adds the whole pause to what moved during it"),
    ("resumed-into-deadline", "resumes into a deadline that passed during the pause"),
    ("alarm-forgotten", "sets no alarm clock for deadlines"),
    ("promotes-unasked", "promotes by itself where somebody has to say so"),
    ("one-too-few", "lets a rolling update run on one instance too few"),
    ("retired-kept", "keeps versions that nobody needs"),
    ("last-good-dropped", "forgets the version to go back to"),
    ("release-dropped", "forgets what a kept revision was made of"),
    ("rest-rounded", "rounds the rest of a split"),
    ("share-rounded-down", "rounds down the instances that a share needs"),
    ("errors-uncounted", "does not count 5xx as failures"),
    ("samples-ignored", "judges without enough samples"),
    ("step-hurried", "judges before the step's time is over"),
    ("coin-one-off", "is off by one when it assigns a request"),
    ("snapshot-of-before", "writes the state before the event as the snapshot after it"),
    ("doubt-forgotten", "takes a write without an answer for one that did not happen"),
    ("clock-set-back", "lets the journal's time go back after a reboot"),
    ("act-before-persist", "acts on an event that was not written"),
    ("unanswered-is-unserved", "takes a table without an answer for one that is not served"),
    ("on-its-way-forgotten", "forgets the table that is on its way when it stops instances"),
    ("old-figures-taken", "takes old figures for proof that nothing is on its way"),
    ("weights-not-compared", "publishes only when instances change"),
    ("older-journal-believed", "takes what an older copy of the journal says for what there is"),
    ("any-answer-taken", "takes any answer for one about the table that is on its way"),
    ("generation-kept", "publishes another table under the same generation"),
    ("stopped-while-served", "stops instances that the data plane still serves"),
    ("drain-skipped", "stops instances amid their requests"),
    ("failed-start-kept", "does not try a failed start again"),
    ("start-never-over", "does not start again what died right after its start"),
    ("born-ready", "takes a new instance for ready"),
    ("share-to-nobody", "leaves a share with a version that has nobody"),
    ("degraded-for-ever", "does not find out that the journal can be written again"),
];

/// What became of one bug.
#[derive(Debug, Clone)]
pub struct Caught {
    /// Which.
    pub bug: Bug,
    /// How many schedules it took, from 1; `None` if it was not noticed.
    pub first: Option<u64>,
    /// In so many schedules it was noticed.
    pub failures: u64,
    /// Of so many.
    pub schedules: u64,
}

/// What became of all.
#[derive(Debug, Clone, Default)]
pub struct Hunt {
    caught: Vec<Caught>,
}

impl Hunt {
    /// Whether there were bugs and each was noticed.
    pub fn all_caught(&self) -> bool {
        !self.caught.is_empty() && self.caught.iter().all(|caught| caught.first.is_some())
    }

    fn median(&self) -> Option<u64> {
        let mut firsts: Vec<_> = self.caught.iter().filter_map(|caught| caught.first).collect();
        firsts.sort_unstable();
        firsts.get(firsts.len() / 2).copied()
    }

    /// As one JSON document.
    pub fn document(&self) -> Value {
        let row = |caught: &Caught| {
            json!({
                "bug": caught.bug.0,
                "what": caught.bug.1,
                "caught_in_schedule": caught.first,
                "failing": caught.failures,
                "schedules": caught.schedules,
            })
        };
        let found = self.caught.iter().filter(|caught| caught.first.is_some()).count();
        json!({
            "bugs": self.caught.len(),
            "caught": found,
            "median_schedule": self.median(),
            "table": self.caught.iter().map(row).collect::<Vec<_>>(),
        })
    }

    /// As a table in Markdown.
    pub fn table(&self) -> String {
        let mut text = String::from("| Bug | What it does | Caught in schedule | Failing |\n");
        text.push_str("| --- | --- | ---: | ---: |\n");
        for Caught { bug: (name, what), first, failures, schedules } in &self.caught {
            let first = first.map_or_else(|| "not".to_owned(), |first| first.to_string());
            let _ = writeln!(text, "| `{name}` | {what} | {first} | {failures} of {schedules} |");
        }
        let found = self.caught.iter().filter(|caught| caught.first.is_some()).count();
        let median = self.median().map_or_else(String::new, |median| median.to_string());
        let _ = write!(text, "\n{found} of {} caught, median schedule {median}", self.caught.len());
        text
    }
}

/// Runs up to `schedules` schedules with each bug, or with one of them.
#[cfg(feature = "seeded-bugs")]
pub fn hunt(schedules: u64, threads: usize, only: Option<&str>) -> Hunt {
    use switchback_domain::seeded::switch_on;

    let wanted = BUGS.iter().filter(|(name, _)| only.is_none_or(|only| *name == only));
    let search = |bug: &Bug| {
        let name = bug.0;
        let prepare = move || switch_on(Some(name));
        let found = crate::campaign::find_failures(0, schedules, threads, ENOUGH, prepare);
        let (first, failures, ran) = found;
        Caught { bug: *bug, first: first.map(|index| index + 1), failures, schedules: ran }
    };
    Hunt { caught: wanted.map(search).collect() }
}

/// Without the feature `seeded-bugs` there are none.
#[cfg(not(feature = "seeded-bugs"))]
pub fn hunt(_schedules: u64, _threads: usize, _only: Option<&str>) -> Hunt {
    Hunt::default()
}
