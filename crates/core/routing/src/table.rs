//! The route table: what the control plane publishes and the data plane serves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::LazyLock;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use switchback_domain::acme::CHALLENGE_PREFIX;
use switchback_domain::route::{RouteMode, RouteRules};
use switchback_domain::tls::{TlsSpec, UpstreamSpec};
use switchback_domain::workload::RouteSpec;
use switchback_domain::{Generation, InstanceId, ReleaseId, ServiceKey, Split, Version};

/// Everything the data plane needs to know, at one generation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Table {
    /// Its place in the order; the data plane refuses older ones.
    pub generation: Generation,
    /// Where requests come in and who gets which share of them.
    pub routes: Vec<Route>,
    /// Every version that has instances, also those without a share (they may be draining).
    pub arms: Vec<Arm>,
    /// What authorities are answered who ask on a plain address whether a name leads here
    /// (`http-01`): by token. Tables made before it have none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub challenges: BTreeMap<String, String>,
}

impl Table {
    /// The answer to an authority that asks for this path.
    pub fn challenge(&self, path: &str) -> Option<&str> {
        if self.challenges.is_empty() {
            return None;
        }
        let token = path.strip_prefix(CHALLENGE_PREFIX)?;
        self.challenges.get(token).map(String::as_str)
    }
}

/// One public address of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Whose.
    pub service: ServiceKey,
    /// The address to listen on.
    pub listen: SocketAddr,
    /// Host names, lower case, `*.example.com` for one wildcard label; empty takes every host.
    #[serde(deserialize_with = "exactly")]
    pub hosts: Vec<String>,
    /// Only paths below this one; `/` takes all. The longest matching prefix wins.
    pub path_prefix: String,
    /// How long an instance may take to the response head.
    #[serde(with = "switchback_domain::time::millis")]
    pub timeout: Duration,
    /// Who gets which share; empty answers 503.
    pub split: Split<ReleaseId>,
    /// What beside the split decides; tables made before it have none.
    #[serde(default, skip_serializing_if = "Steering::is_default")]
    pub steering: Steering,
    /// How its clients are spoken to when not in plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Box<TlsSpec>>,
}

impl Route {
    /// The route that a service asks for, shared as `split` says.
    pub fn new(service: ServiceKey, spec: &RouteSpec, split: Split<ReleaseId>) -> Self {
        Self {
            service,
            listen: spec.listen,
            hosts: spec.hosts.clone(),
            path_prefix: spec.path_prefix.clone(),
            timeout: spec.timeout,
            split,
            steering: Steered { rules: spec.rules.clone(), ..Steered::default() }.into(),
            tls: spec.tls.clone().map(Box::new),
        }
    }

    /// The addresses it needs to be listened on: its own, its preview's, and the plain one whose
    /// requests are sent on.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let redirect = self.tls.as_ref().and_then(|tls| tls.redirect_from);
        self.serving_addresses().chain(redirect)
    }

    /// The addresses it answers on itself: its own, and its preview's.
    pub fn serving_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let preview = self.steering.rules.preview.as_ref().and_then(|preview| preview.listen);
        [self.listen].into_iter().chain(preview)
    }
}

/// Without the room for more that reading leaves: as much as the name itself, 10,000 times.
fn exactly<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let mut hosts = Vec::deserialize(deserializer)?;
    hosts.shrink_to_fit();
    Ok(hosts)
}

/// What beside address, host, prefix and split decides where a request goes: [`Steered`], which
/// takes no room where nothing does. A table may have 10,000 routes, of which few are steered.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Steering(Option<Box<Steered>>);

static UNSTEERED: LazyLock<Steered> = LazyLock::new(Steered::default);

impl Steering {
    /// Whether nothing but the split decides.
    pub fn is_default(&self) -> bool {
        **self == *UNSTEERED
    }
}

impl From<Steered> for Steering {
    fn from(steered: Steered) -> Self {
        Self((steered != *UNSTEERED).then(|| Box::new(steered)))
    }
}

impl Deref for Steering {
    type Target = Steered;

    fn deref(&self) -> &Steered {
        self.0.as_deref().unwrap_or(&UNSTEERED)
    }
}

impl DerefMut for Steering {
    fn deref_mut(&mut self) -> &mut Steered {
        self.0.get_or_insert_default()
    }
}

impl PartialEq for Steering {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Steering {}

/// What steers a route. The default decides nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Steered {
    /// As configured.
    #[serde(skip_serializing_if = "RouteRules::is_default")]
    pub rules: RouteRules,
    /// The version that is being brought in or taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Candidate>,
    /// What an operator has it do.
    #[serde(skip_serializing_if = "is_serving")]
    pub mode: RouteMode,
}

fn is_serving(mode: &RouteMode) -> bool {
    *mode == RouteMode::Serve
}

/// The version in question while a rollout runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which one; its share are the cohorts that hash lowest.
    pub release: ReleaseId,
    /// What the hash of cohorts is salted with: the same as long as the rollout runs, so that
    /// nobody moves back while the share grows, and another for the next one, so that it is not
    /// the same clients who try everything first.
    pub salt: String,
    /// Whether requests may ask for it: by preview, header or rule, and by being mirrored.
    pub open: bool,
}

/// Names one version of one service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ArmId {
    /// Whose.
    pub service: ServiceKey,
    /// Which.
    pub release: ReleaseId,
}

/// One version of one service with its ready instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arm {
    /// Which one.
    pub id: ArmId,
    /// As its users call it, for metrics and logs.
    pub version: Version,
    /// Where it answers.
    pub endpoints: Vec<Endpoint>,
    /// In which way.
    #[serde(default, skip_serializing_if = "UpstreamSpec::is_default")]
    pub upstream: UpstreamSpec,
}

/// One ready instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Which one.
    pub instance: InstanceId,
    /// Where it answers.
    pub address: SocketAddr,
}
