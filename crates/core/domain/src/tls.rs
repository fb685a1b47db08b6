//! Encryption on the way in and on the way out: which files, and what they are for.
//!
//! Paths only. Keys are read by the data plane and never leave it: not into a release, a table, a
//! journal or an answer.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::acme::AcmeSpec;

/// How the clients of a route are spoken to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TlsSpec {
    /// The file with the certificate and those of its issuers (PEM), the own one first. Empty for
    /// one that is ordered, until a table says where it is kept.
    pub certificate: String,
    /// The file with its private key (PEM); empty like the certificate's.
    pub key: String,
    /// From whom the certificate is ordered, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acme: Option<AcmeSpec>,
    /// Whether clients have to show a certificate of their own; `None` does not ask for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientCertificates>,
    /// A plain address whose requests for the route's hosts are sent on to the encrypted one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_from: Option<SocketAddr>,
    /// How long browsers are to come encrypted only; zero says nothing to them.
    #[serde(default, with = "crate::time::millis", rename = "hsts_ms")]
    pub hsts: Duration,
}

/// Certificates that clients show.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClientCertificates {
    /// The file with the certificates of those who may issue them (PEM).
    pub authority: String,
    /// Whether a client without one is refused. One that is shown has to be good either way.
    pub required: bool,
}

/// How the instances of a release are spoken to. The default is HTTP/1.1 in plain text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UpstreamSpec {
    /// In which protocol.
    pub protocol: UpstreamProtocol,
    /// Encrypted by what; `None` is plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<UpstreamTls>,
}

impl UpstreamSpec {
    /// Whether it is HTTP/1.1 in plain text.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What an instance speaks.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 from the first byte on: what gRPC needs.
    H2c,
}

/// How an instance proves who it is, and how the data plane does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UpstreamTls {
    /// The file with the certificates of those who may issue the instance's (PEM).
    pub authority: String,
    /// The name its certificate has to bear.
    pub server_name: String,
    /// The data plane's own certificate and key (PEM files), if instances ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

/// A certificate and its private key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The file with the certificate (PEM).
    pub certificate: String,
    /// The file with the key (PEM).
    pub key: String,
}

impl TlsSpec {
    /// The same with every path changed by `place`.
    #[must_use]
    pub fn with_paths(&self, place: impl Fn(&str) -> String) -> Self {
        let clients = self.clients.as_ref().map(|clients| ClientCertificates {
            authority: place(&clients.authority),
            required: clients.required,
        });
        let acme = self.acme.as_ref().map(|acme| AcmeSpec {
            authority: acme.authority.as_deref().map(&place),
            ..acme.clone()
        });
        // Where an ordered one is kept does not depend on the configuration's place.
        let place = |path: &str| if acme.is_some() { path.to_owned() } else { place(path) };
        let (certificate, key) = (place(&self.certificate), place(&self.key));
        Self { certificate, key, acme, clients, ..self.clone() }
    }

    /// Names the file of an ordered certificate, which is kept below `directory`.
    pub fn keep_in(&mut self, directory: &str) {
        if let Some(acme) = &self.acme {
            self.certificate = format!("{directory}/{}", acme.file_name());
            self.key.clone_from(&self.certificate);
        }
    }
}

impl UpstreamSpec {
    /// The same with every path changed by `place`.
    #[must_use]
    pub fn with_paths(&self, place: impl Fn(&str) -> String) -> Self {
        let identity =
            |of: &Identity| Identity { certificate: place(&of.certificate), key: place(&of.key) };
        let tls = self.tls.as_ref().map(|tls| UpstreamTls {
            authority: place(&tls.authority),
            server_name: tls.server_name.clone(),
            identity: tls.identity.as_ref().map(identity),
        });
        Self { protocol: self.protocol, tls }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_upstream_is_written_short_and_every_path_is_placed() {
        let text = serde_json::to_string(&UpstreamSpec::default()).unwrap();
        assert_eq!(text, r#"{"protocol":"http1"}"#);
        assert_eq!(serde_json::from_str::<UpstreamSpec>("{}").unwrap(), UpstreamSpec::default());
        let spec = TlsSpec {
            certificate: "c".to_owned(),
            key: "k".to_owned(),
            acme: None,
            clients: Some(ClientCertificates { authority: "a".to_owned(), required: true }),
            redirect_from: None,
            hsts: Duration::ZERO,
        };
        let placed = spec.with_paths(|path| format!("/x/{path}"));
        assert_eq!((placed.certificate.as_str(), placed.key.as_str()), ("/x/c", "/x/k"));
        assert_eq!(placed.clients.unwrap().authority, "/x/a");
        let acme = AcmeSpec {
            directory: crate::acme::LETS_ENCRYPT.to_owned(),
            email: None,
            domains: vec!["a.test".to_owned()],
            authority: Some("ca".to_owned()),
        };
        let ordered = TlsSpec { certificate: String::new(), acme: Some(acme), ..spec };
        let mut placed = ordered.with_paths(|path| format!("/x/{path}"));
        assert_eq!(placed.acme.as_ref().unwrap().authority.as_deref(), Some("/x/ca"));
        assert_eq!(placed.certificate, "", "nobody has said where it is kept");
        placed.keep_in("/s/acme");
        assert!(placed.certificate.starts_with("/s/acme/a.test-"), "{}", placed.certificate);
        assert_eq!(placed.certificate, placed.key, "one file, so that they change as one");
    }
}
