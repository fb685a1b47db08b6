//! Certificates for the tests, in files, and clients that trust their authority.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SignatureAlgorithm, SigningKey,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use switchback_domain::tls::{ClientCertificates, TlsSpec};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) struct Key {
    pair: EcdsaKeyPair,
    pkcs8: Vec<u8>,
    public: Vec<u8>,
}

impl Key {
    fn generate() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap().as_ref().to_vec();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &pkcs8).unwrap();
        let public = pair.public_key().as_ref().to_vec();
        Self { pair, pkcs8, public }
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec())
    }
}

/// An authority and the directory its certificates lie in.
pub(crate) struct Pki {
    issuer: Issuer<'static, Key>,
    root: CertificateDer<'static>,
    directory: tempfile::TempDir,
}

fn params(names: &[&str], common_name: &str) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.serial_number = Some(rand::random::<[u8; 8]>().to_vec().into());
    params.distinguished_name.push(DnType::OrganizationName, "Example, Inc");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn pem(kind: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in der.chunks(3) {
        let bits = three.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit > three.len() { '=' } else { char::from(DIGITS[value as usize]) });
        }
    }
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", lines.join("\n"))
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut authority = params(&[], "Test Authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = Key::generate();
        let root = authority.self_signed(&key).unwrap().der().clone();
        let directory = tempfile::tempdir().unwrap();
        let pki = Self { issuer: Issuer::new(authority, key), root, directory };
        pki.write("ca.pem", &pem("CERTIFICATE", &pki.root));
        pki
    }

    pub(crate) fn path(&self, file: &str) -> String {
        self.directory.path().join(file).to_str().unwrap().to_owned()
    }

    /// Replaces a file at once, as those do that renew certificates.
    pub(crate) fn write(&self, file: &str, content: &str) {
        let unready = PathBuf::from(self.path("unready"));
        std::fs::write(&unready, content).unwrap();
        std::fs::rename(&unready, self.path(file)).unwrap();
    }

    /// Issues `NAME.pem` and `NAME.key`; gives the certificate.
    pub(crate) fn issue(
        &self,
        name: &str,
        hosts: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let (mut params, key) = (params(hosts, name), Key::generate());
        change(&mut params);
        let issued = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        self.write(&format!("{name}.key"), &pem("PRIVATE KEY", &key.pkcs8));
        self.write(&format!("{name}.pem"), &pem("CERTIFICATE", &issued));
        issued
    }

    /// What a route with the files of `issue` asks for.
    pub(crate) fn spec(&self, name: &str) -> TlsSpec {
        TlsSpec {
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
            acme: None,
            clients: None,
            redirect_from: None,
            hsts: std::time::Duration::ZERO,
        }
    }

    pub(crate) fn clients(&self, required: bool) -> ClientCertificates {
        ClientCertificates { authority: self.path("ca.pem"), required }
    }

    /// A client that speaks these protocols, and shows the certificate of this name.
    pub(crate) fn client(&self, protocols: &[&str], shows: Option<&str>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shows {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let file = |end: &str| self.path(&format!("{name}.{end}"));
                let chain = CertificateDer::pem_file_iter(file("pem")).unwrap();
                let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
                builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// Shakes hands with the data plane.
pub(crate) async fn connect(
    listen: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(listen).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}
