//! A route's entry in the router: which version gets a request that came to it, and why.

use std::time::Duration;

use switchback_domain::ServiceKey;
use switchback_domain::network::Network;
use switchback_domain::route::{Mirror, Observation, RouteMode};
use switchback_domain::seeded::bug;

use crate::RequestView;
use crate::cohort::{Cohorts, place};
use crate::condition::is_within;
use crate::selection::Selection;

/// What a request that matched a route needs.
#[derive(Debug)]
pub struct RouteEntry {
    /// Whose requests these are.
    pub service: ServiceKey,
    /// How long an instance may take to the response head.
    pub timeout: Duration,
    /// What an operator has the route do. A diverted one's versions are the other's already; the
    /// rest is the data plane's to do before it asks for a version.
    pub mode: RouteMode,
    /// The place in `Table::routes` of a route that does something about trouble.
    pub resilient: Option<usize>,
    /// Who answers in place of a candidate that cannot, as an index into `Table::arms`; only
    /// where the route wants that.
    pub baseline: Option<usize>,
    /// What is written down of its requests.
    pub observation: Observation,
    pub(crate) shares: Shares,
    pub(crate) steering: Option<Box<Steering>>,
}

/// (first place above this share, index into `Table::arms`), ascending; the candidate first.
pub(crate) type Shares = Vec<(u16, usize)>;

/// What beside shares decides, compiled.
#[derive(Debug, Default)]
pub(crate) struct Steering {
    /// The candidate, if requests may ask for it and it has instances.
    pub(crate) candidate: Option<usize>,
    /// Everything goes to the candidate.
    pub(crate) is_preview: bool,
    /// Requests of these kinds go to the candidate.
    pub(crate) to_candidate: Vec<Selection>,
    pub(crate) by_name: Option<ByName>,
    pub(crate) cohorts: Option<Cohorts>,
    pub(crate) mirror: Option<Mirror>,
}

/// A header that asks for a version.
#[derive(Debug)]
pub(crate) struct ByName {
    pub(crate) header: String,
    /// Who may ask; empty is everybody.
    pub(crate) source: Vec<Network>,
    /// What it may say, and the version meant.
    pub(crate) names: Vec<(String, usize)>,
}

/// The version that gets a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Which one, as an index into `Table::arms`.
    pub arm: usize,
    /// Why this one.
    pub reason: Reason,
    /// The client, when it is told apart from others: the same for all its requests while one
    /// rollout runs, of no meaning beyond it. What to count a client's first failure by.
    pub session: Option<u64>,
    /// The value of a `Set-Cookie` that the response is to carry; `; Secure` is to be added where
    /// the client came by TLS.
    pub set_cookie: Option<String>,
    /// Who is to get a copy of the request, as an index into `Table::arms`.
    pub mirror: Option<usize>,
}

/// Why a request goes to its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// There is no other.
    Only,
    /// By a draw of its own.
    Coin,
    /// By the client's place.
    Cohort,
    /// It came in by the preview's address or host.
    Preview,
    /// A header named the version.
    Named,
    /// A rule sends requests like this to the candidate.
    Rule,
}

impl Reason {
    /// Whether chance alone chose: only such requests tell how two versions compare.
    pub fn is_random(self) -> bool {
        match self {
            Self::Coin | Self::Cohort => true,
            Self::Only | Self::Preview | Self::Named | Self::Rule => false,
        }
    }
}

impl RouteEntry {
    /// Whether both treat every request alike, as far as that can be told simply.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.steering.is_none()
            && other.steering.is_none()
            && (self.resilient, other.resilient) == (None, None)
            && (&self.service, self.timeout) == (&other.service, other.timeout)
            && (&self.mode, &self.shares) == (&other.mode, &other.shares)
            && self.observation == other.observation
    }

    /// The arm, as an index into `Table::arms`, that gets the request with this coin, a number
    /// from 0 to 9,999; over all coins each arm gets exactly its weight. `None` when the route has
    /// no split.
    pub fn choose(&self, coin: u16) -> Option<usize> {
        let below = |(end, _): &&(u16, usize)| coin < *end || (coin == *end && bug("coin-one-off"));
        self.shares.iter().find(below).or_else(|| self.shares.last()).map(|(_, arm)| *arm)
    }

    /// The version that gets this request: the preview's, else the one a header names, else the
    /// one a rule names, else the one of the client's cohort, else the one that `random`, drawn
    /// evenly for this request alone, hits. `None` when there is no version.
    pub fn choose_for(&self, request: &RequestView<'_>, random: u64) -> Option<Assignment> {
        let Some(steering) = &self.steering else { return self.drawn(random) };
        if let Some((arm, reason)) = steering.asked_for(request) {
            return Some(assignment(arm, reason));
        }
        let mut chosen = match steering.cohorts.as_ref().and_then(|c| c.client(request, random)) {
            Some(client) => {
                let reason = if self.is_split() { Reason::Cohort } else { Reason::Only };
                let arm = self.choose(place(client.session))?;
                // With one version only there is nothing to stay with.
                let set_cookie = client.cookie.filter(|_| self.is_split());
                let session = Some(client.session);
                Assignment { session, set_cookie, ..assignment(arm, reason) }
            }
            None => self.drawn(random)?,
        };
        chosen.mirror = steering.mirrored(request, chosen.arm, random);
        Some(chosen)
    }

    /// Whether the trace of a request is to be recorded, if it begins with it. `random` is the
    /// number that it was routed by, of which this looks at what nothing else does.
    pub fn samples(&self, random: u64) -> bool {
        place(random << 48) < self.observation.trace_sample().basis_points()
    }

    fn drawn(&self, random: u64) -> Option<Assignment> {
        let reason = if self.is_split() { Reason::Coin } else { Reason::Only };
        self.choose(place(random)).map(|arm| assignment(arm, reason))
    }

    fn is_split(&self) -> bool {
        self.shares.len() > 1
    }
}

fn assignment(arm: usize, reason: Reason) -> Assignment {
    Assignment { arm, reason, session: None, set_cookie: None, mirror: None }
}

impl Steering {
    /// The version that the request itself asks for.
    fn asked_for(&self, request: &RequestView<'_>) -> Option<(usize, Reason)> {
        if self.is_preview {
            return self.candidate.map(|arm| (arm, Reason::Preview));
        }
        if let Some(arm) = self.by_name.as_ref().and_then(|by_name| by_name.arm(request)) {
            return Some((arm, Reason::Named));
        }
        let candidate = self.candidate?;
        let named = self.to_candidate.iter().any(|selection| selection.takes(request));
        named.then_some((candidate, Reason::Rule))
    }

    /// The candidate, if it is to get a copy of a request that goes to `arm`.
    fn mirrored(&self, request: &RequestView<'_>, arm: usize, random: u64) -> Option<usize> {
        let mirror = self.mirror?;
        let candidate = self.candidate.filter(|candidate| *candidate != arm)?;
        let safe = matches!(request.method, "GET" | "HEAD" | "OPTIONS");
        // The low half: the high one has chosen the version. Its last 16 bits are `samples`'.
        let drawn = place(random << 32) < mirror.fraction.basis_points();
        (drawn && (safe || mirror.unsafe_methods)).then_some(candidate)
    }
}

impl ByName {
    fn arm(&self, request: &RequestView<'_>) -> Option<usize> {
        let mut found = None;
        request.header(&self.header, &mut |value| {
            let named = self.names.iter().find(|(name, _)| name.as_bytes() == value);
            found = named.map(|(_, arm)| *arm);
            found.is_some()
        });
        found.filter(|_| self.source.is_empty() || is_within(&self.source, request))
    }
}
