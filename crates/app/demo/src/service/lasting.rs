//! Answers that take their time: those that come late, those that come piece by piece, and
//! connections that are given away for good. For trying out what a switch does to them.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TRAILER, UPGRADE,
};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::respond::{Answer, plain};
use super::state::State;

/// Says in a trailer how many events there were.
const EVENTS_HEADER: HeaderName = HeaderName::from_static("x-events");
/// What is echoed at once.
const ECHO_BYTES: usize = 4 << 10;

/// `/wait?ms=N`: an answer that comes after so long.
pub(super) async fn wait(state: &State, uri: &Uri) -> Answer {
    tokio::time::sleep(Duration::from_millis(number(uri, "ms"))).await;
    plain(state, StatusCode::OK, "has waited")
}

/// `/events?count=N&ms=M`: events, one every so often, and a trailer where the client takes it.
pub(super) fn events(uri: &Uri) -> Answer {
    let (count, every) = (number(uri, "count"), Duration::from_millis(number(uri, "ms")));
    let (sender, body) = Channel::new(1);
    tokio::spawn(tell(sender, count, every));
    let mut answer = Response::new(body.boxed_unsync());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(TRAILER, HeaderValue::from(EVENTS_HEADER));
    answer
}

/// Tells all, or ends when nobody listens any more.
async fn tell(mut sender: Sender<Bytes>, count: u64, every: Duration) {
    for event in 1..=count {
        let data = format!("id: {event}\ndata: {event} of {count}\n\n");
        if sender.send_data(data.into()).await.is_err() {
            return;
        }
        tokio::time::sleep(every).await;
    }
    let trailers = HeaderMap::from_iter([(EVENTS_HEADER, HeaderValue::from(count))]);
    // Nobody listens any more.
    let _ = sender.send_trailers(trailers).await;
}

/// `/echo` with `Upgrade: echo`: whatever is sent from then on comes back.
pub(super) fn echo(state: &State, request: Request<Incoming>) -> Answer {
    if request.headers().get(UPGRADE).is_none_or(|wanted| wanted != "echo") {
        return plain(state, StatusCode::UPGRADE_REQUIRED, "echoes after an upgrade only");
    }
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let mut stream = TokioIo::new(upgraded);
        let mut heard = BytesMut::with_capacity(ECHO_BYTES);
        // Whoever hangs up has heard enough.
        while stream.read_buf(&mut heard).await.is_ok_and(|count| count > 0) {
            if stream.write_all_buf(&mut heard).await.is_err() {
                return;
            }
        }
        let _ = stream.shutdown().await;
    });
    let mut answer = plain(state, StatusCode::SWITCHING_PROTOCOLS, "");
    *answer.body_mut() = http_body_util::Empty::new().boxed_unsync();
    let headers = answer.headers_mut();
    headers.remove(CONTENT_TYPE);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("echo"));
    answer
}

/// A number out of the query; 0 where there is none.
fn number(uri: &Uri, name: &str) -> u64 {
    let mut pairs = uri.query().unwrap_or_default().split('&').filter_map(|p| p.split_once('='));
    let found = pairs.find(|(key, _)| *key == name);
    found.and_then(|(_, value)| value.parse().ok()).unwrap_or_default()
}
