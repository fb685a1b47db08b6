//! HTTPS to an authority: one request on a connection of its own, bounded in time and size.
//!
//! Not through a pool: an order takes a dozen requests, every two months.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Request, Response, Uri};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use switchback_domain::{Timestamp, with_causes};
use switchback_http::{Limits, Longer, exchange};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::roots::roots;

/// From the first packet to the last byte of the answer.
const REQUEST_MAX: Duration = Duration::from_secs(20);
/// A chain of certificates has 10 KiB.
const LIMITS: Limits =
    Limits { head_bytes_max: 256 * 1024, body_bytes_max: 1024 * 1024, longer: Longer::Refused };
/// No authority means longer; what is longer is a mistake.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(7 * 24);

/// Before when the authority does not want to be asked again, once it has said so.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish(Arc<Mutex<Option<Timestamp>>>);

impl Wish {
    pub(crate) fn get(&self) -> Option<Timestamp> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what an answer says that refuses.
    fn note(&self, answer: &Response<Bytes>) {
        if !matches!(answer.status().as_u16(), 429 | 503) {
            return;
        }
        if let Some(wait) = retry_after(answer.headers(), SystemTime::now()) {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let now = u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
            let until = Timestamp::from_millis(now) + wait.min(RETRY_AFTER_MAX);
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        }
    }
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = text.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| httpdate::parse_http_date(text).ok()?.duration_since(now).ok())
}

/// A client that believes whom the specification says.
pub(crate) struct Https {
    connector: TlsConnector,
    wish: Wish,
}

impl Https {
    pub(crate) fn new(authority: Option<&str>, wish: Wish) -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots(authority)?)
            .with_no_client_auth();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), wish })
    }
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (connector, wish) = (self.connector.clone(), self.wish.clone());
        Box::pin(async move {
            let url = request.uri().to_string();
            let answer = match tokio::time::timeout(REQUEST_MAX, ask(connector, request)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(why)) => return Err(Error::Other(format!("{url}: {why}").into())),
                Err(_) => {
                    let why = format!("{url}: no answer within {REQUEST_MAX:?}");
                    return Err(Error::Other(why.into()));
                }
            };
            wish.note(&answer);
            Ok(answer.map(Full::new).into())
        })
    }
}

async fn ask(
    connector: TlsConnector,
    mut request: Request<BodyWrapper<Bytes>>,
) -> Result<Response<Bytes>, String> {
    let uri = request.uri().clone();
    let (Some("https"), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err("not an https:// URL".to_owned());
    };
    let bare = host.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(bare.clone()).map_err(|error| error.to_string())?;
    let stream = TcpStream::connect((bare.as_str(), uri.port_u16().unwrap_or(443))).await;
    let stream = stream.map_err(|error| format!("cannot connect: {error}"))?;
    let stream = connector.connect(name, stream).await;
    let stream = stream.map_err(|error| format!("no encrypted connection: {error}"))?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let authority = HeaderValue::from_str(authority).map_err(|error| error.to_string())?;
    request.headers_mut().insert(HOST, authority);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>().map_err(|error| error.to_string())?;
    exchange(stream, request, LIMITS).await.map_err(|error| with_causes(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_names_its_time_in_seconds_or_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let headers = |text: &str| HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
        let read = |text: &str| retry_after(&headers(text), now).map(|wait| wait.as_secs());
        assert_eq!(read("120"), Some(120));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(read("Sun, 06 Nov 1994 08:48:37 GMT"), None, "that has passed");
        assert_eq!(read("soon"), None);
        let refusal = |status: u16, wait: &str| {
            let answer = Response::builder().status(status).header(RETRY_AFTER, wait);
            answer.body(Bytes::new()).unwrap()
        };
        let wish = Wish::default();
        wish.note(&refusal(200, "60"));
        assert_eq!(wish.get(), None, "it only asks for patience");
        wish.note(&refusal(429, "99999999999"));
        assert!(wish.get().is_some());
    }
}
