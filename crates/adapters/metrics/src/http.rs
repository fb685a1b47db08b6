//! One GET: connect, ask, read a bounded answer. Not here: time limits, which are the caller's.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use switchback_domain::metric::Endpoint;
use switchback_domain::with_causes;
use tokio::net::TcpStream;

/// Larger documents hold more than a number.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Larger heads are no answer.
const HEAD_BYTES_MAX: usize = 32 * 1024;

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
    let mut client = http1::Builder::new();
    let handshake = client.max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| not_http(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| not_http(&error))?;
        read(response).await
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        page = &mut exchange => page,
        // The peer has closed; what it said before may still be waiting to be read.
        _ = &mut connection => exchange.await,
    }
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

async fn read(response: Response<Incoming>) -> Result<Page, String> {
    let status = response.status();
    let date = response.headers().get("date").and_then(|date| date.to_str().ok());
    let date = date.map(str::to_owned);
    let (mut incoming, mut body) = (response.into_body(), Vec::new());
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| format!("{status}, then {}", not_http(&error)))?;
        let chunk = frame.into_data().unwrap_or_default();
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(format!("the answer is larger than {BODY_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Page { status, date, body })
}

fn not_http(error: &hyper::Error) -> String {
    format!("no valid HTTP answer: {}", with_causes(error))
}
