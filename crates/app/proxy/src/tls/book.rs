//! Everything a table says about encryption, with its files read: part of what is swapped.
//!
//! What is new in a table is loaded whole or refused whole. What is in force already stays in
//! force when its files break: no broken file on disk may hold up a shift of traffic.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest;
use http::header::HeaderValue;
use rustls::crypto::{CryptoProvider, aws_lc_rs as aws};
use rustls::pki_types::ServerName;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig};
use switchback_domain::tls::{TlsSpec, UpstreamProtocol, UpstreamSpec};
use switchback_routing::{Route, Table, bare_host, places};

use super::hosts::Hosts;
use super::material::{self, Shown, Unusable, seconds};
use super::tickets::Tickets;
use crate::limits::CERTIFICATE_WARNING;

/// What of a certificate's files can change unnoticed by their path.
type Stamp = (i64, i64, u64, u64);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Book {
    listeners: HashMap<SocketAddr, Arc<Listener>>,
    /// Plain addresses, and the ports of the encrypted ones that their requests are sent to.
    redirects: HashMap<SocketAddr, Hosts<u16>>,
    sites: HashMap<TlsSpec, Arc<Site>>,
    upstreams: HashMap<UpstreamSpec, Arc<Upstream>>,
    /// Every file that was read, as it was before; `None` when it was not there.
    files: BTreeMap<String, Option<Stamp>>,
    /// What is wrong with files whose former content is still in force.
    warnings: Vec<String>,
    /// The settings whose files could not be used when they were read last.
    faulty: HashMap<TlsSpec, Unusable>,
    faulty_upstreams: HashMap<UpstreamSpec, Unusable>,
    /// When the certificate of each host ends, in seconds since 1970; `*` for every other host.
    expiries: BTreeMap<String, i64>,
}

/// The hosts of one encrypted address.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    hosts: Hosts<Arc<Site>>,
    /// For clients that name no host, or one that is not known.
    fallback: Option<Arc<Site>>,
}

impl Listener {
    /// What is shown to a client that asks for this name.
    pub(crate) fn site(&self, name: Option<&str>) -> Option<&Arc<Site>> {
        let named = name.and_then(|name| self.hosts.named(name));
        named.or_else(|| self.hosts.any()).or(self.fallback.as_ref())
    }
}

/// One certificate and how it is used.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) config: Arc<ServerConfig>,
    /// What clients have to prove, as a digest: equal for equal demands.
    pub(crate) policy: [u8; 32],
    /// Whether they are asked at all.
    pub(crate) asks_clients: bool,
    /// What browsers are told about coming back.
    pub(crate) hsts: Option<HeaderValue>,
    shown: Shown,
    spec: TlsSpec,
}

/// How instances are spoken to.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) server_name: ServerName<'static>,
}

/// How much is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Everything that is new has to be good, or nothing is taken.
    Strict,
    /// What is good is taken; the rest is warned about. For a table that was served before.
    Lenient,
}

/// Reads files.
#[derive(Debug)]
pub(crate) struct Loader {
    provider: Arc<CryptoProvider>,
    pub(crate) tickets: Arc<Tickets>,
}

impl Loader {
    pub(crate) fn new() -> Self {
        Self { provider: Arc::new(aws::default_provider()), tickets: Tickets::new() }
    }

    /// The book of a table that comes after the one of `old`. The error names file and reason.
    pub(crate) fn load(&self, table: &Table, old: &Book, mode: Mode) -> Result<Book, String> {
        let mut book = Book::default();
        for route in table.routes.iter().filter(|route| route.tls.is_some()) {
            self.add_route(&mut book, route, old, mode)?;
        }
        for arm in table.arms.iter().filter(|arm| arm.upstream.tls.is_some()) {
            self.add_upstream(&mut book, &arm.upstream, old, mode)?;
        }
        book.warnings.sort();
        book.warnings.dedup();
        Ok(book)
    }

    fn add_route(
        &self,
        book: &mut Book,
        route: &Route,
        old: &Book,
        mode: Mode,
    ) -> Result<(), String> {
        let Some(spec) = route.tls.as_deref() else { return Ok(()) };
        // An order takes its time, and traffic does not wait for it.
        let mode = if spec.acme.is_some() { Mode::Lenient } else { mode };
        let in_force = old.sites.get(spec);
        let loaded = match book.sites.get(spec) {
            Some(site) => Ok(Arc::clone(site)),
            None => self.site(book, spec, old, mode),
        };
        let loaded = match loaded {
            Ok(site) if mode == Mode::Strict => match check_names(route, &site, old) {
                Ok(()) => Ok(site),
                // A renewed certificate that lacks a host: the one before had it.
                Err(wrong) if in_force.is_some_and(|before| !Arc::ptr_eq(before, &site)) => {
                    Err(wrong)
                }
                Err(wrong) => return Err(format!("{}: {wrong}", route.service)),
            },
            loaded => loaded,
        };
        if let Err(wrong) = &loaded {
            book.faulty.insert(spec.clone(), wrong.clone());
        }
        if let Some(site) = chosen(book, loaded, in_force, mode, &route.service.to_string())? {
            book.sites.insert(spec.clone(), Arc::clone(&site));
            book.place(route, |_, _| Some(Arc::clone(&site)));
        } else {
            // What hosts had before they were ordered another one serves on. Without any the
            // address is encrypted all the same: nothing is said in plain text there.
            book.place(route, |listen, host| {
                let hosts = &old.listeners.get(&listen)?.hosts;
                host.map_or_else(|| hosts.any(), |host| hosts.exactly(host)).cloned()
            });
        }
        if let Some(from) = spec.redirect_from {
            let redirects = book.redirects.entry(from).or_default();
            for (_, host) in places(route, false) {
                redirects.insert(host, route.listen.port());
            }
        }
        Ok(())
    }

    fn site(
        &self,
        book: &mut Book,
        spec: &TlsSpec,
        old: &Book,
        mode: Mode,
    ) -> Result<Arc<Site>, Unusable> {
        let authority = spec.clients.iter().map(|clients| &clients.authority);
        let files = [&spec.certificate, &spec.key].into_iter().chain(authority);
        let unchanged = book.looked_at(files, old);
        if let Some(site) = old.sites.get(spec).filter(|_| unchanged) {
            return old.faulty.get(spec).map_or(Ok(Arc::clone(site)), |wrong| Err(wrong.clone()));
        }
        if spec.acme.is_some() && stamp(&spec.certificate).is_none() {
            let reason = "it is being ordered; until it is there, its clients are refused";
            return Err(Unusable::of(&spec.certificate, reason));
        }
        let shown = material::shown(&spec.certificate, &spec.key, &self.provider)?;
        if mode == Mode::Strict {
            material::check_time(&shown, &spec.certificate, SystemTime::now())?;
        }
        let policy = policy(spec)?;
        let config = self.server_config(spec, &shown, policy)?;
        let hsts = (!spec.hsts.is_zero())
            .then(|| HeaderValue::try_from(format!("max-age={}", spec.hsts.as_secs())).ok());
        Ok(Arc::new(Site {
            config: Arc::new(config),
            policy,
            asks_clients: spec.clients.is_some(),
            hsts: hsts.flatten(),
            shown,
            spec: spec.clone(),
        }))
    }

    fn server_config(
        &self,
        spec: &TlsSpec,
        shown: &Shown,
        policy: [u8; 32],
    ) -> Result<ServerConfig, Unusable> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| Unusable::of(&spec.certificate, &error))?;
        let builder = match &spec.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let roots = material::authorities(&clients.authority)?;
                let provider = Arc::clone(&self.provider);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier =
                    if clients.required { verifier } else { verifier.allow_unauthenticated() };
                let verifier =
                    verifier.build().map_err(|error| Unusable::of(&clients.authority, &error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let shown = SingleCertAndKey::from(Arc::clone(&shown.certified));
        let mut config = builder.with_cert_resolver(Arc::new(shown));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Nothing to keep on our side, and nothing to hand over but the keys.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = self.tickets.under(policy);
        config.send_tls13_tickets = 1;
        Ok(config)
    }

    fn add_upstream(
        &self,
        book: &mut Book,
        spec: &UpstreamSpec,
        old: &Book,
        mode: Mode,
    ) -> Result<(), String> {
        if book.upstreams.contains_key(spec) {
            return Ok(());
        }
        let loaded = self.upstream(book, spec, old);
        if let Err(wrong) = &loaded {
            book.faulty_upstreams.insert(spec.clone(), wrong.clone());
        }
        if let Some(upstream) = chosen(book, loaded, old.upstreams.get(spec), mode, "upstream_tls")?
        {
            book.upstreams.insert(spec.clone(), upstream);
        }
        Ok(())
    }

    fn upstream(
        &self,
        book: &mut Book,
        spec: &UpstreamSpec,
        old: &Book,
    ) -> Result<Arc<Upstream>, Unusable> {
        let Some(tls) = &spec.tls else { return Err(Unusable::of("", "nothing is asked for")) };
        let identity = tls.identity.iter().flat_map(|own| [&own.certificate, &own.key]);
        let unchanged = book.looked_at([&tls.authority].into_iter().chain(identity), old);
        if let Some(upstream) = old.upstreams.get(spec).filter(|_| unchanged) {
            let wrong = old.faulty_upstreams.get(spec);
            return wrong.map_or(Ok(Arc::clone(upstream)), |wrong| Err(wrong.clone()));
        }
        let server_name = ServerName::try_from(tls.server_name.clone())
            .map_err(|_| Unusable::of(&tls.server_name, "it is not the name of a server"))?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| Unusable::of(&tls.authority, &error))?
            .with_root_certificates(material::authorities(&tls.authority)?);
        let mut config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let shown = material::shown(&own.certificate, &own.key, &self.provider)?;
                let shown = SingleCertAndKey::from(shown.certified);
                builder.with_client_cert_resolver(Arc::new(shown))
            }
        };
        config.alpn_protocols = match spec.protocol {
            UpstreamProtocol::Http1 => vec![b"http/1.1".to_vec()],
            UpstreamProtocol::H2c => vec![b"h2".to_vec()],
        };
        Ok(Arc::new(Upstream { config: Arc::new(config), server_name }))
    }
}

/// That the certificate is for the hosts of a route. What is served with it already was checked.
fn check_names(route: &Route, site: &Arc<Site>, old: &Book) -> Result<(), Unusable> {
    for (listen, host) in [false, true].iter().flat_map(|preview| places(route, *preview)) {
        let Some(host) = host else { continue };
        let served = old.listeners.get(&listen).and_then(|listener| listener.hosts.exactly(host));
        if !served.is_some_and(|served| Arc::ptr_eq(served, site)) {
            material::check_name(&site.shown, &site.spec.certificate, host)?;
        }
    }
    Ok(())
}

/// What is used: the newly loaded, else what is in force, else nothing.
fn chosen<T>(
    book: &mut Book,
    loaded: Result<Arc<T>, Unusable>,
    in_force: Option<&Arc<T>>,
    mode: Mode,
    whose: &str,
) -> Result<Option<Arc<T>>, String> {
    match (loaded, in_force) {
        (Ok(loaded), _) => Ok(Some(loaded)),
        (Err(wrong), Some(in_force)) => {
            book.warnings.push(format!("{wrong}; what it held before stays in force"));
            Ok(Some(Arc::clone(in_force)))
        }
        (Err(wrong), None) if mode == Mode::Strict => Err(format!("{whose}: {wrong}")),
        (Err(wrong), None) => {
            book.warnings.push(format!("{whose}: {wrong}"));
            Ok(None)
        }
    }
}

/// A digest of what clients have to prove, down to the content of the file.
fn policy(spec: &TlsSpec) -> Result<[u8; 32], Unusable> {
    let Some(clients) = &spec.clients else { return Ok([0; 32]) };
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&[u8::from(clients.required)]);
    let authority = fs::read(&clients.authority);
    context.update(&authority.map_err(|error| Unusable::of(&clients.authority, &error))?);
    let mut policy = [0; 32];
    policy.copy_from_slice(context.finish().as_ref());
    Ok(policy)
}

impl Book {
    /// Notes what is shown at the places of a route.
    fn place(
        &mut self,
        route: &Route,
        site: impl Fn(SocketAddr, Option<&str>) -> Option<Arc<Site>>,
    ) {
        for (listen, host) in [false, true].iter().flat_map(|preview| places(route, *preview)) {
            let shared = self.listeners.entry(listen).or_default();
            // Nobody else holds it before the book is done.
            if let (Some(listener), Some(site)) = (Arc::get_mut(shared), site(listen, host)) {
                let ends = self.expiries.entry(host.unwrap_or("*").to_owned()).or_insert(i64::MAX);
                *ends = (*ends).min(site.shown.not_after);
                listener.hosts.insert(host, Arc::clone(&site));
                listener.fallback.get_or_insert(site);
            }
        }
    }

    /// When the certificate of each host ends, in seconds since 1970; `*` for every other host.
    pub(crate) fn expiries(&self) -> &BTreeMap<String, i64> {
        &self.expiries
    }

    /// Notes files as they are now. Whether none of them changed since `old` looked.
    fn looked_at<'s>(&mut self, files: impl Iterator<Item = &'s String>, old: &Self) -> bool {
        let mut unchanged = true;
        for file in files {
            let stamp = stamp(file);
            unchanged &= stamp.is_some() && old.files.get(file) == Some(&stamp);
            self.files.insert(file.clone(), stamp);
        }
        unchanged
    }

    /// Whether a file that was read is another one now.
    pub(crate) fn is_stale(&self) -> bool {
        self.files.iter().any(|(path, seen)| stamp(path) != *seen)
    }

    /// The encrypted address, if it is one.
    pub(crate) fn listener(&self, listen: SocketAddr) -> Option<&Arc<Listener>> {
        self.listeners.get(&listen)
    }

    /// The certificate that this host of an encrypted address has.
    pub(crate) fn site(&self, listen: SocketAddr, host: &str) -> Option<&Arc<Site>> {
        self.listeners.get(&listen)?.site(Some(&bare_host(host)))
    }

    /// The port of the encrypted address that a request at a plain one is sent to: for the host
    /// that is named there, or (`any`) for every other.
    pub(crate) fn redirect(&self, listen: SocketAddr, host: &str, any: bool) -> Option<u16> {
        if self.redirects.is_empty() {
            return None;
        }
        let hosts = self.redirects.get(&listen)?;
        if any { hosts.any() } else { hosts.named(&bare_host(host)) }.copied()
    }

    /// How these instances are spoken to.
    pub(crate) fn upstream(&self, spec: &UpstreamSpec) -> Option<&Arc<Upstream>> {
        self.upstreams.get(spec)
    }

    /// What people should look after: broken files, and certificates that end soon.
    pub(crate) fn warnings(&self, now: SystemTime) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        for site in self.sites.values() {
            let left = site.shown.not_after - seconds(now);
            let path = &site.spec.certificate;
            let early = i64::try_from(CERTIFICATE_WARNING.as_secs()).unwrap_or(i64::MAX);
            // One that is renewed by itself ends soon when that was missed.
            let early = if site.spec.acme.is_some() { site.shown.life / 4 } else { early };
            if left < 0 {
                warnings.push(format!("the certificate in {path} has expired"));
            } else if left < early {
                let days = left / 86_400;
                warnings.push(format!("the certificate in {path} ends in {days} days"));
            }
        }
        warnings.sort();
        warnings
    }
}

fn stamp(path: &str) -> Option<Stamp> {
    let facts = fs::metadata(path).ok()?;
    Some((facts.mtime(), facts.mtime_nsec(), facts.size(), facts.ino()))
}
