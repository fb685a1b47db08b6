//! Sticky sessions: the session was assigned, so the session is counted, by its first bad event.
//!
//! Counting every error of a sticky session as if it had a coin of its own gives 15 to 61 % false
//! rollbacks (design page, 3.5).

use serde::{Deserialize, Serialize};

/// Bits of the filter: 16 KiB, enough for 13,000 sessions with bad events at one false "seen" in a
/// hundred.
const BITS: u64 = 1 << 17;
/// Bits per session: the best number at that load is `ln 2 * bits / sessions`.
const PROBES: u64 = 7;

/// Where a session stands in a Bloom filter of so many bits. Its key has assigned the session, so
/// it is mixed once more: what is lost must not depend on the version.
pub fn places(key: u64, bits: u64) -> impl Iterator<Item = u64> {
    let first = mix(key);
    let step = mix(first) | 1;
    (0..PROBES).map(move |probe| first.wrapping_add(probe.wrapping_mul(step)) % bits)
}

/// Sessions that had their bad event: a Bloom filter of fixed size.
///
/// A session that is taken for seen although it is not only loses evidence: that depends on its
/// key and on the past, not on its label, as long as the key's hash is not the one that assigned
/// it. Keep one per kind of event and rollout.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SeenSessions {
    salt: u64,
    words: Vec<u64>,
}

impl SeenSessions {
    /// An empty filter. The salt must not be the one that the assignment hashes with.
    pub fn new(salt: u64) -> Self {
        Self { salt, words: vec![0; usize::try_from(BITS / 64).unwrap_or(0)] }
    }

    /// Whether this is the session's first bad event: count it if so. `session` is a hash of the
    /// session's key.
    pub fn is_first(&mut self, session: u64) -> bool {
        let mut is_new = false;
        for bit in places(session ^ self.salt, BITS) {
            let Some(word) = usize::try_from(bit / 64).ok().and_then(|at| self.words.get_mut(at))
            else {
                continue;
            };
            is_new |= *word >> (bit % 64) & 1 == 0;
            *word |= 1 << (bit % 64);
        }
        is_new
    }
}

/// The finalizer of `SplitMix64` (Steele, Lea and Flood 2014).
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mixer_is_split_mix() {
        // The first two numbers of SplitMix64 from seed 0.
        let golden = 0x9e37_79b9_7f4a_7c15_u64;
        assert_eq!(mix(golden), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(golden.wrapping_mul(2)), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn a_session_counts_once_and_few_are_lost() {
        let mut seen = SeenSessions::new(42);
        let counted = (1..=13_000_u64).filter(|session| seen.is_first(*session)).count();
        assert!(counted > 12_900, "{counted}");
        assert!((1..=13_000_u64).all(|session| !seen.is_first(session)));
    }
}
