//! Clients that were counted: two filters per rollout that all workers share. What is forgotten is
//! nothing; a client that is taken for known although it is not only loses evidence.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use switchback_analysis::sticky::places;

/// Bits of a filter: 1 MiB, enough for 800,000 clients at one false "known" in a hundred.
const BITS: u64 = 1 << 23;

/// See the module. Takes no room until the first client is asked for.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    seen: Filter,
    failed: Filter,
}

impl Sessions {
    /// Whether nothing was heard of this client before.
    pub(crate) fn is_first_seen(&self, session: u64) -> bool {
        self.seen.insert(session)
    }

    /// Whether nothing bad was heard of this client before.
    pub(crate) fn is_first_failed(&self, session: u64) -> bool {
        self.failed.insert(session)
    }
}

/// A Bloom filter, as `SeenSessions` of `switchback_analysis::sticky`, of bits that threads can share.
#[derive(Debug, Default)]
struct Filter(OnceLock<Box<[AtomicU64]>>);

impl Filter {
    /// Whether it was not in there.
    fn insert(&self, session: u64) -> bool {
        let words = self.0.get_or_init(|| (0..BITS / 64).map(|_| AtomicU64::new(0)).collect());
        let mut is_new = false;
        for bit in places(session, BITS) {
            let word = usize::try_from(bit / 64).ok().and_then(|at| words.get(at));
            let mask = 1 << (bit % 64);
            is_new |= word.is_some_and(|word| word.fetch_or(mask, Ordering::Relaxed) & mask == 0);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_new_once_and_few_are_lost() {
        let sessions = Sessions::default();
        let new = (0..100_000_u64).filter(|session| sessions.is_first_seen(*session)).count();
        assert!(new > 99_900, "{new}");
        assert!((0..100_000_u64).all(|session| !sessions.is_first_seen(session)));
        assert!(sessions.is_first_failed(7), "a filter of its own");
    }
}
