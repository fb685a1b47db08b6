//! What happens to one request: checked, routed, assigned to a version, exchanged, passed on.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;

use crate::body::{Passed, RequestBody, ResponseBody};
use crate::compiled::Arm;
use crate::connection::Activity;
use crate::counters::{Outcome, Ticket};
use crate::exchange::{Failure, exchange};
use crate::headers;
use crate::pool::Lease;
use crate::tunnel;
use crate::worker::Worker;

/// Where a request came in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// The route's address.
    pub(crate) listen: SocketAddr,
    /// The client's.
    pub(crate) client: SocketAddr,
}

/// A request that goes to a version.
struct Assigned {
    ticket: Ticket,
    timeout: Duration,
}

/// Answers one request; every way out of here is a response.
pub(crate) async fn answer(
    worker: Rc<Worker>,
    entry: Entry,
    busy: Activity,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let host = match target(&request, entry) {
        Ok(host) => host,
        Err((status, reason)) => {
            worker.shared.refused(worker.index);
            return own(status, reason, true, busy);
        }
    };
    let assigned = match assign(&worker, entry, &host, request.uri().path()) {
        Ok(assigned) => assigned,
        Err((status, reason)) => return own(status, reason, false, busy),
    };
    forward(&worker, entry, assigned, &host, request, busy).await
}

/// Checks what the codec does not, and tells the host the client asks for.
fn target(
    request: &Request<Incoming>,
    entry: Entry,
) -> Result<HeaderValue, (StatusCode, &'static str)> {
    if request.method() == Method::CONNECT {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not offered here"));
    }
    if !headers::has_plain_framing(request.headers()) {
        return Err((
            StatusCode::NOT_IMPLEMENTED,
            "no transfer coding but chunked is offered here",
        ));
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err((StatusCode::BAD_REQUEST, "more than one Host header")),
        (Some(host), None) => host.clone(),
        (None, _) if request.version() == Version::HTTP_10 => {
            HeaderValue::try_from(entry.listen.to_string())
                .map_err(|_| (StatusCode::BAD_REQUEST, "no Host header"))?
        }
        (None, _) => return Err((StatusCode::BAD_REQUEST, "no Host header")),
    };
    // An absolute target overrides the header (RFC 9112, 3.2.2).
    let named = request.uri().authority().map(Authority::as_str);
    if named.is_some_and(|name| name.contains('@')) || !is_host_text(host.as_bytes()) {
        return Err((StatusCode::BAD_REQUEST, "the Host header is not a host"));
    }
    match named.map(HeaderValue::try_from) {
        Some(Ok(name)) => Ok(name),
        Some(Err(_)) | None => Ok(host),
    }
}

fn is_host_text(host: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(byte);
    host.iter().all(allowed)
}

/// Chooses route and version. No `await` in here: the look into the worker's table and the raised
/// in-flight count must not be torn apart (see `crate::plane`).
fn assign(
    worker: &Rc<Worker>,
    entry: Entry,
    host: &HeaderValue,
    path: &str,
) -> Result<Assigned, (StatusCode, &'static str)> {
    worker.with_table(|table| {
        let host = host.to_str().unwrap_or_default();
        let path = if path.starts_with('/') { path } else { "/" };
        let Some(route) = table.router.find(entry.listen, host, path) else {
            worker.shared.unrouted(worker.index);
            return Err((StatusCode::NOT_FOUND, "no route for this host and path"));
        };
        let coin = rand::random_range(0..10_000);
        let Some(arm) = route.choose(coin).and_then(|index| table.arms.get(index)) else {
            worker.shared.unrouted(worker.index);
            return Err((StatusCode::SERVICE_UNAVAILABLE, "no version serves this route"));
        };
        let arm: Arc<Arm> = Arc::clone(arm);
        Ok(Assigned { ticket: Ticket::accept(arm, worker.index), timeout: route.timeout })
    })
}

async fn forward(
    worker: &Rc<Worker>,
    entry: Entry,
    assigned: Assigned,
    host: &HeaderValue,
    mut request: Request<Incoming>,
    busy: Activity,
) -> Response<ResponseBody> {
    let Assigned { mut ticket, timeout } = assigned;
    let wanted = headers::upgrade_wanted(request.headers());
    let wanted = wanted.filter(|_| hyper::body::Body::is_end_stream(request.body()));
    let client = wanted.is_some().then(|| hyper::upgrade::on(&mut request));
    let request = prepare(request, entry, host, wanted);
    let (mut response, lease) = match exchange(worker, &ticket, timeout, request).await {
        Ok(answered) => answered,
        Err(failure) => return failed(failure, ticket, busy),
    };
    if !headers::has_plain_framing(response.headers()) {
        return failed(Failure::Version(Outcome::Broken), ticket, busy);
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client else {
            return failed(Failure::Version(Outcome::Broken), ticket, busy);
        };
        ticket.settle(Outcome::Answered(0));
        tunnel::start(client, &mut response, ticket, lease, worker);
        return switched(response, busy);
    }
    passed_on(response, ticket, lease, busy)
}

/// The request as the instance gets it.
fn prepare(
    request: Request<Incoming>,
    entry: Entry,
    host: &HeaderValue,
    upgrade: Option<HeaderValue>,
) -> Request<RequestBody> {
    let (parts, body) = request.into_parts();
    let body = RequestBody::new(body);
    let chunked = body.is_chunked();
    let mut prepared = Request::new(body);
    *prepared.method_mut() = parts.method;
    *prepared.uri_mut() = origin_form(parts.uri);
    *prepared.headers_mut() = parts.headers;
    headers::to_instance(prepared.headers_mut(), entry.client.ip(), host, chunked);
    if let Some(protocol) = upgrade {
        headers::upgrade(prepared.headers_mut(), protocol);
    }
    prepared
}

/// Path and query only; an absolute target keeps its path.
fn origin_form(uri: Uri) -> Uri {
    if uri.authority().is_none() {
        return uri;
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Uri::try_from(path).unwrap_or_else(|_| Uri::from_static("/"))
}

fn passed_on(
    response: Response<Incoming>,
    ticket: Ticket,
    lease: Lease,
    busy: Activity,
) -> Response<ResponseBody> {
    let class = usize::from(response.status().as_u16() / 100).saturating_sub(1);
    let (mut parts, body) = response.into_parts();
    parts.version = Version::HTTP_11;
    headers::to_client(&mut parts.headers);
    let passed = Passed::new(body, ticket, Outcome::Answered(class), lease);
    Response::from_parts(parts, ResponseBody::passed(passed, busy))
}

/// The 101 that opens a tunnel.
fn switched(response: Response<Incoming>, busy: Activity) -> Response<ResponseBody> {
    let protocol = response.headers().get(http::header::UPGRADE).cloned();
    let (mut parts, _) = response.into_parts();
    parts.version = Version::HTTP_11;
    headers::to_client(&mut parts.headers);
    if let Some(protocol) = protocol {
        headers::upgrade(&mut parts.headers, protocol);
    }
    Response::from_parts(parts, ResponseBody::own("", busy))
}

fn failed(failure: Failure, mut ticket: Ticket, busy: Activity) -> Response<ResponseBody> {
    let (outcome, status, reason) = match failure {
        Failure::Version(Outcome::TimedOut) => {
            (Outcome::TimedOut, StatusCode::GATEWAY_TIMEOUT, "the instance did not answer in time")
        }
        Failure::Version(Outcome::Broken) => {
            (Outcome::Broken, StatusCode::BAD_GATEWAY, "the instance did not answer properly")
        }
        Failure::Version(outcome) => {
            (outcome, StatusCode::BAD_GATEWAY, "no instance took the request")
        }
        Failure::ClientLate => {
            (Outcome::ClientGone, StatusCode::REQUEST_TIMEOUT, "the rest of the request is missing")
        }
        Failure::ClientGone => {
            (Outcome::ClientGone, StatusCode::BAD_REQUEST, "the request broke off")
        }
        Failure::Ours => (
            Outcome::Dropped,
            StatusCode::SERVICE_UNAVAILABLE,
            "no instance to send the request to",
        ),
    };
    ticket.settle(outcome);
    let close = matches!(failure, Failure::ClientLate | Failure::ClientGone);
    own(status, reason, close, busy)
}

/// A response of our own: says that it is Switchback's, and why.
fn own(status: StatusCode, reason: &str, close: bool, busy: Activity) -> Response<ResponseBody> {
    let text = format!("switchback: {reason}\n");
    let mut response = Response::new(ResponseBody::own(text, busy));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    if close {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
