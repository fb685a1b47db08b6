//! Hosts and path prefixes: the router against examples, and against a naive matcher that tries
//! every route.

use proptest::prelude::*;
use switchback_domain::{ReleaseId, Split, Weight};
use switchback_routing::{Invalid, Route, Router, Table};

use crate::support::{arm, listen, route, table};

fn found<'a>(router: &'a Router, host: &str, path: &str) -> Option<&'a str> {
    router.find(listen(), host, path).map(|entry| entry.service.service.as_str())
}

#[test]
fn exact_host_beats_wildcard_beats_any() {
    let wanted = vec![
        route("any", &[], "/"),
        route("wild", &["*.example.com"], "/"),
        route("exact", &["api.example.com"], "/"),
    ];
    let router = Router::new(&table(wanted)).unwrap();
    assert_eq!(found(&router, "api.example.com", "/"), Some("exact"));
    assert_eq!(found(&router, "API.Example.com:8080", "/x"), Some("exact"));
    assert_eq!(found(&router, "www.example.com.", "/x"), Some("wild"));
    assert_eq!(found(&router, "a.b.example.com", "/x"), Some("any"), "one label only");
    assert_eq!(found(&router, "[::1]:8080", "/x"), Some("any"));
    assert_eq!(router.addresses().collect::<Vec<_>>(), [listen()]);
    assert!(router.find("127.0.0.1:9".parse().unwrap(), "x", "/").is_none());
}

#[test]
fn the_longest_prefix_wins_on_segment_boundaries() {
    let wanted = vec![
        route("api", &[], "/api"),
        route("v2", &[], "/api/v2/"),
        route("admin", &["a.test"], "/admin"),
    ];
    let router = Router::new(&table(wanted)).unwrap();
    let cases = [
        ("/api", Some("api")),
        ("/api/", Some("api")),
        ("/api/x", Some("api")),
        ("/api/v2", Some("v2")),
        ("/api/v2/x/y", Some("v2")),
        ("/api/v20", Some("api")),
        ("/apix", None),
        ("/", None),
        ("*", None),
        ("", None),
    ];
    for (path, service) in cases {
        assert_eq!(found(&router, "x", path), service, "{path}");
    }
    assert_eq!(found(&router, "a.test", "/admin/x"), Some("admin"));
    assert_eq!(found(&router, "a.test", "/api"), Some("api"), "falls through to any host");
}

#[test]
fn nonsense_is_refused_with_its_subject() {
    let twice = table(vec![route("a", &[], "/x"), route("b", &[], "/x/")]);
    let message = Router::new(&twice).unwrap_err().to_string();
    assert_eq!(message, "production/a and production/b both want 127.0.0.1:8080, host *, path /x");
    let mut unknown = table(vec![route("a", &[], "/")]);
    unknown.arms.clear();
    assert!(matches!(Router::new(&unknown), Err(Invalid::UnknownArm(_))));
    let mut double = table(vec![route("a", &[], "/")]);
    double.arms.push(arm("a", "v1"));
    assert!(matches!(Router::new(&double), Err(Invalid::DuplicateArm(_))));
    let bad = |host: &str, path: &str| Router::new(&table(vec![route("a", &[host], path)]));
    assert!(matches!(bad("ok.test", "api"), Err(Invalid::PathPrefix { .. })));
    for host in ["", "UP.test", "*.", "a b", "*"] {
        assert!(matches!(bad(host, "/"), Err(Invalid::Host { .. })), "{host:?}");
    }
    let mut zero = table(vec![route("a", &[], "/")]);
    zero.routes[0].listen.set_port(0);
    assert!(matches!(Router::new(&zero), Err(Invalid::PortZero(_))));
}

#[test]
fn ten_thousand_routes_are_found_each() {
    let hosts: Vec<String> = (0..100).map(|host| format!("h{host}.test")).collect();
    let wanted = (0..10_000)
        .map(|n: usize| route("svc", &[&hosts[n / 100]], &format!("/p{}/q", n % 100)))
        .collect();
    let router = Router::new(&table(wanted)).unwrap();
    for n in 0..10_000 {
        assert!(found(&router, &hosts[n / 100], &format!("/p{}/q/r", n % 100)).is_some());
        assert!(found(&router, &hosts[n / 100], &format!("/p{}/qq", n % 100)).is_none());
    }
}

#[test]
fn a_route_without_a_split_has_no_arm() {
    let mut silent = route("a", &[], "/");
    silent.split = Split::none();
    let router = Router::new(&table(vec![silent])).unwrap();
    assert_eq!(router.find(listen(), "x", "/").unwrap().choose(0), None);
}

/// What the documentation says, without any cleverness.
fn naive<'a>(routes: &'a [Route], host: &str, path: &str) -> Option<&'a str> {
    let under = |route: &&Route| {
        let prefix = route.path_prefix.trim_end_matches('/');
        path == prefix || path.starts_with(&format!("{prefix}/"))
    };
    let wild = host.split_once('.').map(|(_, rest)| format!("*.{rest}"));
    let by_host: [&dyn Fn(&&Route) -> bool; 3] = [
        &|route| route.hosts.iter().any(|name| name == host),
        &|route| wild.as_ref().is_some_and(|wild| route.hosts.contains(wild)),
        &|route| route.hosts.is_empty(),
    ];
    by_host.into_iter().find_map(|matches| {
        let candidates = routes.iter().filter(|route| matches(route)).filter(under);
        let longest = candidates.max_by_key(|route| route.path_prefix.trim_end_matches('/').len());
        longest.map(|route| route.service.service.as_str())
    })
}

proptest! {
    #[test]
    fn the_router_agrees_with_the_naive_matcher(
        wanted in prop::collection::vec(
            (prop::sample::select(vec!["", "a.t", "b.t", "*.t"]), "(/[ab]{1,2}){0,3}"), 1..12),
        host in prop::sample::select(vec!["a.t", "b.t", "c.t", "x"]),
        path in "(/[ab]{1,2}){0,4}/?",
    ) {
        let routes: Vec<Route> = wanted.iter().enumerate().map(|(n, (host, prefix))| {
            let hosts: &[&str] = if host.is_empty() { &[] } else { &[host] };
            route(&format!("s{n}"), hosts, &format!("{prefix}/"))
        }).collect();
        let Ok(router) = Router::new(&table(routes.clone())) else { return Ok(()) };
        let path = if path.is_empty() { "/".to_owned() } else { path };
        prop_assert_eq!(found(&router, host, &path), naive(&routes, host, &path));
    }

    #[test]
    fn over_all_coins_each_arm_gets_exactly_its_weight(basis_points in 0u16..=10_000) {
        let weight = Weight::from_basis_points(basis_points).unwrap();
        let [old, new] = ["v1", "v2"].map(ReleaseId::from_stored);
        let mut one = route("a", &[], "/");
        one.split = Split::between(old, new, weight);
        let arms = vec![arm("a", "v1"), arm("a", "v2")];
        let table = Table { routes: vec![one], arms, ..Table::default() };
        let router = Router::new(&table).unwrap();
        let entry = router.find(listen(), "x", "/").unwrap();
        let to_new = (0..10_000).filter(|coin| entry.choose(*coin) == Some(1)).count();
        prop_assert_eq!(to_new, usize::from(basis_points));
    }
}
