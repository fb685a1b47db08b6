//! The commented configuration that `switchback init` writes for what it found.

use std::fmt::Write as _;

use switchback_domain::{ProjectName, ServiceName};

/// A service that `switchback init` believes it has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StarterService {
    /// What to call it.
    pub name: ServiceName,
    /// The command line that starts it; `{{port}}` where the port goes.
    pub command: String,
    /// The path that says whether it is up; `None` writes the default, `/up`.
    pub health_path: Option<String>,
    /// The port its users know; `None` leaves it without a route.
    pub listen: Option<u16>,
}

const HEAD: &str = "\
# What runs here, and how new versions of it go live.
#   switchback lint               checks this file
#   switchback up                 starts everything
#   switchback deploy SERVICE --version V
";

const ENVIRONMENTS: &str = "
# The same services with other values; the first one is meant when none is named.
# environments:
#   staging: {}
#   production:
#     services:
#       SERVICE: {replicas: 3}
";

const POLICY: &str = "    \
    # instances at full strength
    replicas: 2
    # rolling, blue-green (10, 25, 50, 100 %) or canary (5, 25, 50, 100 %, judged at each step)
    strategy: STRATEGY
    # time for requests on their way, and from SIGTERM to SIGKILL
    drain_timeout: 30s
    stop_timeout: 10s
    # taken back by itself; these are the defaults
    rollback:
      triggers:
        error_rate: {threshold: 5%, window: 2m}
        response_time: {threshold_multiplier: 2.0, window: 3m}
        latency_p95: {threshold: 2000ms, window: 5m}
        health_checks: {failures: 3, window: 2m}
";

/// A configuration for these services, or for one made up when there are none. It always passes
/// [`crate::parse`] when the commands can be split into words.
pub fn starter(project: &ProjectName, services: &[StarterService]) -> String {
    let example = ServiceName::new("web").ok().map(|name| StarterService {
        name,
        command: "./server --port {{port}}".to_owned(),
        health_path: Some("/up".to_owned()),
        listen: Some(8080),
    });
    let services = if services.is_empty() { example.as_slice() } else { services };
    let first = services.first().map_or("api", |service| service.name.as_str());
    let mut text = format!("{HEAD}project: {project}\n");
    text.push_str(&ENVIRONMENTS.replace("SERVICE", first));
    text.push_str("\nservices:\n");
    for service in services {
        push_service(&mut text, service);
    }
    text
}

fn push_service(text: &mut String, service: &StarterService) {
    let StarterService { name, command, health_path, listen } = service;
    let _ = writeln!(text, "  {name}:");
    text.push_str("    # every instance finds its own port in {{port}} and in $PORT\n");
    let _ = writeln!(text, "    command: {}", quoted(command));
    text.push_str("    # the version that `switchback up` brings it to\n    version: v1\n");
    let path = health_path.as_deref().unwrap_or("/up");
    let _ = writeln!(text, "    # gets traffic only while this answers 200 to 399");
    let _ = writeln!(text, "    health_check: {{path: {}, interval: 1s}}", quoted(path));
    if let Some(port) = listen {
        text.push_str("    # where its users find it; `:PORT` listens on every interface\n");
        let _ = writeln!(text, "    route: {{listen: \"127.0.0.1:{port}\"}}");
    }
    // Shares of traffic need a route.
    let strategy = if listen.is_some() { "canary" } else { "rolling" };
    text.push_str(&POLICY.replace("STRATEGY", strategy));
}

/// A YAML text in double quotes: JSON's escapes are YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).unwrap()
    }

    #[test]
    fn what_init_writes_passes_lint() {
        let project = ProjectName::new("shop").unwrap();
        let odd = StarterService {
            name: name("worker"),
            command: "python3 -c 'print(\"a: b # c\")' {{port}}".to_owned(),
            health_path: None,
            listen: None,
        };
        let api = StarterService {
            name: name("api"),
            command: "./api".to_owned(),
            health_path: Some("/health?deep=1".to_owned()),
            listen: Some(9000),
        };
        for services in [vec![], vec![odd.clone()], vec![api, odd]] {
            let text = starter(&project, &services);
            let document = crate::parse(&text, "switchback.yaml");
            let document = document.unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"));
            let environment = document.environment(document.default_environment()).unwrap();
            assert_eq!(environment.services.len(), services.len().max(1));
        }
    }
}
