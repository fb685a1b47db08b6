//! What every data plane must do with tables, the fake and the real one. Traffic itself is tested
//! where the sockets are.

use std::net::SocketAddr;
use std::time::Duration;

use switchback_domain::tls::UpstreamSpec;
use switchback_domain::{
    ArmStats, EnvironmentName, Epoch, Generation, InstanceId, ReleaseId, ServiceKey, ServiceName,
    Split, Version, Weight,
};
use switchback_routing::{Arm, ArmId, Endpoint, Route, Steering, Table};

use super::{Cursor, DataPlane, Error, Report};

/// Addresses for the suite.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// Free.
    pub first: SocketAddr,
    /// Free.
    pub second: SocketAddr,
    /// Somebody else listens there.
    pub taken: SocketAddr,
}

/// The service all samples belong to.
///
/// # Panics
/// Never: its names are well-formed.
pub fn sample_service() -> ServiceKey {
    let environment = EnvironmentName::new("test").expect("a lower-case word is a name");
    let service = ServiceName::new("sample").expect("a lower-case word is a name");
    ServiceKey::new(environment, service)
}

/// A version of the sample service with instances at `addresses`.
///
/// # Panics
/// When `version` is not a well-formed version.
pub fn sample_arm(version: &str, addresses: &[SocketAddr]) -> Arm {
    let release = ReleaseId::from_stored(version);
    let endpoint = |address: &SocketAddr| Endpoint {
        instance: InstanceId::from_stored(format!("test.sample.{version}.{}", address.port())),
        address: *address,
    };
    Arm {
        id: ArmId { service: sample_service(), release },
        version: Version::new(version).expect("samples have well-formed versions"),
        endpoints: addresses.iter().map(endpoint).collect(),
        upstream: UpstreamSpec::default(),
    }
}

/// A route of the sample service for every host and path at `listen`.
pub fn sample_route(listen: SocketAddr, split: Split<ReleaseId>) -> Route {
    Route {
        service: sample_service(),
        listen,
        hosts: Vec::new(),
        path_prefix: "/".to_owned(),
        timeout: Duration::from_secs(5),
        split,
        steering: Steering::default(),
        tls: None,
    }
}

/// A table with one route at `listen`, all of it to the first arm.
pub fn sample_table(generation: Generation, listen: SocketAddr, arms: Vec<Arm>) -> Table {
    let split = arms.first().map_or_else(Split::none, |arm| Split::all(arm.id.release.clone()));
    Table { generation, routes: vec![sample_route(listen, split)], arms, ..Table::default() }
}

/// Runs the whole suite against a data plane that has not been given a table yet.
///
/// # Panics
/// When the data plane breaks one of the port's promises.
pub async fn conforms(data_plane: &dyn DataPlane, addresses: Addresses) {
    starts_empty(data_plane).await;
    let table = takes_a_table(data_plane, addresses).await;
    changes_nothing_for_the_same_table(data_plane, &table).await;
    refuses_what_is_older_or_another(data_plane, &table, addresses).await;
    refuses_nonsense_whole(data_plane, &table, addresses).await;
    keeps_counts_of_what_is_left_out(data_plane, addresses).await;
}

async fn starts_empty(data_plane: &dyn DataPlane) {
    let report = report(data_plane).await;
    assert_eq!(report.generation, Generation::default(), "no table yet");
    assert!(report.arms.is_empty() && report.listeners.is_empty());
    assert!(!report.incarnation.is_empty());
    assert_eq!(data_plane.serving().await.ok(), Some(Table::default()));
    for cursor in [Cursor::default(), Cursor { incarnation: "elsewhere".to_owned(), place: 9 }] {
        match data_plane.batches(&cursor).await {
            Ok(none) => {
                let next = Cursor { incarnation: report.incarnation.clone(), place: 0 };
                assert_eq!((none.next, none.batches.len()), (next, 0), "nothing was counted yet");
            }
            Err(error) => panic!("no batches: {error}"),
        }
    }
}

async fn takes_a_table(data_plane: &dyn DataPlane, addresses: Addresses) -> Table {
    let nowhere = addresses.second;
    let arms = vec![sample_arm("v1", &[nowhere]), sample_arm("v2", &[])];
    let table = sample_table(Generation::first(Epoch(3)), addresses.first, arms);
    let generation = data_plane.publish(&table).await;
    assert_eq!(generation.ok(), Some(table.generation));
    assert_eq!(data_plane.serving().await.ok(), Some(table.clone()));
    let report = report(data_plane).await;
    assert_eq!(report.generation, table.generation);
    assert_eq!(listening(&report), [addresses.first]);
    let counted: Vec<_> =
        report.arms.iter().map(|arm| (arm.version.as_str(), arm.in_flight)).collect();
    assert_eq!(counted, [("v1", 0), ("v2", 0)], "named arms are listed before their first request");
    assert!(report.arms.iter().all(|arm| arm.stats == ArmStats::default()));
    assert!(report.arms.iter().all(|arm| arm.in_flight_by_instance.is_empty()), "no request yet");
    table
}

async fn changes_nothing_for_the_same_table(data_plane: &dyn DataPlane, table: &Table) {
    let before = report(data_plane).await;
    assert_eq!(data_plane.publish(table).await.ok(), Some(table.generation));
    assert_eq!(report(data_plane).await, before);
}

async fn refuses_what_is_older_or_another(
    data_plane: &dyn DataPlane,
    table: &Table,
    addresses: Addresses,
) {
    let before = report(data_plane).await;
    let older = Generation { epoch: Epoch(2), counter: 900 };
    let old = sample_table(older, addresses.second, vec![sample_arm("v9", &[])]);
    match data_plane.publish(&old).await {
        Err(Error::Fenced { given, seen }) => assert_eq!((given, seen), (older, table.generation)),
        other => panic!("an older generation must be fenced, not {other:?}"),
    }
    let another = sample_table(table.generation, addresses.second, vec![sample_arm("v9", &[])]);
    let answer = data_plane.publish(&another).await;
    assert!(matches!(answer, Err(Error::Refused(_))), "same number, other table: {answer:?}");
    assert_eq!(data_plane.serving().await.ok().as_ref(), Some(table));
    assert_eq!(report(data_plane).await, before);
}

async fn refuses_nonsense_whole(data_plane: &dyn DataPlane, table: &Table, addresses: Addresses) {
    let before = report(data_plane).await;
    let next = table.generation.next_in(Epoch(3));
    let mut unknown = sample_table(next, addresses.second, vec![sample_arm("v1", &[])]);
    unknown.arms.clear();
    let mut twice = sample_table(next, addresses.second, vec![sample_arm("v1", &[])]);
    twice.routes.push(twice.routes[0].clone());
    let mut occupied = table.clone();
    occupied.generation = next;
    let split = Split::all(ReleaseId::from_stored("v1"));
    occupied.routes.push(sample_route(addresses.second, split.clone()));
    occupied.routes.push(sample_route(addresses.taken, split));
    for bad in [unknown, twice] {
        let answer = data_plane.publish(&bad).await;
        assert!(matches!(answer, Err(Error::Refused(_))), "{answer:?}");
    }
    match data_plane.publish(&occupied).await {
        Err(Error::Refused(reason)) => {
            let address = addresses.taken.to_string();
            assert!(reason.contains(&address) && reason.contains("test/sample"), "{reason}");
        }
        other => panic!("an address in use must be refused, not {other:?}"),
    }
    assert_eq!(report(data_plane).await, before, "all or nothing");
}

async fn keeps_counts_of_what_is_left_out(data_plane: &dyn DataPlane, addresses: Addresses) {
    let generation = Generation::first(Epoch(4));
    let arms = vec![sample_arm("v2", &[]), sample_arm("v3", &[])];
    let mut table = sample_table(generation, addresses.second, arms);
    let weight = Weight::from_percent(5);
    let [old, new] = ["v2", "v3"].map(ReleaseId::from_stored);
    table.routes[0].split = Split::between(old, new, weight);
    assert_eq!(data_plane.publish(&table).await.ok(), Some(generation), "a newer epoch wins");
    let report = report(data_plane).await;
    let versions: Vec<_> = report.arms.iter().map(|arm| arm.version.as_str()).collect();
    assert_eq!(versions, ["v1", "v2", "v3"], "v1 is gone, its counts are not");
    assert_eq!(listening(&report), [addresses.second]);
}

async fn report(data_plane: &dyn DataPlane) -> Report {
    match data_plane.report().await {
        Ok(report) => report,
        Err(error) => panic!("no report: {error}"),
    }
}

fn listening(report: &Report) -> Vec<SocketAddr> {
    let working = report.listeners.iter().filter(|listener| listener.error.is_none());
    working.map(|listener| listener.address).collect()
}
