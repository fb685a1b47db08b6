//! The document's own keys, and one environment of it: overlay over base, defaults under services.

use switchback_domain::{EnvironmentName, ProjectName, ServiceName, Split};
use switchback_routing::Route;

use crate::diagnostic::Code;
use crate::document::Environment;
use crate::reader::Reader;
use crate::section::rollback::ROLLBACK;
use crate::section::route::{self, Place};
use crate::section::service::{self, Context, SERVICE};
use crate::service::ServiceConfig;
use crate::table::{Field, Kind, Table, field, required};
use crate::value::{Entry, Node, Value, merge};

/// Most services in one environment, times the environments: as many as a control plane was measured
/// with.
pub const SERVICES_MAX: usize = 10_000;
/// Most values in one environment after defaults were copied into every service, times the
/// environments.
const MERGED_NODES_MAX: usize = 1_000_000;

static SHARED: [Field; 3] = [
    field("services", Kind::Map(&Kind::Struct(&SERVICE)), "The services by name."),
    field("defaults", Kind::Struct(&SERVICE), "Values for every service that has none itself."),
    field("rollback", Kind::Struct(&ROLLBACK), "The same as `defaults.rollback`."),
];

pub(crate) static DOCUMENT: Table = Table::new(
    "document",
    "A project: its services, and its environments with what differs in each.",
    &[
        &[
            required("project", Kind::Text, "The project's name."),
            field(
                "environments",
                Kind::Map(&Kind::Either(&[Kind::Struct(&ENVIRONMENT), Kind::Null])),
                "The environments in order, the first being the default one; each holds what \
                 differs there. Without this key there is one, called `default`.",
            ),
        ],
        &SHARED,
    ],
);

pub(crate) static ENVIRONMENT: Table = Table::new(
    "environment",
    "What differs in this environment: maps are merged, lists replaced, null takes a value away.",
    &[&SHARED],
);

/// Reads one environment of the document, which has so many.
pub(crate) fn environment(
    reader: &mut Reader,
    root: &Node,
    project: &ProjectName,
    (name, environments): (&EnvironmentName, usize),
) -> Environment {
    let base = shared_part(root);
    let overlay = root.find("environments").and_then(|node| node.find(name.as_str()));
    let merged = match overlay {
        Some(overlay) => merge::merge(&base, &shared_part(overlay), ""),
        None => base,
    };
    let Some(node) = merged.find("services") else {
        let hint = "write `services: {api: {command: ./server}}`";
        reader.missing(root, "services", hint);
        return Environment { name: name.clone(), services: Vec::new() };
    };
    let defaults = defaults(&merged);
    if !is_within_limits(reader, node, &defaults, environments) {
        return Environment { name: name.clone(), services: Vec::new() };
    }
    let services = services(reader, node, &defaults, project, name);
    Environment { name: name.clone(), services }
}

/// The keys that base and overlay have in common.
fn shared_part(node: &Node) -> Node {
    // An empty `services:` in an overlay says nothing; it takes no service away.
    let says = |entry: &Entry| entry.key != "services" || !entry.value.is_null();
    let shared = |entry: &&Entry| SHARED.iter().any(|field| field.key == entry.key) && says(entry);
    let entries = node.entries().iter().filter(shared).cloned().collect();
    Node { value: Value::Map(entries), ..Node::empty_map(node) }
}

/// What lies under every service: `rollback:`, and over it `defaults:`.
fn defaults(merged: &Node) -> Node {
    let rollback = merged.entries().iter().filter(|entry| entry.key == "rollback").cloned();
    let shared = Node { value: Value::Map(rollback.collect()), ..Node::empty_map(merged) };
    match merged.find("defaults") {
        Some(defaults) => merge::merge(&shared, defaults, "defaults"),
        None => shared,
    }
}

fn services(
    reader: &mut Reader,
    node: &Node,
    defaults: &Node,
    project: &ProjectName,
    environment: &EnvironmentName,
) -> Vec<ServiceConfig> {
    let Value::Map(entries) = &node.value else {
        reader.wrong_type(node, "a map", "write `services: {api: {command: ./server}}`");
        return Vec::new();
    };
    let names: Vec<_> = entries.iter().map(|entry| entry.key.as_str()).collect();
    let mut services = Vec::new();
    for Entry { key, value } in entries {
        if reader.is_full() {
            break;
        }
        // Null in an overlay takes a service out of this environment.
        if value.is_null() && value.path.starts_with("environments.") {
            continue;
        }
        let name = reader.key_name(key, value, ServiceName::new);
        // Without a name of its own the service is still read, for its other mistakes.
        let Some(name) = name.or_else(|| ServiceName::new("unnamed").ok()) else { continue };
        let own = if value.is_null() { Node::empty_map(value) } else { value.clone() };
        let full = merge::merge(defaults, &own, "service").placed_as(&own);
        let context = Context { project, environment, name, services: &names };
        let route = full.find("route").cloned();
        services.extend(service::service(reader, &full, context).map(|service| (service, route)));
    }
    check_routes(reader, &services);
    services.into_iter().map(|(service, _)| service).collect()
}

/// Whether the routes of an environment's services, each with the node it stands in, can be served
/// beside each other.
fn check_routes(reader: &mut Reader, services: &[(ServiceConfig, Option<Node>)]) {
    let route = |service: &ServiceConfig| {
        let spec = service.workload.route.as_ref()?;
        Some(Route::new(service.key(), spec, Split::none()))
    };
    let routes: Vec<_> = services.iter().map(|(service, _)| route(service)).collect();
    let places = services.iter().zip(&routes).filter_map(|((service, node), route)| {
        let (route, node) = (route.as_ref()?, node.as_ref()?);
        let node = node.find("listen").unwrap_or(node);
        Some(Place { service: service.name.as_str(), route, node })
    });
    route::conflicts(reader, &places.collect::<Vec<_>>());
}

fn is_within_limits(
    reader: &mut Reader,
    node: &Node,
    defaults: &Node,
    environments: usize,
) -> bool {
    // What is no map is reported by whoever reads it.
    let Value::Map(entries) = &node.value else { return true };
    let count = entries.len();
    if count == 0 {
        let hint = "write `services: {api: {command: ./server}}`";
        reader.report(node, Code::MissingKey, "names no service", hint);
        return false;
    }
    let times =
        if environments > 1 { format!(" in {environments} environments") } else { String::new() };
    if count * environments > SERVICES_MAX {
        let message = format!("{count} services{times} are more than one file can hold");
        let hint = format!(
            "use at most {SERVICES_MAX}, each counted in every environment, or split the project"
        );
        reader.report(node, Code::Limit, message, hint);
        return false;
    }
    let merged = (node.extent().0 + defaults.extent().0 * count) * environments;
    if merged > MERGED_NODES_MAX {
        let message = format!(
            "{count} services{times} hold more than {MERGED_NODES_MAX} values, defaults counted in each"
        );
        let hint = "shorten `defaults`, or split the project";
        reader.report(node, Code::Limit, message, hint);
        return false;
    }
    true
}
