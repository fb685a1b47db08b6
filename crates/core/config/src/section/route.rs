//! `route:`: where requests for a service come in, and whether two services want the same ones.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use switchback_domain::workload::RouteSpec;
use switchback_routing::{Route, contested};

use crate::diagnostic::Code;
use crate::reader::{Fields, Reader};
use crate::section::route_rules::{self, RULES};
use crate::section::route_tls::{self, ENCRYPTION};
use crate::table::{Kind, Table, field};
use crate::value::{Node, Value};

/// Kamal-proxy's patience with a target.
const TIMEOUT: Duration = Duration::from_secs(30);
const HOST_LENGTH_MAX: usize = 253;
const LABEL_LENGTH_MAX: usize = 63;

pub(crate) static ROUTE: Table = Table::new(
    "route",
    "Where requests for the service come in.",
    &[
        &[
            field(
                "listen",
                Kind::Listen,
                "The address the data plane listens on: 127.0.0.1:8080, :8080 (every interface) or \
             8080 (this machine only); required.",
            ),
            field("hosts", Kind::List(&Kind::Text), "Host names; none takes every host."),
            field("host", Kind::Text, "One host name; *.example.com takes one label more."),
            field("path_prefix", Kind::Text, "Only paths below this one. Default: /."),
            field("timeout", Kind::Duration, "Time to the response head. Default: 30s."),
        ],
        &RULES,
        &ENCRYPTION,
    ],
);

/// The route of a service.
pub(crate) fn route(reader: &mut Reader, node: &Node) -> Option<RouteSpec> {
    let fields = reader.fields(node, &ROUTE);
    if fields.is_map() && fields.get("listen").is_none() {
        reader.missing(node, "listen", "add `listen: 127.0.0.1:8080`");
    }
    let listen = fields.read("listen", reader, listen);
    let path_prefix = fields.read("path_prefix", reader, path_prefix);
    let timeout = fields.read("timeout", reader, Reader::duration_above_zero);
    let path_prefix = path_prefix.unwrap_or_else(|| "/".to_owned());
    let rules = route_rules::rules(reader, &fields, &path_prefix);
    let hosts = host_names(reader, &fields);
    let tls = route_tls::tls(reader, &fields, &hosts);
    let upstream = route_tls::upstream(reader, &fields);
    Some(RouteSpec {
        hosts,
        listen: listen?,
        path_prefix,
        timeout: timeout.unwrap_or(TIMEOUT),
        rules,
        tls,
        upstream,
    })
}

/// The names under `host` or `hosts`.
pub(crate) fn host_names(reader: &mut Reader, fields: &Fields<'_>) -> Vec<String> {
    if let (Some(_), Some(hosts)) = (fields.get("host"), fields.get("hosts")) {
        let hint = "keep `hosts: [...]`";
        reader.report(hosts, Code::Contradiction, "`host` and `hosts` exclude each other", hint);
    }
    let one = fields.read("host", reader, host).into_iter();
    let many = fields.get("hosts").map(|node| hosts(reader, node)).into_iter().flatten();
    one.chain(many).collect()
}

/// An address to listen on.
pub(crate) fn listen(reader: &mut Reader, node: &Node) -> Option<SocketAddr> {
    let text = reader.text(node)?;
    let (host, port) = text.rsplit_once(':').unwrap_or(("127.0.0.1", &text));
    let ip = match host {
        "" | "*" => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        bracketed if bracketed.starts_with('[') && bracketed.ends_with(']') => {
            bracketed.trim_matches(['[', ']']).parse().ok().filter(IpAddr::is_ipv6)
        }
        other => other.parse().ok().filter(IpAddr::is_ipv4),
    };
    let hint = "write `127.0.0.1:8080`, `:8080` for every interface, or `8080` for this machine";
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let (Some(ip), true) = (ip, digits) else {
        let message = format!("{} is not an address", crate::reader::found(node));
        reader.report(node, Code::Address, message, hint);
        return None;
    };
    let port: u16 = port.parse().ok().filter(|port| *port > 0).or_else(|| {
        let message = format!("port {port} does not exist for clients");
        reader.report(node, Code::Address, message, "use a port from 1 to 65535");
        None
    })?;
    Some(SocketAddr::new(ip, port))
}

/// Host names, one or many.
pub(crate) fn hosts(reader: &mut Reader, node: &Node) -> Vec<String> {
    if !matches!(node.value, Value::List(_)) {
        return host(reader, node).into_iter().collect();
    }
    let (mut hosts, mut known) = (Vec::new(), BTreeSet::new());
    for item in reader.list(node, "[example.com]") {
        let Some(host) = host(reader, item) else { continue };
        if !known.insert(host.clone()) {
            let message = format!("`{host}` is listed twice");
            reader.report(item, Code::Contradiction, message, "keep one of the two");
            continue;
        }
        hosts.push(host);
    }
    hosts
}

fn host(reader: &mut Reader, node: &Node) -> Option<String> {
    let host = reader.text(node)?.to_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host).to_owned();
    let labels = host.strip_prefix("*.").unwrap_or(&host);
    let valid = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=LABEL_LENGTH_MAX).contains(&label.len())
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.len() <= HOST_LENGTH_MAX && labels.split('.').all(valid) {
        return Some(host);
    }
    let hint = if host.contains("://") || host.contains(':') || host.contains('/') {
        "write the host name alone: `example.com`; the port stands in `listen`"
    } else if host.contains('*') {
        "a wildcard stands first and for one label: `*.example.com`"
    } else {
        "write a host name such as `example.com`, in ASCII (`xn--...` for others)"
    };
    let message = format!("{} is not a host name", crate::reader::found(node));
    reader.report(node, Code::Address, message, hint);
    None
}

/// A prefix without a slash at its end, so that `/api` and `/api/` are the same route.
fn path_prefix(reader: &mut Reader, node: &Node) -> Option<String> {
    let prefix = reader.text(node)?;
    let foreign = |c: char| c.is_whitespace() || c.is_control() || "?#*{}".contains(c);
    let problem = if !prefix.starts_with('/') {
        "must start with `/`"
    } else if prefix.contains(foreign) {
        "is a plain prefix, without queries, wildcards or spaces"
    } else if prefix.split('/').skip(1).any(|part| part == ".." || part == ".")
        || prefix.contains("//")
    {
        "no request ever has this path"
    } else {
        let trimmed = prefix.trim_end_matches('/');
        return Some(if trimmed.is_empty() { "/" } else { trimmed }.to_owned());
    };
    reader.report(node, Code::Path, problem, "write a prefix such as `/api`");
    None
}

/// A route with its place, to be compared with the others of its environment.
pub(crate) struct Place<'n> {
    pub(crate) service: &'n str,
    pub(crate) route: &'n Route,
    pub(crate) node: &'n Node,
}

/// Reports every claim on requests that an earlier service claims, and addresses that cannot be
/// listened on beside an earlier one. Routes with other hosts, paths or conditions can share an
/// address: the router takes the narrower one.
pub(crate) fn conflicts(reader: &mut Reader, places: &[Place<'_>]) {
    route_tls::conflicts(reader, places);
    let contested = contested(places.iter().map(|place| place.route));
    let mut listened = Listened::new();
    for (index, (place, first)) in places.iter().zip(contested).enumerate() {
        for (nth, address) in place.route.addresses().enumerate() {
            let on_port = listened.entry(address.port()).or_default();
            on_port.entry(address.ip()).or_insert((index, nth));
        }
        match first {
            Some(first) if first == index => {
                let hint = "take one of `matches`, or the preview, away, or change it";
                let message = "the route takes the same requests twice";
                reader.report(place.node, Code::RouteTaken, message, hint);
            }
            Some(first) => report_taken(reader, place, &places[first]),
            None => report_covered(reader, place, places, &listened),
        }
    }
}

fn report_taken(reader: &mut Reader, place: &Place<'_>, first: &Place<'_>) {
    let message = format!(
        "{} is taken by service `{}` (line {})",
        described(place.route),
        first.service,
        first.node.place.line
    );
    let hint = "give one of them another `listen`, `host` or `path_prefix`";
    reader.report(place.node, Code::RouteTaken, message, hint);
}

/// By port: the addresses that are listened on, each with the first route that does, and which of
/// that route's addresses it is.
type Listened = BTreeMap<u16, BTreeMap<IpAddr, (usize, usize)>>;

/// The first address that cannot be listened on beside `own`, and where it is.
fn covering(listened: &Listened, own: SocketAddr) -> Option<((usize, usize), SocketAddr)> {
    let on_port = listened.get(&own.port())?;
    let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let others: Vec<_> = if own.ip().is_unspecified() {
        on_port.iter().collect()
    } else {
        everywhere.iter().filter_map(|all| Some((all, on_port.get(all)?))).collect()
    };
    let others = others.into_iter().map(|(ip, at)| (*at, SocketAddr::new(*ip, own.port())));
    others.filter(|(_, address)| covers(own, *address)).min()
}

fn report_covered(
    reader: &mut Reader,
    place: &Place<'_>,
    places: &[Place<'_>],
    listened: &Listened,
) {
    let pairs = place.route.addresses().filter_map(|own| Some((covering(listened, own)?, own)));
    if let Some((((at, _), address), own)) = pairs.min_by_key(|((at, _), _)| *at) {
        let other = &places[at];
        let message = format!(
            "{own} cannot be listened on beside {address} of service `{}` (line {})",
            other.service, other.node.place.line
        );
        let hint = "write the same address for both, or use another port";
        reader.report(place.node, Code::RouteTaken, message, hint);
    }
}

/// One port on every interface and on one of them.
fn covers(left: SocketAddr, right: SocketAddr) -> bool {
    // Every IPv6 interface includes the IPv4 ones; the other way round it does not.
    let includes =
        |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    let overlap = includes(left.ip(), right.ip()) || includes(right.ip(), left.ip());
    left.port() == right.port() && left != right && overlap
}

fn described(route: &Route) -> String {
    let hosts = if route.hosts.is_empty() { String::new() } else { route.hosts.join(", ") + " " };
    format!("{hosts}{} on {}", route.path_prefix, route.listen)
}
