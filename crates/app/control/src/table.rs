//! From the states of all services to the one route table. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use switchback_domain::route::{Destination, RouteMode};
use switchback_domain::seeded::bug;
use switchback_domain::workload::RouteSpec;
use switchback_domain::{
    Generation, InstanceHealth, InstanceId, Release, ReleaseId, ServiceKey, Split, Weight,
};
use switchback_engine::{Phase, Pool, Rollout, Service};
use switchback_routing::{Arm, ArmId, Candidate, Endpoint, Route, Table};

/// What one service adds to the table. Versions being stopped stay in it as arms without
/// endpoints: nothing new goes there, and what is on its way is still counted.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Part {
    pub(crate) route: Option<Route>,
    arms: Vec<Arm>,
}

impl Part {
    /// What the state calls for.
    pub(crate) fn of(service: &Service) -> Self {
        let pools = service.pools.iter();
        let arms = pools.filter_map(|(release, pool)| arm(service, release, pool));
        let arms: Vec<Arm> = arms.collect();
        Self { route: route(service, &arms), arms }
    }

    /// The versions that the service's requests go to.
    pub(crate) fn asked(&self) -> Vec<&ReleaseId> {
        match self.route.as_ref().map(|route| (&route.steering.mode, &route.split)) {
            Some((RouteMode::Serve, split)) => split.shares().iter().map(|(id, _)| id).collect(),
            Some((RouteMode::Divert { to: Destination::Version(release) }, _)) => vec![release],
            Some((
                RouteMode::Divert { to: Destination::Service(_) }
                | RouteMode::Maintenance(_)
                | RouteMode::Isolate
                | RouteMode::Pause(_),
                _,
            ))
            | None => Vec::new(),
        }
    }

    /// The instances of these versions.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let asked = self.asked();
        let arms = self.arms.iter().filter(move |arm| asked.contains(&&arm.id.release));
        arms.flat_map(|arm| &arm.endpoints)
    }
}

/// A table in its parts.
pub(crate) fn parts_of(table: Table) -> BTreeMap<ServiceKey, Part> {
    let mut parts = BTreeMap::<_, Part>::new();
    for arm in table.arms {
        parts.entry(arm.id.service.clone()).or_default().arms.push(arm);
    }
    for route in table.routes {
        let key = route.service.clone();
        parts.entry(key).or_default().route = Some(route);
    }
    parts
}

/// The table made of these parts.
pub(crate) fn assemble<'a>(parts: impl Iterator<Item = &'a Part>, generation: Generation) -> Table {
    let mut table = Table { generation, ..Table::default() };
    for part in parts {
        table.routes.extend(part.route.clone());
        table.arms.extend(part.arms.iter().cloned());
    }
    let reachable: BTreeSet<_> = table.routes.iter().map(|route| route.service.clone()).collect();
    for route in &mut table.routes {
        if !is_possible(&route.steering.mode, &route.service, &reachable, &table.arms) {
            route.steering.mode = RouteMode::Serve;
        }
    }
    table
}

/// A table with nothing but the route of a release: to ask whether its files can be used.
pub(crate) fn of_files(release: &Release) -> Option<Table> {
    let spec = release.workload.route.as_ref()?;
    let arm = Arm {
        id: ArmId { service: release.key.clone(), release: release.id.clone() },
        version: release.version.clone(),
        endpoints: Vec::new(),
        upstream: spec.upstream.clone(),
    };
    let route = Route::new(release.key.clone(), spec, Split::none());
    Some(Table { routes: vec![route], arms: vec![arm], ..Table::default() })
}

/// Whether somebody is there to answer what is diverted; otherwise the service answers itself.
fn is_possible(
    mode: &RouteMode,
    service: &ServiceKey,
    reachable: &BTreeSet<ServiceKey>,
    arms: &[Arm],
) -> bool {
    match mode {
        RouteMode::Divert { to: Destination::Service(to) } => reachable.contains(to),
        RouteMode::Divert { to: Destination::Version(release) } => arms.iter().any(|arm| {
            arm.id.service == *service && arm.id.release == *release && !arm.endpoints.is_empty()
        }),
        RouteMode::Serve | RouteMode::Maintenance(_) | RouteMode::Isolate | RouteMode::Pause(_) => {
            true
        }
    }
}

fn arm(service: &Service, release: &ReleaseId, pool: &Pool) -> Option<Arm> {
    let known = service.releases.get(release)?;
    Some(Arm {
        id: ArmId { service: service.key.clone(), release: release.clone() },
        version: known.version.clone(),
        endpoints: endpoints(&service.key, release, pool),
        upstream: known.workload.route.as_ref()?.upstream.clone(),
    })
}

/// The ready instances; failing those, the ones that were ready before, since an instance whose
/// probe fails may still answer and nobody surely does not; failing those, the ones that ended:
/// a refused connection is the version's failure and is counted as such.
fn endpoints(key: &ServiceKey, release: &ReleaseId, pool: &Pool) -> Vec<Endpoint> {
    let kept: Vec<_> = InstanceId::wanted(key, release, pool.desired).collect();
    let in_state = |states: &[InstanceHealth]| -> Vec<Endpoint> {
        let matching = pool
            .instances
            .iter()
            .filter(|instance| states.contains(&instance.health) && kept.contains(&instance.id));
        matching
            .filter_map(|i| Some(Endpoint { instance: i.id.clone(), address: i.address? }))
            .collect()
    };
    let choices: [&[InstanceHealth]; 3] = [
        &[InstanceHealth::Ready],
        &[InstanceHealth::Unready],
        &[InstanceHealth::Exited, InstanceHealth::CrashLoop],
    ];
    choices.into_iter().map(in_state).find(|found| !found.is_empty()).unwrap_or_default()
}

/// Which requests the service takes comes from the stable release until the candidate is promoted;
/// how they are shared meanwhile, from the candidate.
fn route(service: &Service, arms: &[Arm]) -> Option<Route> {
    let rollout = service.rollout.as_ref();
    let spec = spec_of(service)?;
    let split = effective_split(&service.traffic.split, arms);
    let mut route = Route::new(service.key.clone(), spec, split);
    // What is usual takes no room unless it is set.
    if service.mode() != RouteMode::Serve {
        route.steering.mode = service.mode();
    }
    if let Some(rollout) = rollout.filter(|rollout| !rollout.promoted) {
        if let Some(coming) = &rollout.request.release.workload.route {
            route.steering.rules = spec.rules.steered_by(&coming.rules);
        }
        route.steering.candidate = Some(Candidate {
            release: rollout.candidate().clone(),
            salt: rollout.request.id.to_string(),
            open: is_open(service, rollout),
        });
    }
    Some(route)
}

fn spec_of(service: &Service) -> Option<&RouteSpec> {
    let stable = service.stable().map(|stable| &stable.release);
    let serving = stable.or_else(|| service.rollout.as_ref().map(Rollout::candidate))?;
    service.releases.get(serving)?.workload.route.as_ref()
}

/// Which requests a service takes, whoever answers them.
pub(crate) fn bare_route(service: &Service) -> Option<Route> {
    Some(Route::new(service.key.clone(), spec_of(service)?, Split::none()))
}

/// The same if it could stand in the way of another service's route: if the two may not be in one
/// table, this is one of them.
pub(crate) fn rival_route(service: &Service, other: &RouteSpec) -> Option<Route> {
    let own = spec_of(service)?;
    let meet = addresses(own).any(|one| addresses(other).any(|two| one == two));
    let differ = own.tls != other.tls || hosts(own).any(|one| hosts(other).any(|two| one == two));
    (meet && differ).then(|| bare_route(service)).flatten()
}

fn addresses(spec: &RouteSpec) -> impl Iterator<Item = SocketAddr> {
    let preview = spec.rules.preview.as_ref().and_then(|preview| preview.listen);
    let redirect = spec.tls.as_ref().and_then(|tls| tls.redirect_from);
    [Some(spec.listen), preview, redirect].into_iter().flatten()
}

/// The hosts of a route and of its preview; none is any.
fn hosts(spec: &RouteSpec) -> impl Iterator<Item = Option<&str>> {
    let preview = spec.rules.preview.as_ref().map(|preview| preview.hosts.as_slice());
    [Some(spec.hosts.as_slice()), preview].into_iter().flatten().flat_map(|hosts| {
        let any = hosts.is_empty().then_some(None);
        hosts.iter().map(|host| Some(host.as_str())).chain(any)
    })
}

/// Whether requests may ask for the candidate: it passed the checks before its first share, and
/// is not being taken back.
fn is_open(service: &Service, rollout: &Rollout) -> bool {
    match rollout.phase {
        Phase::Shifting | Phase::Observing | Phase::AwaitingApproval | Phase::Promoting => true,
        // Between two steps, what it got already tells.
        Phase::Verifying | Phase::Provisioning | Phase::Validating => {
            service.weight_of(rollout.candidate()) != Weight::ZERO
        }
        Phase::DrainingBaseline | Phase::RollingBack | Phase::Withdrawing | Phase::Stuck { .. } => {
            false
        }
    }
}

/// The decided split, but a version that has nobody to answer lends its share to the other one
/// until the engine has decided what to do about it.
fn effective_split(decided: &Split<ReleaseId>, arms: &[Arm]) -> Split<ReleaseId> {
    let able = |release: &ReleaseId| {
        arms.iter().any(|arm| arm.id.release == *release && !arm.endpoints.is_empty())
    };
    let has_arm = |release: &ReleaseId| arms.iter().any(|arm| arm.id.release == *release);
    let shares = decided.shares();
    if shares.iter().all(|(release, _)| able(release)) || bug("share-to-nobody") {
        return decided.clone();
    }
    if let Some((release, _)) = shares.iter().find(|(release, _)| able(release)) {
        return Split::all(release.clone());
    }
    let known: Vec<_> = shares.iter().filter(|(release, _)| has_arm(release)).collect();
    match known.first() {
        Some((release, weight)) if known.len() == 1 || *weight == Weight::ALL => {
            Split::all(release.clone())
        }
        Some(_) => decided.clone(),
        None => Split::none(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use switchback_domain::route::{Affinity, Preview, RequestMatch, RouteRules};
    use switchback_domain::tls::TlsSpec;
    use switchback_domain::{Release, ServiceName, Timestamp, Workload};
    use switchback_engine::{EventKind, Request, RolloutId};

    use super::*;
    use crate::testing::{release, request, serving};

    fn table_of(service: &Service) -> Table {
        assemble([Part::of(service)].iter(), Generation::default())
    }

    #[test]
    fn an_instance_that_is_to_go_gets_nothing_new() {
        let mut service = serving(&[("v1", InstanceHealth::Ready)]);
        assert_eq!(table_of(&service).arms[0].endpoints.len(), 1);
        service.pools.values_mut().for_each(|pool| pool.desired = 0);
        assert!(table_of(&service).arms[0].endpoints.is_empty());
    }

    #[test]
    fn a_version_without_anybody_lends_its_share() {
        let mut service =
            serving(&[("v1", InstanceHealth::Ready), ("v2", InstanceHealth::Starting)]);
        let (old, new) = (release("v1").id, release("v2").id);
        service.traffic.split = Split::between(old.clone(), new, Weight::from_percent(5));
        service.revisions.push(Arc::new(crate::testing::revision(&old)));
        let table = table_of(&service);
        assert_eq!(table.routes[0].split, Split::all(old));
    }

    #[test]
    fn the_last_resort_is_an_instance_that_was_ready() {
        for health in [InstanceHealth::Unready, InstanceHealth::Exited] {
            assert_eq!(table_of(&serving(&[("v1", health)])).arms[0].endpoints.len(), 1);
        }
        let starting = table_of(&serving(&[("v1", InstanceHealth::Starting)]));
        assert!(starting.arms[0].endpoints.is_empty());
    }

    /// The release with other rules for its route.
    fn ruled(version: &str, rules: RouteRules) -> Release {
        let release = release(version);
        let mut workload = Workload::clone(&release.workload);
        workload.route.as_mut().unwrap().rules = rules;
        Release::new(release.key, release.version, workload)
    }

    /// `v1` serves, and `next` is being brought in.
    fn rolling_out(next: Release) -> Service {
        let mut service = serving(&[("v1", InstanceHealth::Ready)]);
        let old = release("v1").id;
        service.traffic.split = Split::all(old.clone());
        let revision = crate::testing::revision(&old);
        let policy = revision.policy.clone();
        service.revisions.push(Arc::new(revision));
        let request = Request { policy, ..request(RolloutId(7), next) };
        let event = EventKind::Requested(Box::new(request)).into();
        switchback_engine::step(&service, &event, Timestamp::default()).unwrap().service
    }

    #[test]
    fn the_candidate_may_be_asked_for_once_it_is_checked_and_until_it_goes_back() {
        let mut service = rolling_out(release("v2"));
        let candidate = service.rollout.as_ref().unwrap().candidate().clone();
        let mut open = |phase: Phase, weight: u16| {
            let (old, weight) = (release("v1").id, Weight::from_percent(weight));
            service.traffic.split = Split::between(old, candidate.clone(), weight);
            service.rollout.as_mut().unwrap().phase = phase;
            let table = table_of(&service);
            let found = table.routes[0].steering.candidate.clone().unwrap();
            assert_eq!((&found.release, found.salt.as_str()), (&candidate, "r7"));
            found.open
        };
        assert!(!open(Phase::Provisioning, 0) && !open(Phase::Validating, 0));
        assert!(open(Phase::Shifting, 0) && open(Phase::AwaitingApproval, 0));
        assert!(open(Phase::Provisioning, 5), "for the next step");
        assert!(!open(Phase::RollingBack, 5));
        service.rollout.as_mut().unwrap().promoted = true;
        assert_eq!(table_of(&service).routes[0].steering.candidate, None);
    }

    #[test]
    fn the_candidate_says_how_requests_are_shared_and_the_stable_release_which_are_taken() {
        let rules = RouteRules {
            affinity: Some(Affinity::SourceIp),
            matches: vec![RequestMatch::default()],
            ..RouteRules::default()
        };
        let mut service = rolling_out(ruled("v2", rules));
        let steering = table_of(&service).routes[0].steering.clone();
        assert_eq!(steering.rules.affinity, Some(Affinity::SourceIp));
        assert!(steering.rules.matches.is_empty());
        service.rollout = None;
        assert!(table_of(&service).routes[0].steering.is_default());
    }

    /// Routes that differ in where requests come in: addresses, hosts, preview, encryption.
    fn specs() -> Vec<RouteSpec> {
        let listens = ["127.0.0.1:8080", "127.0.0.1:8443"].map(|text| text.parse().unwrap());
        let named = |name: &str| vec![name.to_owned()];
        let tls = |redirect_from| TlsSpec {
            certificate: "a.pem".to_owned(),
            key: "a.key".to_owned(),
            acme: None,
            clients: None,
            redirect_from,
            hsts: std::time::Duration::ZERO,
        };
        let mut specs = Vec::new();
        for listen in listens {
            for hosts in [Vec::new(), named("a.test"), named("b.test")] {
                for preview in [None, Some((None, "a.test")), Some((Some(listens[1]), "b.test"))] {
                    for tls in [None, Some(tls(None)), Some(tls(Some(listens[0])))] {
                        let mut spec = release("v1").workload.route.clone().unwrap();
                        spec.rules.preview =
                            preview.map(|(listen, name)| Preview { listen, hosts: named(name) });
                        specs.push(RouteSpec { listen, hosts: hosts.clone(), tls, ..spec });
                    }
                }
            }
        }
        specs
    }

    fn pairs() -> Vec<(RouteSpec, RouteSpec)> {
        let specs = specs();
        let with_all =
            |one: &RouteSpec| specs.iter().map(|two| (one.clone(), two.clone())).collect();
        specs.iter().flat_map(|one| -> Vec<_> { with_all(one) }).collect()
    }

    #[test]
    fn whatever_may_not_be_in_one_table_is_a_rival() {
        let (mut refused, mut kept) = (0, 0);
        for (mine, other) in pairs() {
            let mut release = release("v1");
            let workload = Workload { route: Some(mine.clone()), ..(*release.workload).clone() };
            release.workload = Arc::new(workload);
            let mut service = Service::new(release.key.clone());
            service.revisions.push(Arc::new(crate::testing::revision(&release.id)));
            service.releases.insert(release.id.clone(), release);
            let key =
                ServiceKey::new(service.key.environment.clone(), ServiceName::new("b").unwrap());
            let alone = |route: Route| Table { routes: vec![route], ..Table::default() };
            let new = Route::new(key, &other, Split::none());
            let own = bare_route(&service).unwrap();
            if alone(own.clone()).check().is_err() || alone(new.clone()).check().is_err() {
                continue;
            }
            let both = Table { routes: vec![own, new], ..Table::default() };
            if let Err(why) = both.check() {
                assert!(rival_route(&service, &other).is_some(), "{why}: {mine:?} {other:?}");
                refused += 1;
            } else {
                kept += usize::from(rival_route(&service, &other).is_none());
            }
        }
        assert!(refused > 100 && kept > 100, "{refused} {kept}");
    }
}
