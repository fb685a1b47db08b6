//! One request over the admin socket, answered or given up in time.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// A question is answered from memory.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// A table is written to disk and acknowledged by every worker, which may take 5 s.
const PUBLISH_MAX: Duration = Duration::from_secs(15);
/// A report of 10,000 versions takes about 10 MB.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

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
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "switchback")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(io::Error::other)?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        Ok::<_, io::Error>(body.collect().await.map_err(io::Error::other)?.to_bytes())
    };
    let mut answered = std::pin::pin!(answered);
    // The connection is driven here and not by a task of its own: it ends with the question.
    let text = tokio::select! {
        biased;
        text = &mut answered => text?,
        ended = connection => {
            ended.map_err(io::Error::other)?;
            answered.await?
        }
    };
    serde_json::from_slice(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
