//! An authority of certificates on this machine: Debian's `pebble`, Let's Encrypt's own test
//! server, with a name server of its own; and clients that trust it.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};

use crate::recipe::{Recipe, free_address};
use crate::site::wait_for;

/// The authority, its name server, and what it asks on.
pub(crate) struct Authority {
    directory: tempfile::TempDir,
    names: Child,
    names_at: SocketAddr,
    names_steered_at: SocketAddr,
    server: Option<Child>,
    address: SocketAddr,
    management: SocketAddr,
    /// Where the site answers in plain text: what the authority takes for port 80.
    pub(crate) plain: SocketAddr,
    /// How long its certificates are good.
    validity: Duration,
}

impl Authority {
    /// Its names lead to this machine; the server itself is not started yet.
    pub(crate) fn new(validity: Duration) -> Self {
        let directory = tempfile::tempdir().expect("/tmp is there");
        let (names_at, names_steered_at) = (free_address(), free_address());
        let log = File::create(directory.path().join("names.log")).expect("ours");
        let names = Command::new("pebble-challtestsrv")
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-dns01", &names_at.to_string()])
            .args(["-management", &names_steered_at.to_string()])
            .stdout(log.try_clone().expect("ours"))
            .stderr(log)
            .spawn()
            .expect("the package was there");
        let authority = Self {
            directory,
            names,
            names_at,
            names_steered_at,
            server: None,
            address: free_address(),
            management: free_address(),
            plain: free_address(),
            validity,
        };
        wait_for("the name server", || TcpStream::connect(names_steered_at).is_ok());
        authority.write_identity();
        authority
    }

    /// The server's own certificate, and that of who vouches for it.
    fn write_identity(&self) {
        let (own, key) =
            (KeyPair::generate().expect("random"), KeyPair::generate().expect("random"));
        let mut root = CertificateParams::new(Vec::new()).expect("no names");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = root.self_signed(&key).expect("signed");
        let server = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address");
        let issued = server.signed_by(&own, &Issuer::new(root, key)).expect("signed");
        let write = |name: &str, text: String| fs::write(self.path(name), text).expect("ours");
        write("ca.pem", certificate.pem());
        write("server.pem", issued.pem());
        write("server.key", own.serialize_pem());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts the server: it forgets what it knew before. One nonce in ten is refused.
    pub(crate) fn start(&mut self) {
        self.stop();
        let config = serde_json::json!({"pebble": {
            "listenAddress": self.address.to_string(),
            "managementListenAddress": self.management.to_string(),
            "certificate": self.path("server.pem"),
            "privateKey": self.path("server.key"),
            "httpPort": self.plain.port(),
            "tlsPort": 9,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "certificateValidityPeriod": self.validity.as_secs(),
        }});
        fs::write(self.path("pebble.json"), config.to_string()).expect("ours");
        let log = File::create(self.path("pebble.log")).expect("ours");
        let server = Command::new("pebble")
            .args(["-config".as_ref(), self.path("pebble.json").as_os_str()])
            .args(["-dnsserver", &self.names_at.to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_VA_ALWAYS_VALID", "0")
            .env("PEBBLE_WFE_NONCEREJECT", "10")
            // Every order is proved anew.
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("ours"))
            .stderr(log)
            .spawn();
        self.server = Some(server.expect("the package was there"));
        wait_for("the authority", || TcpStream::connect(self.address).is_ok());
        wait_for("its management", || TcpStream::connect(self.management).is_ok());
    }

    fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// What the server has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("pebble.log")).unwrap_or_default()
    }

    /// Has nobody find a name, or everybody again.
    pub(crate) fn hide(&self, name: &str, hidden: bool) {
        let body = serde_json::json!({"host": name}).to_string();
        let path = if hidden { "set-servfail" } else { "clear-servfail" };
        let mut stream = TcpStream::connect(self.names_steered_at).expect("it listens");
        let head = format!(
            "POST /{path} HTTP/1.1\r\nhost: names\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// Has `web` serve these hosts encrypted, with certificates of this authority.
    pub(crate) fn certify(&self, recipe: &mut Recipe, hosts: &str) {
        let (listen, plain) = (recipe.address, self.plain);
        let ca = self.path("ca.pem");
        let directory = format!("https://{}/dir", self.address);
        recipe.set(
            "route",
            format!(
                "{{listen: \"{listen}\", hosts: [{hosts}], tls: {{redirect_from: \"{plain}\", \
                 acme: {{directory: \"{directory}\", ca_file: \"{}\", email: ops@a.test}}}}}}",
                ca.display()
            ),
        );
    }

    /// A client that trusts the certificates of this authority as it is now.
    pub(crate) fn client(&self) -> HttpsClient {
        let vouched = HttpsClient::new(&[&fs::read_to_string(self.path("ca.pem")).expect("ours")]);
        let asked = |path| vouched.get(self.management, "127.0.0.1", path).expect("it answers").1;
        let root = asked("/roots/0");
        HttpsClient::new(&[root.split_once("\r\n\r\n").map_or("", |(_, body)| body)])
    }
}

impl Drop for Authority {
    #[allow(clippy::print_stderr, reason = "the last words of a failed test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!("pebble:\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        self.stop();
        let _ = self.names.kill();
        let _ = self.names.wait();
    }
}

/// Whoever trusts some authorities.
#[derive(Clone)]
pub(crate) struct HttpsClient(Arc<ClientConfig>);

impl HttpsClient {
    fn new(trusted: &[&str]) -> Self {
        let mut roots = RootCertStore::empty();
        for text in trusted {
            let root = CertificateDer::from_pem_slice(text.as_bytes()).expect("a certificate");
            roots.add(root).expect("an authority");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("both")
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Whoever comes back by ticket is shown no certificate.
        config.resumption = Resumption::disabled();
        Self(Arc::new(config))
    }

    /// The server's certificate and the whole answer; why not otherwise.
    pub(crate) fn get(
        &self,
        address: SocketAddr,
        name: &str,
        path: &str,
    ) -> Result<(Vec<u8>, String), String> {
        let server = ServerName::try_from(name.to_owned()).expect("a name");
        let mut connection =
            ClientConnection::new(Arc::clone(&self.0), server).map_err(|e| e.to_string())?;
        let mut stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        let mut stream = Stream::new(&mut connection, &mut stream);
        let ask = format!("GET {path} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
        stream.write_all(ask.as_bytes()).map_err(|error| error.to_string())?;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            // Some servers close without saying so first.
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                return Err(error.to_string());
            }
            Ok(_) | Err(_) => {}
        }
        let chain = connection.peer_certificates().unwrap_or_default();
        let own = chain.first().map(|own| own.to_vec()).unwrap_or_default();
        Ok((own, String::from_utf8_lossy(&answer).into_owned()))
    }
}

/// Status and location of a plain request.
pub(crate) fn plain(address: SocketAddr, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let ask = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// The files of certificates that a site keeps, and their content.
pub(crate) fn kept(state_dir: &Path, ending: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(state_dir.join("acme")).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let paths = paths.filter(|path| path.to_string_lossy().ends_with(ending));
    paths.map(|path| (path.clone(), fs::read(path).unwrap_or_default())).collect()
}
