//! What a simulation leaves behind: a fingerprint, marks of what was reached, and on demand a
//! timeline for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use switchback_domain::Timestamp;

/// Something interesting that was reached, as a kind and a detail: (`crash`, `Shifting`).
pub type Mark = (&'static str, &'static str);

/// A finished simulation.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// What everything followed from.
    pub seed: u64,
    /// Equal for equal runs.
    pub hash: u64,
    /// Events that the engine was told.
    pub events: u64,
    /// Messages that the control plane was told.
    pub messages: u64,
    /// Faults that struck.
    pub strikes: u64,
    /// What was reached, how often.
    pub marks: BTreeMap<Mark, u64>,
    /// Where rollouts were before and after which event.
    pub transitions: BTreeMap<Mark, BTreeSet<&'static str>>,
    /// What happened, a line each; only kept on demand.
    pub timeline: Vec<String>,
    keeps_timeline: bool,
}

impl Trace {
    pub(crate) fn new(seed: u64, keeps_timeline: bool) -> Self {
        Self { seed, keeps_timeline, hash: 0xCBF2_9CE4_8422_2325, ..Self::default() }
    }

    pub(crate) fn mark(&mut self, kind: &'static str, detail: &'static str) {
        *self.marks.entry((kind, detail)).or_default() += 1;
    }

    pub(crate) fn line(&mut self, at: Timestamp, text: impl FnOnce() -> String) {
        if self.keeps_timeline {
            let line = format!("{at} {}", text());
            self.timeline.push(line);
        }
    }

    pub(crate) fn fold(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.hash = (self.hash ^ number).wrapping_mul(0x0100_0000_01B3).rotate_left(23);
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {} events, hash {:016x}", self.seed, self.events, self.hash)?;
        self.timeline.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A seed under which something that must hold did not.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What did not hold.
    pub what: String,
    /// Up to there.
    pub trace: Box<Trace>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nseed {} failed: {}", self.trace, self.trace.seed, self.what)
    }
}
