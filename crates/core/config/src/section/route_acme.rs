//! `acme:` of a route's `tls`: a certificate that is ordered. Whether an authority can be answered
//! is told as far as a configuration tells it; whether it comes by, the authority knows.

use std::net::IpAddr;

use switchback_domain::acme::{AcmeSpec, LETS_ENCRYPT};

use crate::diagnostic::Code;
use crate::reader::{Fields, Reader};
use crate::section::route::{Place, hosts as host_list};
use crate::section::route_tls::file;
use crate::table::{Field, Kind, Table, field};
use crate::value::Node;

/// What Let's Encrypt puts into one certificate.
const DOMAINS_MAX: usize = 100;
const URL_LENGTH_MAX: usize = 1024;
const EMAIL_LENGTH_MAX: usize = 254;
const CHALLENGES: [(&str, ()); 1] = [("http-01", ())];

pub(crate) static ACME: Table = Table::new(
    "route_tls_acme",
    "A certificate that is ordered by ACME (RFC 8555), kept in the state directory and renewed \
     after two thirds of its life. Who writes this agrees to the authority's terms.",
    &[&FIELDS],
);

static FIELDS: [Field; 5] = [
    field("email", Kind::Text, "Whom the authority may write to. Default: nobody."),
    field(
        "directory",
        Kind::Text,
        "URL of the authority's directory. Default: Let's Encrypt, \
         https://acme-v02.api.letsencrypt.org/directory.",
    ),
    field(
        "domains",
        Kind::List(&Kind::Text),
        "The names in the certificate. Default: the route's hosts.",
    ),
    field(
        "challenge",
        Kind::Word(&["http-01"]),
        "How a name is proved: by an answer on a plain address, which authorities ask on port 80. \
         Default: http-01.",
    ),
    field(
        "ca_file",
        Kind::Text,
        "PEM file: who vouches for the authority's own server. Default: those the system trusts.",
    ),
];

/// A certificate to be ordered for a route to these hosts.
pub(crate) fn acme(reader: &mut Reader, node: &Node, hosts: &[String]) -> Option<AcmeSpec> {
    let fields = reader.fields(node, &ACME);
    let email = fields.read("email", reader, email);
    let directory = match fields.get("directory") {
        Some(node) => directory(reader, node),
        None => Some(LETS_ENCRYPT.to_owned()),
    };
    fields.read("challenge", reader, |r, node| r.word(node, &CHALLENGES));
    let authority = fields.read("ca_file", reader, file);
    let domains = domains(reader, &fields, hosts);
    Some(AcmeSpec { directory: directory?, email, domains: domains?, authority })
}

/// The names to order: each can be proved, and every host of the route is among them.
fn domains(reader: &mut Reader, fields: &Fields<'_>, hosts: &[String]) -> Option<Vec<String>> {
    let own = fields.get("domains");
    let at = own.unwrap_or_else(|| fields.node());
    let mut names = own.map_or_else(|| hosts.to_vec(), |node| host_list(reader, node));
    names.sort();
    names.dedup();
    if names.is_empty() {
        let hint = "name the route's `hosts`, or `domains` here: `[shop.example.com]`";
        reader.report(at, Code::Contradiction, "there is no name to order a certificate for", hint);
        return None;
    }
    if names.len() > DOMAINS_MAX {
        let message = format!("{} names are more than one certificate holds", names.len());
        reader.report(at, Code::Limit, message, format!("use at most {DOMAINS_MAX}"));
        return None;
    }
    let mut good = true;
    for (name, (why, hint)) in names.iter().filter_map(|name| Some((name, unprovable(name)?))) {
        reader.report(at, Code::Contradiction, format!("`{name}` {why}"), hint);
        good = false;
    }
    let missing = hosts.iter().find(|host| !names.contains(host));
    if let Some(host) = missing.filter(|_| own.is_some()) {
        let message = format!("the route's host `{host}` is not among them");
        reader.report(at, Code::Contradiction, message, format!("add `{host}`"));
        good = false;
    }
    good.then_some(names)
}

/// Why no authority gives a certificate for this name, and what to do instead.
fn unprovable(name: &str) -> Option<(&'static str, &'static str)> {
    let files = "take a certificate from files: `certificate` and `key`";
    if name.starts_with("*.") {
        return Some((
            "cannot be proved by http-01",
            "list the names one by one, or take a certificate from files",
        ));
    }
    if name.parse::<IpAddr>().is_ok() || name.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Some(("is an address; certificates are ordered for names", files));
    }
    if name == "localhost" || name.ends_with(".localhost") {
        return Some(("is this machine for everybody: no authority can come here", files));
    }
    name.contains('_').then_some(("has an underscore, which no certificate may", files))
}

fn email(reader: &mut Reader, node: &Node) -> Option<String> {
    let text = reader.text(node)?;
    let foreign = |c: char| c.is_whitespace() || c.is_control() || ",?<>".contains(c);
    let parts = text.split_once('@');
    if parts.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'))
        && text.len() <= EMAIL_LENGTH_MAX
        && !text.contains(foreign)
    {
        return Some(text);
    }
    reader.report(node, Code::Name, "is not an address for mail", "write `ops@example.com`");
    None
}

fn directory(reader: &mut Reader, node: &Node) -> Option<String> {
    let text = reader.text(node)?;
    let foreign = |c: char| !c.is_ascii_graphic() || "\"<>\\^`{}|@#".contains(c);
    let rest = text.strip_prefix("https://").unwrap_or_default();
    let host = rest.split('/').next().unwrap_or_default();
    if !host.is_empty() && !host.starts_with(':') && !rest.contains(foreign) {
        if text.len() <= URL_LENGTH_MAX {
            return Some(text);
        }
        reader.report(node, Code::Limit, "is longer than any URL", "check what stands here");
        return None;
    }
    let hint = format!("write `https://HOST/PATH`, such as {LETS_ENCRYPT}");
    reader.report(node, Code::Address, "is not the https:// URL of a directory", hint);
    None
}

/// Reports the first certificate that nobody can prove anything for: there is no plain address.
pub(crate) fn unanswerable(reader: &mut Reader, places: &[Place<'_>]) {
    let tls = |place: &Place<'_>| place.route.tls.clone();
    let is_plain = |place: &Place<'_>| tls(place).is_none_or(|tls| tls.redirect_from.is_some());
    if places.iter().any(is_plain) {
        return;
    }
    let ordered = |place: &&Place<'_>| tls(place).is_some_and(|tls| tls.acme.is_some());
    if let Some(place) = places.iter().find(ordered) {
        let message = "there is no plain address on which an authority could be answered";
        let hint = "add `redirect_from: \":80\"` to the `tls` of the route: authorities ask on \
                    port 80";
        reader.report(place.node, Code::Contradiction, message, hint);
    }
}
