//! Which version gets a request, and why.

use std::time::Duration;

use crate::support::{
    Asked, arm, basis_points, exact, header, key, listen, release, rollout, route, table,
};
use proptest::prelude::*;
use switchback_domain::route::{
    Affinity, Destination, Maintenance, Mirror, Preview, RouteMode, RouteRules, VersionHeader,
};
use switchback_domain::{Split, Weight};
use switchback_routing::{Invalid, Reason, Route, Router, Table};

const OLD: usize = 0;
const NEW: usize = 1;
/// Hits the share at the start, which is the candidate's, and the one at the end.
const LOW: u64 = 0;
const HIGH: u64 = u64::MAX;

fn sticky(affinity: Affinity) -> RouteRules {
    RouteRules { affinity: Some(affinity), ..RouteRules::default() }
}

fn by_cookie() -> RouteRules {
    sticky(Affinity::Cookie("id".to_owned()))
}

fn router(table: &Table) -> Router {
    Router::new(table).unwrap()
}

fn percent(percent: u16) -> Weight {
    Weight::from_percent(percent)
}

/// A client by its cookie.
fn client(id: &str) -> Asked {
    Asked::get("/").with("cookie", &format!("id={id}"))
}

fn arm_of(router: &Router, asked: &Asked, random: u64) -> (usize, Reason) {
    let assigned = asked.assigned(router, random).unwrap();
    (assigned.arm, assigned.reason)
}

#[test]
fn without_rules_every_request_is_drawn() {
    let router = router(&rollout(percent(10), RouteRules::default()));
    assert_eq!(arm_of(&router, &Asked::get("/"), LOW), (NEW, Reason::Coin));
    assert_eq!(arm_of(&router, &Asked::get("/"), HIGH), (OLD, Reason::Coin));
    let step = u64::MAX / 10_000 + 1;
    let drawn = (0..10_000).filter(|n| arm_of(&router, &Asked::get("/"), n * step).0 == NEW);
    assert_eq!(drawn.count(), 1000, "evenly drawn numbers give exactly the share");
}

#[test]
fn the_only_version_needs_no_draw() {
    let router = router(&rollout(Weight::ZERO, by_cookie()));
    assert_eq!(arm_of(&router, &client("a"), LOW), (OLD, Reason::Only));
    assert_eq!(arm_of(&router, &Asked::get("/"), LOW), (OLD, Reason::Only));
    assert!(!Reason::Only.is_random() && Reason::Cohort.is_random());
}

#[test]
fn a_client_is_known_by_what_the_route_says() {
    let known = |affinity: Affinity, asked: &Asked| {
        let assigned =
            asked.assigned(&router(&rollout(percent(50), sticky(affinity))), LOW).unwrap();
        assert_eq!(assigned.session.is_some(), assigned.reason == Reason::Cohort);
        assigned.session
    };
    let by_header = || Affinity::Header("x-user".to_owned());
    let ann = known(by_header(), &Asked::get("/").with("x-user", "ann"));
    assert!(ann.is_some());
    assert_eq!(ann, known(by_header(), &Asked::get("/y").with("x-user", "ann")));
    assert_ne!(ann, known(by_header(), &Asked::get("/").with("x-user", "bob")));
    assert_eq!(known(by_header(), &Asked::get("/").with("x-user", "")), None);
    let address = |ip: &str| known(Affinity::SourceIp, &Asked::get("/").client(ip));
    assert_eq!(address("10.0.0.1"), address("::ffff:10.0.0.1"));
    assert_ne!(address("10.0.0.1"), address("10.0.0.2"));
    assert!(address("::1").is_some());
}

#[test]
fn a_cookie_of_ours_is_set_once_and_keeps_its_client() {
    let own = Affinity::OwnCookie { name: "cohort".to_owned(), max_age: Duration::from_hours(1) };
    let split = router(&rollout(percent(50), sticky(own.clone())));
    for random in (0..100).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
        let first = Asked::get("/").assigned(&split, random).unwrap();
        let cookie = first.set_cookie.unwrap();
        let (pair, rest) = cookie.split_once(';').unwrap();
        assert_eq!(pair, format!("cohort={random:016x}"));
        assert_eq!(rest, " Max-Age=3600; Path=/; HttpOnly; SameSite=Lax");
        let again = Asked::get("/").with("cookie", pair).assigned(&split, !random).unwrap();
        assert_eq!((again.arm, again.session), (first.arm, first.session));
        assert_eq!(again.set_cookie, None);
    }
    let alone = router(&rollout(Weight::ZERO, sticky(own)));
    assert_eq!(Asked::get("/").assigned(&alone, LOW).unwrap().set_cookie, None);
}

#[test]
fn places_do_not_change_between_builds() {
    let session = client("ann").assigned(&router(&rollout(percent(5), by_cookie())), 0);
    assert_eq!(session.unwrap().session, Some(PINNED));
}

/// Changing it moves every client of every running rollout: a reason for a change record.
const PINNED: u64 = 15_362_368_283_082_548_146;

#[test]
fn a_cohort_is_as_large_as_its_weight() {
    const CLIENTS: u32 = 20_000;
    for salt in ["r1", "r2", "r3"] {
        for weight in [100, 500, 2500, 5000, 9000] {
            let mut table = rollout(basis_points(weight), by_cookie());
            table.routes[0].steering.candidate.as_mut().unwrap().salt = salt.to_owned();
            let router = router(&table);
            let hit = |n: &u32| arm_of(&router, &client(&n.to_string()), LOW).0 == NEW;
            let found = f64::from(u32::try_from((0..CLIENTS).filter(hit).count()).unwrap());
            let share = f64::from(weight) / 10_000.0;
            let mean = f64::from(CLIENTS) * share;
            let sigma = (mean * (1.0 - share)).sqrt();
            assert!((found - mean).abs() < 3.0 * sigma, "{salt} {weight}: {found}, not {mean}");
        }
    }
}

#[test]
fn the_next_rollout_begins_with_other_clients() {
    let cohort = |salt: &str| -> Vec<u32> {
        let mut table = rollout(percent(10), by_cookie());
        table.routes[0].steering.candidate.as_mut().unwrap().salt = salt.to_owned();
        let router = router(&table);
        (0..10_000).filter(|n| arm_of(&router, &client(&n.to_string()), LOW).0 == NEW).collect()
    };
    let (first, second) = (cohort("r1"), cohort("r2"));
    let both = first.iter().filter(|client| second.contains(client)).count();
    assert!((60..140).contains(&both), "{both} of 10,000 in both, not about 100");
}

#[test]
fn taking_a_candidate_back_moves_only_its_own_clients() {
    let mut table = rollout(percent(50), by_cookie());
    let before = router(&table);
    // It is no longer to be asked for, and its share falls.
    table.routes[0].steering.candidate.as_mut().unwrap().open = false;
    table.routes[0].split = Split::between(release("v1"), release("v2"), percent(20));
    let after = router(&table);
    for id in (0..1000).map(|n| n.to_string()) {
        let (was, is) = (arm_of(&before, &client(&id), 0).0, arm_of(&after, &client(&id), 0).0);
        assert!(was == is || (was == NEW && is == OLD));
    }
}

#[test]
fn a_header_asks_for_a_version_that_gets_requests() {
    let version_header = |source: &[&str]| RouteRules {
        version_header: Some(VersionHeader {
            header: "x-switchback-version".to_owned(),
            source: source.iter().map(|network| network.parse().unwrap()).collect(),
        }),
        ..RouteRules::default()
    };
    let ask = |table: &Table, version: &str| {
        let asked = Asked::get("/").with("x-switchback-version", version);
        arm_of(&router(table), &asked, HIGH)
    };
    let mut table = rollout(Weight::ZERO, version_header(&[]));
    assert_eq!(ask(&table, "v2"), (NEW, Reason::Named), "open, before its first share");
    assert_eq!(ask(&table, "v3"), (OLD, Reason::Only), "nobody has this name");
    let mut restricted = table.clone();
    restricted.routes[0].steering.rules = version_header(&["192.0.2.0/24"]);
    assert_eq!(ask(&restricted, "v2"), (OLD, Reason::Only), "not from this address");
    restricted.routes[0].steering.rules = version_header(&["192.0.2.0/24", "10.0.0.0/8"]);
    assert_eq!(ask(&restricted, "v2"), (NEW, Reason::Named));
    table.arms[NEW].endpoints.clear();
    assert_eq!(ask(&table, "v2"), (OLD, Reason::Only), "nobody there");
    let mut drained = rollout(Weight::ALL, version_header(&[]));
    assert_eq!(ask(&drained, "v1"), (NEW, Reason::Only), "one without a share is being drained");
    drained.routes[0].steering.candidate = None;
    drained.routes[0].split = Split::between(release("v1"), release("v2"), percent(50));
    assert_eq!(ask(&drained, "v1"), (OLD, Reason::Named));
}

#[test]
fn a_rule_sends_requests_to_an_open_candidate() {
    let rules =
        RouteRules { to_candidate: vec![header("canary", exact("true"))], ..RouteRules::default() };
    let mut table = rollout(Weight::ZERO, rules);
    let canary = Asked::get("/").with("canary", "true");
    assert_eq!(arm_of(&router(&table), &canary, HIGH), (NEW, Reason::Rule));
    assert_eq!(arm_of(&router(&table), &Asked::get("/"), LOW), (OLD, Reason::Only));
    table.routes[0].steering.candidate.as_mut().unwrap().open = false;
    assert_eq!(arm_of(&router(&table), &canary, HIGH), (OLD, Reason::Only));
}

#[test]
fn a_preview_shows_the_candidate_and_otherwise_what_serves() {
    let own: std::net::SocketAddr = "127.0.0.1:8090".parse().unwrap();
    let preview = Preview { listen: Some(own), hosts: Vec::new() };
    let rules = RouteRules { preview: Some(preview), ..RouteRules::default() };
    let mut table = rollout(Weight::ZERO, rules);
    let there = Asked::get("/").listen("127.0.0.1:8090");
    let both = router(&table);
    assert_eq!(both.addresses().collect::<Vec<_>>(), [listen(), own]);
    assert_eq!(arm_of(&both, &there, HIGH), (NEW, Reason::Preview));
    assert_eq!(arm_of(&both, &Asked::get("/"), LOW), (OLD, Reason::Only));
    let without_view = both.find(own, "x", "/").unwrap();
    assert_eq!(without_view.choose(9_999), Some(NEW), "also for who asks the short way");
    table.routes[0].steering.candidate = None;
    assert_eq!(arm_of(&router(&table), &there, HIGH), (OLD, Reason::Only));
    table.routes[0].steering.rules.preview =
        Some(Preview { listen: None, hosts: vec!["next.test".to_owned()] });
    table.routes[0].steering.candidate =
        rollout(Weight::ZERO, RouteRules::default()).routes[0].steering.candidate.clone();
    let by_host = router(&table);
    assert_eq!(arm_of(&by_host, &Asked::get("/").host("next.test"), LOW), (NEW, Reason::Preview));
    assert_eq!(arm_of(&by_host, &Asked::get("/").host("shop.test"), LOW), (OLD, Reason::Only));
}

#[test]
fn only_ordinary_requests_to_the_baseline_are_mirrored() {
    let mirror = |fraction, unsafe_methods| RouteRules {
        mirror: Some(Mirror { fraction, unsafe_methods }),
        to_candidate: vec![header("canary", exact("true"))],
        ..RouteRules::default()
    };
    let mirrored = |rules: RouteRules, weight, asked: &Asked, random| {
        asked.assigned(&router(&rollout(weight, rules)), random).unwrap().mirror
    };
    let get = Asked::get("/");
    let (all, none) = (Weight::ALL, Weight::ZERO);
    assert_eq!(mirrored(mirror(all, false), none, &get, LOW), Some(NEW));
    assert_eq!(mirrored(mirror(all, false), percent(50), &get, HIGH), Some(NEW));
    assert_eq!(mirrored(mirror(all, false), percent(50), &get, LOW), None, "it is there already");
    assert_eq!(mirrored(mirror(all, false), none, &get.clone().method("POST"), LOW), None);
    assert_eq!(mirrored(mirror(all, true), none, &get.clone().method("POST"), LOW), Some(NEW));
    let mut closed = rollout(none, mirror(all, false));
    closed.routes[0].steering.candidate.as_mut().unwrap().open = false;
    assert_eq!(get.assigned(&router(&closed), LOW).unwrap().mirror, None);
    let tenth = router(&rollout(none, mirror(percent(10), false)));
    let step = u64::from(u32::MAX) / 10_000 + 1;
    let copies = (0..10_000).filter(|n| get.assigned(&tenth, n * step).unwrap().mirror.is_some());
    assert_eq!(copies.count(), 1000, "drawn apart from the version");
}

#[test]
fn a_diverted_route_gives_everything_to_the_other() {
    let rules = RouteRules { to_candidate: vec![header("a", exact("1"))], ..by_cookie() };
    let mut table = rollout(percent(50), rules);
    table.routes.push(route("spare", &["spare.test"], "/"));
    table.arms.push(arm("spare", "v1"));
    let mut diverted = |to: Destination| {
        table.routes[0].steering.mode = RouteMode::Divert { to };
        Router::new(&table)
    };
    let asked = client("a").with("a", "1");
    let to_old = diverted(Destination::Version(release("v1"))).unwrap();
    let to_spare = diverted(Destination::Service(key("spare"))).unwrap();
    for random in [LOW, HIGH] {
        assert_eq!(arm_of(&to_old, &asked, random), (OLD, Reason::Only));
        assert_eq!(arm_of(&to_spare, &asked, random), (2, Reason::Only));
    }
    let nobody = diverted(Destination::Version(release("v9"))).unwrap_err();
    assert!(matches!(nobody, Invalid::UnknownArm(_)), "{nobody}");
}

#[test]
fn modes_are_the_routes_and_not_its_previews() {
    let rules = RouteRules {
        preview: Some(Preview { listen: None, hosts: vec!["next.test".to_owned()] }),
        ..RouteRules::default()
    };
    let mut table = rollout(Weight::ZERO, rules);
    let page = Maintenance { page: "later".to_owned(), retry_after: Duration::from_secs(9) };
    let modes = |table: &Table| {
        let router = router(table);
        let of = |host: &str| Asked::get("/").host(host).entry(&router).unwrap().mode.clone();
        (of("x"), of("next.test"))
    };
    assert_eq!(modes(&table), (RouteMode::Serve, RouteMode::Serve));
    table.routes[0].steering.mode = RouteMode::Maintenance(page.clone());
    assert_eq!(modes(&table), (RouteMode::Maintenance(page), RouteMode::Serve));
    table.routes[0].steering.mode = RouteMode::Isolate;
    assert_eq!(modes(&table), (RouteMode::Isolate, RouteMode::Isolate), "nobody means nobody");
}

#[test]
fn what_is_sampled_is_drawn_apart_from_the_version() {
    for share in [0, 1, 100, 5_000, 9_999, 10_000] {
        let mut table = rollout(percent(10), RouteRules::default());
        table.routes[0].steering.rules.observation.trace_sample = Some(basis_points(share));
        let (router, asked) = (router(&table), client("a"));
        let entry = asked.entry(&router).unwrap();
        for high in [LOW, HIGH] {
            let random = |low: u64| (high & !0xffff) | low;
            let sampled = (0..=0xffff).filter(|low| entry.samples(random(*low))).count();
            assert_eq!(sampled, (usize::from(share) * 65_536).div_ceil(10_000), "{share}");
            let version = |low| asked.assigned(&router, random(low)).unwrap().arm;
            assert_eq!(version(0), version(0xffff));
        }
    }
}

#[test]
fn a_route_without_a_split_has_no_version() {
    let mut table = rollout(Weight::ZERO, by_cookie());
    table.routes[0].split = Split::none();
    assert_eq!(client("a").assigned(&router(&table), LOW), None);
}

#[test]
fn tables_from_before_these_rules_are_read() {
    let mut plain = rollout(percent(10), RouteRules::default());
    plain.routes[0].steering = switchback_routing::Steering::default();
    let text = serde_json::to_string(&plain).unwrap();
    assert!(!text.contains("steering"), "an older data plane sees what it knows: {text}");
    assert_eq!(serde_json::from_str::<Table>(&text).unwrap(), plain);
    let mut full = rollout(percent(10), by_cookie());
    full.routes[0].steering.mode = RouteMode::Divert { to: Destination::Service(key("shop")) };
    let text = serde_json::to_string(&full).unwrap();
    assert_eq!(serde_json::from_str::<Table>(&text).unwrap(), full);
    assert_eq!(table(vec![route("a", &[], "/")]).routes[0].steering.mode, RouteMode::Serve);
}

#[test]
fn a_route_takes_no_room_for_what_few_routes_have() {
    assert!(size_of::<Route>() <= 192, "{} bytes", size_of::<Route>());
    let plain = route("a", &[], "/");
    let mut touched = plain.clone();
    touched.steering.mode = RouteMode::Isolate;
    assert_ne!(touched, plain);
    touched.steering.mode = RouteMode::Serve;
    assert_eq!(touched, plain, "what it has room for is no part of what it says");
    assert_eq!(serde_json::to_string(&touched).unwrap(), serde_json::to_string(&plain).unwrap());
    let mut text = serde_json::to_value(&plain).unwrap();
    text["steering"] = serde_json::json!({});
    assert_eq!(serde_json::from_value::<Route>(text).unwrap(), plain);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_growing_weight_never_moves_anybody_back(
        first in 0..=10_000_u16, second in 0..=10_000_u16, salt in "[a-z]{0,4}",
        ids in prop::collection::vec("[a-z0-9]{1,12}", 50),
    ) {
        let (small, large) = (first.min(second), first.max(second));
        let at = |weight: u16| {
            let mut table = rollout(basis_points(weight), by_cookie());
            table.routes[0].steering.candidate.as_mut().unwrap().salt = salt.clone();
            router(&table)
        };
        let (before, after) = (at(small), at(large));
        for id in ids {
            let was = arm_of(&before, &client(&id), LOW).0;
            let is = arm_of(&after, &client(&id), HIGH).0;
            prop_assert!(was == OLD || is == NEW, "{} went back from {} to {}", id, small, large);
        }
    }

    #[test]
    fn any_cookie_is_answered(line in ".{0,60}", random: u64) {
        let own = Affinity::OwnCookie { name: "c".to_owned(), max_age: Duration::MAX };
        let router = router(&rollout(percent(50), sticky(own)));
        let assigned = Asked::get("/").with("cookie", &line).assigned(&router, random);
        prop_assert!(assigned.unwrap().session.is_some());
    }
}

#[test]
fn the_next_table_is_served_like_a_new_one() {
    let preview = Preview { listen: None, hosts: vec!["next.example.com".to_owned()] };
    let rules = || RouteRules { preview: Some(preview.clone()), ..RouteRules::default() };
    let first = rollout(percent(10), rules());
    let mut weight = rollout(percent(90), rules());
    weight.arms.reverse();
    let mut moved = weight.clone();
    moved.routes[0].path_prefix = "/api".to_owned();
    let mut unmatched = moved.clone();
    unmatched.routes[0].steering.rules.matches = vec![header("x-beta", exact("1"))];
    let mut without_preview = unmatched.clone();
    without_preview.routes[0].steering.rules.preview = None;
    let mut two = without_preview.clone();
    two.routes.push(route("shop", &[], "/"));
    let tables = [first, weight, moved, unmatched, without_preview, two];
    let asked = ["/", "/api/x"].map(Asked::get);
    let asked = asked.map(|asked| {
        let (beta, next) = (asked.clone().with("x-beta", "1"), asked.clone());
        [asked, beta, next.host("next.example.com")]
    });
    let (mut current, mut old) = (Router::default(), Table::default());
    for table in tables {
        current = current.next(&old, &table).unwrap();
        let fresh = router(&table);
        for asked in asked.iter().flatten() {
            for random in [LOW, u64::MAX / 2, HIGH] {
                let expected = asked.assigned(&fresh, random);
                assert_eq!(asked.assigned(&current, random), expected, "{asked:?} {random}");
            }
        }
        old = table;
    }
    let mut unknown = old.clone();
    unknown.arms.clear();
    assert!(matches!(current.next(&old, &unknown), Err(Invalid::UnknownArm(_))));
}
