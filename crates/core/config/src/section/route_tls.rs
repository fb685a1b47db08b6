//! `tls:`, `protocol:` and `upstream_tls:` of a route: how clients and instances are spoken to.
//! Only paths are read here; what stands in the files, the data plane checks.

use std::time::Duration;

use switchback_domain::acme::AcmeSpec;
use switchback_domain::tls::{
    ClientCertificates, Identity, TlsSpec, UpstreamProtocol, UpstreamSpec, UpstreamTls,
};
use switchback_routing::tls_conflict;

use crate::diagnostic::Code;
use crate::reader::{Fields, Reader};
use crate::section::route::{Place, listen};
use crate::section::route_acme::{self, ACME};
use crate::section::template::{self, Scope};
use crate::table::{Field, Kind, Table, field, required};
use crate::value::Node;

const PATH_LENGTH_MAX: usize = 1024;
/// Browsers' lists ask for one or two years.
const HSTS_DAYS_MAX: u32 = 3650;
const CLIENT_AUTH: [(&str, bool); 2] = [("required", true), ("optional", false)];
const PROTOCOLS: [(&str, UpstreamProtocol); 2] =
    [("http1", UpstreamProtocol::Http1), ("h2c", UpstreamProtocol::H2c)];

const CERTIFICATE: &str = "PEM file: the certificate, then its issuers'.";
const KEY: &str = "PEM file: the certificate's private key.";

pub(crate) static ENCRYPTION: [Field; 3] = [
    field("tls", Kind::Struct(&TLS), "How clients are spoken to. Default: in plain text."),
    field(
        "protocol",
        Kind::Word(&["http1", "h2c"]),
        "What the service speaks: HTTP/1.1, or HTTP/2 from the first byte on (gRPC). \
         Default: http1.",
    ),
    field(
        "upstream_tls",
        Kind::Struct(&UPSTREAM_TLS),
        "How instances are spoken to. Default: in plain text.",
    ),
];

static TLS: Table = Table::new(
    "route_tls",
    "Encryption towards clients: TLS 1.3 and 1.2, HTTP/2 and HTTP/1.1.",
    &[&[
        field("certificate", Kind::Text, CERTIFICATE),
        field("key", Kind::Text, KEY),
        field(
            "acme",
            Kind::Struct(&ACME),
            "In place of files: a certificate that is ordered, and renewed in time.",
        ),
        field(
            "client_ca",
            Kind::Text,
            "PEM file: who may issue certificates of clients. Default: clients show none.",
        ),
        field(
            "client_auth",
            Kind::Word(&["required", "optional"]),
            "Whether a client must show a certificate. Default: required.",
        ),
        field(
            "redirect_from",
            Kind::Listen,
            "A plain address whose requests are sent here (308). Default: none.",
        ),
        field(
            "hsts_days",
            Kind::Count { min: 0, max: HSTS_DAYS_MAX },
            "How long browsers are to come encrypted only. Default: 0, nothing is said.",
        ),
    ]],
);

static UPSTREAM_TLS: Table = Table::new(
    "route_upstream_tls",
    "Encryption towards instances.",
    &[&[
        required("ca", Kind::Text, "PEM file: who may issue the instances' certificates."),
        required("server_name", Kind::Text, "The name their certificates have to bear."),
        field("certificate", Kind::Text, "PEM file: what the data plane shows of itself."),
        field("key", Kind::Text, "PEM file: the private key of that certificate."),
    ]],
);

/// The encryption among the fields of a route to hosts of these names.
pub(crate) fn tls(reader: &mut Reader, fields: &Fields<'_>, names: &[String]) -> Option<TlsSpec> {
    let node = fields.get("tls")?;
    let fields = reader.fields(node, &TLS);
    let (identity, acme) = own_certificate(reader, &fields, names);
    let authority = fields.read("client_ca", reader, file);
    let required = fields.read("client_auth", reader, |r, node| r.word(node, &CLIENT_AUTH));
    if let Some(at) = fields.get("client_auth").filter(|_| fields.get("client_ca").is_none()) {
        let hint = "add `client_ca: clients.pem`: whose certificates are good";
        reader.report(at, Code::Contradiction, "asks for certificates nobody may issue", hint);
    }
    let redirect_from = fields.read("redirect_from", reader, listen);
    let days = fields.read("hsts_days", reader, |r, node| r.count(node, 0..=HSTS_DAYS_MAX));
    let hsts = Duration::from_hours(24) * days.unwrap_or(0);
    let required = required.unwrap_or(true);
    let clients = authority.map(|authority| ClientCertificates { authority, required });
    let Identity { certificate, key } = identity?;
    Some(TlsSpec { certificate, key, acme, clients, redirect_from, hsts })
}

/// The files of the certificate, or from whom it is ordered: then its file is not known here.
fn own_certificate(
    reader: &mut Reader,
    fields: &Fields<'_>,
    hosts: &[String],
) -> (Option<Identity>, Option<AcmeSpec>) {
    if let Some(node) = fields.get("acme") {
        for file in ["certificate", "key"].iter().filter_map(|key| fields.get(key)) {
            let hint = "keep either the files or `acme`";
            reader.report(file, Code::Contradiction, "excludes `acme`", hint);
        }
        let acme = route_acme::acme(reader, node, hosts);
        let (certificate, key) = (String::new(), String::new());
        return (acme.is_some().then_some(Identity { certificate, key }), acme);
    }
    let certificate = fields.read("certificate", reader, file);
    let key = fields.read("key", reader, file);
    match (fields.get("certificate"), fields.get("key")) {
        (None, None) if fields.is_map() => {
            let hint = "name the files, `certificate` and `key`, or order one: `acme: {}`";
            reader.missing(fields.node(), "certificate", hint);
        }
        (None, Some(_)) => {
            let hint = format!("add `certificate`: {CERTIFICATE}");
            reader.missing(fields.node(), "certificate", hint);
        }
        (Some(_), None) => reader.missing(fields.node(), "key", format!("add `key`: {KEY}")),
        (None, None) | (Some(_), Some(_)) => {}
    }
    let identity = certificate.zip(key);
    (identity.map(|(certificate, key)| Identity { certificate, key }), None)
}

/// How the instances are spoken to.
pub(crate) fn upstream(reader: &mut Reader, fields: &Fields<'_>) -> UpstreamSpec {
    let protocol = fields.read("protocol", reader, |r, node| r.word(node, &PROTOCOLS));
    let tls = fields.read("upstream_tls", reader, upstream_tls);
    UpstreamSpec { protocol: protocol.unwrap_or_default(), tls }
}

fn upstream_tls(reader: &mut Reader, node: &Node) -> Option<UpstreamTls> {
    let fields = reader.fields(node, &UPSTREAM_TLS);
    let authority = fields.read("ca", reader, file);
    let server_name = fields.read("server_name", reader, Reader::text);
    let certificate = fields.read("certificate", reader, file);
    let key = fields.read("key", reader, file);
    if fields.get("certificate").is_some() != fields.get("key").is_some() {
        let hint = "give both `certificate` and `key`, or neither";
        reader.report(node, Code::MissingKey, "has half of an identity", hint);
    }
    Some(UpstreamTls {
        authority: authority?,
        server_name: server_name?,
        identity: certificate.zip(key).map(|(certificate, key)| Identity { certificate, key }),
    })
}

/// The path of a PEM file.
pub(crate) fn file(reader: &mut Reader, node: &Node) -> Option<String> {
    let path = template::text(reader, node, Scope::Release)?;
    if path.is_empty() || path.len() > PATH_LENGTH_MAX || path.contains(char::is_control) {
        let hint = "write the path of a PEM file, seen from this configuration: `certs/shop.pem`";
        reader.report(node, Code::Path, "is not the path of a file", hint);
        return None;
    }
    Some(path)
}

/// Reports the first two routes that want one address, or one host on it, spoken to differently.
pub(crate) fn conflicts(reader: &mut Reader, places: &[Place<'_>]) {
    let routes: Vec<_> = places.iter().map(|place| place.route.clone()).collect();
    route_acme::unanswerable(reader, places);
    let Some((first, second, at, host)) = tls_conflict(&routes) else { return };
    let message = format!(
        "the `tls` of service `{}` (line {}) differs for {at}, host {}",
        places[first].service,
        places[first].node.place.line,
        host.unwrap_or("*"),
    );
    let ordered = |at: usize| routes[at].tls.as_ref().is_some_and(|tls| tls.acme.is_some());
    let hint = if ordered(first) && ordered(second) {
        "a host has one certificate: write the same `tls` with the same `acme.domains` for both"
    } else {
        "an address is encrypted for all routes or for none, and a host on it has one certificate: \
         write the same `tls` for both"
    };
    reader.report(places[second].node, Code::RouteTaken, message, hint);
}
