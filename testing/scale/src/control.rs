//! The process that is measured: the control plane with its journal and API, put together as
//! `app/cli/src/compose.rs` does it, with simulated neighbours.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use switchback_control::{Neighbours, Options};
use switchback_ports::metrics::fake::FakeMetrics;
use switchback_ports::runtime::InstanceSpec;
use switchback_store::SqliteJournal;

use crate::world::{NoCertificates, SimulatedDataPlane, SimulatedRuntime, Well};

/// The configuration.
pub(crate) const CONFIG: &str = "switchback.yaml";
/// The journal, in the state directory.
pub(crate) const JOURNAL: &str = "journal.db";
/// What runs already, an instance a line.
pub(crate) const INSTANCES: &str = "instances.jsonl";
/// The moments of every start.
pub(crate) const STARTS: &str = "starts.txt";
/// What is written beside the moment at which the control plane begins.
pub(crate) const BEGIN: &str = "begin";
/// The socket of the API.
pub(crate) const SOCKET: &str = "control.sock";
/// As many as the binary that ships has.
const THREADS: usize = 2;

/// Runs until it is killed.
pub(crate) fn run(dir: &Path, without: Option<&str>) -> Result<()> {
    let threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    threads.block_on(async {
        let runtime = SimulatedRuntime::new(&dir.join(STARTS))?;
        for line in std::fs::read_to_string(dir.join(INSTANCES))?.lines() {
            let spec: InstanceSpec = serde_json::from_str(line)?;
            if without != Some(spec.version.as_str()) {
                runtime.adopt(&spec).await?;
            }
        }
        runtime.note(BEGIN);
        let data_plane = Arc::new(SimulatedDataPlane::default());
        let journal = dir.join(JOURNAL);
        let neighbours = Neighbours {
            runtime: Arc::new(runtime),
            prober: Arc::new(Well),
            metrics: Arc::new(FakeMetrics::default()),
            data_plane: data_plane.clone(),
            supervision: data_plane,
            certificates: Arc::new(NoCertificates),
            journal: Box::new(move || Ok(Box::new(SqliteJournal::open(&journal)?))),
        };
        let options = Options {
            config: dir.join(CONFIG),
            state_dir: dir.to_owned(),
            socket: dir.join(SOCKET),
            environment: None,
        };
        Ok(switchback_control::run(options, neighbours).await?)
    })
}
