//! A service as configured for one environment, and the releases and policies made from it.

use std::collections::BTreeMap;

use serde::Serialize;
use switchback_domain::probe::{HealthChecks, Probe, ProbeAction};
use switchback_domain::strategy::{Hook, RolloutPolicy, Step, StrategyKind};
use switchback_domain::template::{Variables, render};
use switchback_domain::workload::{ConfigFile, RouteSpec};
use switchback_domain::{
    EnvironmentName, ProjectName, Release, ServiceKey, ServiceName, Version, Workload,
};

use crate::section::rollback::Monitoring;
use crate::section::strategy::steps_of;

/// A configuration file of a service. The caller reads `source` and hands its content to
/// [`ServiceConfig::release`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigSource {
    /// As written, relative to the directory of the configuration; templates filled in when it
    /// comes from [`ServiceConfig::config_sources`].
    pub source: String,
    /// Path below the instance's directory.
    pub target: String,
    /// Where the entry stands in the configuration: line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

/// A release was asked for without the content of one of its files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the content of `{source_path}` was not given")]
pub struct MissingContent {
    /// The file, as [`ServiceConfig::config_sources`] names it.
    pub source_path: String,
}

/// One service in one environment.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceConfig {
    /// Of which project.
    pub project: ProjectName,
    /// Where.
    pub environment: EnvironmentName,
    /// Which service.
    pub name: ServiceName,
    /// The version the configuration asks for; a deploy may name another.
    pub version: Option<Version>,
    /// What runs, with all templates still in it, without files, and with `working_dir` as
    /// written (empty for the configuration's directory).
    pub workload: Workload,
    /// How a release is brought in, with all templates still in its commands; use
    /// [`ServiceConfig::policy_for`] for a rollout.
    pub policy: RolloutPolicy,
    pub(crate) config: Vec<ConfigSource>,
    pub(crate) monitoring: Monitoring,
}

impl ServiceConfig {
    /// The service and its environment.
    pub fn key(&self) -> ServiceKey {
        ServiceKey::new(self.environment.clone(), self.name.clone())
    }

    /// The files a release of this version is made from, templates filled in.
    pub fn config_sources(&self, version: &Version) -> Vec<ConfigSource> {
        let variables = self.variables(version);
        let rendered = |source: &ConfigSource| ConfigSource {
            source: render(&source.source, &variables),
            target: render(&source.target, &variables),
            ..source.clone()
        };
        self.config.iter().map(rendered).collect()
    }

    /// Makes a release: the release's templates filled in, the instance's (`{{port}}`,
    /// `{{instance}}`, `{{dir}}`) left. `base_dir` is the absolute directory of the configuration
    /// file, `contents` holds what stands in each file of [`ServiceConfig::config_sources`].
    pub fn release(
        &self,
        version: &Version,
        base_dir: &str,
        contents: &BTreeMap<String, String>,
    ) -> Result<Release, MissingContent> {
        let variables = self.variables(version);
        let fill = |text: &String| render(text, &variables);
        let mut config = Vec::new();
        for ConfigSource { source, target, .. } in self.config_sources(version) {
            let content = contents.get(&source);
            let content = content.ok_or(MissingContent { source_path: source })?;
            config.push(ConfigFile { target, content: render(content, &variables) });
        }
        let template = &self.workload;
        let place = |path: &str| joined(base_dir, &render(path, &variables));
        let route = template.route.as_ref().map(|route| RouteSpec {
            tls: route.tls.as_ref().map(|tls| tls.with_paths(place)),
            upstream: route.upstream.with_paths(place),
            ..route.clone()
        });
        let workload = Workload {
            command: template.command.iter().map(fill).collect(),
            working_dir: joined(base_dir, &fill(&template.working_dir)),
            env: template.env.iter().map(|(name, value)| (name.clone(), fill(value))).collect(),
            config,
            health: rendered_checks(&template.health, &variables),
            route,
            ..template.clone()
        };
        Ok(Release::new(self.key(), version.clone(), workload))
    }

    /// The policy for a rollout of this version, by the configured strategy or another one. A
    /// strategy other than the configured one comes with its own steps. Release templates are
    /// filled in; the hook's (`{{address}}`, `{{rollout}}`) are left. Canary and blue-green judge
    /// traffic: for a service without a route they can only end undecided.
    pub fn policy_for(&self, strategy: Option<StrategyKind>, version: &Version) -> RolloutPolicy {
        let mut policy = self.policy.clone();
        if let Some(kind) = strategy.filter(|kind| *kind != policy.strategy) {
            policy.strategy = kind;
            policy.steps = steps_of(kind, None, &self.monitoring);
        }
        let variables = self.variables(version);
        for step in &mut policy.steps {
            match step {
                Step::Hook(hook) => fill_hook(hook, &variables),
                Step::SetWeight(_) | Step::Pause { .. } | Step::Analysis(_) | Step::Approve => {}
            }
        }
        policy.smoke_tests.iter_mut().for_each(|hook| fill_hook(hook, &variables));
        let metrics = policy.triggers.custom.iter_mut();
        metrics.for_each(|metric| fill_words(&mut metric.argv, &variables));
        policy
    }

    fn variables(&self, version: &Version) -> Variables {
        Variables::from([
            ("version", version.to_string()),
            ("environment", self.environment.to_string()),
            ("service", self.name.to_string()),
            ("project", self.project.to_string()),
        ])
    }
}

fn fill_hook(hook: &mut Hook, variables: &Variables) {
    fill_words(&mut hook.argv, variables);
}

fn fill_words(words: &mut [String], variables: &Variables) {
    for word in words {
        *word = render(word, variables);
    }
}

fn rendered_checks(checks: &HealthChecks, variables: &Variables) -> HealthChecks {
    let fill = |probe: &Probe| {
        let action = match &probe.action {
            ProbeAction::Http { path } => ProbeAction::Http { path: render(path, variables) },
            ProbeAction::Tcp => ProbeAction::Tcp,
            ProbeAction::Command { argv } => ProbeAction::Command {
                argv: argv.iter().map(|word| render(word, variables)).collect(),
            },
        };
        Probe { action, ..probe.clone() }
    };
    HealthChecks {
        startup: checks.startup.as_ref().map(fill),
        liveness: checks.liveness.as_ref().map(fill),
        readiness: fill(&checks.readiness),
        min_healthy_time: checks.min_healthy_time,
    }
}

/// `path` seen from `base`. An absolute path and one in the instance's directory stand alone.
fn joined(base: &str, path: &str) -> String {
    let path = path.trim_start_matches("./");
    let instance_dir = path.strip_prefix("{{").is_some_and(|rest| rest.trim().starts_with("dir"));
    if path.starts_with('/') || instance_dir {
        return path.to_owned();
    }
    let base = if base == "/" { "" } else { base.trim_end_matches('/') };
    match path {
        "" | "." => if base.is_empty() { "/" } else { base }.to_owned(),
        _ => format!("{base}/{}", path.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_seen_from_the_file() {
        let cases = [
            ("/srv/app", "", "/srv/app"),
            ("/srv/app/", ".", "/srv/app"),
            ("/srv/app", "./bin/", "/srv/app/bin"),
            ("/srv/app", "../other", "/srv/app/../other"),
            ("/srv/app", "/opt/x", "/opt/x"),
            ("/srv/app", "{{dir}}/data", "{{dir}}/data"),
            ("/", "", "/"),
            ("/", "bin", "/bin"),
        ];
        for (base, path, expected) in cases {
            assert_eq!(joined(base, path), expected, "{base} {path}");
        }
    }
}
