//! How long it takes to build a table of 10,000 routes and to find one of them: prints the median
//! of several rounds, in milliseconds and in nanoseconds. `cargo bench -p switchback-routing`.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(clippy::print_stdout, reason = "its output is the point")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use switchback_domain::route::{
    Affinity, Conditions, PathMatch, RequestMatch, RouteRules, TextMatch,
};
use switchback_domain::tls::UpstreamSpec;
use switchback_domain::{
    EnvironmentName, InstanceId, ReleaseId, ServiceKey, ServiceName, Split, Version, Weight,
};
use switchback_routing::{
    Arm, ArmId, Candidate, Endpoint, RequestView, Route, Router, Steered, Table,
};

const ROUTES: usize = 10_000;
const ROUNDS: usize = 15;
const LOOKUPS: usize = 400_000;

fn main() {
    let listen: SocketAddr = "127.0.0.1:8080".parse().unwrap();
    let plain = RouteRules::default();
    shape("2,500 hosts x 4 prefixes", 2_500, &plain, listen);
    shape("100 hosts x 100 prefixes", 100, &plain, listen);
    shape("1 host x 10,000 prefixes", 1, &plain, listen);
    let sticky = RouteRules { affinity: Some(Affinity::Cookie("id".to_owned())), ..plain.clone() };
    shape("2,500 hosts, sticky by cookie", 2_500, &sticky, listen);
    let header = TextMatch::Exact("1".to_owned());
    let when =
        Conditions { headers: [("x-beta".to_owned(), header)].into(), ..Conditions::default() };
    let by_header = RequestMatch { path: None, when };
    let conditions = RouteRules { matches: vec![by_header], ..plain.clone() };
    shape("2,500 hosts, a header each", 2_500, &conditions, listen);
    let expression = RequestMatch {
        path: Some(PathMatch::Regex("/p[0-9]+/items/[a-z0-9]+".to_owned())),
        ..RequestMatch::default()
    };
    let expressions = RouteRules { matches: vec![expression], ..plain };
    shape("10,000 hosts, an expression each", 10_000, &expressions, listen);
}

fn shape(name: &str, hosts: usize, rules: &RouteRules, listen: SocketAddr) {
    let table = table(hosts, rules, listen);
    let build =
        median((0..ROUNDS).map(|_| timed(|| drop(black_box(Router::new(&table).unwrap())))));
    let router = Router::new(&table).unwrap();
    let requests: Vec<(String, String)> = (0..ROUTES)
        .map(|n| {
            let n = n.wrapping_mul(7_919) % ROUTES;
            (host(n % hosts), format!("{}/items/42", prefix(n / hosts)))
        })
        .collect();
    let headers = |name: &str, visit: &mut dyn FnMut(&[u8]) -> bool| match name {
        "cookie" => visit(b"theme=dark; id=0123456789abcdef"),
        "x-beta" => visit(b"1"),
        _ => false,
    };
    let view = |(host, path): &'_ (String, String), act: &mut dyn FnMut(&RequestView<'_>)| {
        act(&RequestView {
            listen,
            client: listen.ip(),
            method: "GET",
            host,
            path,
            query: "",
            headers: &headers,
        });
    };
    let per_lookup = |act: &dyn Fn(&RequestView<'_>)| {
        let round = |_| {
            timed(|| {
                for request in requests.iter().cycle().take(LOOKUPS) {
                    view(request, &mut |request| act(request));
                }
            })
        };
        median((0..ROUNDS).map(round)) / u32::try_from(LOOKUPS).unwrap()
    };
    let find = per_lookup(&|request| {
        assert!(black_box(router.find_for(request)).is_some());
    });
    let both = per_lookup(&|request| {
        let route = router.find_for(request).unwrap();
        assert!(black_box(route.choose_for(request, 0x9e37_79b9_7f4a_7c15)).is_some());
    });
    println!("{name:34} build {build:>8.1?}  find {find:>6.0?}  find and choose {both:>6.0?}");
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn host(n: usize) -> String {
    format!("shop-{n}.example.com")
}

fn prefix(n: usize) -> String {
    format!("/p{n}")
}

fn table(hosts: usize, rules: &RouteRules, listen: SocketAddr) -> Table {
    let environment = EnvironmentName::new("production").unwrap();
    let key = ServiceKey::new(environment, ServiceName::new("shop").unwrap());
    let arms = ["v1", "v2"].map(|version| {
        let id = ArmId { service: key.clone(), release: ReleaseId::from_stored(version) };
        let instance = InstanceId::new(&key, &id.release, 0);
        let endpoints = vec![Endpoint { instance, address: listen }];
        Arm {
            id,
            version: Version::new(version).unwrap(),
            endpoints,
            upstream: UpstreamSpec::default(),
        }
    });
    let [old, new] = arms.each_ref().map(|arm| arm.id.release.clone());
    let candidate = Candidate { release: new.clone(), salt: "r1".to_owned(), open: true };
    let steered =
        Steered { rules: rules.clone(), candidate: Some(candidate), ..Steered::default() };
    let route = |n: usize| Route {
        service: key.clone(),
        listen,
        hosts: vec![host(n % hosts)],
        path_prefix: prefix(n / hosts),
        timeout: Duration::from_secs(30),
        split: Split::between(old.clone(), new.clone(), Weight::from_percent(10)),
        steering: steered.clone().into(),
        tls: None,
    };
    let routes = (0..ROUTES).map(route).collect();
    Table { routes, arms: arms.to_vec(), ..Table::default() }
}
