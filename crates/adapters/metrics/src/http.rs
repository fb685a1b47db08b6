//! One GET: connect, ask, read a bounded answer. Not here: time limits, which are the caller's.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use switchback_domain::metric::Endpoint;
use switchback_domain::with_causes;
use switchback_http::{Limits, Longer, exchange};
use tokio::net::TcpStream;

/// Larger documents hold more than a number.
const LIMITS: Limits =
    Limits { head_bytes_max: 32 * 1024, body_bytes_max: 1024 * 1024, longer: Longer::Refused };

/// An answer, whole.
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    /// As the server has it.
    pub(crate) date: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// Gets `suffix` below the endpoint's URL.
pub(crate) async fn get(endpoint: &Endpoint, suffix: &str) -> Result<Page, String> {
    let text = format!("{}{suffix}", endpoint.url);
    let uri: Uri = text.parse().map_err(|error| format!("not a URL: {error}"))?;
    if uri.scheme_str() != Some("http") {
        return Err("only http:// is offered; put a proxy in front of other schemes".to_owned());
    }
    let host = uri.host().ok_or("the URL names no host")?;
    let address = (host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(80));
    let request = request(endpoint, &uri)?;
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|error| format!("cannot connect to {host}: {error}"))?;
    let answer = exchange(stream, request, LIMITS).await.map_err(|error| with_causes(&error))?;
    let (head, body) = answer.into_parts();
    let date = head.headers.get("date").and_then(|date| date.to_str().ok());
    Ok(Page { status: head.status, date: date.map(str::to_owned), body: body.into() })
}

fn request(endpoint: &Endpoint, uri: &Uri) -> Result<Request<Empty<Bytes>>, String> {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    // Names and passwords in URLs end up in logs; the variable is for them.
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::get(path)
        .header("host", host)
        .header("user-agent", "switchback")
        .header("accept", "application/json")
        .header("connection", "close")
        .body(Empty::new())
        .map_err(|error| format!("not a URL: {error}"))?;
    if let Some(name) = &endpoint.authorization_env {
        let value = std::env::var(name);
        let value = value.map_err(|_| format!("the environment variable {name} is not set"))?;
        let wrong = |_| format!("the environment variable {name} holds no value of a header");
        let mut value = HeaderValue::from_str(value.trim()).map_err(wrong)?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    Ok(request)
}
