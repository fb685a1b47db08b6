//! Talks to the control plane over its Unix socket: one connection per request, and streams that
//! are taken up again where they broke. No printing, no exit codes beyond the [`crate::Problem`]'s.

mod error;
mod follow;
mod query;
mod stream;
mod transport;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::Error;
pub use follow::{Follow, Progress, RECONNECT_FOR_MAX};
pub use query::{LogsFrom, LogsQuery, RolloutsQuery};
pub use stream::EventStream;

use crate::{
    Accepted, CommandRequest, DeedEntry, DeployRequest, DownRequest, Ledger, Logs, OperationAnswer,
    OperationRequest, Plan, ProxyUpgradeRequest, ProxyUpgraded, RollbackRequest, RolloutDetail,
    RolloutSummary, Status, TrialRecord, UpAnswer, UpRequest,
};
use query::Query;
use switchback_domain::EnvironmentName;

/// Longest wait for an answer: the control plane answers at once and works afterwards.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);
/// Longest wait for an upgrade of the data plane: it succeeds or gives up within a minute.
const UPGRADE_WITHIN: Duration = Duration::from_mins(2);
/// Longest wait for `down`: it answers when everything has stopped, drain included.
const DOWN_WITHIN: Duration = Duration::from_mins(10);

/// What an operator can tell a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Command {
    /// Go on past a pause or an approval.
    Promote,
    /// Stop where it is.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Take it back.
    Abort,
    /// Try again what failed.
    Retry,
}

impl Command {
    /// The word in the route.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Abort => "abort",
            Self::Retry => "retry",
        }
    }
}

/// A control plane, known by its socket. Cheap to clone; holds no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The control plane behind a socket. Connects only when asked something.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What runs now; `None` is every environment.
    pub async fn status(&self, environment: Option<&EnvironmentName>) -> Result<Status, Error> {
        self.get(Query::new("/v1/status").and("environment", environment)).await
    }

    /// Starts a rollout. For a dry run use [`Client::plan`].
    pub async fn deploy(&self, request: &DeployRequest) -> Result<Accepted, Error> {
        self.post("/v1/deploy", &DeployRequest { dry_run: false, ..request.clone() }).await
    }

    /// What [`Client::deploy`] would do.
    pub async fn plan(&self, request: &DeployRequest) -> Result<Plan, Error> {
        self.post("/v1/deploy", &DeployRequest { dry_run: true, ..request.clone() }).await
    }

    /// Goes back to an earlier revision, or takes the active rollout back.
    pub async fn rollback(&self, request: &RollbackRequest) -> Result<Accepted, Error> {
        self.post("/v1/rollback", request).await
    }

    /// Tells a rollout something.
    pub async fn command(
        &self,
        rollout: &str,
        command: Command,
        request: &CommandRequest,
    ) -> Result<Accepted, Error> {
        let route = Query::new("/v1/rollouts").segment(rollout).segment(command.word());
        self.post(route.as_str(), request).await
    }

    /// Has services' routes do something else; returns when the data plane does, or after a while.
    pub async fn operate(&self, request: &OperationRequest) -> Result<OperationAnswer, Error> {
        self.post("/v1/operations", request).await
    }

    /// Rollouts, newest first.
    pub async fn rollouts(&self, query: &RolloutsQuery) -> Result<Vec<RolloutSummary>, Error> {
        self.get(query.route()).await
    }

    /// What was done beside rollouts, newest first.
    pub async fn deeds(&self, query: &RolloutsQuery) -> Result<Vec<DeedEntry>, Error> {
        self.get(query.route_to("/v1/deeds")).await
    }

    /// Everything known about one rollout.
    pub async fn rollout(&self, rollout: &str) -> Result<RolloutDetail, Error> {
        self.get(Query::new("/v1/rollouts").segment(rollout)).await
    }

    /// What the exact tests of a rollout were fed and said, oldest first.
    pub async fn trials(&self, rollout: &str) -> Result<Vec<TrialRecord>, Error> {
        self.get(Query::new("/v1/rollouts").segment(rollout).segment("trials")).await
    }

    /// The events of a rollout after a sequence number (0 for all), on one connection.
    pub async fn events(&self, rollout: &str, after: u64) -> Result<EventStream, Error> {
        let route = Query::new("/v1/rollouts").segment(rollout).segment("events");
        let route = route.and("after", Some(after));
        let open = transport::open(&self.socket, Method::GET, route.as_str(), Vec::new());
        Ok(EventStream::new(transport::within(ANSWER_WITHIN, open).await?))
    }

    /// The events of a rollout to its end, over restarts of the control plane.
    pub fn follow(&self, rollout: &str) -> Follow {
        Follow::new(self.clone(), rollout.to_owned())
    }

    /// What instances printed.
    pub async fn logs(&self, query: &LogsQuery) -> Result<Logs, Error> {
        self.get(query.route()).await
    }

    /// What became of every request.
    pub async fn ledger(&self) -> Result<Ledger, Error> {
        self.get(Query::new("/v1/ledger")).await
    }

    /// Brings every service to its configured version.
    pub async fn up(&self, request: &UpRequest) -> Result<UpAnswer, Error> {
        self.post("/v1/up", request).await
    }

    /// Has a new process of the data plane take over.
    pub async fn upgrade_proxy(
        &self,
        request: &ProxyUpgradeRequest,
    ) -> Result<ProxyUpgraded, Error> {
        let body = transport::encode(request)?;
        let call = transport::call(&self.socket, Method::POST, "/v1/proxy/upgrade", body);
        transport::decode(&transport::within(UPGRADE_WITHIN, call).await?)
    }

    /// Stops everything, the control plane last. It may break the connection off instead of
    /// answering: wait until [`Client::status`] says [`Error::NotRunning`].
    pub async fn down(&self, request: &DownRequest) -> Result<(), Error> {
        let body = transport::encode(request)?;
        let call = transport::call(&self.socket, Method::POST, "/v1/down", body);
        transport::within(DOWN_WITHIN, call).await.map(drop)
    }

    async fn get<T: DeserializeOwned>(&self, route: Query) -> Result<T, Error> {
        let call = transport::call(&self.socket, Method::GET, route.as_str(), Vec::new());
        transport::decode(&transport::within(ANSWER_WITHIN, call).await?)
    }

    async fn post<T: DeserializeOwned>(
        &self,
        route: &str,
        request: &impl Serialize,
    ) -> Result<T, Error> {
        let body = transport::encode(request)?;
        let call = transport::call(&self.socket, Method::POST, route, body);
        transport::decode(&transport::within(ANSWER_WITHIN, call).await?)
    }
}
