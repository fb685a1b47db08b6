//! Whether a table makes sense: everything that can be said without opening a socket.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use switchback_domain::ServiceKey;

use crate::{Arm, ArmId, Route, Table};

/// Why a table cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The same version of a service is listed twice.
    #[error("version {} of {} is listed twice", .0.release, .0.service)]
    DuplicateArm(ArmId),
    /// One address, host and path, two answers.
    #[error(
        "{} and {} both want {listen}, host {host}, path {path_prefix}",
        services[0], services[1]
    )]
    DuplicateRoute {
        /// Where.
        listen: SocketAddr,
        /// Which host; `*` is any.
        host: String,
        /// Which path.
        path_prefix: String,
        /// Who came first and who second.
        services: Box<[ServiceKey; 2]>,
    },
    /// A split gives a share to a version that is not in the table.
    #[error("the split of {} names version {}, which the table does not list", .0.service, .0.release)]
    UnknownArm(ArmId),
    /// A path prefix that no path can have.
    #[error("path prefix {path_prefix:?} of {service} must start with / and hold no ?, # or blank")]
    PathPrefix {
        /// Whose.
        service: ServiceKey,
        /// What was given.
        path_prefix: String,
    },
    /// A host that no request can name.
    #[error("host {host:?} of {service} is neither a lower-case host name nor *.NAME")]
    Host {
        /// Whose.
        service: ServiceKey,
        /// What was given.
        host: String,
    },
    /// Port 0 means a different port at every start.
    #[error("{0} listens on port 0; a route needs a fixed port")]
    PortZero(ServiceKey),
}

impl Table {
    /// Checks that the table is consistent in itself.
    pub fn check(&self) -> Result<(), Invalid> {
        let known = self.known_arms()?;
        let mut taken = HashMap::new();
        for route in &self.routes {
            check_route(route, &known)?;
            for (host, path_prefix) in keys(route) {
                let key = (route.listen, host, path_prefix);
                if let Some(first) = taken.insert(key, &route.service) {
                    return Err(Invalid::DuplicateRoute {
                        listen: route.listen,
                        host: host.to_owned(),
                        path_prefix: path_prefix.to_owned(),
                        services: Box::new([first.clone(), route.service.clone()]),
                    });
                }
            }
        }
        Ok(())
    }

    fn known_arms(&self) -> Result<HashSet<&ArmId>, Invalid> {
        let mut known = HashSet::with_capacity(self.arms.len());
        match self.arms.iter().find(|Arm { id, .. }| !known.insert(id)) {
            Some(twice) => Err(Invalid::DuplicateArm(twice.id.clone())),
            None => Ok(known),
        }
    }
}

/// The (host, path) pairs of a route; `*` stands for any host.
fn keys(route: &Route) -> impl Iterator<Item = (&str, &str)> {
    let any = route.hosts.is_empty().then_some("*");
    let path = trimmed(&route.path_prefix);
    route.hosts.iter().map(String::as_str).chain(any).map(move |host| (host, path))
}

/// A prefix without closing slashes: `/api/` and `/api` are the same; `/` becomes empty.
pub(crate) fn trimmed(path_prefix: &str) -> &str {
    path_prefix.trim_end_matches('/')
}

fn check_route(route: &Route, known: &HashSet<&ArmId>) -> Result<(), Invalid> {
    let service = &route.service;
    if route.listen.port() == 0 {
        return Err(Invalid::PortZero(service.clone()));
    }
    let odd = |found: char| found.is_ascii_control() || matches!(found, ' ' | '?' | '#');
    if !route.path_prefix.starts_with('/') || route.path_prefix.contains(odd) {
        let path_prefix = route.path_prefix.clone();
        return Err(Invalid::PathPrefix { service: service.clone(), path_prefix });
    }
    if let Some(host) = route.hosts.iter().find(|host| !is_host(host)) {
        return Err(Invalid::Host { service: service.clone(), host: host.clone() });
    }
    for (release, _) in route.split.shares() {
        let id = ArmId { service: service.clone(), release: release.clone() };
        if !known.contains(&id) {
            return Err(Invalid::UnknownArm(id));
        }
    }
    Ok(())
}

fn is_host(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let allowed = |found: char| {
        found.is_ascii_lowercase() || found.is_ascii_digit() || matches!(found, '-' | '.' | '_')
    };
    let literal = name.starts_with('[') && name.ends_with(']');
    literal || (!name.is_empty() && !name.ends_with('.') && name.chars().all(allowed))
}
