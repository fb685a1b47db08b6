//! Requests that go to a version for a reason of their own: cohort, header, rule, preview, network.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::support::{
    Body, Running, arm, ask, client, eventually, free_address, full, get, instance, raw_instance,
    read, release, table, version,
};
use hyper::Request;
use switchback_domain::route::{
    Affinity, Conditions, Mirror, Preview, RequestMatch, RouteRules, TextMatch, VersionHeader,
};
use switchback_domain::{Split, Weight};
use switchback_ports::DataPlane;
use switchback_routing::{Candidate, Steered, Table};

/// `v1` serves, `v2` is brought in with this weight.
fn rollout(
    counter: u64,
    listen: SocketAddr,
    [old, new]: [SocketAddr; 2],
    percent: u16,
    rules: &RouteRules,
) -> Table {
    let split = Split::between(release("v1"), release("v2"), Weight::from_percent(percent));
    let mut table = table(counter, listen, vec![arm("v1", &[old]), arm("v2", &[new])], split);
    let candidate = Candidate { release: release("v2"), salt: "r1".to_owned(), open: true };
    table.routes[0].steering =
        Steered { rules: rules.clone(), candidate: Some(candidate), ..Steered::default() }.into();
    table
}

fn with(name: &str, value: &str) -> Request<Body> {
    Request::get("/").header("host", "a.test").header(name, value).body(full("")).unwrap()
}

#[tokio::test]
async fn a_client_keeps_its_version_by_our_cookie_and_never_moves_back() {
    let running = Running::start().await;
    let (listen, addresses) = (free_address(), [version("v1").await, version("v2").await]);
    let affinity =
        Affinity::OwnCookie { name: "sb".to_owned(), max_age: std::time::Duration::from_hours(1) };
    let rules = RouteRules { affinity: Some(affinity), ..RouteRules::default() };
    running.plane.publish(&rollout(1, listen, addresses, 20, &rules)).await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..40 {
        let response = client(listen).await.send_request(get("/")).await.unwrap();
        let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
        assert_eq!(cookies.len(), 1, "{:?}", response.headers());
        let set = cookies[0].to_str().unwrap().to_owned();
        assert!(set.starts_with("sb=") && set.ends_with("; SameSite=Lax"), "{set}");
        let cookie = set.split(';').next().unwrap().to_owned();
        clients.push((cookie, read(response).await.1));
    }
    for (counter, percent) in [(2, 20), (3, 60), (4, 100)] {
        let table = rollout(counter, listen, addresses, percent, &rules);
        running.plane.publish(&table).await.unwrap();
        for (cookie, before) in &mut clients {
            let response = client(listen).await.send_request(with("cookie", cookie)).await.unwrap();
            assert!(!response.headers().contains_key("set-cookie"), "it has one");
            let now = read(response).await.1;
            assert!(*before == now || (before == "v1" && now == "v2"), "{before} {now}");
            assert!(percent > 20 || *before == now, "the same table, the same version");
            *before = now;
        }
    }
    assert!(clients.iter().all(|(_, version)| version == "v2"));
}

#[tokio::test]
async fn testers_name_a_version_and_rules_send_requests_to_the_candidate() {
    let running = Running::start().await;
    let (listen, addresses) = (free_address(), [version("v1").await, version("v2").await]);
    let condition = |when| RequestMatch { path: None, when };
    let text = |name: &str, text: &str| {
        BTreeMap::from([(name.to_owned(), TextMatch::Exact(text.to_owned()))])
    };
    let rules = RouteRules {
        version_header: Some(VersionHeader {
            header: "x-switchback-version".to_owned(),
            source: vec!["127.0.0.0/8".parse().unwrap()],
        }),
        to_candidate: vec![
            condition(Conditions { query: text("try", "new one"), ..Conditions::default() }),
            condition(Conditions { cookies: text("beta", "1"), ..Conditions::default() }),
            condition(Conditions { methods: vec!["PUT".to_owned()], ..Conditions::default() }),
            condition(Conditions { headers: text("te", "trailers"), ..Conditions::default() }),
        ],
        ..RouteRules::default()
    };
    running.plane.publish(&rollout(1, listen, addresses, 0, &rules)).await.unwrap();
    let put = Request::put("/").header("host", "a.test").body(full("x")).unwrap();
    for (request, expected) in [
        (get("/"), "v1"),
        (with("X-Switchback-Version", "v2"), "v2"),
        (with("X-Switchback-Version", "v1"), "v1"),
        (with("X-Switchback-Version", "v3"), "v1"),
        (get("/?a=b&try=new+one"), "v2"),
        (get("/try=new+one"), "v1"),
        (with("Cookie", "a=b; beta=1"), "v2"),
        (put, "v2"),
        (with("TE", "trailers"), "v2"),
    ] {
        let what = format!("{request:?}");
        assert_eq!(ask(listen, request).await, (200, expected.to_owned()), "{what}");
    }
    let mut elsewhere = rules.clone();
    elsewhere.version_header.as_mut().unwrap().source = vec!["10.0.0.0/8".parse().unwrap()];
    running.plane.publish(&rollout(2, listen, addresses, 0, &elsewhere)).await.unwrap();
    let answer = ask(listen, with("X-Switchback-Version", "v2")).await;
    assert_eq!(answer.1, "v1", "only from the network that may");
}

#[tokio::test]
async fn the_preview_answers_for_the_candidate_at_its_own_address_and_host() {
    let running = Running::start().await;
    let (listen, preview) = (free_address(), free_address());
    let addresses = [version("v1").await, version("v2").await];
    let at_address = Preview { listen: Some(preview), hosts: Vec::new() };
    let rules = RouteRules { preview: Some(at_address), ..RouteRules::default() };
    running.plane.publish(&rollout(1, listen, addresses, 0, &rules)).await.unwrap();
    assert_eq!(ask(listen, get("/")).await.1, "v1");
    assert_eq!(ask(preview, get("/")).await.1, "v2");
    let by_host = Preview { listen: None, hosts: vec!["next.test".to_owned()] };
    let rules = RouteRules { preview: Some(by_host), ..RouteRules::default() };
    running.plane.publish(&rollout(2, listen, addresses, 0, &rules)).await.unwrap();
    let next = Request::get("/").header("host", "next.test:80").body(full("")).unwrap();
    assert_eq!(ask(listen, next).await.1, "v2");
    assert_eq!(ask(listen, get("/")).await.1, "v1");
    eventually("the preview's address is let go", async || {
        tokio::net::TcpStream::connect(preview).await.is_err()
    })
    .await;
}

fn mirrored(fraction: u16) -> RouteRules {
    let mirror = Mirror { fraction: Weight::from_percent(fraction), unsafe_methods: false };
    RouteRules { mirror: Some(mirror), ..RouteRules::default() }
}

#[tokio::test]
async fn the_candidate_gets_marked_copies_of_safe_requests_that_count_for_nobody() {
    let running = Running::start().await;
    let (heard, mut copies) = tokio::sync::mpsc::unbounded_channel();
    let candidate = instance(move |request| {
        let mark = request.headers().get("x-switchback-mirror").cloned();
        let _ = heard.send((request.method().clone(), request.uri().clone(), mark));
        async { hyper::Response::new(full("nobody reads this")) }
    })
    .await;
    let (listen, addresses) = (free_address(), [version("v1").await, candidate]);
    running.plane.publish(&rollout(1, listen, addresses, 0, &mirrored(100))).await.unwrap();
    assert_eq!(ask(listen, get("/a?b=c")).await, (200, "v1".to_owned()));
    let post = Request::post("/").header("host", "a.test").body(full("x")).unwrap();
    assert_eq!(ask(listen, post).await.1, "v1");
    let (method, target, mark) = copies.recv().await.unwrap();
    assert_eq!((method.as_str(), target.to_string().as_str()), ("GET", "/a?b=c"));
    assert_eq!(mark.unwrap(), "1");
    eventually("the copy is counted", async || {
        running.report().await.routes.first().is_some_and(|counts| counts.mirrored == 1)
    })
    .await;
    assert!(copies.try_recv().is_err(), "a POST may change something");
    assert_eq!(running.stats("v1").await.answered(), 2);
    assert_eq!(running.stats("v2").await.accepted, 0, "no copy is in a version's ledger");
}

#[tokio::test]
async fn a_candidate_that_hangs_holds_nobody_up_and_copies_are_dropped() {
    let running = Running::start().await;
    let hanging = raw_instance(|stream| async move {
        let _kept = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let (listen, addresses) = (free_address(), [version("v1").await, hanging]);
    running.plane.publish(&rollout(1, listen, addresses, 0, &mirrored(100))).await.unwrap();
    let mut connection = client(listen).await;
    for _ in 0..switchback_proxy::limits::MIRRORS_MAX + 10 {
        let response = connection.send_request(get("/")).await.unwrap();
        assert_eq!(read(response).await, (200, "v1".to_owned()));
    }
    let counts = running.report().await.routes.remove(0);
    assert_eq!((counts.mirror_dropped, counts.mirrored), (10, 0));
    eventually("the copies are given up", async || {
        let counts = running.report().await.routes.remove(0);
        counts.mirror_failed == switchback_proxy::limits::MIRRORS_MAX as u64
    })
    .await;
}
