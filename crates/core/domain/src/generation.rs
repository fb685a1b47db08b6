//! Order of writes to the world: whoever receives an older one refuses it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One life of a control plane. Each start takes the next epoch, so that writes of an earlier,
/// perhaps still running one are refused.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The next life.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A write's place in the order: epoch first, then a counter within the epoch.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Generation {
    /// The life of the control plane that wrote it.
    pub epoch: Epoch,
    /// Counts up within the epoch, from 1.
    pub counter: u64,
}

impl Generation {
    /// The first write of an epoch.
    pub const fn first(epoch: Epoch) -> Self {
        Self { epoch, counter: 1 }
    }

    /// The next write in `epoch`; restarts the counter when the epoch is newer.
    #[must_use]
    pub fn next_in(self, epoch: Epoch) -> Self {
        if epoch > self.epoch {
            return Self::first(epoch);
        }
        Self { epoch: self.epoch, counter: self.counter + 1 }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch.0, self.counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_epoch_beats_any_counter() {
        let old = Generation { epoch: Epoch(1), counter: 900 };
        assert!(Generation::first(Epoch(2)) > old);
        assert_eq!(old.next_in(Epoch(2)), Generation::first(Epoch(2)));
        assert!(old.next_in(Epoch(1)) > old);
    }
}
