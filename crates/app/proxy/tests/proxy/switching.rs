//! Tables under load: shares, swaps without a lost request, drains, fencing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hyper::Response;
use switchback_domain::{Split, Weight};
use switchback_ports::DataPlane;
use switchback_ports::data_plane::Error;
use switchback_ports::data_plane::conformance::{Addresses, conforms};

use super::support::*;

#[tokio::test]
async fn the_data_plane_conforms() {
    let proxy = Running::start().await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (first, second) = (free_address(), free_address());
    let taken = Addresses { first, second, taken: taken.local_addr().unwrap() };
    let held = std::net::TcpListener::bind(taken.taken);
    assert!(held.is_err(), "the address stays taken");
    conforms(&proxy.plane, taken).await;
}

#[tokio::test]
async fn each_version_gets_its_share() {
    let (proxy, listen) = (Running::start().await, free_address());
    let arms = vec![arm("v1", &[version("v1").await]), arm("v2", &[version("v2").await])];
    let split = Split::between(release("v1"), release("v2"), Weight::from_percent(20));
    proxy.plane.publish(&table(1, listen, arms, split)).await.unwrap();
    let mut connection = client(listen).await;
    let mut new = 0;
    for _ in 0..3_000 {
        connection.ready().await.unwrap();
        let response = connection.send_request(get("/")).await.unwrap();
        new += u64::from(read(response).await.1 == "v2");
    }
    // 600 expected, standard deviation 22: seven of them is never.
    assert!((450..750).contains(&new), "{new} of 3000 at 20%");
    assert_eq!(proxy.stats("v2").await.answered(), new);
    assert_eq!(proxy.stats("v1").await.answered(), 3_000 - new);
}

/// Steady load over keep-alive connections until told to stop; every answer must be 200.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(listen: std::net::SocketAddr, clients: usize) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let one = |n: usize| {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            tokio::spawn(async move {
                let mut failures = Vec::new();
                let mut connection = client(listen).await;
                while !stop.load(Ordering::Relaxed) {
                    let request = if n.is_multiple_of(2) { get("/") } else { post("/", "data") };
                    sent.fetch_add(1, Ordering::Relaxed);
                    let answer = match connection.ready().await {
                        Ok(()) => connection.send_request(request).await,
                        Err(error) => Err(error),
                    };
                    match answer {
                        Ok(response) if response.status() == 200 => drop(read(response).await),
                        Ok(response) => failures.push(format!("{:?}", read(response).await)),
                        Err(error) => {
                            failures.push(format!("{error:?}"));
                            connection = client(listen).await;
                        }
                    }
                }
                failures
            })
        };
        let clients = (0..clients).map(one).collect();
        Self { stop, sent, clients }
    }

    async fn reaches(&self, count: u64) {
        eventually("load", async || self.sent.load(Ordering::Relaxed) >= count).await;
    }

    async fn finish(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for client in self.clients {
            failures.extend(client.await.unwrap());
        }
        (self.sent.load(Ordering::Relaxed), failures)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_switches_under_load_lose_nothing_and_the_ledger_adds_up() {
    let (proxy, listen) = (Running::start().await, free_address());
    let (old, new) = ([version("v1").await, version("v1").await], [version("v2").await]);
    proxy.plane.publish(&single(1, listen, "v1", &old)).await.unwrap();
    let load = Load::start(listen, 16);
    for n in 0..40_u64 {
        load.reaches((n + 1) * 100).await;
        let next = match n % 4 {
            0 => {
                let arms = vec![arm("v1", &old), arm("v2", &new)];
                let split = Split::between(release("v1"), release("v2"), Weight::from_percent(50));
                table(n + 2, listen, arms, split)
            }
            1 => single(n + 2, listen, "v2", &new),
            2 => single(n + 2, listen, "v1", &old[..1]),
            _ => single(n + 2, listen, "v1", &old),
        };
        proxy.plane.publish(&next).await.unwrap();
    }
    let (sent, failures) = load.finish().await;
    assert!(failures.is_empty(), "{} of {sent}: {:?}", failures.len(), &failures[..1]);
    let (one, two) = (proxy.stats("v1").await, proxy.stats("v2").await);
    assert_eq!(one.accepted + two.accepted, sent);
    assert_eq!(one.responses[1] + two.responses[1], sent);
    assert!(one.answered() > 0 && two.answered() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_acknowledgement_nothing_starts_on_what_was_left_out() {
    let (proxy, listen) = (Running::start().await, free_address());
    let seen = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&seen);
    let old = instance(move |_| {
        counting.fetch_add(1, Ordering::SeqCst);
        async { Response::new(full("v1")) }
    });
    let (old, new) = (old.await, version("v2").await);
    proxy.plane.publish(&single(1, listen, "v1", &[old])).await.unwrap();
    let load = Load::start(listen, 8);
    for n in 0..10 {
        load.reaches((n + 1) * 200).await;
        proxy.plane.publish(&single(2 * n + 2, listen, "v2", &[new])).await.unwrap();
        eventually("v1 drains", async || proxy.in_flight("v1").await == 0).await;
        let at_the_drain = seen.load(Ordering::SeqCst);
        load.reaches((n + 1) * 200 + 100).await;
        assert_eq!(seen.load(Ordering::SeqCst), at_the_drain, "drained means drained");
        proxy.plane.publish(&single(2 * n + 3, listen, "v1", &[old])).await.unwrap();
    }
    let (_, failures) = load.finish().await;
    assert!(failures.is_empty(), "{failures:?}");
    assert!(seen.load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn a_long_request_holds_its_version_and_instance_until_it_ends() {
    let (proxy, listen) = (Running::start().await, free_address());
    let (slow, gate) = gated("v1").await;
    let other = version("v2").await;
    proxy.plane.publish(&single(1, listen, "v1", &[slow])).await.unwrap();
    let long = tokio::spawn(ask(listen, get("/")));
    eventually("it is on its way", async || proxy.in_flight("v1").await == 1).await;
    proxy.plane.publish(&single(2, listen, "v2", &[other])).await.unwrap();
    for _ in 0..50 {
        assert_eq!(ask(listen, get("/")).await.1, "v2");
    }
    let report = proxy.report().await;
    let v1 = report.arms.iter().find(|arm| arm.version.as_str() == "v1").unwrap();
    let instance = &arm("v1", &[slow]).endpoints[0].instance;
    assert_eq!((v1.in_flight, v1.in_flight_by_instance.get(instance)), (1, Some(&1)));
    gate.add_permits(1);
    assert_eq!(long.await.unwrap(), (200, "v1".to_owned()));
    eventually("it drains", async || proxy.in_flight("v1").await == 0).await;
    assert_eq!(proxy.stats("v1").await.accepted, 1);
}

#[tokio::test]
async fn an_address_in_use_refuses_the_whole_table() {
    let (proxy, listen, second) = (Running::start().await, free_address(), free_address());
    let first = single(1, listen, "v1", &[version("v1").await]);
    proxy.plane.publish(&first).await.unwrap();
    let squatter = tokio::net::TcpListener::bind(free_address()).await.unwrap();
    let taken = squatter.local_addr().unwrap();
    let mut next = single(2, listen, "v2", &[version("v2").await]);
    for address in [second, taken] {
        let mut route = next.routes[0].clone();
        route.listen = address;
        next.routes.push(route);
    }
    let refused = proxy.plane.publish(&next).await;
    let Err(Error::Refused(reason)) = refused else { panic!("{refused:?}") };
    assert!(reason.contains(&taken.to_string()) && reason.contains("test/sample"), "{reason}");
    assert_eq!(ask(listen, get("/")).await.1, "v1");
    assert!(tokio::net::TcpStream::connect(second).await.is_err(), "nothing was opened");
    drop(squatter);
    proxy.plane.publish(&next).await.unwrap();
    for address in [listen, second, taken] {
        assert_eq!(ask(address, get("/")).await.1, "v2");
    }
}

#[tokio::test]
async fn ipv6_addresses_work_and_unnamed_ones_close() {
    let (proxy, four) = (Running::start().await, free_address());
    let six = std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, four.port()));
    if std::net::TcpListener::bind(six).is_err() {
        // This machine has no IPv6: there is nothing to listen on.
        return;
    }
    let instance = version("v1").await;
    let mut both = single(1, four, "v1", &[instance]);
    let mut route = both.routes[0].clone();
    route.listen = six;
    both.routes.push(route);
    proxy.plane.publish(&both).await.unwrap();
    assert_eq!(ask(six, get("/")).await.0, 200);
    let mut kept = client(four).await;
    proxy.plane.publish(&single(2, six, "v1", &[instance])).await.unwrap();
    eventually("the address closes", async || tokio::net::TcpStream::connect(four).await.is_err())
        .await;
    let late = tokio::time::timeout(Duration::from_secs(5), kept.send_request(get("/")));
    assert_eq!(late.await.unwrap().unwrap().status(), 404, "open connections are answered");
    assert_eq!(ask(six, get("/")).await.0, 200);
}

#[tokio::test]
async fn ten_thousand_routes_are_taken_while_others_are_served() {
    let (proxy, listen) = (Running::start().await, free_address());
    let address = version("v1").await;
    proxy.plane.publish(&single(1, listen, "v1", &[address])).await.unwrap();
    let mut many = single(2, listen, "v1", &[address]);
    let one = many.routes[0].clone();
    many.routes.extend((0..10_000).map(|n| {
        let mut route = one.clone();
        route.hosts = vec![format!("h{}.test", n % 2_500)];
        route.path_prefix = format!("/p{}", n / 2_500);
        route
    }));
    let load = Load::start(listen, 4);
    proxy.plane.publish(&many).await.unwrap();
    let mut request = get("/p3/x");
    request.headers_mut().insert("host", "h2499.test".parse().unwrap());
    assert_eq!(ask(listen, request).await, (200, "v1".to_owned()));
    let (_, failures) = load.finish().await;
    assert!(failures.is_empty(), "{failures:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_instance_can_be_killed_under_load() {
    let (proxy, listen) = (Running::start().await, free_address());
    let mut serving = vec![mortal("v1").await, mortal("v1").await];
    let addresses = |serving: &[(std::net::SocketAddr, _)]| -> Vec<_> {
        serving.iter().map(|(address, _)| *address).collect()
    };
    proxy.plane.publish(&single(1, listen, "v1", &addresses(&serving))).await.unwrap();
    let load = Load::start(listen, 8);
    for n in 0..20_u64 {
        load.reaches((n + 1) * 100).await;
        let (old, life) = serving.remove(0);
        serving.push(mortal("v1").await);
        proxy.plane.publish(&single(n + 2, listen, "v1", &addresses(&serving))).await.unwrap();
        let old = arm("v1", &[old]).endpoints[0].instance.clone();
        eventually("it drains", async || {
            let report = proxy.report().await;
            report.arms.iter().all(|arm| !arm.in_flight_by_instance.contains_key(&old))
        })
        .await;
        life.abort();
    }
    let (sent, failures) = load.finish().await;
    assert!(failures.is_empty(), "{} of {sent}: {:?}", failures.len(), &failures[..1]);
    let counted = proxy.stats("v1").await;
    assert_eq!((counted.accepted, counted.answered(), counted.failed()), (sent, sent, 0));
}
