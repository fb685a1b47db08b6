//! What decides where a request goes, beside address, host, path prefix and weight.
//!
//! Data only: `core/config` makes it, the route table carries it, `core/routing` goes by it.
//! Everything here may be left out, in stored records too: releases made before it keep their id.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::network::Network;
use crate::resilience::Resilience;
use crate::{ReleaseId, ServiceKey, Weight};

/// The header testers ask for a version with, unless the configuration names another.
pub const VERSION_HEADER: &str = "x-switchback-version";

/// How the requests of a route are told apart and given to versions. The default asks nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteRules {
    /// Only requests that fit one of these; empty takes all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<RequestMatch>,
    /// Requests that fit one of these go to the candidate while there is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to_candidate: Vec<RequestMatch>,
    /// What keeps a client with one version; without it every request is drawn anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Whether a header may ask for a version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_header: Option<VersionHeader>,
    /// Where the candidate alone answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
    /// Which requests the candidate gets a copy of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// What clients get in maintenance mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
    /// How long and how many requests a pause holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<PauseLimits>,
    /// How it copes with trouble; `None` is the default of it all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resilience: Option<Box<Resilience>>,
    /// What is written down of its requests.
    #[serde(skip_serializing_if = "Observation::is_default")]
    pub observation: Observation,
}

impl RouteRules {
    /// Whether nothing is asked.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// These rules while a release with the rules of `candidate` is brought in: which requests
    /// the service takes, and how it copes with trouble, stays as it is: a candidate does not
    /// choose what hides its failures. How requests are shared is the candidate's to say.
    #[must_use]
    pub fn steered_by(&self, candidate: &Self) -> Self {
        Self {
            matches: self.matches.clone(),
            maintenance: self.maintenance.clone(),
            pause: self.pause,
            resilience: self.resilience.clone(),
            observation: self.observation,
            ..candidate.clone()
        }
    }
}

/// What is written down of a route's requests, beside counting them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Observation {
    /// How each is written to the data plane's access log; `None` keeps them out of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<LogFormat>,
    /// The share of the traces begun here that are marked to be recorded; `None` is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_sample: Option<Weight>,
}

/// How a request looks in the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// A JSON object.
    Json,
    /// The Common Log Format.
    Common,
}

impl Observation {
    /// What W3C calls sampled, where the configuration does not say: enough to look into, not
    /// enough to pay for.
    pub const TRACE_SAMPLE: Weight = Weight::from_percent(1);

    /// Whether nothing is asked.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The share of traces begun here that are marked to be recorded.
    pub fn trace_sample(&self) -> Weight {
        self.trace_sample.unwrap_or(Self::TRACE_SAMPLE)
    }
}

/// One way to fit: everything in it holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestMatch {
    /// The path, below the route's prefix; `None` takes all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// The rest.
    #[serde(skip_serializing_if = "Conditions::is_empty")]
    pub when: Conditions,
}

/// Which paths, as the client sent them (percent-encoding is left alone).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathMatch {
    /// This one.
    Exact(String),
    /// This one and those below it.
    Prefix(String),
    /// Those that this expression fits from the first to the last character.
    Regex(String),
}

/// What must hold of a request beside its host and path; all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// One of these methods; empty takes all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Headers by name in lower case; of several lines one has to fit.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, TextMatch>,
    /// Cookies by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cookies: BTreeMap<String, TextMatch>,
    /// Parameters of the query by name, both decoded.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, TextMatch>,
    /// The client is in one of these networks; empty takes all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<Network>,
}

impl Conditions {
    /// Whether everything fits.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// How many things must hold.
    pub fn count(&self) -> usize {
        let lists = usize::from(!self.methods.is_empty()) + usize::from(!self.source.is_empty());
        lists + self.headers.len() + self.cookies.len() + self.query.len()
    }
}

/// What a text must be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextMatch {
    /// This.
    Exact(String),
    /// Something that starts so.
    Prefix(String),
    /// Something this expression fits from the first to the last character.
    Regex(String),
    /// Anything (`true`), or not there at all (`false`).
    Present(bool),
}

/// What tells one client from another, so that it stays with its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Affinity {
    /// A cookie that the data plane sets when a client has none.
    OwnCookie {
        /// Its name.
        name: String,
        /// How long the client keeps it.
        #[serde(with = "crate::time::millis", rename = "max_age_ms")]
        max_age: Duration,
    },
    /// A cookie that the service sets.
    Cookie(String),
    /// A header, by its name in lower case.
    Header(String),
    /// The client's address.
    SourceIp,
}

/// A header that asks for a version by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionHeader {
    /// The header, in lower case.
    pub header: String,
    /// Who may ask; empty is everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<Network>,
}

/// Where the candidate answers alone while there is one, and otherwise what serves. At least one
/// of the two is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Preview {
    /// An address of its own; `None` is the route's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Host names of its own; none takes every host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

/// Copies of requests for the candidate, whose answers nobody sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// The share of the baseline's requests that is copied.
    pub fraction: Weight,
    /// Also copies requests that may change something.
    #[serde(default)]
    pub unsafe_methods: bool,
}

/// What clients get instead of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// The body; empty for the data plane's own.
    #[serde(default)]
    pub page: String,
    /// When they should come again.
    #[serde(with = "crate::time::millis", rename = "retry_after_ms")]
    pub retry_after: Duration,
}

impl Default for Maintenance {
    /// The data plane's own page, and a minute.
    fn default() -> Self {
        Self { page: String::new(), retry_after: Duration::from_mins(1) }
    }
}

/// How much a pause holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseLimits {
    /// How long a request waits at most.
    #[serde(with = "crate::time::millis", rename = "deadline_ms")]
    pub deadline: Duration,
    /// How many wait at most; more are answered 503 at once.
    pub cap: u32,
}

impl Default for PauseLimits {
    /// A thousand requests, half a minute each.
    fn default() -> Self {
        Self { deadline: Duration::from_secs(30), cap: 1_000 }
    }
}

/// What an operator has a route do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteMode {
    /// Serves.
    #[default]
    Serve,
    /// Tells clients to come again later.
    Maintenance(Maintenance),
    /// Refuses every request at once.
    Isolate,
    /// Gives all requests to somebody else.
    Divert {
        /// Whom.
        to: Destination,
    },
    /// Holds requests back until it ends.
    Pause(PauseLimits),
}

/// Who gets diverted requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// A version of the same service. Another region is one whose instances are its entries.
    Version(ReleaseId),
    /// Another service, by its own split.
    Service(ServiceKey),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_nothing_is_written_as_nothing() {
        assert_eq!(serde_json::to_string(&RouteRules::default()).unwrap(), "{}");
        assert_eq!(serde_json::from_str::<RouteRules>("{}").unwrap(), RouteRules::default());
        assert!(RouteRules::default().is_default());
    }

    #[test]
    fn rules_survive_being_stored() {
        let affinity =
            Affinity::OwnCookie { name: "sb".to_owned(), max_age: Duration::from_hours(24) };
        let when = Conditions {
            methods: vec!["GET".to_owned()],
            headers: BTreeMap::from([("canary".to_owned(), TextMatch::Exact("true".to_owned()))]),
            source: vec!["10.0.0.0/8".parse().unwrap()],
            ..Conditions::default()
        };
        assert_eq!(when.count(), 3);
        let one = RequestMatch { path: Some(PathMatch::Prefix("/api".to_owned())), when };
        let rules = RouteRules {
            matches: vec![one],
            affinity: Some(affinity),
            mirror: Some(Mirror { fraction: Weight::from_percent(10), unsafe_methods: false }),
            ..RouteRules::default()
        };
        let text = serde_json::to_string(&rules).unwrap();
        assert_eq!(serde_json::from_str::<RouteRules>(&text).unwrap(), rules, "{text}");
    }

    #[test]
    fn the_candidate_says_how_requests_are_shared_but_not_which_are_taken() {
        let header =
            |header: &str| Some(VersionHeader { header: header.to_owned(), source: Vec::new() });
        let matching = |path: &str| {
            let path = Some(PathMatch::Exact(path.to_owned()));
            vec![RequestMatch { path, ..RequestMatch::default() }]
        };
        let stable = RouteRules {
            matches: matching("/old"),
            version_header: header("old"),
            ..RouteRules::default()
        };
        let candidate = RouteRules {
            matches: matching("/new"),
            version_header: header("new"),
            ..RouteRules::default()
        };
        let both = stable.steered_by(&candidate);
        assert_eq!((both.matches, both.version_header), (matching("/old"), header("new")));
    }
}
