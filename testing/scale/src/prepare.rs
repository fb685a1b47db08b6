//! A state directory as a control plane leaves it behind that has brought many services up: their
//! configuration, the journal with their snapshots, the instances that run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use switchback_config::ServiceConfig;
use switchback_domain::{
    InstanceHealth, InstanceId, InstanceReport, ProjectName, Split, Timestamp, Version,
};
use switchback_engine::{Pool, Revision, Service};
use switchback_ports::Journal;
use switchback_ports::journal::{NewRecord, Sequence, Snapshot};
use switchback_ports::runtime::InstanceSpec;
use switchback_store::SqliteJournal;

use crate::Size;
use crate::control::{CONFIG, INSTANCES, JOURNAL};

/// What serves before.
pub(crate) const BEFORE: &str = "v1";
/// What is brought in.
pub(crate) const AFTER: &str = "v2";
/// Snapshots in one write.
const BATCH: usize = 500;
/// The first port that the simulated runtime gives out, and how many it has.
const PORTS: (u16, usize) = (20_000, 10_000);

/// The name of a service.
pub(crate) fn name(number: usize) -> String {
    format!("s{number:05}")
}

/// Fills a directory.
pub(crate) fn prepare(dir: &Path, size: Size) -> Result<()> {
    let text = configuration(size.services);
    std::fs::write(dir.join(CONFIG), &text)?;
    let document = switchback_config::parse(&text, CONFIG)
        .map_err(|mistakes| anyhow::anyhow!("the configuration is wrong: {mistakes}"))?;
    let environment = document
        .environment(document.default_environment())
        .map_err(|mistakes| anyhow::anyhow!("{mistakes}"))?;
    let mut journal = SqliteJournal::open(&dir.join(JOURNAL))?;
    let epoch = journal.begin_epoch()?;
    let (mut instances, mut snapshots) = (String::new(), Vec::new());
    for (number, config) in environment.services.iter().enumerate() {
        let service = service(config, number, dir)?;
        for spec in specs(&service, document.project()) {
            writeln!(instances, "{}", serde_json::to_string(&spec)?)?;
        }
        snapshots.push(Snapshot {
            scope: service.key.to_string(),
            sequence: Sequence(0),
            version: 1,
            body: serde_json::to_vec(&service)?,
        });
        if snapshots.len() == BATCH || number + 1 == size.services {
            // A snapshot is taken at a record.
            journal.append(epoch, &[prepared()], &std::mem::take(&mut snapshots))?;
        }
    }
    Ok(std::fs::write(dir.join(INSTANCES), instances)?)
}

/// All services; what is deployed is watched for an hour.
fn configuration(services: usize) -> String {
    let mut text = String::from(
        "project: scale\n\
         defaults:\n  \
           command: ./server --port {{port}}\n  \
           route: {listen: '127.0.0.1:18180'}\n  \
           strategy: {type: canary, steps: [{set_weight: 10}, {pause: {duration: 1h}}, {set_weight: 100}]}\n\
         services:\n",
    );
    for number in 0..services {
        let name = name(number);
        let _ = writeln!(text, "  {name}: {{route: {{host: {name}.test}}}}");
    }
    text
}

/// A record of nobody.
fn prepared() -> NewRecord {
    NewRecord {
        scope: "bench".to_owned(),
        kind: "prepared".to_owned(),
        version: 1,
        at: Timestamp::default(),
        wall_ms: 0,
        body: Vec::new(),
        consequences: Vec::new(),
    }
}

/// A service whose first version serves.
fn service(config: &ServiceConfig, number: usize, dir: &Path) -> Result<Service> {
    let version = Version::new(BEFORE)?;
    let release = config.release(&version, &dir.to_string_lossy(), &BTreeMap::new())?;
    let policy = config.policy_for(None, &version);
    let mut service = Service::new(config.key());
    let port = PORTS.0 + u16::try_from(number % PORTS.1)?;
    let report = InstanceReport {
        id: InstanceId::new(&service.key, &release.id, 0),
        address: Some(SocketAddr::from(([127, 0, 0, 1], port))),
        health: InstanceHealth::Ready,
        restarts: 0,
        reason: None,
    };
    let pool = Pool { desired: 1, instances: vec![report] };
    service.pools.insert(release.id.clone(), pool);
    service.traffic.split = Split::all(release.id.clone());
    (service.traffic.shift, service.traffic.acknowledged) = (1, 1);
    service.revisions.push(Arc::new(Revision {
        number: 1,
        release: release.id.clone(),
        policy,
        promoted_at: Timestamp::default(),
        wall_ms: 0,
    }));
    service.releases.insert(release.id.clone(), release);
    Ok(service)
}

/// The instances of a service that serves.
fn specs(service: &Service, project: &ProjectName) -> Vec<InstanceSpec> {
    let spec = |(id, pool): (_, &Pool)| {
        let release = service.releases.get(id)?;
        Some(InstanceSpec {
            id: pool.instances.first()?.id.clone(),
            project: project.clone(),
            key: service.key.clone(),
            release: release.id.clone(),
            version: release.version.clone(),
            workload: release.workload.clone(),
        })
    };
    service.pools.iter().filter_map(spec).collect()
}
