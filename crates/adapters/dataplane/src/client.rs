//! One request over the admin socket, answered or given up in time.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use serde::de::DeserializeOwned;
use switchback_http::{Limits, Longer};
use tokio::net::UnixStream;

/// A question is answered from memory.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// A table is written to disk and acknowledged by every worker, which may take 5 s.
const PUBLISH_MAX: Duration = Duration::from_secs(15);
/// A report of 10,000 versions, or a table of as many routes, takes about 10 MB.
const LIMITS: Limits = Limits {
    head_bytes_max: 256 * 1024,
    body_bytes_max: 64 * 1024 * 1024,
    longer: Longer::Refused,
};

/// Asks for a document.
pub(crate) async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> io::Result<T> {
    in_time(ANSWER_MAX, exchange(socket, Method::GET, path, Vec::new())).await
}

/// Sends a document.
pub(crate) async fn put<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    body: Vec<u8>,
) -> io::Result<T> {
    in_time(PUBLISH_MAX, exchange(socket, Method::PUT, path, body)).await
}

/// Asks for something to be done.
pub(crate) async fn post<T: DeserializeOwned>(socket: &Path, path: &str) -> io::Result<T> {
    in_time(ANSWER_MAX, exchange(socket, Method::POST, path, Vec::new())).await
}

async fn in_time<T>(
    limit: Duration,
    exchange: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {limit:?}")))
    })
}

async fn exchange<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> io::Result<T> {
    let stream = UnixStream::connect(socket).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "switchback")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(io::Error::other)?;
    let answer = switchback_http::exchange(stream, request, LIMITS).await;
    let answer = answer.map_err(io::Error::other)?;
    serde_json::from_slice(answer.body())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
