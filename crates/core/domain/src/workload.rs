//! What runs: everything an instance of a release needs, fixed when the release is made.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::probe::HealthChecks;
use crate::route::RouteRules;
use crate::tls::{TlsSpec, UpstreamSpec};

/// Where instances run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeKind {
    /// Local processes under a supervising shim.
    Process,
}

/// A configuration file that is written for each instance, with its content as it was when the
/// release was made (templates such as `{{port}}` are filled in per instance).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFile {
    /// Path below the instance's directory, `{{dir}}`.
    pub target: String,
    /// The content, templates included.
    pub content: String,
}

/// Where requests for a service come in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// The address the data plane listens on.
    pub listen: SocketAddr,
    /// Host names (lower case, `*.example.com` for one wildcard label); empty takes every host.
    pub hosts: Vec<String>,
    /// Only paths below this one; `/` takes all.
    pub path_prefix: String,
    /// How long the service may take to the response head before the data plane gives up (504).
    #[serde(with = "crate::time::millis")]
    pub timeout: Duration,
    /// Which of these requests, and what beside weights decides who gets them.
    #[serde(default, skip_serializing_if = "RouteRules::is_default")]
    pub rules: RouteRules,
    /// How clients are spoken to when not in plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// How instances are spoken to.
    #[serde(default, skip_serializing_if = "UpstreamSpec::is_default")]
    pub upstream: UpstreamSpec,
}

/// What an instance of a release is made from. Texts may hold `{{version}}`, `{{environment}}`,
/// `{{service}}`, `{{project}}` (filled when the release is made) and `{{port}}`, `{{instance}}`,
/// `{{dir}}` (filled when the instance starts).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Where it runs.
    pub runtime: RuntimeKind,
    /// Program and arguments. A relative program with a `/` is relative to `working_dir`.
    pub command: Vec<String>,
    /// Absolute directory the command starts in.
    pub working_dir: String,
    /// Environment variables beside `PORT`, `SWITCHBACK_VERSION` and the inherited ones.
    pub env: BTreeMap<String, String>,
    /// Files written for each instance.
    pub config: Vec<ConfigFile>,
    /// How to ask whether it is up.
    pub health: HealthChecks,
    /// Its public address, if it has one.
    pub route: Option<RouteSpec>,
    /// Time between SIGTERM and SIGKILL.
    #[serde(with = "crate::time::millis")]
    pub stop_timeout: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_from_before_there_were_rules_is_read_and_written_as_it_was() {
        let text = r#"{"listen":"127.0.0.1:8080","hosts":[],"path_prefix":"/","timeout":5000}"#;
        let spec: RouteSpec = serde_json::from_str(text).unwrap();
        assert!(spec.rules.is_default());
        assert_eq!(serde_json::to_string(&spec).unwrap(), text, "releases keep their id");
    }
}
