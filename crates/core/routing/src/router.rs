//! A table compiled for lookups: hash by address and host, then the longest path prefix.
//!
//! Host order: exact name, then `*.` wildcard for one label, then any host. A host whose prefixes
//! do not match the path falls through to the next, wider one. No regular expressions.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use switchback_domain::{ServiceKey, Weight};

use crate::check::trimmed;
use crate::{ArmId, Invalid, Route, Table};

/// A compiled table. Immutable; building it is the expensive part.
#[derive(Debug, Default)]
pub struct Router {
    entries: Vec<RouteEntry>,
    listeners: HashMap<SocketAddr, Hosts>,
}

/// What a request that matched a route needs.
#[derive(Debug)]
pub struct RouteEntry {
    /// Whose requests these are.
    pub service: ServiceKey,
    /// How long an instance may take to the response head.
    pub timeout: Duration,
    /// (first coin above this share, index into `Table::arms`), ascending.
    shares: Vec<(u16, usize)>,
}

impl RouteEntry {
    /// The arm, as an index into `Table::arms`, that gets the request with this coin, a number
    /// from 0 to 9,999; over all coins each arm gets exactly its weight. `None` when the route has
    /// no split.
    pub fn choose(&self, coin: u16) -> Option<usize> {
        let below = |(end, _): &&(u16, usize)| coin < *end;
        self.shares.iter().find(below).or_else(|| self.shares.last()).map(|(_, arm)| *arm)
    }
}

#[derive(Debug, Default)]
struct Hosts {
    exact: HashMap<Box<str>, Prefixes>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Prefixes>,
    any: Prefixes,
}

impl Hosts {
    fn of(&mut self, host: &str) -> &mut Prefixes {
        match host.strip_prefix("*.") {
            Some(rest) => self.wildcard.entry(rest.into()).or_default(),
            None => self.exact.entry(host.into()).or_default(),
        }
    }

    fn find(&self, host: &str, path: &str) -> Option<usize> {
        let exact = || self.exact.get(host)?.find(path);
        let wildcard = || self.wildcard.get(host.split_once('.')?.1)?.find(path);
        exact().or_else(wildcard).or_else(|| self.any.find(path))
    }
}

#[derive(Debug, Default)]
struct Prefixes {
    by_path: HashMap<Box<str>, usize>,
    /// Most segments any prefix has: bounds the lookups whatever path a client sends.
    depth_max: usize,
}

impl Prefixes {
    fn insert(&mut self, path_prefix: &str, entry: usize) {
        let path = trimmed(path_prefix);
        self.depth_max = self.depth_max.max(path.matches('/').count());
        self.by_path.insert(path.into(), entry);
    }

    /// Every prefix of `path` that ends where a segment ends, shortest first; the last hit wins.
    fn find(&self, path: &str) -> Option<usize> {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let hits = ends.take(self.depth_max + 1).filter_map(|end| self.by_path.get(&path[..end]));
        hits.last().copied()
    }
}

impl Router {
    /// Checks and compiles a table.
    pub fn new(table: &Table) -> Result<Self, Invalid> {
        table.check()?;
        let arms: HashMap<&ArmId, usize> =
            table.arms.iter().enumerate().map(|(index, arm)| (&arm.id, index)).collect();
        let mut router = Self::default();
        for route in &table.routes {
            let entry = router.entries.len();
            router.entries.push(RouteEntry {
                service: route.service.clone(),
                timeout: route.timeout,
                shares: shares(route, &arms)?,
            });
            let hosts = router.listeners.entry(route.listen).or_default();
            if route.hosts.is_empty() {
                hosts.any.insert(&route.path_prefix, entry);
            }
            for host in &route.hosts {
                hosts.of(host).insert(&route.path_prefix, entry);
            }
        }
        Ok(router)
    }

    /// The route of a request that came in at `listen` (the route's own address, not the
    /// connection's) with this `Host` (port and case do not matter) and path (without query).
    pub fn find(&self, listen: SocketAddr, host: &str, path: &str) -> Option<&RouteEntry> {
        let entry = self.listeners.get(&listen)?.find(&plain_host(host), path)?;
        self.entries.get(entry)
    }

    /// The addresses to listen on, each once.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listeners.keys().copied()
    }
}

fn shares(route: &Route, arms: &HashMap<&ArmId, usize>) -> Result<Vec<(u16, usize)>, Invalid> {
    let mut end = 0;
    let mut shares = Vec::with_capacity(route.split.shares().len());
    for (release, weight) in route.split.shares() {
        let id = ArmId { service: route.service.clone(), release: release.clone() };
        let Some(arm) = arms.get(&id) else { return Err(Invalid::UnknownArm(id)) };
        if *weight != Weight::ZERO {
            end += weight.basis_points();
            shares.push((end, *arm));
        }
    }
    Ok(shares)
}

/// A host as in the `Host` header without port and closing dot, in lower case.
fn plain_host(host: &str) -> Cow<'_, str> {
    let name = match host.find(']') {
        Some(end) if host.starts_with('[') => &host[..=end],
        Some(_) | None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(name.to_ascii_lowercase());
    }
    Cow::Borrowed(name)
}
