//! The last good answers of a route, in bounded memory, for when nobody answers.
//!
//! Whether an answer may be kept at all is for whoever sees its head to say; this is the shelf.

use std::collections::BTreeMap;
use std::time::Duration;

use switchback_domain::resilience::StalePolicy;

use crate::Moment;

/// Beside its bytes, what an answer costs: its place in two maps.
const OVERHEAD: usize = 256;

/// An answer that was kept.
#[derive(Debug, Clone)]
pub struct Kept<V> {
    /// It.
    pub answer: V,
    bytes: usize,
    at: Moment,
    order: u64,
}

/// See the module. `V` is an answer in the data plane's form.
#[derive(Debug)]
pub struct StaleStore<V> {
    policy: StalePolicy,
    kept: BTreeMap<String, Kept<V>>,
    /// By when they came, the oldest first.
    oldest: BTreeMap<u64, String>,
    bytes: usize,
    came: u64,
}

impl<V> StaleStore<V> {
    /// An empty one.
    pub fn new(policy: StalePolicy) -> Self {
        Self { policy, kept: BTreeMap::new(), oldest: BTreeMap::new(), bytes: 0, came: 0 }
    }

    /// How large one answer with its key may be.
    pub fn bytes_max(&self) -> usize {
        usize::try_from(self.policy.bytes).unwrap_or(usize::MAX).saturating_sub(OVERHEAD)
    }

    /// Keeps an answer of so many bytes in the place of the last one with its key; the oldest make
    /// room. One that is too large is not kept, and neither is its predecessor.
    pub fn put(&mut self, key: String, answer: V, bytes: usize, now: Moment) {
        self.remove(&key);
        let bytes = bytes.saturating_add(key.len()).saturating_add(OVERHEAD);
        let room = usize::try_from(self.policy.bytes).unwrap_or(usize::MAX);
        if bytes > room {
            return;
        }
        while self.bytes + bytes > room
            && let Some((_, key)) = self.oldest.pop_first()
        {
            self.remove(&key);
        }
        self.came += 1;
        self.bytes += bytes;
        self.oldest.insert(self.came, key.clone());
        self.kept.insert(key, Kept { answer, bytes, at: now, order: self.came });
    }

    /// The answer with this key and its age, if it is not too old.
    pub fn get(&self, key: &str, now: Moment) -> Option<(&V, Duration)> {
        let kept = self.kept.get(key)?;
        let age = now.since(kept.at);
        (age <= self.policy.max_age).then_some((&kept.answer, age))
    }

    /// Forgets an answer: a newer one may not be kept.
    pub fn remove(&mut self, key: &str) {
        if let Some(gone) = self.kept.remove(key) {
            self.bytes -= gone.bytes;
            self.oldest.remove(&gone.order);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn store(bytes: u32) -> StaleStore<u32> {
        StaleStore::new(StalePolicy { max_age: Duration::from_mins(1), bytes })
    }

    fn at(seconds: u64) -> Moment {
        Moment::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn the_newest_is_given_until_it_is_too_old() {
        let mut store = store(10_000);
        store.put("/a".to_owned(), 1, 10, at(0));
        store.put("/a".to_owned(), 2, 10, at(10));
        assert_eq!(store.get("/a", at(70)), Some((&2, Duration::from_mins(1))));
        assert_eq!(store.get("/a", at(71)), None);
        assert_eq!(store.get("/b", at(11)), None);
        store.put("/a".to_owned(), 3, 20_000, at(20));
        assert_eq!(store.get("/a", at(21)), None, "the old one is not the last one any more");
        assert_eq!(store.bytes, 0);
    }

    proptest! {
        #[test]
        fn it_never_holds_more_than_it_may(
            puts in prop::collection::vec((0_u8..20, 0_usize..3_000), 1..100),
        ) {
            let mut store = store(5_000);
            for (n, (key, bytes)) in puts.into_iter().enumerate() {
                store.put(key.to_string(), 0, bytes, at(n as u64));
                let sum: usize = store.kept.values().map(|kept| kept.bytes).sum();
                prop_assert_eq!(sum, store.bytes);
                prop_assert!(sum <= 5_000);
                prop_assert_eq!(store.kept.len(), store.oldest.len());
            }
        }
    }
}
