//! The admin socket: HTTP/1.1 on a Unix socket that only the owner may open.
//!
//! `PUT /v1/table`, `GET /v1/table`, `PUT /v1/check`, `GET /v1/report`,
//! `GET /v1/batches?of=INCARNATION&after=PLACE`, `GET /v1/health`, `GET /metrics`, `POST /v1/stop`.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use switchback_ports::data_plane::Cursor;
use switchback_ports::data_plane::admin::{CheckAnswer, PublishAnswer};
use switchback_routing::Table;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

use crate::limits::{ACCEPT_PAUSE, TABLE_BYTES_MAX};
use crate::plane::Plane;
use crate::shared::Shared;

/// What the admin socket speaks for.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    pub(crate) plane: Rc<Plane>,
    pub(crate) shared: std::sync::Arc<Shared>,
    /// Told when somebody asks for the end.
    pub(crate) stop: Rc<Notify>,
}

/// Opens a socket with its permissions on. Give it its name when it is to be found.
pub(crate) fn bind(path: &Path, state_dir: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent().filter(|directory| !is_same(directory, state_dir)) {
        own_directory(directory)?;
    }
    remove(path)?;
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Whether a directory is the state directory, which was chosen by whoever started us.
fn is_same(directory: &Path, state_dir: &Path) -> bool {
    fs::canonicalize(directory).is_ok_and(|directory| directory == state_dir)
}

/// Makes the directory, or checks that nobody else can put a socket of theirs there.
fn own_directory(directory: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let facts = fs::symlink_metadata(directory)?;
    let mine = facts.is_dir() && facts.uid() == rustix::process::geteuid().as_raw();
    if mine && facts.mode() & 0o022 == 0 {
        return Ok(());
    }
    let reason = format!("{} belongs to somebody else", directory.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Answers until dropped.
pub(crate) async fn serve(admin: Admin, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::task::spawn_local(converse(admin.clone(), stream));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn converse(admin: Admin, stream: UnixStream) {
    let service = service_fn(|request| {
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(admin.answer(request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new());
    // A caller that breaks off has nothing to be told.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

/// The table that a request brings.
async fn table_in(request: Request<Incoming>) -> Result<Table, String> {
    let body = Limited::new(request.into_body(), TABLE_BYTES_MAX).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

impl Admin {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        match (request.method(), path) {
            (&Method::PUT, "/v1/table") => self.publish(request).await,
            (&Method::GET, "/v1/table") => json(StatusCode::OK, &self.shared.table.load().table),
            (&Method::PUT, "/v1/check") => self.check(request).await,
            (&Method::GET, "/v1/report") => json(StatusCode::OK, &self.plane.report()),
            (&Method::GET, "/v1/batches") => {
                self.batches(request.uri().query().unwrap_or_default())
            }
            (&Method::GET, "/v1/health") => json(StatusCode::OK, &self.plane.health()),
            (&Method::GET, "/metrics") => self.metrics(),
            (&Method::POST, "/v1/stop") => self.stop().await,
            (
                _,
                "/v1/table" | "/v1/check" | "/v1/report" | "/v1/batches" | "/v1/health"
                | "/metrics" | "/v1/stop",
            ) => {
                refused(StatusCode::METHOD_NOT_ALLOWED, "another method is needed here".to_owned())
            }
            (_, path) => refused(StatusCode::NOT_FOUND, format!("there is nothing at {path}")),
        }
    }

    /// Whatever is no number or no incarnation of ours has read nothing.
    fn batches(&self, query: &str) -> Response<Full<Bytes>> {
        let find = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name));
        let incarnation = find("of=").unwrap_or_default().to_owned();
        let place = find("after=").and_then(|text| text.parse().ok()).unwrap_or(0);
        json(StatusCode::OK, &self.plane.batches(&Cursor { incarnation, place }))
    }

    async fn check(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match table_in(request).await {
            Ok(table) => {
                json(StatusCode::OK, &CheckAnswer { reason: self.plane.check(&table).err() })
            }
            Err(reason) => refused(StatusCode::BAD_REQUEST, reason),
        }
    }

    async fn publish(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let table = match table_in(request).await {
            Ok(table) => table,
            Err(reason) => return refused(StatusCode::BAD_REQUEST, reason),
        };
        let plane = Rc::clone(&self.plane);
        // A task of its own: a caller that hangs up must not leave a table half taken.
        let task = tokio::task::spawn_local(async move { plane.publish(table).await });
        let answer = task.await.unwrap_or_else(|error| PublishAnswer::Unacknowledged {
            reason: format!("the table was not taken to the end: {error}"),
        });
        let status = match answer {
            PublishAnswer::Serving { .. } => StatusCode::OK,
            PublishAnswer::Fenced { .. } => StatusCode::CONFLICT,
            PublishAnswer::Refused { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            PublishAnswer::Unacknowledged { .. } => StatusCode::GATEWAY_TIMEOUT,
        };
        json(status, &answer)
    }

    async fn stop(&self) -> Response<Full<Bytes>> {
        if !self.plane.set_stopping().await {
            let reason = "another process has taken over: tell that one".to_owned();
            return refused(StatusCode::SERVICE_UNAVAILABLE, reason);
        }
        self.stop.notify_one();
        json(StatusCode::ACCEPTED, &self.plane.health())
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let connections = (0..self.shared.workers()).map(|worker| self.shared.connections(worker));
        let current = self.shared.table.load();
        let page = crate::metrics::page(
            &self.plane.report(),
            connections.sum(),
            current.tls.expiries(),
            &self.shared.access_log,
        );
        content(StatusCode::OK, "text/plain; version=0.0.4", page.into())
    }
}

fn refused(status: StatusCode, reason: String) -> Response<Full<Bytes>> {
    json(status, &PublishAnswer::Refused { reason })
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(text) => content(status, "application/json", text.into()),
        Err(error) => {
            content(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string().into())
        }
    }
}

fn content(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
