//! The route table: what the control plane publishes and the data plane serves.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
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
}

/// One public address of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Whose.
    pub service: ServiceKey,
    /// The address to listen on.
    pub listen: SocketAddr,
    /// Host names, lower case, `*.example.com` for one wildcard label; empty takes every host.
    pub hosts: Vec<String>,
    /// Only paths below this one; `/` takes all. The longest matching prefix wins.
    pub path_prefix: String,
    /// How long an instance may take to the response head.
    #[serde(with = "switchback_domain::time::millis")]
    pub timeout: Duration,
    /// Who gets which share; empty answers 503.
    pub split: Split<ReleaseId>,
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
}

/// One ready instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Which one.
    pub instance: InstanceId,
    /// Where it answers.
    pub address: SocketAddr,
}
