//! [`ProcessRuntime`]: the Runtime port over local processes. Only the async face is here; the
//! work is done in blocking calls on threads of their own, and goes on when a caller gives up.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use switchback_domain::probe::ProbeResult;
use switchback_domain::{Generation, InstanceId};
use switchback_ports::Runtime;
use switchback_ports::runtime::{Error, Instance, InstanceSpec, LogPage, LogQuery, Usage};

use crate::launch::launch;
use crate::settings::Options;
use crate::supervise::{Supervisor, failed, record};
use crate::watch::Watch;
use crate::{command, log};

/// Runs instances as local processes, each under a shim that outlives the control plane.
///
/// Dropping it changes nothing: the instances go on, and the next one made for the same
/// directory finds them.
pub struct ProcessRuntime {
    supervisor: Arc<Supervisor>,
    watch: Watch,
}

impl ProcessRuntime {
    /// A runtime on `options.state_dir`, with the instances that are there already.
    pub fn new(options: Options) -> io::Result<Self> {
        let supervisor = Supervisor::new(options)?;
        let watch = Watch::new(&supervisor.layout.supervision());
        Ok(Self { supervisor: Arc::new(supervisor), watch })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Supervisor) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let supervisor = Arc::clone(&self.supervisor);
        let done = tokio::task::spawn_blocking(move || work(&supervisor)).await;
        done.map_err(|error| Error::Unavailable(io::Error::other(error)))?
    }
}

#[async_trait]
impl Runtime for ProcessRuntime {
    async fn take_charge(&self, generation: Generation) -> Result<(), Error> {
        self.blocking(move |supervisor| supervisor.admit(generation)).await
    }

    async fn ensure_running(
        &self,
        spec: &InstanceSpec,
        generation: Generation,
    ) -> Result<(), Error> {
        let spec = spec.clone();
        self.blocking(move |supervisor| supervisor.ensure_running(&spec, generation)).await
    }

    async fn ensure_stopped(&self, id: &InstanceId, generation: Generation) -> Result<(), Error> {
        let id = id.clone();
        self.blocking(move |supervisor| supervisor.ensure_stopped(&id, generation)).await
    }

    async fn restart(&self, id: &InstanceId, reason: &str) -> Result<(), Error> {
        let (id, reason) = (id.clone(), reason.to_owned());
        self.blocking(move |supervisor| supervisor.restart(&id, &reason)).await
    }

    async fn list(&self) -> Result<Vec<Instance>, Error> {
        self.blocking(Supervisor::list).await
    }

    async fn changed(&self) {
        self.watch.changed().await;
    }

    async fn execute(
        &self,
        id: &InstanceId,
        argv: &[String],
        timeout: Duration,
    ) -> Result<ProbeResult, Error> {
        let (id, argv) = (id.clone(), argv.to_vec());
        self.blocking(move |supervisor| execute(supervisor, &id, &argv, timeout)).await
    }

    async fn usage(&self, id: &InstanceId) -> Result<Usage, Error> {
        let id = id.clone();
        self.blocking(move |supervisor| supervisor.usage(&id)).await
    }

    async fn logs(&self, id: &InstanceId, query: LogQuery) -> Result<LogPage, Error> {
        let id = id.clone();
        self.blocking(move |supervisor| logs(supervisor, &id, &query)).await
    }
}

fn execute(
    supervisor: &Supervisor,
    id: &InstanceId,
    argv: &[String],
    timeout: Duration,
) -> Result<ProbeResult, Error> {
    let (paths, spec) = supervisor.known(id)?;
    let Some(port) = record(&paths).and_then(|record| record.port) else {
        let detail = "the instance has no port yet".to_owned();
        return Ok(ProbeResult { passed: false, detail });
    };
    let launch = launch(&spec, &paths, port, argv).map_err(failed("run a command beside", id))?;
    let executed = command::execute(&supervisor.options.executable, &launch, timeout);
    executed.map_err(failed("run a command beside", id))
}

fn logs(supervisor: &Supervisor, id: &InstanceId, query: &LogQuery) -> Result<LogPage, Error> {
    let paths = supervisor.layout.instance(id).map_err(|_| Error::Unknown(id.clone()))?;
    let kept = [paths.log(), paths.stopped.join("log")];
    // Looked up again when an instance is stopped between the look and the reading.
    let directory = kept.iter().find(|directory| directory.exists());
    let directory = match directory {
        Some(directory) => directory,
        None if paths.spec().exists() => &kept[0],
        None => return Err(Error::Unknown(id.clone())),
    };
    log::read::page(directory, query).map_err(failed("read the log of", id))
}
