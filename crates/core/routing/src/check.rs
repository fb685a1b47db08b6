//! Whether a table makes sense: everything that can be said without opening a socket.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;

use switchback_domain::route::{Conditions, PathMatch, RequestMatch};
use switchback_domain::{ReleaseId, ServiceKey};

use crate::{Arm, ArmId, PatternError, Route, Table};

/// Why a table cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The same version of a service is listed twice.
    #[error("version {} of {} is listed twice", .0.release, .0.service)]
    DuplicateArm(ArmId),
    /// One address, host and path, the same conditions, two answers.
    #[error("{} and {} both want {listen}, host {host}, path {path}", services[0], services[1])]
    DuplicateRoute {
        /// Where.
        listen: SocketAddr,
        /// Which host; `*` is any.
        host: String,
        /// Which path.
        path: String,
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
    /// A path that a rule names and no request to the route can have.
    #[error("path {path:?} of {service} is not below its path prefix, or holds ?, # or blank")]
    Path {
        /// Whose.
        service: ServiceKey,
        /// What was given.
        path: String,
    },
    /// A regular expression that cannot be used.
    #[error("an expression of {service} {source}")]
    Pattern {
        /// Whose.
        service: ServiceKey,
        /// Why.
        source: PatternError,
    },
    /// Requests are to be diverted to a service that has no route.
    #[error("{service} is diverted to {to}, which the table does not route")]
    UnknownService {
        /// Whose requests.
        service: ServiceKey,
        /// Where to.
        to: ServiceKey,
    },
    /// One address, one host, two ways to be spoken to.
    #[error(
        "{} and {} want different `tls` for {listen}, host {host}: one address is encrypted for \
         all or for none, and one host has one certificate",
        services[0], services[1]
    )]
    TlsDiffers {
        /// Where.
        listen: SocketAddr,
        /// Which host; `*` is any.
        host: String,
        /// Who came first and who second.
        services: Box<[ServiceKey; 2]>,
    },
    /// Port 0 means a different port at every start.
    #[error("{0} listens on port 0; a route needs a fixed port")]
    PortZero(ServiceKey),
}

/// The versions a table lists, by service and release.
pub(crate) type Versions<'t> = HashMap<(&'t ServiceKey, &'t ReleaseId), usize>;

impl Table {
    /// Checks that the table is consistent in itself. Whether its regular expressions can be used
    /// is found when they are compiled, by [`crate::Router::new`].
    pub fn check(&self) -> Result<(), Invalid> {
        let known = self.versions()?;
        for route in &self.routes {
            let unknown =
                |(release, _): &&(ReleaseId, _)| !known.contains_key(&(&route.service, release));
            if let Some((release, _)) = route.split.shares().iter().find(unknown) {
                return Err(unknown_arm(&route.service, release));
            }
        }
        self.check_routes()?;
        self.check_claims()
    }

    /// Where each version stands in `arms`.
    pub(crate) fn versions(&self) -> Result<Versions<'_>, Invalid> {
        let mut known = HashMap::with_capacity(self.arms.len());
        for (index, Arm { id, .. }) in self.arms.iter().enumerate() {
            if known.insert((&id.service, &id.release), index).is_some() {
                return Err(Invalid::DuplicateArm(id.clone()));
            }
        }
        Ok(known)
    }

    /// What can be said of each route by itself, and of how they are encrypted.
    pub(crate) fn check_routes(&self) -> Result<(), Invalid> {
        self.routes.iter().try_for_each(check_route)?;
        let differing = tls_conflict(&self.routes);
        differing.map_or(Ok(()), |(first, second, listen, host)| {
            let services = [first, second].map(|index| self.routes[index].service.clone());
            let host = host.unwrap_or("*").to_owned();
            Err(Invalid::TlsDiffers { listen, host, services: Box::new(services) })
        })
    }

    /// That no two routes take the same requests.
    pub(crate) fn check_claims(&self) -> Result<(), Invalid> {
        let rules = |route: &Route| 2 * route.hosts.len().max(1);
        let mut taken = HashMap::with_capacity(self.routes.iter().map(rules).sum());
        for route in &self.routes {
            for claim in route.claims() {
                if let Some(first) = taken.insert(claim, &route.service) {
                    return Err(claim.duplicate(first, &route.service));
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn unknown_arm(service: &ServiceKey, release: &ReleaseId) -> Invalid {
    let (service, release) = (service.clone(), release.clone());
    Invalid::UnknownArm(ArmId { service, release })
}

/// A pair of routes whose settings for encryption exclude each other, as indices, and where they
/// meet; no host is any. An address is encrypted for all or for none, and a host on it has one
/// certificate.
pub fn tls_conflict(routes: &[Route]) -> Option<(usize, usize, SocketAddr, Option<&str>)> {
    if routes.iter().all(|route| route.tls.is_none()) {
        return None;
    }
    let mut plain_or_not = HashMap::new();
    let mut by_host = HashMap::new();
    for (index, route) in routes.iter().enumerate() {
        let own = [false, true].into_iter().flat_map(|is_preview| places(route, is_preview));
        for (listen, host) in own {
            let encrypted = route.tls.is_some();
            let (first, tls) = *plain_or_not.entry(listen).or_insert((index, encrypted));
            if tls != encrypted {
                return Some((first, index, listen, None));
            }
            let (first, tls) = *by_host.entry((listen, host)).or_insert((index, &route.tls));
            if *tls != route.tls {
                return Some((first, index, listen, host));
            }
        }
    }
    let redirects = routes.iter().enumerate().filter_map(|(index, route)| {
        let listen = route.tls.as_ref()?.redirect_from?;
        Some((*plain_or_not.get(&listen).filter(|(_, tls)| *tls)?, index, listen))
    });
    redirects.map(|((first, _), index, listen)| (first, index, listen, None)).next()
}

/// For each route the first one, itself included, that takes requests it wants as well.
pub fn contested<'t>(routes: impl Iterator<Item = &'t Route>) -> Vec<Option<usize>> {
    let mut taken = HashMap::new();
    let first = |(index, route): (usize, &'t Route)| {
        route.claims().find_map(|claim| match taken.entry(claim) {
            Entry::Occupied(first) => Some(*first.get()),
            Entry::Vacant(free) => {
                free.insert(index);
                None
            }
        })
    };
    routes.enumerate().map(first).collect()
}

/// What one rule of a route takes; two with the same would leave one of them without requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim<'t> {
    listen: SocketAddr,
    /// `None` is any.
    host: Option<&'t str>,
    path: Wanted<'t>,
    conditions: Option<&'t Conditions>,
}

/// Which paths a rule takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Wanted<'t> {
    Exact(&'t str),
    Prefix(&'t str),
    Regex { pattern: &'t str, below: &'t str },
}

impl Claim<'_> {
    fn duplicate(&self, first: &ServiceKey, second: &ServiceKey) -> Invalid {
        Invalid::DuplicateRoute {
            listen: self.listen,
            host: self.host.unwrap_or("*").to_owned(),
            path: match self.path {
                Wanted::Exact(path) | Wanted::Prefix(path) => path.to_owned(),
                Wanted::Regex { pattern, .. } => pattern.to_owned(),
            },
            services: Box::new([first.clone(), second.clone()]),
        }
    }
}

impl Route {
    /// What the route takes, preview included. No two of all the routes of a table may be equal.
    pub fn claims(&self) -> impl Iterator<Item = Claim<'_>> {
        let places = [false, true].into_iter().flat_map(|is_preview| places(self, is_preview));
        places.flat_map(move |(listen, host)| {
            let matches = &self.steering.rules.matches;
            let everything = matches.is_empty().then_some(None);
            let rules = matches.iter().map(Some).chain(everything);
            rules.map(move |matched| claim(self, listen, host, matched))
        })
    }
}

fn claim<'t>(
    route: &'t Route,
    listen: SocketAddr,
    host: Option<&'t str>,
    matched: Option<&'t RequestMatch>,
) -> Claim<'t> {
    let path = wanted(route, matched);
    let conditions = matched.map(|one| &one.when).filter(|when| !when.is_empty());
    Claim { listen, host, path, conditions }
}

/// The addresses and hosts of a route, or of its preview; `None` stands for any host.
pub fn places(route: &Route, is_preview: bool) -> impl Iterator<Item = (SocketAddr, Option<&str>)> {
    let preview = route.steering.rules.preview.as_ref();
    let (listen, hosts) = match (is_preview, preview) {
        (false, _) => (Some(route.listen), route.hosts.as_slice()),
        (true, Some(of)) => (Some(of.listen.unwrap_or(route.listen)), of.hosts.as_slice()),
        (true, None) => (None, [].as_slice()),
    };
    let any = hosts.is_empty().then_some(None);
    let hosts = hosts.iter().map(|host| Some(host.as_str())).chain(any);
    hosts.filter_map(move |host| Some((listen?, host)))
}

fn wanted<'t>(route: &'t Route, matched: Option<&'t RequestMatch>) -> Wanted<'t> {
    let below = trimmed(&route.path_prefix);
    match matched.and_then(|one| one.path.as_ref()) {
        Some(PathMatch::Exact(path)) => Wanted::Exact(path),
        Some(PathMatch::Regex(pattern)) => Wanted::Regex { pattern, below },
        Some(PathMatch::Prefix(own)) if is_below(trimmed(own), below) => {
            Wanted::Prefix(trimmed(own))
        }
        Some(PathMatch::Prefix(_)) | None => Wanted::Prefix(below),
    }
}

/// A prefix without closing slashes: `/api/` and `/api` are the same; `/` becomes empty.
pub(crate) fn trimmed(path_prefix: &str) -> &str {
    path_prefix.trim_end_matches('/')
}

/// Whether a path lies below a prefix without closing slashes, or is it.
pub(crate) fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn check_route(route: &Route) -> Result<(), Invalid> {
    let service = &route.service;
    if route.listen.port() == 0 {
        return Err(Invalid::PortZero(service.clone()));
    }
    if !is_path(&route.path_prefix) {
        let path_prefix = route.path_prefix.clone();
        return Err(Invalid::PathPrefix { service: service.clone(), path_prefix });
    }
    if route.tls.as_ref().and_then(|tls| tls.redirect_from).is_some_and(|from| from.port() == 0) {
        return Err(Invalid::PortZero(service.clone()));
    }
    check_rules(route)
}

fn check_rules(route: &Route) -> Result<(), Invalid> {
    let (service, rules) = (&route.service, &route.steering.rules);
    let preview = rules.preview.as_ref();
    if preview.and_then(|of| of.listen).is_some_and(|listen| listen.port() == 0) {
        return Err(Invalid::PortZero(service.clone()));
    }
    let hosts = route.hosts.iter().chain(preview.iter().flat_map(|of| &of.hosts));
    if let Some(host) = hosts.into_iter().find(|host| !is_host(host)) {
        return Err(Invalid::Host { service: service.clone(), host: host.clone() });
    }
    let below = trimmed(&route.path_prefix);
    let mut paths =
        rules.matches.iter().chain(&rules.to_candidate).filter_map(|one| match &one.path {
            Some(PathMatch::Exact(path)) => Some((path, is_below(path, below))),
            Some(PathMatch::Prefix(prefix)) => {
                let own = trimmed(prefix);
                Some((prefix, is_below(own, below) || is_below(below, own)))
            }
            Some(PathMatch::Regex(_)) | None => None,
        });
    match paths.find(|(path, reachable)| !reachable || !is_path(path)) {
        Some((path, _)) => Err(Invalid::Path { service: service.clone(), path: path.clone() }),
        None => Ok(()),
    }
}

fn is_path(path: &str) -> bool {
    let odd = |found: char| found.is_ascii_control() || matches!(found, ' ' | '?' | '#');
    path.starts_with('/') && !path.contains(odd)
}

fn is_host(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let allowed = |found: char| {
        found.is_ascii_lowercase() || found.is_ascii_digit() || matches!(found, '-' | '.' | '_')
    };
    let literal = name.starts_with('[') && name.ends_with(']');
    literal || (!name.is_empty() && !name.ends_with('.') && name.chars().all(allowed))
}
