//! Switchback's data plane: `switchback proxy`, given whole tables over its admin socket.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use switchback_dataplane::{Options, ProxyDataPlane};
use switchback_domain::tls::UpstreamSpec;
use switchback_domain::{
    Epoch, Generation, InstanceId, ReleaseId, ServiceKey, Split, Version, Weight, socket_path,
};
use switchback_ports::data_plane::admin::{Health, PublishAnswer, SOCKET_NAME};
use switchback_routing::{Arm, ArmId, Endpoint, Route, Steering, Table};
use tokio::runtime::Runtime;

use crate::bench::address::{free_port, local};
use crate::bench::plan::{HOSTS, Plan, Routes, VERSIONS, host, prefixes};
use crate::bench::process::{POLL_INTERVAL, STOP_MAX};
use crate::bench::world::{World, say};

use super::{Peer, Running};

/// Selects one of several codecs, in a binary that has them.
pub(in crate::bench) const CODEC: &str = "SWITCHBACK_CODEC";
const TIMEOUT: Duration = Duration::from_secs(30);

/// See the module. Without a codec it is what is shipped.
pub(in crate::bench) struct Ours {
    pub(super) key: &'static str,
    pub(super) codec: Option<&'static str>,
}

impl Peer for Ours {
    fn key(&self) -> &'static str {
        self.key
    }

    fn title(&self, _: &World) -> Result<String> {
        let codec = self.codec.map(|codec| format!(", codec {codec}"));
        Ok(format!("switchback{}", codec.unwrap_or_default()))
    }

    fn can(&self, world: &World, _: Routes) -> bool {
        self.codec.is_none() || world.has_codecs
    }

    fn start(&self, world: &World, plan: Plan) -> Result<Box<dyn Running>> {
        Ok(Box::new(self.serve(world, plan)?))
    }
}

impl Ours {
    /// What is shipped.
    pub(in crate::bench) const SHIPPED: Self = Self { key: super::OURS, codec: None };

    /// Starts it by a plan; returns when it serves.
    pub(in crate::bench) fn serve(&self, world: &World, plan: Plan) -> Result<Serving> {
        let directory = world.directory("ours")?;
        let program = &world.programs.switchback;
        let mut options = Options::new(&directory, program);
        if let Some(codec) = self.codec {
            options.executable = "/usr/bin/env".into();
            let set = OsString::from(format!("{CODEC}={codec}"));
            options.arguments = vec![set, program.into(), "proxy".into()];
        }
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().context("cannot start a runtime")?;
        let plane = ProxyDataPlane::new(options);
        let pid = runtime.block_on(plane.ensure_started())?.pid;
        let generation = Generation::first(Epoch(1));
        let (port, socket) = (free_port()?, socket_path(&directory, SOCKET_NAME));
        let document = Vec::new();
        let mut serving = Serving { plane, runtime, pid, port, generation, socket, document };
        serving.prepare(plan)?;
        serving.switch()?;
        Ok(serving)
    }
}

/// It serves, and stops when this is dropped.
pub(in crate::bench) struct Serving {
    plane: ProxyDataPlane,
    runtime: Runtime,
    pid: u32,
    /// Where it serves.
    pub(in crate::bench) port: u16,
    generation: Generation,
    socket: PathBuf,
    document: Vec<u8>,
}

impl Serving {
    /// Has a new process of the same program take over; says how long that took, the start of the
    /// process and its first answer included.
    pub(in crate::bench) fn upgrade(&mut self) -> Result<Duration> {
        let upgraded = self.runtime.block_on(self.plane.upgrade(None))?;
        self.pid = upgraded.to.pid;
        Ok(upgraded.took)
    }

    /// What it says about itself.
    pub(in crate::bench) fn health(&self) -> Result<Health> {
        self.runtime.block_on(self.plane.health()).context("the data plane does not answer")
    }
}

impl Running for Serving {
    fn port(&self) -> u16 {
        self.port
    }

    fn http2_port(&self) -> Option<u16> {
        Some(self.port)
    }

    fn pid(&self) -> u32 {
        self.pid
    }

    fn prepare(&mut self, plan: Plan) -> Result<()> {
        self.generation = self.generation.next_in(Epoch(1));
        self.document = serde_json::to_vec(&table(plan, self.port, self.generation)?)?;
        Ok(())
    }

    fn switch(&mut self) -> Result<()> {
        let answer = publish(&self.socket, &self.document)?;
        let is_serving = matches!(answer, PublishAnswer::Serving { .. });
        ensure!(is_serving, "the data plane did not take a table: {answer:?}");
        Ok(())
    }
}

/// Hands over a table that is a document already. The adapter would write it first, and without
/// optimisation, as this program is built, that takes longer than all the rest.
fn publish(socket: &Path, document: &[u8]) -> Result<PublishAnswer> {
    let mut stream = UnixStream::connect(socket).context("the admin socket is gone")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let length = document.len();
    let head = format!(
        "PUT /v1/table HTTP/1.1\r\nHost: switchback\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(document)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no answer to a table")?;
    serde_json::from_str(body).with_context(|| format!("no answer to a table: {body}"))
}

impl Drop for Serving {
    fn drop(&mut self) {
        let process = PathBuf::from(format!("/proc/{}", self.pid));
        let deadline = Instant::now() + STOP_MAX;
        // It lets go of its lock a moment before it ends; the next call takes its exit status.
        while process.exists() && Instant::now() < deadline {
            if let Err(error) = self.runtime.block_on(self.plane.stop()) {
                say(&format!("process {} may be left over: {error}", self.pid));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

fn table(plan: Plan, port: u16, generation: Generation) -> Result<Table> {
    let service = ServiceKey::new("bench".parse()?, "service".parse()?);
    let releases = VERSIONS.map(ReleaseId::from_stored);
    let mut arms = Vec::new();
    for (ordinal, release) in (0..).zip(&releases) {
        let instance = InstanceId::new(&service, release, ordinal);
        let address = local(plan.upstreams[arms.len()]);
        arms.push(Arm {
            id: ArmId { service: service.clone(), release: release.clone() },
            version: Version::new(release.as_str())?,
            endpoints: vec![Endpoint { instance, address }],
            upstream: UpstreamSpec::default(),
        });
    }
    let [first, second] = releases;
    let weight = Weight::from_percent(plan.second_percent.into());
    let any = Route {
        service,
        listen: local(port),
        hosts: Vec::new(),
        path_prefix: "/".to_owned(),
        timeout: TIMEOUT,
        split: Split::between(first, second, weight),
        steering: Steering::default(),
        tls: None,
    };
    let routes = match plan.routes {
        Routes::One => vec![any],
        Routes::Many => many(&any),
    };
    Ok(Table { generation, routes, arms, ..Table::default() })
}

fn many(any: &Route) -> Vec<Route> {
    let of_host = |host: String| {
        prefixes().map(move |path_prefix| Route {
            hosts: vec![host.clone()],
            path_prefix,
            ..any.clone()
        })
    };
    (0..HOSTS).map(host).flat_map(of_host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_such_as_the_data_plane_takes() {
        for (routes, count) in [(Routes::One, 1), (Routes::Many, 10_000)] {
            let plan = Plan { routes, upstreams: [81, 82], second_percent: 10 };
            let table = table(plan, 80, Generation::first(Epoch(1))).unwrap();
            assert_eq!((table.check(), table.routes.len()), (Ok(()), count));
            let shares = table.routes[0].split.shares();
            assert_eq!(shares.iter().map(|(_, share)| share.basis_points()).max(), Some(9_000));
        }
    }
}
