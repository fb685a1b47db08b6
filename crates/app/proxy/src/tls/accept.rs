//! A client's handshake: which certificate it is shown, and what is known of it afterwards.

use std::sync::{Arc, OnceLock};

use http::header::HeaderValue;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use switchback_domain::certificate;
use switchback_routing::bare_host;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::book::{Listener, Site};
use crate::limits::TLS_HANDSHAKE_MAX;

/// What is known of an encrypted connection.
#[derive(Debug)]
pub(crate) struct Session {
    site: Arc<Site>,
    /// The subject of the client's certificate, which was verified.
    subject: Option<HeaderValue>,
    /// Whether HTTP/2 was agreed on.
    pub(crate) is_http2: bool,
}

/// The client asks for a host that wants clients to prove themselves in another way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misdirected;

impl Session {
    /// The client's subject, as the instance may be told it, for a request to a host of `site`.
    /// One connection may carry requests for several hosts; what it proved towards one authority
    /// is no proof towards another.
    pub(crate) fn subject_for(&self, site: &Site) -> Result<Option<&HeaderValue>, Misdirected> {
        if site.policy == self.site.policy {
            return Ok(self.subject.as_ref());
        }
        if site.asks_clients { Err(Misdirected) } else { Ok(None) }
    }
}

/// Shakes hands. `None` when the client does not, or is not let in; it has been told by alert.
pub(crate) async fn accept<I>(listener: &Listener, io: I) -> Option<(TlsStream<I>, Session)>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let shaking = async {
        let start = LazyConfigAcceptor::new(Acceptor::default(), io).await.ok()?;
        let name = start.client_hello().server_name().map(|name| bare_host(name).into_owned());
        let Some(site) = listener.site(name.as_deref()).cloned() else {
            if let Some(config) = without_certificate() {
                let _ = start.into_stream(Arc::clone(config)).await;
            }
            return None;
        };
        let stream = start.into_stream(Arc::clone(&site.config)).await.ok()?;
        Some((stream, site))
    };
    let (stream, site) = tokio::time::timeout(TLS_HANDSHAKE_MAX, shaking).await.ok()??;
    let state = stream.get_ref().1;
    let is_http2 = state.alpn_protocol() == Some(b"h2");
    let own = state.peer_certificates().and_then(|chain| chain.first());
    let subject = own.and_then(|own| certificate::facts(own));
    let subject = subject.and_then(|facts| HeaderValue::try_from(facts.subject).ok());
    Some((stream, Session { site, subject, is_http2 }))
}

/// Tells a client by alert that there is no certificate to be shown: one that was ordered and has
/// not come, or one whose files broke while nobody served.
fn without_certificate() -> Option<&'static Arc<ServerConfig>> {
    static CONFIG: OnceLock<Option<Arc<ServerConfig>>> = OnceLock::new();
    let make = || {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[&TLS13, &TLS12]).ok()?;
        Some(Arc::new(builder.with_no_client_auth().with_cert_resolver(Arc::new(Nothing))))
    };
    CONFIG.get_or_init(make).as_ref()
}

/// No certificate for anybody.
#[derive(Debug)]
struct Nothing;

impl ResolvesServerCert for Nothing {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}
