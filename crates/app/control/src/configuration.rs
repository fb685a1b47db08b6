//! Reading `switchback.yaml` and the files it names. It is read anew for each request: a running
//! rollout keeps the plan it began with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use switchback_api::{Problem, code};
use switchback_config::{Diagnostics, Document, ServiceConfig};
use switchback_domain::strategy::{RolloutPolicy, StrategyKind};
use switchback_domain::{EnvironmentName, ProjectName, Release, ServiceName, Version};

use crate::{Error, Options};

/// The largest file that goes into a release: it is kept in the journal.
const CONTENT_MAX: u64 = 1024 * 1024;

/// Most services that are listed to somebody who named none of them.
const LISTED_MAX: usize = 20;

/// What stays the same while the control plane runs.
pub(crate) struct Settings {
    pub(crate) project: ProjectName,
    pub(crate) environment: EnvironmentName,
    /// Where ordered certificates are kept.
    pub(crate) certificates: PathBuf,
    config: PathBuf,
    /// The configuration as it was read last, with its text: reading the same again is quick.
    last: Mutex<Option<(String, Arc<Document>)>>,
}

impl Settings {
    /// Reads the configuration for the first time.
    pub(crate) fn load(options: &Options) -> Result<Self, Error> {
        let failed = |problem: Problem| {
            let lines = std::iter::once(&problem.message).chain(&problem.details).cloned();
            Error::Configuration(lines.collect::<Vec<_>>().join("\n"))
        };
        let text = read(&options.config).map_err(failed)?;
        let document = parse(&options.config, &text).map_err(failed)?;
        let environment =
            options.environment.clone().unwrap_or_else(|| document.default_environment().clone());
        document
            .environment(&environment)
            .map_err(|mistakes| Error::Configuration(mistakes.to_string()))?;
        Ok(Self {
            project: document.project().clone(),
            environment,
            certificates: options.state_dir.join(switchback_domain::acme::DIRECTORY),
            config: options.config.clone(),
            last: Mutex::new(Some((text, Arc::new(document)))),
        })
    }

    /// Those of a control plane that nobody configures: the simulator's.
    pub(crate) fn fixed(project: ProjectName, environment: EnvironmentName) -> Self {
        let (certificates, config) = (PathBuf::new(), PathBuf::new());
        Self { project, environment, certificates, config, last: Mutex::new(None) }
    }

    /// One service of an environment as it is configured now.
    pub(crate) fn service(
        &self,
        environment: &EnvironmentName,
        name: &ServiceName,
    ) -> Result<ServiceConfig, Problem> {
        let document = self.document()?;
        let services = services_of(&document, environment)?;
        services.iter().find(|service| service.name == *name).cloned().ok_or_else(|| {
            code::UNKNOWN_SERVICE
                .problem(format!("there is no service {name}"))
                .hint(format!("{environment} has {}", listed(services)))
        })
    }

    /// The configuration as it is now.
    pub(crate) fn document(&self) -> Result<Arc<Document>, Problem> {
        let text = read(&self.config)?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, document)) = last.as_ref()
            && *known == text
        {
            return Ok(document.clone());
        }
        let document = Arc::new(parse(&self.config, &text)?);
        *last = Some((text, document.clone()));
        Ok(document)
    }

    /// Makes the release of a version, reading the files it is made from.
    pub(crate) fn release(
        &self,
        service: &ServiceConfig,
        version: &Version,
    ) -> Result<Release, Problem> {
        let base = self.config.parent().unwrap_or_else(|| Path::new("."));
        let base = std::path::absolute(base).unwrap_or_else(|_| base.to_owned());
        let mut contents = BTreeMap::new();
        for source in service.config_sources(version) {
            let content = content(&base.join(&source.source)).map_err(|why| {
                let place = format!("{}:{}:{}", self.config.display(), source.line, source.column);
                code::CONFIG_UNREADABLE
                    .problem(format!("{place}: cannot use {}: {why}", source.source))
                    .hint("paths are relative to the configuration file")
            })?;
            contents.insert(source.source, content);
        }
        service
            .release(version, &base.to_string_lossy(), &contents)
            .map_err(|error| code::CONFIG_UNREADABLE.problem(error.to_string()))
    }
}

/// The names of services; of many, the first and how many more there are.
fn listed(services: &[ServiceConfig]) -> String {
    let shown = services.iter().take(LISTED_MAX).map(|service| service.name.as_str());
    let shown = shown.collect::<Vec<_>>().join(", ");
    match services.len().saturating_sub(LISTED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn content(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > CONTENT_MAX {
        return Err(format!("{size} bytes are more than {CONTENT_MAX}"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// The services of an environment.
pub(crate) fn services_of<'a>(
    document: &'a Document,
    environment: &EnvironmentName,
) -> Result<&'a [ServiceConfig], Problem> {
    let found = document.environment(environment).map_err(|_| {
        let known: Vec<_> = document.environments().map(ToString::to_string).collect();
        code::UNKNOWN_ENVIRONMENT
            .problem(format!("there is no environment {environment}"))
            .hint(format!("the configuration has {}", known.join(", ")))
    })?;
    Ok(&found.services)
}

fn read(path: &Path) -> Result<String, Problem> {
    std::fs::read_to_string(path).map_err(|error| {
        code::CONFIG_UNREADABLE
            .problem(format!("cannot read {}: {error}", path.display()))
            .hint("`switchback init` writes a first one")
    })
}

fn parse(path: &Path, text: &str) -> Result<Document, Problem> {
    let shown = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    switchback_config::parse(text, &shown).map_err(|mistakes| mistakes_problem(&mistakes))
}

fn mistakes_problem(mistakes: &Diagnostics) -> Problem {
    let message = match mistakes.len() {
        1 => "the configuration has a mistake".to_owned(),
        count => format!("the configuration has {count} mistakes"),
    };
    let lines = mistakes.as_slice().iter().map(ToString::to_string);
    let details = lines.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
    code::CONFIG_INVALID
        .problem(message)
        .hint("`switchback lint` shows them")
        .details(details.collect())
}

/// The policy for a rollout with what the request asks for instead.
pub(crate) fn policy(
    service: &ServiceConfig,
    version: &Version,
    strategy: Option<StrategyKind>,
    on_busy: Option<switchback_domain::strategy::BusyPolicy>,
) -> RolloutPolicy {
    let mut policy = service.policy_for(strategy, version);
    policy.on_busy = on_busy.unwrap_or(policy.on_busy);
    policy
}
