//! One request in hyper's types: checked, decided about, its answer passed on.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, SET_COOKIE, STRICT_TRANSPORT_SECURITY,
};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use hyper::upgrade::OnUpgrade;
use switchback_routing::RequestView;
use tokio::net::TcpStream;

use super::body::{Passed, RequestBody, ResponseBody};
use super::caller::Caller;
use super::connection::Activity;
use super::flow::Flow;
use super::link::{Held, Http1, Lease, Link};
use super::tunnel;
use crate::codec::http2::{self, Failed};
use crate::compiled::Arm;
use crate::counters::Outcome;
use crate::exchange::{Exchange, Failure, Late, Sent, is_idempotent, path_or_root};
use crate::headers;
use crate::pool::Pool;
use crate::service::{Answered, Entry, Refusal, decide, failed, log_refusal};
use crate::tls::Misdirected;
use crate::upload::{Upload, within};
use crate::worker::Worker;

/// Answers one request; every way out of here is a response.
pub(crate) async fn answer(
    worker: Rc<Worker>,
    caller: &Caller,
    busy: Option<Activity>,
    request: Request<Flow>,
) -> Response<ResponseBody> {
    let asked = target(&request, &caller.entry)
        .and_then(|host| welcome(&worker, caller, &host).map(|welcome| (host, welcome)));
    let (host, welcome) = match asked {
        Ok(asked) => asked,
        Err(refusal) => {
            worker.shared.refused(worker.index);
            return refused(&refusal, worker.is_leaving(), busy);
        }
    };
    let (mut request, client) = Asking::new(request, caller, host, welcome.subject);
    let mut response = match decide(&worker, &caller.entry, &mut request).await {
        Ok(answered) => {
            let mut response = respond(&worker, answered, client, busy);
            if let Some(cookie) = request.cookie {
                response.headers_mut().append(SET_COOKIE, cookie);
            }
            response
        }
        Err(refusal) => {
            log_refusal(&worker, &caller.entry, &mut request, &refusal);
            refused(&refusal, worker.is_leaving(), busy)
        }
    };
    if let Some(hsts) = welcome.hsts {
        response.headers_mut().entry(STRICT_TRANSPORT_SECURITY).or_insert(hsts);
    }
    response
}

/// What a host of an encrypted address has for the client and for the instance.
#[derive(Debug, Default)]
struct Welcome {
    subject: Option<HeaderValue>,
    hsts: Option<HeaderValue>,
}

/// Whether the client may ask for this host on its connection.
fn welcome(worker: &Worker, caller: &Caller, host: &HeaderValue) -> Result<Welcome, Refusal> {
    let Some(session) = &caller.session else { return Ok(Welcome::default()) };
    let host = host.to_str().unwrap_or_default();
    worker.with_table(|table| {
        let Some(site) = table.tls.site(caller.entry.listen, host) else {
            return Ok(Welcome::default());
        };
        let subject = session.subject_for(site).map_err(|Misdirected| {
            let reason = "this host asks for another certificate than was shown here";
            Refusal::bad(StatusCode::MISDIRECTED_REQUEST, reason)
        })?;
        Ok(Welcome { subject: subject.cloned(), hsts: site.hsts.clone() })
    })
}

/// Checks what the codec does not, and tells the host the client asks for.
fn target(request: &Request<Flow>, entry: &Entry) -> Result<HeaderValue, Refusal> {
    let bad = |reason| Refusal::bad(StatusCode::BAD_REQUEST, reason);
    if request.method() == Method::CONNECT {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return Err(Refusal::bad(status, "CONNECT is not offered here"));
    }
    if !headers::has_plain_framing(request.headers()) {
        let reason = "no transfer coding but chunked is offered here";
        return Err(Refusal::bad(StatusCode::NOT_IMPLEMENTED, reason));
    }
    if request.version() == Version::HTTP_2 {
        return target_of_stream(request);
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err(bad("more than one Host header")),
        (Some(host), None) => host.clone(),
        (None, _) if request.version() == Version::HTTP_10 => {
            HeaderValue::try_from(entry.listen.to_string()).map_err(|_| bad("no Host header"))?
        }
        (None, _) => return Err(bad("no Host header")),
    };
    // An absolute target overrides the header (RFC 9112, 3.2.2).
    let named = request.uri().authority().map(Authority::as_str);
    if named.is_some_and(|name| name.contains('@')) || !headers::is_host(host.as_bytes()) {
        return Err(bad("the Host header is not a host"));
    }
    match named.map(HeaderValue::try_from) {
        Some(Ok(name)) => Ok(name),
        Some(Err(_)) | None => Ok(host),
    }
}

/// The same for HTTP/2, where the library has seen to the fields that frame a message: what is
/// left is what would mean something else in HTTP/1.1.
fn target_of_stream(request: &Request<Flow>) -> Result<HeaderValue, Refusal> {
    let bad = |reason| Refusal::bad(StatusCode::BAD_REQUEST, reason);
    let fields = request.headers();
    let mut hosts = fields.get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    let named = request.uri().authority().map(Authority::as_str);
    let host = match (named, host, second) {
        (_, _, Some(_)) => return Err(bad("more than one Host header")),
        (Some(named), Some(host), None) if host.as_bytes() != named.as_bytes() => {
            return Err(bad("the Host header is not the :authority"));
        }
        (Some(named), _, None) => HeaderValue::try_from(named).ok(),
        (None, host, None) => host.cloned(),
    };
    let host = host.ok_or_else(|| bad("no :authority"))?;
    if !headers::is_host(host.as_bytes()) {
        return Err(bad("the :authority is not a host"));
    }
    if fields.get_all(CONTENT_LENGTH).iter().count() > 1 {
        return Err(bad("more than one Content-Length"));
    }
    if !request.uri().path().starts_with('/') && request.method() != Method::OPTIONS {
        return Err(bad("the :path is none"));
    }
    let padded = |value: &HeaderValue| value.as_bytes().trim_ascii().len() != value.len();
    if fields.values().any(padded) {
        return Err(bad("a field begins or ends with blanks"));
    }
    Ok(host)
}

/// A request on its way to an instance.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own about one request")]
struct Asking {
    client: IpAddr,
    /// It came encrypted.
    secure: bool,
    /// Whom the client has proved to be.
    subject: Option<HeaderValue>,
    host: HeaderValue,
    path: Uri,
    /// The protocol that an upgrade is asked to.
    wanted: Option<HeaderValue>,
    repeatable: bool,
    /// Its headers are those for the instance.
    prepared: bool,
    /// Its trace, if it begins here, is recorded.
    sampled: bool,
    /// What the answer is to set.
    cookie: Option<HeaderValue>,
    /// Gone while it is being sent.
    request: Option<Request<RequestBody>>,
    /// Its copy, while it may have to be sent again.
    spare: Option<Spare>,
    upload: Option<Rc<Upload>>,
}

impl Asking {
    /// The request as it came, and the client's end of an upgrade it asks for.
    fn new(
        mut request: Request<Flow>,
        caller: &Caller,
        host: HeaderValue,
        subject: Option<HeaderValue>,
    ) -> (Self, Option<OnUpgrade>) {
        let wanted = headers::upgrade_wanted(request.headers());
        let wanted = wanted.filter(|_| hyper::body::Body::is_end_stream(request.body()));
        let upgrade = wanted.is_some().then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let body = RequestBody::new(body);
        let repeatable = is_idempotent(&parts.method) && body.upload().is_none();
        let mut request = Request::new(body);
        *request.method_mut() = parts.method;
        *request.uri_mut() = origin_form(parts.uri.clone());
        *request.headers_mut() = parts.headers;
        if parts.version == Version::HTTP_2 {
            headers::join_cookies(request.headers_mut());
        }
        let asking = Self {
            client: caller.entry.client.ip(),
            secure: caller.entry.secure,
            subject,
            host,
            path: parts.uri,
            wanted,
            repeatable,
            prepared: false,
            sampled: false,
            cookie: None,
            upload: request.body().upload(),
            request: Some(request),
            spare: None,
        };
        (asking, upgrade)
    }

    /// The request as the instance gets it.
    fn take_prepared(&mut self) -> Option<Request<RequestBody>> {
        self.prepare();
        self.request.take()
    }

    /// Gives it the headers that the instance gets.
    fn prepare(&mut self) {
        let Some(request) = &mut self.request else { return };
        if !std::mem::replace(&mut self.prepared, true) {
            let chunked = request.body().is_chunked(request.headers());
            headers::to_instance(request.headers_mut(), self.client, &self.host, chunked);
            headers::introduce(request.headers_mut(), self.secure, self.subject.take());
            headers::trace(request.headers_mut(), self.sampled);
            if let Some(protocol) = &self.wanted {
                headers::upgrade(request.headers_mut(), protocol.clone());
            }
        }
    }
}

impl Exchange for Asking {
    type Link = Link;
    type Answer = (Response<Flow>, Held);

    fn view<T>(&self, entry: &Entry, look: impl FnOnce(&RequestView<'_>) -> T) -> T {
        let request = self.request.as_ref();
        let headers = |name: &str, visit: &mut dyn FnMut(&[u8]) -> bool| {
            let lines = request.map(|request| request.headers().get_all(name));
            lines.into_iter().flatten().any(|value| visit(value.as_bytes()))
        };
        look(&RequestView {
            listen: entry.listen,
            client: entry.client.ip(),
            method: request.map_or("", |request| request.method().as_str()),
            host: self.host.to_str().unwrap_or_default(),
            path: path_or_root(self.path.path()),
            query: self.path.query().unwrap_or_default(),
            headers: &headers,
        })
    }

    fn set_cookie(&mut self, cookie: String) {
        // Made of a name that was checked and digits.
        self.cookie = HeaderValue::try_from(cookie).ok();
    }

    fn mark_sampled(&mut self) {
        self.sampled = true;
    }

    fn forwarded(&mut self, name: &str) -> Option<String> {
        self.prepare();
        let value = self.request.as_ref()?.headers().get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    /// Only what has no body: others are read as they are sent.
    fn copy(&self) -> Option<Vec<u8>> {
        let request = self.request.as_ref();
        let request = request.filter(|_| self.upload.is_none() && self.wanted.is_none())?;
        let mut headers = request.headers().clone();
        if !self.prepared {
            headers::to_instance(&mut headers, self.client, &self.host, false);
            headers::introduce(&mut headers, self.secure, self.subject.clone());
            headers::trace(&mut headers, self.sampled);
        }
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let mut copy = format!("{} {target} HTTP/1.1\r\n", request.method()).into_bytes();
        for (name, value) in &headers {
            copy.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes()].concat());
            copy.extend_from_slice(b"\r\n");
        }
        copy.extend_from_slice(b"\r\n");
        Some(copy)
    }

    async fn client_gone(&mut self) {
        std::future::pending::<()>().await;
    }

    fn is_repeatable(&self) -> bool {
        self.repeatable
    }

    fn pool(worker: &Worker) -> &Pool<Link> {
        &worker.hyper_pool
    }

    async fn open(worker: &Worker, stream: TcpStream, arm: &Arm) -> Option<Link> {
        let protocol = arm.upstream.protocol;
        if arm.upstream.tls.is_none() {
            return Link::open(stream, protocol, None).await;
        }
        let tls = worker.with_table(|table| table.tls.upstream(&arm.upstream).cloned());
        Link::open(stream, protocol, Some(&*tls?)).await
    }

    fn upload(&self) -> Option<Rc<Upload>> {
        self.upload.clone()
    }

    fn can_be_sent(&self) -> bool {
        self.request.is_some()
    }

    fn answer_header(
        &self,
        answer: &Self::Answer,
        name: &str,
        visit: &mut dyn FnMut(&[u8]) -> bool,
    ) -> bool {
        let values = answer.0.headers().get_all(name).iter();
        values.map(HeaderValue::as_bytes).any(visit)
    }

    fn may_discard(&self) -> bool {
        self.spare.is_some()
    }

    fn discard(&mut self, answer: Self::Answer) {
        drop(answer);
        self.request = self.spare.take().map(Spare::request);
    }

    fn status(answer: &Self::Answer) -> u16 {
        answer.0.status().as_u16()
    }

    async fn send(
        &mut self,
        link: Link,
        _now: Instant,
        timeout: Duration,
        again: bool,
    ) -> Sent<Self::Answer> {
        match link {
            Link::Http1(link) => self.send_http1(link, timeout, again).await,
            Link::Http2(link) => self.send_http2(link, timeout).await,
        }
    }
}

impl Asking {
    async fn send_http1(
        &mut self,
        mut link: Http1,
        timeout: Duration,
        again: bool,
    ) -> Sent<(Response<Flow>, Held)> {
        let Some(request) = self.take_prepared() else { return Sent::Garbled };
        let upload = request.body().upload();
        self.spare = again.then(|| Spare::of(&request));
        link.watch.take_heard();
        let sending = link.sender.try_send_request(request);
        let mut error = match within(sending, upload.as_deref(), timeout).await {
            Ok(Ok(response)) => {
                return Sent::Answered((response.map(Flow::Http1), Held::Http1(link)));
            }
            Ok(Err(error)) => error,
            Err(late) => return Sent::Late(late),
        };
        if upload.as_ref().is_some_and(|upload| upload.failed()) {
            return Sent::ClientGone;
        }
        if let Some(unsent) = error.take_message()
            && !upload.is_some_and(|upload| upload.touched())
        {
            self.request = Some(unsent);
            return Sent::Unsent;
        }
        self.request = self.spare.take().map(Spare::request);
        if link.watch.take_heard() { Sent::Garbled } else { Sent::Silent }
    }

    async fn send_http2(
        &mut self,
        mut link: http2::Link,
        timeout: Duration,
    ) -> Sent<(Response<Flow>, Held)> {
        match tokio::time::timeout(timeout, link.ready()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Sent::Unsent,
            Err(_) => return Sent::Late(Late::Instance),
        }
        let Some(request) = self.take_prepared() else { return Sent::Garbled };
        let upload = request.body().upload();
        // What has a body is only sent again if none of it left.
        self.spare = upload.is_none().then(|| Spare::of(&request));
        let (answer, sending) = match link.send(request) {
            Ok(sent) => sent,
            Err(failed) => return self.failed(&failed),
        };
        match within(http2::answered(answer), upload.as_deref(), timeout).await {
            Ok(Ok(response)) => Sent::Answered((response.map(Flow::http2), Held::Http2(sending))),
            Ok(Err(_)) if upload.is_some_and(|upload| upload.failed()) => Sent::ClientGone,
            Ok(Err(failed)) => self.failed(&failed),
            Err(late) => Sent::Late(late),
        }
    }

    fn failed<A>(&mut self, failed: &Failed) -> Sent<A> {
        let is_spare = self.spare.is_some();
        self.request = self.spare.take().map(Spare::request);
        match failed {
            Failed::Unseen if is_spare => Sent::Unsent,
            Failed::Unseen | Failed::Lost => Sent::Silent,
            Failed::Broken => Sent::Garbled,
        }
    }
}

/// A copy of a request without a body, in case it has to be sent again.
struct Spare {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Spare {
    fn of(request: &Request<RequestBody>) -> Self {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        Self { method, uri, headers: request.headers().clone() }
    }

    fn request(self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}

/// Path and query only; an absolute target keeps its path.
fn origin_form(uri: Uri) -> Uri {
    if uri.authority().is_none() {
        return uri;
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Uri::try_from(path).unwrap_or_else(|_| Uri::from_static("/"))
}

/// What the client gets of a version's answer.
fn respond(
    worker: &Rc<Worker>,
    answered: Answered<(Response<Flow>, Held)>,
    client: Option<OnUpgrade>,
    busy: Option<Activity>,
) -> Response<ResponseBody> {
    let Answered { mut ticket, visit, answer: (mut response, link), pace, capture } = answered;
    let keep_alive = headers::keep_alive_seconds(response.headers()).map(Duration::from_secs);
    let lease = Lease { link, visit, worker: Rc::clone(worker), keep_alive };
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    match client {
        _ if !headers::has_plain_framing(response.headers()) => {}
        None if switches => {}
        Some(client) if switches => {
            ticket.open_tunnel();
            tunnel::start(client, &mut response, ticket, lease);
            return switched(response, busy);
        }
        Some(_) | None => {
            let (mut parts, body) = response.into_parts();
            parts.version = Version::HTTP_11;
            headers::to_client(&mut parts.headers);
            // Streams are told of the end by their connection.
            if worker.is_leaving() && busy.is_some() {
                parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            let head = (parts.status, &parts.headers);
            let passed = Passed::new(body, ticket, head, lease).watched(pace, capture);
            return Response::from_parts(parts, ResponseBody::passed(passed, busy));
        }
    }
    refused(&failed(worker, Failure::Version(Outcome::Broken), ticket), worker.is_leaving(), busy)
}

/// The 101 that opens a tunnel.
fn switched(response: Response<Flow>, busy: Option<Activity>) -> Response<ResponseBody> {
    let protocol = response.headers().get(http::header::UPGRADE).cloned();
    let (mut parts, _) = response.into_parts();
    parts.version = Version::HTTP_11;
    headers::to_client(&mut parts.headers);
    if let Some(protocol) = protocol {
        headers::upgrade(&mut parts.headers, protocol);
    }
    Response::from_parts(parts, ResponseBody::own("", busy))
}

/// A response of our own: says that it is Switchback's, and why.
fn refused(refusal: &Refusal, leaving: bool, busy: Option<Activity>) -> Response<ResponseBody> {
    let leaving = leaving && busy.is_some();
    let mut response = Response::new(ResponseBody::own(refusal.body(), busy));
    *response.status_mut() = refusal.status;
    for (name, value) in refusal.fields() {
        // Checked when it was configured, or taken from an answer that was passed on.
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    if refusal.close || leaving {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
