//! Which rule takes a request: examples, and a matcher that tries every rule of the table.

use std::cmp::Reverse;

use crate::support::{Asked, at, exact, header, key, listen, matching, route, table, texts, when};
use proptest::prelude::*;
use switchback_domain::route::{
    Conditions, Destination, PathMatch, Preview, RequestMatch, RouteMode, TextMatch,
};
use switchback_routing::{Invalid, Pattern, Route, Router};

fn conditions() -> Conditions {
    Conditions::default()
}

/// Whether a route with this one rule takes the request.
fn takes(rule: RequestMatch, asked: &Asked) -> bool {
    let router = Router::new(&table(vec![matching(route("a", &[], "/"), vec![rule])])).unwrap();
    asked.service(&router).is_some()
}

#[test]
fn each_kind_of_condition_takes_what_it_says() {
    let prefix = |text: &str| TextMatch::Prefix(text.to_owned());
    let regex = |text: &str| TextMatch::Regex(text.to_owned());
    let get = Asked::get("/a/b");
    let cookies = |text| when(Conditions { cookies: texts(&[("c", text)]), ..conditions() });
    let query = |text| when(Conditions { query: texts(&[("q", text)]), ..conditions() });
    let methods =
        when(Conditions { methods: vec!["GET".to_owned(), "PUT".to_owned()], ..conditions() });
    let source = when(Conditions { source: vec!["10.0.0.0/8".parse().unwrap()], ..conditions() });
    let both = Conditions { cookies: texts(&[("c", exact("1"))]), ..conditions() };
    let both = when(Conditions { headers: texts(&[("h", exact("1"))]), ..both });
    let cases = [
        (at(PathMatch::Exact("/a/b".to_owned())), get.clone(), true),
        (at(PathMatch::Exact("/a/b/".to_owned())), get.clone(), false),
        (at(PathMatch::Prefix("/a/".to_owned())), get.clone(), true),
        (at(PathMatch::Prefix("/a/b/c".to_owned())), get.clone(), false),
        (at(PathMatch::Prefix("/a/".to_owned())), Asked::get("/ab"), false),
        (at(PathMatch::Regex("/a/[a-c]".to_owned())), get.clone(), true),
        (at(PathMatch::Regex("/a".to_owned())), get.clone(), false),
        (methods.clone(), get.clone(), true),
        (methods.clone(), get.clone().method("get"), false),
        (methods, get.clone().method("POST"), false),
        (header("h", exact("1")), get.clone().with("h", "1"), true),
        (header("h", exact("1")), get.clone().with("h", "2").with("h", "1"), true),
        (header("h", exact("1")), get.clone().with("h", "11"), false),
        (header("h", prefix("1")), get.clone().with("h", "11"), true),
        (header("h", regex("[0-9]+")), get.clone().with("h", "11"), true),
        (header("h", regex("[0-9]+")), get.clone().with("h", "11a"), false),
        (header("h", TextMatch::Present(true)), get.clone().with("h", ""), true),
        (header("h", TextMatch::Present(true)), get.clone(), false),
        (header("h", TextMatch::Present(false)), get.clone(), true),
        (header("h", TextMatch::Present(false)), get.clone().with("h", ""), false),
        (cookies(exact("1")), get.clone().with("cookie", "a=2; c=1"), true),
        (cookies(exact("1")), get.clone().with("cookie", "cc=1"), false),
        (cookies(TextMatch::Present(false)), get.clone().with("cookie", "a=1"), true),
        (query(exact("x y")), get.clone().query("a&q=x+y"), true),
        (query(exact("x y")), get.clone().query("Q=x+y"), false),
        (source.clone(), get.clone(), true),
        (source.clone(), get.clone().client("::ffff:10.0.0.1"), true),
        (source, get.clone().client("11.0.0.1"), false),
        (both.clone(), get.clone().with("h", "1").with("cookie", "c=1"), true),
        (both, get.with("h", "1"), false),
    ];
    for (rule, asked, expected) in cases {
        assert_eq!(takes(rule.clone(), &asked), expected, "{rule:?} {asked:?}");
    }
}

#[test]
fn one_of_several_matches_is_enough() {
    let either = vec![header("a", exact("1")), at(PathMatch::Exact("/x".to_owned()))];
    let router = Router::new(&table(vec![matching(route("a", &[], "/"), either)])).unwrap();
    assert!(Asked::get("/").with("a", "1").service(&router).is_some());
    assert!(Asked::get("/x").service(&router).is_some());
    assert!(Asked::get("/").service(&router).is_none());
}

#[test]
fn the_narrower_rule_takes_the_request() {
    let regex = |text: &str| vec![at(PathMatch::Regex(text.to_owned()))];
    let two = Conditions { headers: texts(&[("h", exact("1"))]), ..conditions() };
    let two = when(Conditions { methods: vec!["GET".to_owned()], ..two });
    let wanted = vec![
        route("any", &[], "/"),
        matching(route("header", &[], "/"), vec![header("h", exact("1"))]),
        matching(route("second", &[], "/"), vec![header("h", TextMatch::Prefix("1".to_owned()))]),
        matching(route("both", &[], "/"), vec![two]),
        route("prefix", &[], "/a/b"),
        matching(route("short", &[], "/"), regex("/a/[a-z]")),
        matching(route("long", &[], "/"), regex("/a/[a-z]+/?[a-z]*")),
        matching(route("exact", &[], "/"), vec![at(PathMatch::Exact("/a/b".to_owned()))]),
        route("wild", &["*.test"], "/a"),
        matching(route("host", &["a.test"], "/a/b/c"), vec![header("h", exact("1"))]),
    ];
    let router = Router::new(&table(wanted)).unwrap();
    let cases = [
        (Asked::get("/x"), "any"),
        (Asked::get("/x").with("h", "1").method("PUT"), "header"),
        (Asked::get("/x").with("h", "11"), "second"),
        (Asked::get("/x").with("h", "1"), "both"),
        (Asked::get("/a/b/c/d"), "prefix"),
        (Asked::get("/a/b/c"), "long"),
        (Asked::get("/a/c"), "long"),
        (Asked::get("/a/b"), "exact"),
        (Asked::get("/a/b").host("a.test"), "wild"),
        (Asked::get("/a/b/c").host("a.test").with("h", "1"), "host"),
        (Asked::get("/a/b/c").host("A.test:80"), "wild"),
        (Asked::get("/b").host("a.test"), "any"),
    ];
    for (asked, service) in cases {
        assert_eq!(asked.service(&router), Some(service), "{asked:?}");
    }
}

#[test]
fn rules_that_cannot_be_served_are_refused() {
    let refused = |route: Route| Router::new(&table(vec![route])).unwrap_err();
    let with = |matches| matching(route("a", &[], "/api"), matches);
    let path = refused(with(vec![at(PathMatch::Exact("/web".to_owned()))]));
    assert!(matches!(&path, Invalid::Path { path, .. } if path == "/web"), "{path}");
    let odd = refused(with(vec![at(PathMatch::Prefix("/api/ x".to_owned()))]));
    assert!(matches!(odd, Invalid::Path { .. }));
    let pattern = refused(with(vec![at(PathMatch::Regex("(".to_owned()))]));
    let message = "an expression of production/a is not a regular expression: unclosed group";
    assert_eq!(pattern.to_string(), message);
    let twice = refused(with(vec![header("a", exact("1")), header("a", exact("1"))]));
    assert!(matches!(twice, Invalid::DuplicateRoute { .. }));
    let mut preview = route("a", &[], "/");
    let port_zero = Preview { listen: Some("127.0.0.1:0".parse().unwrap()), hosts: Vec::new() };
    preview.steering.rules.preview = Some(port_zero);
    assert!(matches!(refused(preview.clone()), Invalid::PortZero(_)));
    preview.steering.rules.preview = Some(Preview { listen: Some(listen()), hosts: Vec::new() });
    assert!(matches!(refused(preview), Invalid::DuplicateRoute { .. }), "the route's own place");
    let mut nowhere = route("a", &[], "/");
    nowhere.steering.mode = RouteMode::Divert { to: Destination::Service(key("b")) };
    let message = "production/a is diverted to production/b, which the table does not route";
    assert_eq!(refused(nowhere).to_string(), message);
}

#[test]
fn the_same_expression_below_two_prefixes_is_two_rules() {
    let regex = || vec![at(PathMatch::Regex(".*[0-9]".to_owned()))];
    let [left, right] =
        ["/a", "/b"].map(|prefix| matching(route(&prefix[1..], &[], prefix), regex()));
    let router = Router::new(&table(vec![left, right])).unwrap();
    assert_eq!(Asked::get("/a/1").service(&router), Some("a"));
    assert_eq!(Asked::get("/b/1").service(&router), Some("b"));
    assert_eq!(Asked::get("/c/1").service(&router), None);
}

/// What the documentation says, without any cleverness: every rule is tried, and of those that
/// take the request the first in order wins.
fn naive<'a>(routes: &'a [Route], asked: &Asked) -> Option<&'a str> {
    let everything = [RequestMatch::default()];
    let mut hits = Vec::new();
    for (place, route) in routes.iter().enumerate() {
        let matches = &route.steering.rules.matches;
        let matches = if matches.is_empty() { &everything } else { matches.as_slice() };
        for (order, rule) in matches.iter().enumerate() {
            let host = host_rank(route, &asked.host);
            let path = path_rank(&route.path_prefix, rule.path.as_ref(), &asked.path);
            if let (Some(host), Some(path)) = (host, path)
                && naive_holds(&rule.when, asked)
            {
                let conditions = Reverse(rule.when.count());
                hits.push(((host, path, conditions, place, order), route.service.service.as_str()));
            }
        }
    }
    hits.into_iter().min().map(|(_, service)| service)
}

fn host_rank(route: &Route, host: &str) -> Option<u8> {
    let wild = host.split_once('.').map(|(_, rest)| format!("*.{rest}"));
    if route.hosts.iter().any(|name| name == host) {
        Some(0)
    } else if wild.is_some_and(|wild| route.hosts.contains(&wild)) {
        Some(1)
    } else {
        route.hosts.is_empty().then_some(2)
    }
}

fn path_rank(prefix: &str, path: Option<&PathMatch>, asked: &str) -> Option<(u8, Reverse<usize>)> {
    let under = |prefix: &str| {
        let prefix = prefix.trim_end_matches('/');
        (asked == prefix || asked.starts_with(&format!("{prefix}/"))).then_some(prefix.len())
    };
    let below = under(prefix)?;
    match path {
        Some(PathMatch::Exact(path)) => (asked == path).then_some((0, Reverse(0))),
        Some(PathMatch::Regex(text)) => {
            let fits = Pattern::new(text).unwrap().is_match(asked.as_bytes());
            fits.then_some((1, Reverse(text.len())))
        }
        Some(PathMatch::Prefix(own)) => Some((2, Reverse(under(own)?.max(below)))),
        None => Some((2, Reverse(below))),
    }
}

fn naive_holds(when: &Conditions, asked: &Asked) -> bool {
    let fits = |text: &TextMatch, values: &[String]| match text {
        TextMatch::Exact(text) => values.contains(text),
        TextMatch::Prefix(text) => values.iter().any(|value| value.starts_with(text)),
        TextMatch::Regex(text) => {
            values.iter().any(|value| Pattern::new(text).unwrap().is_match(value.as_bytes()))
        }
        TextMatch::Present(wanted) => values.is_empty() != *wanted,
    };
    let headers = |wanted: &str| -> Vec<String> {
        let named = asked.headers.iter().filter(|(name, _)| name == wanted);
        named.map(|(_, value)| value.clone()).collect()
    };
    let pairs = |text: &str, at: &str, wanted: &str| -> Vec<String> {
        let pairs = text.split(at).filter_map(|pair| pair.trim().split_once('='));
        pairs.filter(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned()).collect()
    };
    let cookies = |wanted: &str| -> Vec<String> {
        headers("cookie").iter().flat_map(|line| pairs(line, ";", wanted)).collect()
    };
    (when.methods.is_empty() || when.methods.contains(&asked.method))
        && (when.source.is_empty() || when.source.iter().any(|net| net.contains(asked.client)))
        && when.headers.iter().all(|(name, text)| fits(text, &headers(name)))
        && when.cookies.iter().all(|(name, text)| fits(text, &cookies(name)))
        && when.query.iter().all(|(name, text)| fits(text, &pairs(&asked.query, "&", name)))
}

fn any_text() -> impl Strategy<Value = TextMatch> {
    prop_oneof![
        "[ab]{0,2}".prop_map(TextMatch::Exact),
        "[ab]{1,2}".prop_map(TextMatch::Prefix),
        prop::sample::select(vec!["a*", "[ab]b?", "a|bb"]).prop_map(|t| TextMatch::Regex(t.into())),
        any::<bool>().prop_map(TextMatch::Present),
    ]
}

fn any_texts() -> impl Strategy<Value = std::collections::BTreeMap<String, TextMatch>> {
    prop::collection::btree_map("[hi]", any_text(), 0..2)
}

fn any_rule() -> impl Strategy<Value = RequestMatch> {
    let path = prop_oneof![
        "(/[ab]{1,2}){1,3}/?".prop_map(PathMatch::Exact),
        "(/[ab]{1,2}){0,3}/".prop_map(PathMatch::Prefix),
        prop::sample::select(vec!["/a.*", "/[ab]+(/.*)?", ".*b", "/(a|b)/.*"])
            .prop_map(|text| PathMatch::Regex(text.into())),
    ];
    let methods = prop::sample::subsequence(vec!["GET".to_owned(), "PUT".to_owned()], 0..=1);
    let networks = vec!["10.0.0.0/8".parse().unwrap(), "::/0".parse().unwrap()];
    let source = prop::sample::subsequence(networks, 0..=1);
    let when = (methods, any_texts(), any_texts(), any_texts(), source).prop_map(
        |(methods, headers, cookies, query, source)| Conditions {
            methods,
            headers,
            cookies,
            query,
            source,
        },
    );
    (prop::option::of(path), when).prop_map(|(path, when)| RequestMatch { path, when })
}

fn any_request() -> impl Strategy<Value = Asked> {
    let host = prop::sample::select(vec!["a.t", "b.t", "c.t", "x"]);
    let pair = ("[hi]", "[ab]{0,2}");
    let pairs = || prop::collection::vec(pair, 0..3);
    let client = prop::sample::select(vec!["10.1.1.1", "11.1.1.1", "::1"]);
    let method = prop::sample::select(vec!["GET", "PUT"]);
    let parts = (host, "(/[ab]{1,2}){0,4}/?", method, client, pairs(), pairs(), pairs());
    parts.prop_map(|(host, path, method, client, headers, cookies, query)| {
        let joined = |pairs: &[(String, String)], by: &str| {
            let pairs: Vec<_> =
                pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            pairs.join(by)
        };
        let path = if path.is_empty() { "/" } else { &path };
        let asked = Asked::get(path).host(host).method(method).client(client);
        let mut asked = asked.query(&joined(&query, "&"));
        asked.headers = headers;
        if cookies.is_empty() { asked } else { asked.with("cookie", &joined(&cookies, "; ")) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_router_agrees_with_the_naive_matcher(
        wanted in prop::collection::vec((
            prop::sample::subsequence(vec!["a.t", "b.t", "*.t"], 0..=2),
            "(/[ab]{1,2}){0,2}/",
            prop::collection::vec(any_rule(), 0..3),
        ), 1..8),
        requests in prop::collection::vec(any_request(), 8),
    ) {
        let routes = wanted.into_iter().enumerate();
        let routes = routes.map(|(n, (hosts, prefix, matches))| {
            matching(route(&format!("s{n}"), &hosts, &prefix), matches)
        });
        // A rule that no table can hold is left out, so that the rest is tried.
        let mut kept: Vec<Route> = Vec::new();
        for route in routes {
            kept.push(route);
            if Router::new(&table(kept.clone())).is_err() {
                kept.pop();
            }
        }
        let router = Router::new(&table(kept.clone())).unwrap();
        for asked in requests {
            prop_assert_eq!(asked.service(&router), naive(&kept, &asked), "{:?}", asked);
        }
    }

    #[test]
    fn any_request_is_answered(
        host in ".{0,20}", path in ".{0,40}", query in ".{0,40}", method in ".{0,8}",
        cookie in ".{0,40}", value in ".{0,20}", pattern in ".{0,20}",
    ) {
        let mut one = route("a", &[], "/");
        let odd = header("h", TextMatch::Regex(pattern));
        let two = Conditions { cookies: texts(&[("h", exact("1"))]), ..conditions() };
        let two = Conditions { query: texts(&[("h", exact("1"))]), ..two };
        one.steering.rules.matches = vec![odd, when(two), header("h", TextMatch::Present(false))];
        let Ok(router) = Router::new(&table(vec![one])) else { return Ok(()) };
        let asked = Asked::get(&path).host(&host).query(&query).method(&method);
        let _ = asked.with("cookie", &cookie).with("h", &value).service(&router);
    }
}
