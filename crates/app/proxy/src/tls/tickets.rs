//! Session tickets: what lets a client come back without a full handshake. All workers seal them
//! with the same keys, which outlive a change of certificates and can be handed to a successor.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

/// A key seals for this long, and opens for as long again: whoever steals one later reads no more
/// than that of what was recorded.
const ROTATION: Duration = Duration::from_hours(6);
const NAME_LENGTH: usize = 16;
const NONCE_LENGTH: usize = 12;
/// A ticket holds a client's certificates; more than this is not one of ours.
const TICKET_BYTES_MAX: usize = 32 * 1024;

/// The keys, to be handed to a successor over a channel nobody else reads.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKeys(Vec<TicketKey>);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct TicketKey {
    name: [u8; NAME_LENGTH],
    secret: [u8; 32],
    /// Seconds since 1970.
    made: u64,
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TicketKeys({} not shown)", self.0.len())
    }
}

/// All tickets of this process.
pub(crate) struct Tickets(Mutex<Ring>);

/// The newest key first; two at most.
struct Ring(Vec<Prepared>);

struct Prepared {
    key: TicketKey,
    cipher: Arc<RandomizedNonceKey>,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Tickets(keys not shown)")
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

impl TicketKey {
    /// `None` when the system gives no random bytes.
    fn generate(made: u64) -> Option<Self> {
        let (mut name, mut secret) = ([0; NAME_LENGTH], [0; 32]);
        rand::fill(&mut name).ok()?;
        rand::fill(&mut secret).ok()?;
        Some(Self { name, secret, made })
    }

    fn prepare(self) -> Option<Prepared> {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &self.secret).ok()?;
        Some(Prepared { key: self, cipher: Arc::new(cipher) })
    }
}

impl Tickets {
    /// With fresh keys, made when the first ticket is.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Ring(Vec::new()))))
    }

    /// Takes over the keys of a predecessor, so that its clients come back without a handshake.
    pub(crate) fn with_ticket_keys(&self, keys: TicketKeys) {
        let prepared = keys.0.into_iter().take(2).filter_map(TicketKey::prepare).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Ring(prepared);
    }

    /// The keys in use, for a successor: made now if there are none yet, so that tickets which this
    /// process gives out in its last hour open there, too.
    pub(crate) fn keys_for_a_successor(&self) -> TicketKeys {
        // Without random bytes there are no tickets, here or there.
        let _ = self.sealing(now());
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        TicketKeys(ring.0.iter().map(|prepared| prepared.key.clone()).collect())
    }

    /// The tickets of sessions under one policy. A ticket opens under no other, so nobody who was
    /// let in without a certificate comes back where one is asked for.
    pub(crate) fn under(self: &Arc<Self>, policy: [u8; 32]) -> Arc<dyn ProducesTickets> {
        Arc::new(UnderPolicy { tickets: Arc::clone(self), policy })
    }

    fn sealing(&self, now: u64) -> Option<([u8; NAME_LENGTH], Arc<RandomizedNonceKey>)> {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |newest: &Prepared| newest.key.made + ROTATION.as_secs() <= now;
        if ring.0.first().is_none_or(is_due) {
            let fresh = TicketKey::generate(now).and_then(TicketKey::prepare)?;
            ring.0.insert(0, fresh);
            ring.0.truncate(2);
        }
        let newest = ring.0.first()?;
        Some((newest.key.name, Arc::clone(&newest.cipher)))
    }

    fn opening(&self, name: &[u8], now: u64) -> Option<Arc<RandomizedNonceKey>> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let opens = |made: u64| now < made + 2 * ROTATION.as_secs();
        let found = ring.0.iter().find(|prepared| prepared.key.name == name)?;
        opens(found.key.made).then(|| Arc::clone(&found.cipher))
    }
}

#[derive(Debug)]
struct UnderPolicy {
    tickets: Arc<Tickets>,
    policy: [u8; 32],
}

impl ProducesTickets for UnderPolicy {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(ROTATION.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let (name, cipher) = self.tickets.sealing(now())?;
        let mut sealed = plain.to_vec();
        let nonce = cipher.seal_in_place_append_tag(Aad::from(self.policy), &mut sealed).ok()?;
        Some([&name[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (name, rest) = ticket.split_at_checked(NAME_LENGTH)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LENGTH)?;
        let cipher = self.tickets.opening(name, now())?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let plain = cipher.open_in_place(nonce, Aad::from(self.policy), &mut sealed).ok()?;
        Some(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_opens_with_the_keys_of_its_policy_only_also_in_a_successor() {
        let tickets = Tickets::new();
        let sealed = tickets.under([1; 32]).encrypt(b"session").unwrap();
        assert_eq!(tickets.under([1; 32]).decrypt(&sealed).as_deref(), Some(&b"session"[..]));
        assert_eq!(tickets.under([2; 32]).decrypt(&sealed), None, "another policy");
        let successor = Tickets::new();
        assert_eq!(successor.under([1; 32]).decrypt(&sealed), None);
        successor.with_ticket_keys(tickets.keys_for_a_successor());
        assert_eq!(successor.under([1; 32]).decrypt(&sealed).as_deref(), Some(&b"session"[..]));
        for end in 0..sealed.len() {
            assert_eq!(tickets.under([1; 32]).decrypt(&sealed[..end]), None);
        }
        assert!(!format!("{tickets:?} {:?}", tickets.keys_for_a_successor()).contains('['));
    }

    #[test]
    fn a_key_seals_for_one_period_and_opens_for_two() {
        let tickets = Tickets::new();
        let period = ROTATION.as_secs();
        let (first, _) = tickets.sealing(1_000).unwrap();
        assert_eq!(tickets.sealing(1_000 + period - 1).unwrap().0, first);
        assert_ne!(tickets.sealing(1_000 + period).unwrap().0, first);
        assert!(tickets.opening(&first, 1_000 + 2 * period - 1).is_some());
        assert!(tickets.opening(&first, 1_000 + 2 * period).is_none());
    }
}
