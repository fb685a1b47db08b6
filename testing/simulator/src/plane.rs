//! The data plane: swaps whole tables in by generation, refuses older ones, answers.

use std::collections::BTreeSet;

use switchback_domain::{Generation, ReleaseId, Split};

/// A table as the control plane publishes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) generation: Generation,
    /// The engine's decision that it carries out.
    pub(crate) shift: u64,
    pub(crate) split: Split<ReleaseId>,
    /// Instances that may get requests.
    pub(crate) endpoints: BTreeSet<(ReleaseId, u32)>,
}

impl Default for Table {
    /// Nobody serves, before the first generation.
    fn default() -> Self {
        let (split, endpoints) = (Split::none(), BTreeSet::new());
        Self { generation: Generation::default(), shift: 0, split, endpoints }
    }
}

impl Table {
    /// Whether it says the same, at whatever generation.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        self.shift == other.shift && self.split == other.split && self.endpoints == other.endpoints
    }
}

/// What became of a table.
pub(crate) enum Arrival {
    /// It is served from now on; these got requests before and get none any more.
    Applied(Vec<(ReleaseId, u32)>),
    /// It was served already.
    Known,
    /// A newer one is served.
    Refused,
}

/// Serves one table.
#[derive(Default)]
pub(crate) struct Plane {
    pub(crate) table: Table,
}

impl Plane {
    pub(crate) fn receive(&mut self, table: Table) -> Arrival {
        if table.generation < self.table.generation {
            return Arrival::Refused;
        }
        if table.generation == self.table.generation {
            return Arrival::Known;
        }
        let before = std::mem::replace(&mut self.table, table);
        Arrival::Applied(before.endpoints.difference(&self.table.endpoints).cloned().collect())
    }
}
