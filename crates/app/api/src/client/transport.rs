//! HTTP/1.1 over a Unix socket: one connection per request, bodies with a limit.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::Error;
use crate::{Problem, code};

/// Largest answer taken in: far above a status with hundreds of instances, far below what hurts.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Runs a call, but not longer than this.
pub(super) async fn within<T>(
    time: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(time, call).await.unwrap_or(Err(Error::Silent(time)))
}

/// Sends a request and returns the answer's whole body.
pub(super) async fn call(
    socket: &Path,
    method: Method,
    route: &str,
    body: Vec<u8>,
) -> Result<Bytes, Error> {
    collect(open(socket, method, route, body).await?).await
}

/// Sends a request and returns the answer's body to be read. An answer of 400 or above is an
/// error.
pub(super) async fn open(
    socket: &Path,
    method: Method,
    route: &str,
    body: Vec<u8>,
) -> Result<Incoming, Error> {
    let stream = UnixStream::connect(socket).await.map_err(|e| Error::connect(socket, e))?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(broken)?;
    // Ends by itself when the answer's body was read or dropped; its errors surface there.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(route)
        .header(header::HOST, "switchback")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(broken)?;
    let response = sender.send_request(request).await.map_err(broken)?;
    if response.status().as_u16() >= 400 {
        return Err(problem(response).await);
    }
    Ok(response.into_body())
}

/// Reads an answer of 400 or above.
async fn problem(response: Response<Incoming>) -> Error {
    let status = response.status();
    let body = match collect(response.into_body()).await {
        Ok(body) => body,
        Err(error) => return error,
    };
    let problem = serde_json::from_slice::<Problem>(&body).unwrap_or_else(|_| {
        let first = String::from_utf8_lossy(&body).lines().next().unwrap_or_default().to_owned();
        code::ANSWER_NOT_UNDERSTOOD.problem(format!("the control plane answered {status}: {first}"))
    });
    Error::Problem(Box::new(problem))
}

async fn collect(body: Incoming) -> Result<Bytes, Error> {
    let limited = Limited::new(body, BODY_BYTES_MAX);
    limited.collect().await.map(http_body_util::Collected::to_bytes).map_err(Error::Broken)
}

/// Wraps what hyper says.
pub(super) fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Broken(Box::new(error))
}

/// Writes a request's body.
pub(super) fn encode(request: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(request).map_err(|error| Error::NotUnderstood(error.to_string()))
}

/// Reads an answer's body, or one line of a stream.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::NotUnderstood(error.to_string()))
}
