//! Tables and requests for the tests.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use switchback_domain::route::{Conditions, PathMatch, RequestMatch, RouteRules, TextMatch};
use switchback_domain::tls::UpstreamSpec;
use switchback_domain::{
    EnvironmentName, InstanceId, ReleaseId, ServiceKey, ServiceName, Split, Version, Weight,
};
use switchback_routing::{
    Arm, ArmId, Assignment, Candidate, Endpoint, RequestView, Route, RouteEntry, Router, Steered,
    Steering, Table,
};

pub(crate) fn key(service: &str) -> ServiceKey {
    let environment = EnvironmentName::new("production").unwrap();
    ServiceKey::new(environment, ServiceName::new(service).unwrap())
}

pub(crate) fn release(name: &str) -> ReleaseId {
    ReleaseId::from_stored(name)
}

pub(crate) fn listen() -> SocketAddr {
    "127.0.0.1:8080".parse().unwrap()
}

/// A version with one instance.
pub(crate) fn arm(service: &str, name: &str) -> Arm {
    let id = ArmId { service: key(service), release: release(name) };
    let instance = InstanceId::new(&id.service, &id.release, 0);
    let endpoints = vec![Endpoint { instance, address: listen() }];
    Arm { id, version: Version::new(name).unwrap(), endpoints, upstream: UpstreamSpec::default() }
}

pub(crate) fn route(service: &str, hosts: &[&str], path_prefix: &str) -> Route {
    Route {
        service: key(service),
        listen: listen(),
        hosts: hosts.iter().map(ToString::to_string).collect(),
        path_prefix: path_prefix.to_owned(),
        timeout: Duration::from_secs(5),
        split: Split::all(release("v1")),
        steering: Steering::default(),
        tls: None,
    }
}

pub(crate) fn matching(mut route: Route, matches: Vec<RequestMatch>) -> Route {
    route.steering.rules.matches = matches;
    route
}

/// A table with one arm `v1` per service.
pub(crate) fn table(routes: Vec<Route>) -> Table {
    let mut services: Vec<_> = routes.iter().map(|route| route.service.clone()).collect();
    services.sort();
    services.dedup();
    let arms = services.iter().map(|key| arm(key.service.as_str(), "v1")).collect();
    Table { routes, arms, ..Table::default() }
}

/// Service `shop` at `v1`, which `v2` is to replace: it has this weight, and requests may ask for
/// it.
pub(crate) fn rollout(weight: Weight, rules: RouteRules) -> Table {
    let mut one = route("shop", &[], "/");
    one.split = Split::between(release("v1"), release("v2"), weight);
    let candidate = Candidate { release: release("v2"), salt: "r1".to_owned(), open: true };
    one.steering = Steered { rules, candidate: Some(candidate), ..Steered::default() }.into();
    let arms = vec![arm("shop", "v1"), arm("shop", "v2")];
    Table { routes: vec![one], arms, ..Table::default() }
}

pub(crate) fn basis_points(weight: u16) -> Weight {
    Weight::from_basis_points(weight).unwrap()
}

/// A request in full.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) listen: SocketAddr,
    pub(crate) client: IpAddr,
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Asked {
    pub(crate) fn get(path: &str) -> Self {
        Self {
            listen: listen(),
            client: "10.1.2.3".parse().unwrap(),
            method: "GET".to_owned(),
            host: "x".to_owned(),
            path: path.to_owned(),
            query: String::new(),
            headers: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    pub(crate) fn query(mut self, query: &str) -> Self {
        query.clone_into(&mut self.query);
        self
    }

    pub(crate) fn client(mut self, client: &str) -> Self {
        self.client = client.parse().unwrap();
        self
    }

    pub(crate) fn listen(mut self, listen: &str) -> Self {
        self.listen = listen.parse().unwrap();
        self
    }

    pub(crate) fn view<T>(&self, act: impl FnOnce(&RequestView<'_>) -> T) -> T {
        let headers = |name: &str, visit: &mut dyn FnMut(&[u8]) -> bool| {
            let named = self.headers.iter().filter(|(own, _)| own == name);
            named.into_iter().any(|(_, value)| visit(value.as_bytes()))
        };
        act(&RequestView {
            listen: self.listen,
            client: self.client,
            method: &self.method,
            host: &self.host,
            path: &self.path,
            query: &self.query,
            headers: &headers,
        })
    }

    /// The service that takes it.
    pub(crate) fn service<'a>(&self, router: &'a Router) -> Option<&'a str> {
        self.entry(router).map(|entry| entry.service.service.as_str())
    }

    pub(crate) fn entry<'a>(&self, router: &'a Router) -> Option<&'a RouteEntry> {
        self.view(|request| router.find_for(request))
    }

    pub(crate) fn assigned(&self, router: &Router, random: u64) -> Option<Assignment> {
        let entry = self.entry(router)?;
        self.view(|request| entry.choose_for(request, random))
    }
}

pub(crate) fn exact(text: &str) -> TextMatch {
    TextMatch::Exact(text.to_owned())
}

pub(crate) fn texts(pairs: &[(&str, TextMatch)]) -> BTreeMap<String, TextMatch> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect()
}

pub(crate) fn at(path: PathMatch) -> RequestMatch {
    RequestMatch { path: Some(path), ..RequestMatch::default() }
}

pub(crate) fn when(when: Conditions) -> RequestMatch {
    RequestMatch { path: None, when }
}

pub(crate) fn header(name: &str, text: TextMatch) -> RequestMatch {
    when(Conditions { headers: texts(&[(name, text)]), ..Conditions::default() })
}
