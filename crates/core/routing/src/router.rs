//! A table compiled for lookups.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use switchback_domain::route::{Destination, RequestMatch, RouteMode};
use switchback_domain::{ReleaseId, ServiceKey, Weight};

use crate::check::{Versions, places, unknown_arm};
use crate::cohort::Cohorts;
use crate::entry::{ByName, Shares, Steering};
use crate::host::bare_host;
use crate::index::Hosts;
use crate::pattern::PatternError;
use crate::selection::Selection;
use crate::{Candidate, Invalid, RequestView, Route, RouteEntry, Table};

/// A compiled table. Immutable; building it is the expensive part.
///
/// Of the rules that take a request, one is right, by this order: an exact host name before
/// `*.NAME` before any host; an exact path before an expression before a prefix; the longer
/// expression or prefix; more conditions (methods and networks count one each, every header,
/// cookie and parameter one); what stands earlier in the table. A host whose rules do not take
/// the request leaves it to the next wider one.
#[derive(Debug, Default)]
pub struct Router {
    /// One for all neighbours that say the same: less memory, and nearer at hand.
    entries: Vec<Arc<RouteEntry>>,
    /// By address, ascending: there are few. Shared with the routers of tables that differ in
    /// shares and steering only.
    listeners: Arc<Vec<(SocketAddr, Hosts)>>,
}

impl Router {
    /// Checks and compiles a table.
    pub fn new(table: &Table) -> Result<Self, Invalid> {
        table.check_routes()?;
        table.check_claims()?;
        Ok(Self { entries: entries(table)?, listeners: Arc::new(index(table)?) })
    }

    /// The same as [`Self::new`] for the table that comes after `old`, which `self` was made from:
    /// cheaper by far if the routes take the same requests as before.
    pub fn next(&self, old: &Table, table: &Table) -> Result<Self, Invalid> {
        if !takes_the_same(&old.routes, &table.routes) {
            return Self::new(table);
        }
        table.check_routes()?;
        Ok(Self { entries: entries(table)?, listeners: Arc::clone(&self.listeners) })
    }

    /// The route of a request that came in at `listen` (the route's own address, not the
    /// connection's) with this `Host` (port and case do not matter) and path (without query), of
    /// which nothing else is known: rules with conditions do not take it.
    pub fn find(&self, listen: SocketAddr, host: &str, path: &str) -> Option<&RouteEntry> {
        let client = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let headers = &|_: &str, _: &mut dyn FnMut(&[u8]) -> bool| false;
        let request = RequestView { listen, client, method: "", host, path, query: "", headers };
        self.find_for(&request)
    }

    /// The route of a request.
    pub fn find_for(&self, request: &RequestView<'_>) -> Option<&RouteEntry> {
        let at = self.listeners.binary_search_by_key(&request.listen, |(at, _)| *at).ok()?;
        let entry = self.listeners[at].1.find(&bare_host(request.host), request)?;
        self.entries.get(entry).map(Arc::as_ref)
    }

    /// The addresses to listen on, each once.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listeners.iter().map(|(listen, _)| *listen)
    }
}

/// Whether routes take the same requests, so that the entries of one list stand in the other's
/// places.
fn takes_the_same(old: &[Route], new: &[Route]) -> bool {
    let same = |(old, new): (&Route, &Route)| {
        let (of_old, of_new) = (&old.steering.rules, &new.steering.rules);
        old.listen == new.listen
            && old.path_prefix == new.path_prefix
            && old.hosts == new.hosts
            && of_old.matches == of_new.matches
            && of_old.preview == of_new.preview
            && old.tls == new.tls
    };
    old.len() == new.len() && old.iter().zip(new).all(same)
}

/// The routes of a table in its order, the one for the preview behind its route's own.
fn in_order(table: &Table) -> impl Iterator<Item = (usize, &Route, bool)> {
    let both = |(at, route)| [(at, route, false), (at, route, true)];
    let all = table.routes.iter().enumerate().flat_map(both);
    all.filter(|(_, route, is_preview)| places(route, *is_preview).next().is_some())
}

fn entries(table: &Table) -> Result<Vec<Arc<RouteEntry>>, Invalid> {
    let compiler = Compiler { table, arms: table.versions()? };
    let mut entries: Vec<Arc<RouteEntry>> = Vec::new();
    for (at, route, is_preview) in in_order(table) {
        let entry = compiler.entry(at, route, is_preview)?;
        let same = entries.last().filter(|last| last.is_like(&entry)).map(Arc::clone);
        entries.push(same.unwrap_or_else(|| Arc::new(entry)));
    }
    Ok(entries)
}

/// The rules that lead to the entries.
fn index(table: &Table) -> Result<Vec<(SocketAddr, Hosts)>, Invalid> {
    let mut addresses: Vec<_> = table.routes.iter().flat_map(Route::addresses).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let mut listeners: Vec<_> =
        addresses.into_iter().map(|listen| (listen, Hosts::default())).collect();
    for (entry, (_, route, is_preview)) in (0..).zip(in_order(table)) {
        let selections = selections(route, &route.steering.rules.matches)?;
        for (listen, host) in places(route, is_preview) {
            let Ok(at) = listeners.binary_search_by_key(&listen, |(at, _)| *at) else { continue };
            let hosts = &mut listeners[at].1;
            for Selection { paths, conditions } in selections.clone() {
                hosts.insert(host, paths, conditions, entry);
            }
        }
    }
    for (_, hosts) in &mut listeners {
        hosts.settle();
    }
    Ok(listeners)
}

/// The kinds of requests that `matches` name; without any, everything below the route's prefix.
fn selections(route: &Route, matches: &[RequestMatch]) -> Result<Vec<Selection>, Invalid> {
    let everything = [RequestMatch::default()];
    let matches = if matches.is_empty() { &everything } else { matches };
    let compiled = matches.iter().map(|one| Selection::compile(&route.path_prefix, one));
    let refused =
        |source: PatternError| Invalid::Pattern { service: route.service.clone(), source };
    compiled.collect::<Result<_, _>>().map_err(refused)
}

/// What is looked up in the table while its routes are compiled.
struct Compiler<'t> {
    table: &'t Table,
    arms: Versions<'t>,
}

impl<'t> Compiler<'t> {
    fn arm(&self, service: &ServiceKey, release: &ReleaseId) -> Result<usize, Invalid> {
        let found = self.arms.get(&(service, release)).copied();
        found.ok_or_else(|| unknown_arm(service, release))
    }

    fn entry(&self, at: usize, route: &Route, is_preview: bool) -> Result<RouteEntry, Invalid> {
        let mode = match (&route.steering.mode, is_preview) {
            // Whoever looks at the next version is not who maintenance is kept from.
            (RouteMode::Maintenance(_) | RouteMode::Divert { .. } | RouteMode::Pause(_), true) => {
                RouteMode::Serve
            }
            (mode, _) => mode.clone(),
        };
        let shares = match &mode {
            RouteMode::Divert { to } => self.diverted(route, to)?,
            RouteMode::Serve
            | RouteMode::Maintenance(_)
            | RouteMode::Isolate
            | RouteMode::Pause(_) => self.shares(route)?,
        };
        let steering = match &mode {
            RouteMode::Divert { .. } => None,
            RouteMode::Serve
            | RouteMode::Maintenance(_)
            | RouteMode::Isolate
            | RouteMode::Pause(_) => self.steering(route, &shares, is_preview)?,
        };
        let (service, timeout) = (route.service.clone(), route.timeout);
        let preview = steering.as_ref().filter(|_| is_preview).and_then(|s| s.candidate);
        let shares = preview.map_or(shares, |arm| vec![(Weight::ALL.basis_points(), arm)]);
        let baseline = self.baseline(route);
        let resilient = route.steering.rules.resilience.is_some().then_some(at);
        let observation = route.steering.rules.observation;
        Ok(RouteEntry {
            service,
            timeout,
            mode,
            resilient,
            baseline,
            observation,
            shares,
            steering,
        })
    }

    /// The shares of a route's own versions, the candidate's first: places below its weight.
    fn shares(&self, route: &Route) -> Result<Shares, Invalid> {
        let candidate = route.steering.candidate.as_ref().map(|candidate| &candidate.release);
        let (first, rest): (Vec<_>, Vec<_>) =
            route.split.shares().iter().partition(|(release, _)| Some(release) == candidate);
        let mut end = 0;
        let mut shares = Vec::with_capacity(route.split.shares().len());
        for (release, weight) in first.into_iter().chain(rest) {
            let arm = self.arm(&route.service, release)?;
            if *weight != Weight::ZERO {
                end += weight.basis_points();
                shares.push((end, arm));
            }
        }
        Ok(shares)
    }

    fn diverted(&self, route: &Route, to: &Destination) -> Result<Shares, Invalid> {
        match to {
            Destination::Version(release) => {
                Ok(vec![(Weight::ALL.basis_points(), self.arm(&route.service, release)?)])
            }
            Destination::Service(key) => self.shares(self.route_of(&route.service, key)?),
        }
    }

    fn route_of(&self, service: &ServiceKey, to: &ServiceKey) -> Result<&'t Route, Invalid> {
        let found = self.table.routes.iter().find(|route| route.service == *to);
        found.ok_or_else(|| Invalid::UnknownService { service: service.clone(), to: to.clone() })
    }

    fn steering(
        &self,
        route: &Route,
        shares: &Shares,
        is_preview: bool,
    ) -> Result<Option<Box<Steering>>, Invalid> {
        if route.steering.rules.is_default() {
            return Ok(None);
        }
        let rules = &route.steering.rules;
        let of = route.steering.candidate.as_ref();
        let candidate = of.filter(|of| of.open).and_then(|of| self.able(route, of));
        let salt = of.map_or("", |of| of.salt.as_str());
        let to_candidate = match rules.to_candidate.as_slice() {
            [] => Vec::new(),
            given => selections(route, given)?,
        };
        let by_name = rules.version_header.as_ref().map(|of| ByName {
            header: of.header.clone(),
            source: of.source.clone(),
            names: self.names(shares, candidate),
        });
        let cohorts = rules.affinity.as_ref().map(|of| Cohorts::new(of, &route.service, salt));
        Ok(Some(Box::new(Steering {
            candidate,
            is_preview,
            to_candidate,
            by_name,
            cohorts,
            mirror: rules.mirror,
        })))
    }

    /// Who answers in place of the candidate, where the route wants that: a version with a share,
    /// else any other of the service, if it has somebody to answer.
    fn baseline(&self, route: &Route) -> Option<usize> {
        let resilience = route.steering.rules.resilience.as_ref()?;
        let candidate = &route.steering.candidate.as_ref()?.release;
        if !resilience.fallback.version {
            return None;
        }
        let shares = route.split.shares().iter().filter(|(release, _)| release != candidate);
        let mut sharing = shares.filter_map(|(of, _)| self.arm(&route.service, of).ok());
        let other = |arm: &crate::Arm| {
            let id = &arm.id;
            id.service == route.service && id.release != *candidate && !arm.endpoints.is_empty()
        };
        let sharing = sharing.find(|arm| self.is_able(*arm));
        sharing.or_else(|| self.table.arms.iter().position(other))
    }

    /// The candidate's arm, if it has somebody to answer.
    fn able(&self, route: &Route, candidate: &Candidate) -> Option<usize> {
        let arm = *self.arms.get(&(&route.service, &candidate.release))?;
        self.is_able(arm).then_some(arm)
    }

    fn is_able(&self, arm: usize) -> bool {
        self.table.arms.get(arm).is_some_and(|arm| !arm.endpoints.is_empty())
    }

    /// What the versions that may be asked for are called: their version, or the first digits of
    /// their release. Only those that get requests anyway: one that is drained must not get more.
    fn names(&self, shares: &Shares, candidate: Option<usize>) -> Vec<(String, usize)> {
        let serving = shares.iter().map(|(_, arm)| *arm).filter(|arm| self.is_able(*arm));
        let arms = candidate.into_iter().chain(serving);
        arms.filter_map(|index| Some((index, self.table.arms.get(index)?)))
            .flat_map(|(index, arm)| {
                let release = arm.id.release.short().to_owned();
                [(arm.version.as_str().to_owned(), index), (release, index)]
            })
            .collect()
    }
}
