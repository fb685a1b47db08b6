//! A token bucket for each client, in bounded memory.
//!
//! A table of fixed size, four places to a set. Whoever finds no place of its own takes the one
//! that is full again the soonest: that client loses the memory of a burst long past. An attacker
//! with very many addresses can make it forget more; it never takes more memory, and nobody is
//! held to another's count.

use std::time::Duration;

use crate::{Bucket, Moment};

const WAYS: usize = 4;

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    client: u64,
    full_at: Moment,
}

/// See the module.
#[derive(Debug)]
pub struct ClientBuckets {
    bucket: Bucket,
    sets: Vec<[Place; WAYS]>,
}

impl ClientBuckets {
    /// Room for `clients`, at least.
    pub fn new(bucket: Bucket, clients: usize) -> Self {
        Self { bucket, sets: vec![[Place::default(); WAYS]; clients.div_ceil(WAYS).max(1)] }
    }

    /// Takes one request out of a client's bucket, or tells how long to wait. `client` is a hash
    /// that nobody outside can choose.
    pub fn take(&mut self, client: u64, now: Moment) -> Result<(), Duration> {
        let sets = self.sets.len() as u64;
        let Some(set) = usize::try_from(client % sets).ok().and_then(|at| self.sets.get_mut(at))
        else {
            return Ok(());
        };
        let own = set.iter().position(|place| place.client == client);
        let soonest = || (0..WAYS).min_by_key(|at| set[*at].full_at).unwrap_or_default();
        let at = own.unwrap_or_else(soonest);
        let full_at = if own.is_some() { set[at].full_at } else { Moment::default() };
        let full_at = self.bucket.take(full_at, now)?;
        set[at] = Place { client, full_at };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use switchback_domain::resilience::Rate;

    use super::*;

    fn buckets(clients: usize) -> ClientBuckets {
        let rate = Rate { requests: 1, per: Duration::from_secs(1), burst: 2 };
        ClientBuckets::new(Bucket::new(&rate), clients)
    }

    fn at(seconds: u64) -> Moment {
        Moment::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn each_client_has_its_own() {
        let mut all = buckets(1_000);
        assert!(all.take(7, at(9)).is_ok() && all.take(7, at(9)).is_ok());
        assert_eq!(all.take(7, at(9)), Err(Duration::from_secs(1)));
        assert!(all.take(8, at(9)).is_ok());
        assert!(all.take(7, at(10)).is_ok());
    }

    #[test]
    fn those_who_come_again_are_remembered_before_those_who_do_not() {
        let mut all = buckets(4);
        assert!(all.take(1, at(9)).is_ok() && all.take(1, at(9)).is_ok());
        for passer_by in 100..110 {
            assert!(all.take(passer_by, at(9)).is_ok());
        }
        assert!(all.take(1, at(9)).is_err(), "the fullest bucket is the last to be forgotten");
    }

    proptest! {
        #[test]
        fn it_never_grows_and_never_holds_one_to_anothers_count(
            clients in prop::collection::vec(any::<u64>(), 1..300),
        ) {
            let mut all = buckets(16);
            let mut seen = std::collections::BTreeMap::new();
            for client in clients {
                let count = seen.entry(client).or_insert(0);
                *count += 1;
                prop_assert!(all.take(client, at(5)).is_ok() || *count > 2);
                prop_assert_eq!(all.sets.len(), 4);
            }
        }
    }
}
