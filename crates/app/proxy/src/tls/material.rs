//! Certificates, keys and authorities out of PEM files, each checked before it is used. A mistake
//! names its file.

use std::fs;
use std::io::Read;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use switchback_domain::certificate::facts as certificate_facts;

/// A bundle of all public authorities has 250 KiB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// One certificate and the way to its authority.
const CHAIN_LENGTH_MAX: usize = 16;

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use {path}: {reason}")]
pub(crate) struct Unusable {
    path: String,
    reason: String,
}

impl Unusable {
    /// What is wrong with a file.
    pub(crate) fn of(path: &str, reason: &(impl ToString + ?Sized)) -> Self {
        unusable(path, reason.to_string())
    }
}

fn unusable(path: &str, reason: impl Into<String>) -> Unusable {
    Unusable { path: path.to_owned(), reason: reason.into() }
}

/// A certificate that can be shown.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) certified: Arc<CertifiedKey>,
    /// When it ends, in seconds since 1970.
    pub(crate) not_after: i64,
    /// How long it is good altogether, in seconds.
    pub(crate) life: i64,
}

/// Reads a certificate and its key, and checks that they belong together.
pub(crate) fn shown(
    certificate: &str,
    key: &str,
    provider: &CryptoProvider,
) -> Result<Shown, Unusable> {
    let chain = certificates(certificate)?;
    if chain.len() > CHAIN_LENGTH_MAX {
        return Err(unusable(certificate, format!("more than {CHAIN_LENGTH_MAX} certificates")));
    }
    let facts = chain.first().and_then(|own| certificate_facts(own));
    let facts = facts.ok_or_else(|| unusable(certificate, "the first certificate is broken"))?;
    // The library's reasons may quote what it read: not of a key.
    let secret = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|_| unusable(key, "there is no private key in it"))?;
    let certified = match CertifiedKey::from_der(chain, secret, provider) {
        Ok(certified) => Arc::new(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let reason = format!("it is not the key of the certificate in {certificate}");
            return Err(unusable(key, reason));
        }
        Err(rustls::Error::InvalidCertificate(reason)) => {
            return Err(unusable(certificate, format!("the certificate is broken: {reason:?}")));
        }
        Err(_) => return Err(unusable(key, "a key of this kind cannot be used")),
    };
    let life = facts.not_after.saturating_sub(facts.not_before);
    Ok(Shown { certified, not_after: facts.not_after, life })
}

/// Checks that a certificate is good now.
pub(crate) fn check_time(shown: &Shown, path: &str, now: SystemTime) -> Result<(), Unusable> {
    let now = seconds(now);
    let not_before = shown.certified.cert.first().and_then(|own| certificate_facts(own));
    if not_before.is_some_and(|facts| facts.not_before > now) {
        return Err(unusable(path, "the certificate is not good yet"));
    }
    if shown.not_after < now {
        let days = (now - shown.not_after) / 86_400;
        return Err(unusable(path, format!("the certificate expired {days} days ago")));
    }
    Ok(())
}

/// Checks that a certificate is for this host, which may be `*.NAME`.
pub(crate) fn check_name(shown: &Shown, path: &str, host: &str) -> Result<(), Unusable> {
    let probe = host.strip_prefix("*.").map(|below| format!("any.{below}"));
    let probe = probe.as_deref().unwrap_or(host).trim_matches(['[', ']']);
    // A name with an underscore is good in a Host header, but no certificate is for one.
    let name = ServerName::try_from(probe).map_err(|_| unusable(path, no_name(host)))?;
    let own = shown.certified.end_entity_cert();
    let parsed = own.and_then(ParsedCertificate::try_from);
    let verified = parsed.and_then(|parsed| verify_server_name(&parsed, &name));
    verified.map_err(|_| unusable(path, no_name(host)))
}

fn no_name(host: &str) -> String {
    format!("the certificate is not for {host}")
}

/// Reads those who may issue certificates.
pub(crate) fn authorities(path: &str) -> Result<Arc<RootCertStore>, Unusable> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store
            .add(certificate)
            .map_err(|error| unusable(path, format!("it is no authority: {error}")))?;
    }
    Ok(Arc::new(store))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let content = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    let found = found.map_err(|error| unusable(path, format!("it is not PEM: {error}")))?;
    if found.is_empty() {
        return Err(unusable(path, "there is no certificate in it"));
    }
    Ok(found)
}

fn read(path: &str) -> Result<Vec<u8>, Unusable> {
    let refused = |error: std::io::Error| unusable(path, error.to_string());
    let mut content = Vec::new();
    let file = fs::File::open(path).map_err(refused)?;
    if !file.metadata().map_err(refused)?.is_file() {
        return Err(unusable(path, "it is not a file"));
    }
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(refused)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(unusable(path, format!("more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(content)
}

/// Seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
