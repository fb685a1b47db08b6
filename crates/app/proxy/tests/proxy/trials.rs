//! What the data plane tells about the requests of a rollout: batches that add up to the ledger,
//! each under one weight, and hung requests at the cap age.

use std::collections::BTreeSet;

use hyper::{Request, Response, StatusCode};
use switchback_analysis::ArmBatch;
use switchback_domain::route::Affinity;
use switchback_domain::{ArmStats, Split, Weight};
use switchback_ports::DataPlane;
use switchback_ports::data_plane::{Batches, Cursor};
use switchback_routing::{Candidate, Table};

use super::lifecycle;
use super::support::*;
use super::upgrade::old_one_is_gone;

/// `v1` serves, `v2` is on trial with this share.
fn on_trial(counter: u64, listen: std::net::SocketAddr, arms: &[Arm], percent: u16) -> Table {
    let split = Split::between(release("v1"), release("v2"), Weight::from_percent(percent));
    let mut table = table(counter, listen, arms.to_vec(), split);
    let (release, salt) = (release("v2"), "r1".to_owned());
    table.routes[0].steering.candidate = Some(Candidate { release, salt, open: true });
    table
}

type Arm = switchback_routing::Arm;

/// Fails every third request, never answers those for `/hang`.
async fn bad_instance() -> std::net::SocketAddr {
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    instance(move |request| {
        let asked = std::sync::Arc::clone(&asked);
        async move {
            if request.uri().path() == "/hang" {
                std::future::pending::<()>().await;
            }
            let number = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut response = Response::new(full("v2"));
            if number.is_multiple_of(3) {
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            }
            response
        }
    })
    .await
}

async fn all(proxy: &Running) -> Batches {
    proxy.plane.batches(&Cursor::default()).await.unwrap()
}

/// Requests, failures and answered requests.
fn sum(batches: &Batches, of: fn(&switchback_ports::data_plane::Counted) -> &ArmBatch) -> [u64; 3] {
    let one = |it: &ArmBatch| [it.requests(), it.failed(), it.latency.count()];
    let add = |sum: [u64; 3], more: [u64; 3]| [0, 1, 2].map(|at| sum[at] + more[at]);
    batches.batches.iter().map(|batch| one(of(batch))).fold([0; 3], add)
}

fn ledger(stats: &ArmStats) -> [u64; 3] {
    [stats.accepted, stats.failed(), stats.answered()]
}

#[tokio::test]
async fn batches_add_up_to_the_ledger_and_have_one_weight_each() {
    let (proxy, listen) = (Running::start().await, free_address());
    let arms = [arm("v1", &[version("v1").await]), arm("v2", &[bad_instance().await])];
    let mut connections = [client_of(&proxy, listen, &arms).await, client(listen).await];
    for round in 0..20 {
        let percent = [20, 50, 80][round % 3];
        let counter = 2 + u64::try_from(round).unwrap();
        proxy.plane.publish(&on_trial(counter, listen, &arms, percent)).await.unwrap();
        for _ in 0..40 {
            for connection in &mut connections {
                connection.ready().await.unwrap();
                read(connection.send_request(get("/")).await.unwrap()).await;
            }
        }
    }
    let (old, new) = (proxy.stats("v1").await, proxy.stats("v2").await);
    assert_eq!(old.accepted + new.accepted, 1_600);
    eventually("the batches have all of it", async || {
        let batches = all(&proxy).await;
        sum(&batches, |it| &it.candidate)[0] + sum(&batches, |it| &it.baseline)[0] == 1_600
    })
    .await;
    let batches = all(&proxy).await;
    assert_eq!(sum(&batches, |it| &it.candidate), ledger(&new));
    assert_eq!(sum(&batches, |it| &it.baseline), ledger(&old));
    let weights: BTreeSet<_> = batches.batches.iter().map(|batch| batch.weight).collect();
    assert_eq!(weights, [20, 50, 80].map(Weight::from_percent).into());
    let numbers: Vec<_> = batches.batches.iter().map(|batch| batch.sequence).collect();
    assert_eq!(numbers, (1..=batches.next.place).collect::<Vec<_>>(), "none is missing");
    assert!(proxy.plane.batches(&batches.next).await.unwrap().batches.is_empty(), "read once");
}

/// A first client, of the table without a candidate: nothing of it is evidence.
async fn client_of(
    proxy: &Running,
    listen: std::net::SocketAddr,
    arms: &[Arm],
) -> hyper::client::conn::http1::SendRequest<Body> {
    let split = Split::all(release("v1"));
    proxy.plane.publish(&table(1, listen, arms.to_vec(), split)).await.unwrap();
    client(listen).await
}

#[tokio::test]
async fn a_request_that_hangs_is_counted_while_it_hangs() {
    let (proxy, listen) = (Running::start().await, free_address());
    let arms = [arm("v1", &[version("v1").await]), arm("v2", &[bad_instance().await])];
    let mut connection = client_of(&proxy, listen, &arms).await;
    for _ in 0..100 {
        connection.ready().await.unwrap();
        read(connection.send_request(get("/")).await.unwrap()).await;
    }
    proxy.plane.publish(&on_trial(2, listen, &arms, 50)).await.unwrap();
    let mut hanging = Vec::new();
    while proxy.in_flight("v2").await < 5 {
        let mut connection = client(listen).await;
        hanging.push(tokio::spawn(async move { connection.send_request(get("/hang")).await }));
    }
    eventually("hung requests are evidence", async || {
        let batches = all(&proxy).await;
        let unfinished = batches.batches.iter().map(|batch| batch.candidate.unfinished);
        unfinished.sum::<u64>() >= 5
    })
    .await;
    assert!(proxy.in_flight("v2").await >= 5, "they hang still");
    let caps: BTreeSet<_> = all(&proxy).await.batches.iter().map(|it| it.cap_age_ms).collect();
    assert!(
        caps.iter().all(|cap| (250..10_000).contains(cap)),
        "from the baseline's p99: {caps:?}"
    );
    hanging.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn clients_that_stay_are_counted_once_and_once_more_when_they_are_failed() {
    let (proxy, listen) = (Running::start().await, free_address());
    let arms = [arm("v1", &[version("v1").await]), arm("v2", &[bad_instance().await])];
    let mut table = on_trial(1, listen, &arms, 50);
    table.routes[0].steering.rules.affinity = Some(Affinity::Header("x-user".to_owned()));
    proxy.plane.publish(&table).await.unwrap();
    let mut connection = client(listen).await;
    for _ in 0..10 {
        for user in 0..40 {
            connection.ready().await.unwrap();
            let request = Request::get("/").header("host", "a.test");
            let request = request.header("x-user", format!("user {user}")).body(full("")).unwrap();
            read(connection.send_request(request).await.unwrap()).await;
        }
    }
    eventually("every client is counted", async || {
        let batches = all(&proxy).await;
        sum(&batches, |it| &it.candidate)[2] + sum(&batches, |it| &it.baseline)[2] == 40
    })
    .await;
    let batches = all(&proxy).await;
    let (new, old) = (sum(&batches, |it| &it.candidate), sum(&batches, |it| &it.baseline));
    assert_eq!((old[0], old[1]), (old[2], 0), "each of the old version's clients once");
    let clients = new[2] + old[2];
    assert_eq!(clients, 40, "one latency each");
    assert!(new[1] > 0 && new[1] <= new[2], "a client fails once at most: {new:?}");
    assert!(proxy.stats("v2").await.failed() > new[1], "the ledger has every failure");
}

/// Reads on from where it was read to.
async fn read_on(plane: &switchback_dataplane::ProxyDataPlane, read: &mut Batches) {
    let more = plane.batches(&read.next).await.unwrap();
    read.batches.extend(more.batches);
    read.next = more.next;
}

#[tokio::test]
async fn batches_of_a_trial_are_each_told_once_across_upgrades() {
    let directory = tempfile::tempdir().unwrap();
    let (plane, listen) = (lifecycle::plane(directory.path()), free_address());
    plane.ensure_started().await.unwrap();
    let (slow, gate) = gated("done").await;
    let arms = [arm("v1", &[version("v1").await]), arm("v2", &[slow])];
    plane.publish(&on_trial(1, listen, &arms, 50)).await.unwrap();
    let asking = move || async move { ask(listen, get("/")).await.0 };
    let mut hanging = tokio::task::JoinSet::new();
    let mut read = Batches::default();
    for turn in 1..=3 {
        for _ in 0..30 {
            hanging.spawn(asking());
        }
        eventually("the old version has answered, the new one does not yet", async || {
            let report = plane.report().await.unwrap();
            let accepted: u64 = report.arms.iter().map(|arm| arm.stats.accepted).sum();
            accepted == 30 * turn && report.arms[0].in_flight == 0
        })
        .await;
        plane.upgrade(None).await.unwrap();
        read_on(&plane, &mut read).await;
    }
    gate.add_permits(100);
    let statuses = hanging.join_all().await;
    assert_eq!(statuses, vec![200; 90]);
    old_one_is_gone(&plane).await;
    let of = |read: &Batches| (sum(read, |it| &it.candidate), sum(read, |it| &it.baseline));
    eventually("the batches have all of it", async || {
        read_on(&plane, &mut read).await;
        of(&read).0[0] + of(&read).1[0] >= 90
    })
    .await;
    let report = plane.report().await.unwrap();
    let stats = |at: usize| ledger(&report.arms[at].stats);
    assert_eq!(of(&read), (stats(1), stats(0)), "as the ledger has it");
    let numbers: Vec<_> = read.batches.iter().map(|batch| batch.sequence).collect();
    assert_eq!(numbers, (1..=read.next.place).collect::<Vec<_>>(), "none is missing, none twice");
    assert_eq!(read.next.incarnation, report.incarnation);
    let again = plane.batches(&Cursor::default()).await.unwrap();
    assert_eq!(of(&again), of(&read), "a reader that begins finds all of it");
    plane.stop().await.unwrap();
}
