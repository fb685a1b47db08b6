//! The whole file, validated: its project and its environments in order.

use std::collections::{BTreeMap, BTreeSet};

use switchback_domain::strategy::Step;
use switchback_domain::{EnvironmentName, ProjectName, ServiceName};

use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::reader::Reader;
use crate::section::environment::{DOCUMENT, ENVIRONMENT, environment};
use crate::section::metric;
use crate::section::rollback::ROLLBACK;
use crate::section::service::SERVICE;
use crate::service::ServiceConfig;
use crate::suggest;
use crate::value::load::load;
use crate::value::{Node, Value};

/// Environments of one file. More are not variants of one thing.
const ENVIRONMENTS_MAX: usize = 20;

/// A validated configuration: every environment of it can be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    file: String,
    project: ProjectName,
    environments: Vec<Environment>,
}

/// One environment with its services, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Environment {
    /// Which one.
    pub name: EnvironmentName,
    /// In the order of the file; those that only this environment has come last.
    pub services: Vec<ServiceConfig>,
}

impl Environment {
    /// A service by name.
    pub fn service(&self, name: &ServiceName) -> Option<&ServiceConfig> {
        self.services.iter().find(|service| service.name == *name)
    }
}

impl Document {
    /// The project's name.
    pub fn project(&self) -> &ProjectName {
        &self.project
    }

    /// The names of the environments, in the order of the file; at least one.
    pub fn environments(&self) -> impl Iterator<Item = &EnvironmentName> {
        self.environments.iter().map(|environment| &environment.name)
    }

    /// The environment that is meant when none is named: the first.
    pub fn default_environment(&self) -> &EnvironmentName {
        &self.environments[0].name
    }

    /// What works and could be done better, each said once.
    pub fn advice(&self) -> Vec<String> {
        let services = self.environments.iter().flat_map(|environment| &environment.services);
        let advice = services.flat_map(|service| {
            let policy = &service.policy;
            let steps = policy.steps.iter().filter_map(|step| match step {
                Step::Analysis(analysis) => Some(&analysis.thresholds.metrics),
                Step::SetWeight(_) | Step::Pause { .. } | Step::Approve | Step::Hook(_) => None,
            });
            let metrics = policy.triggers.metrics.iter().chain(steps.flatten());
            metrics.filter_map(metric::advice).map(|said| format!("{}: {said}", service.name))
        });
        let mut known = BTreeSet::new();
        advice.filter(|said| known.insert(said.clone())).collect()
    }

    /// One environment; an unknown name is a mistake with a hint.
    pub fn environment(&self, name: &EnvironmentName) -> Result<&Environment, Diagnostics> {
        let known: Vec<_> = self.environments().map(EnvironmentName::as_str).collect();
        let found = self.environments.iter().find(|environment| environment.name == *name);
        found.ok_or_else(|| {
            Diagnostics::new(vec![Diagnostic {
                file: self.file.clone(),
                line: 1,
                column: 1,
                path: "environments".to_owned(),
                message: format!("there is no environment `{name}`"),
                hint: suggest::hint(name.as_str(), &known, "environments here"),
                code: Code::Name,
            }])
        })
    }
}

/// Reads and validates a configuration in every environment it names. `file` is only for the
/// messages. Returns every mistake, each once, in the order of the file.
pub fn parse(text: &str, file: &str) -> Result<Document, Diagnostics> {
    let mut reader = Reader::new(file);
    let Some(root) = load(text, &mut reader) else {
        return Err(Diagnostics::new(reader.into_mistakes()));
    };
    let fields = reader.fields(&root, &DOCUMENT);
    if !fields.is_map() {
        return Err(Diagnostics::new(reader.into_mistakes()));
    }
    let project = fields.read("project", &mut reader, |r, node| r.name(node, ProjectName::new));
    check_shared(&mut reader, &root);
    let names = environment_names(&mut reader, &root);
    // Without a name the rest is still read, for its own mistakes.
    let stand_in = ProjectName::new("project").ok();
    let Some(used) = project.as_ref().or(stand_in.as_ref()) else {
        return Err(Diagnostics::new(reader.into_mistakes()));
    };
    let mut found = reader.into_mistakes();
    let mut environments = Vec::new();
    let mut per_environment = Vec::new();
    for name in &names {
        let mut reader = Reader::new(file);
        environments.push(environment(&mut reader, &root, used, (name, names.len())));
        per_environment.push((name, reader.into_mistakes()));
    }
    found.extend(combined(per_environment));
    match project {
        Some(project) if found.is_empty() && !environments.is_empty() => {
            Ok(Document { file: file.to_owned(), project, environments })
        }
        Some(_) | None => Err(Diagnostics::new(found)),
    }
}

/// What makes two mistakes the same one: place, path, code and message.
type Identity = (u32, u32, String, Code, String);

/// Mistakes of the environments, each once. One that is not in the overlay, and not in every
/// environment, says where it shows.
fn combined(per_environment: Vec<(&EnvironmentName, Vec<Diagnostic>)>) -> Vec<Diagnostic> {
    let all = per_environment.len();
    let mut shown: BTreeMap<Identity, (Vec<String>, Diagnostic)> = BTreeMap::new();
    for (name, mistakes) in per_environment {
        for mistake in mistakes {
            let identity = (
                mistake.line,
                mistake.column,
                mistake.path.clone(),
                mistake.code,
                mistake.message.clone(),
            );
            let (names, _) = shown.entry(identity).or_insert_with(|| (Vec::new(), mistake));
            if names.last().is_none_or(|last| last != name.as_str()) {
                names.push(name.to_string());
            }
        }
    }
    let noted = shown.into_values().map(|(names, mut mistake)| {
        if names.len() < all && !mistake.path.starts_with("environments.") {
            mistake.message = format!("{} (in {})", mistake.message, names.join(", "));
        }
        mistake
    });
    noted.collect()
}

/// Shared values lie under services, so they are only seen where there is one: look here too.
fn check_shared(reader: &mut Reader, node: &Node) {
    for (key, table) in [("defaults", &SERVICE), ("rollback", &ROLLBACK)] {
        if let Some(shared) = node.find(key) {
            reader.fields(shared, table);
        }
    }
}

/// The names of the environments; the keys of each are checked here, once.
fn environment_names(reader: &mut Reader, root: &Node) -> Vec<EnvironmentName> {
    let default = || EnvironmentName::new("default").ok().into_iter().collect();
    let Some(node) = root.entries().iter().find(|entry| entry.key == "environments") else {
        return default();
    };
    let node = &node.value;
    let Value::Map(entries) = &node.value else {
        let hint = "write `environments: {staging: {}, production: {}}`, or take it out";
        reader.wrong_type(node, "a map", hint);
        return default();
    };
    if entries.is_empty() || entries.len() > ENVIRONMENTS_MAX {
        let message = format!("names {} environments", entries.len());
        let hint = format!("name 1 to {ENVIRONMENTS_MAX}, or take `environments` out");
        reader.report(node, Code::OutOfRange, message, hint);
        return default();
    }
    let mut names = Vec::new();
    for entry in entries {
        names.extend(reader.key_name(&entry.key, &entry.value, EnvironmentName::new));
        if !entry.value.is_null() {
            reader.fields(&entry.value, &ENVIRONMENT);
            check_shared(reader, &entry.value);
        }
    }
    // With only bad names the services are still read once, for their mistakes.
    if names.is_empty() { default() } else { names }
}
