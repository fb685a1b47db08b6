//! Clients that stay with their version: each one's key is hashed to a place from 0 to 9,999, and
//! the candidate gets the places below its weight.
//!
//! So a growing weight only ever adds clients to it, in every data plane and after every restart,
//! and nothing has to be remembered. `SipHash` with a key per rollout: no client can tell from
//! one rollout where it will stand in the next.

use std::net::IpAddr;
use std::time::Duration;

use siphasher::sip::SipHasher24;
use switchback_domain::ServiceKey;
use switchback_domain::route::Affinity;

use crate::RequestView;

/// How the clients of one route are told apart.
#[derive(Debug)]
pub(crate) struct Cohorts {
    affinity: Affinity,
    hasher: SipHasher24,
}

/// A client that was told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    /// Names the client within its rollout.
    pub(crate) session: u64,
    /// What makes it keep the name, if it is new: the value of a `Set-Cookie`.
    pub(crate) cookie: Option<String>,
}

impl Cohorts {
    pub(crate) fn new(affinity: &Affinity, service: &ServiceKey, salt: &str) -> Self {
        let half = |side: u8| {
            let text = format!("switchback cohort {side}\0{service}\0{salt}");
            SipHasher24::new().hash(text.as_bytes())
        };
        let hasher = SipHasher24::new_with_keys(half(0), half(1));
        Self { affinity: affinity.clone(), hasher }
    }

    /// Who sent the request; `None` when it does not say. `random` names a client that is to get
    /// a name from us.
    pub(crate) fn client(&self, request: &RequestView<'_>, random: u64) -> Option<Client> {
        let known = self.session(request).map(|session| Client { session, cookie: None });
        let Affinity::OwnCookie { name, max_age } = &self.affinity else { return known };
        known.or_else(|| {
            let id = format!("{random:016x}");
            let session = self.hasher.hash(id.as_bytes());
            Some(Client { session, cookie: Some(set_cookie(name, &id, *max_age)) })
        })
    }

    fn session(&self, request: &RequestView<'_>) -> Option<u64> {
        let mut session = None;
        let mut first = |value: &[u8]| {
            session = (!value.is_empty()).then(|| self.hasher.hash(value));
            session.is_some()
        };
        let _found = match &self.affinity {
            Affinity::OwnCookie { name, .. } | Affinity::Cookie(name) => {
                request.cookie(name, &mut first)
            }
            Affinity::Header(name) => request.header(name, &mut first),
            Affinity::SourceIp => match request.client.to_canonical() {
                IpAddr::V4(address) => first(&address.octets()),
                IpAddr::V6(address) => first(&address.octets()),
            },
        };
        session
    }
}

/// A hash's place among 10,000: the same for all of a client's requests, and each as likely.
pub(crate) fn place(hash: u64) -> u16 {
    u16::try_from((u128::from(hash) * 10_000) >> 64).unwrap_or_default()
}

/// Without `Secure`, which only the data plane can tell.
fn set_cookie(name: &str, id: &str, max_age: Duration) -> String {
    let seconds = max_age.as_secs();
    format!("{name}={id}; Max-Age={seconds}; Path=/; HttpOnly; SameSite=Lax")
}
