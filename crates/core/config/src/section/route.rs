//! `route:`: where requests for a service come in, and whether two services want the same ones.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use switchback_domain::workload::RouteSpec;

use crate::diagnostic::Code;
use crate::reader::Reader;
use crate::table::{Kind, Table, field};
use crate::value::{Node, Value};

/// Kamal-proxy's patience with a target.
const TIMEOUT: Duration = Duration::from_secs(30);
const HOST_LENGTH_MAX: usize = 253;
const LABEL_LENGTH_MAX: usize = 63;

pub(crate) static ROUTE: Table = Table::new(
    "route",
    "Where requests for the service come in.",
    &[&[
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
    ]],
);

/// The route of a service.
pub(crate) fn route(reader: &mut Reader, node: &Node) -> Option<RouteSpec> {
    let fields = reader.fields(node, &ROUTE);
    if let (Some(_), Some(hosts)) = (fields.get("host"), fields.get("hosts")) {
        let hint = "keep `hosts: [...]`";
        reader.report(hosts, Code::Contradiction, "`host` and `hosts` exclude each other", hint);
    }
    if fields.is_map() && fields.get("listen").is_none() {
        reader.missing(node, "listen", "add `listen: 127.0.0.1:8080`");
    }
    let listen = fields.read("listen", reader, listen);
    let path_prefix = fields.read("path_prefix", reader, path_prefix);
    let timeout = fields.read("timeout", reader, Reader::duration_above_zero);
    let one = fields.read("host", reader, host).into_iter();
    let many = fields.get("hosts").map(|node| hosts(reader, node)).into_iter().flatten();
    Some(RouteSpec {
        hosts: one.chain(many).collect(),
        listen: listen?,
        path_prefix: path_prefix.unwrap_or_else(|| "/".to_owned()),
        timeout: timeout.unwrap_or(TIMEOUT),
    })
}

fn listen(reader: &mut Reader, node: &Node) -> Option<SocketAddr> {
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

fn hosts(reader: &mut Reader, node: &Node) -> Vec<String> {
    if !matches!(node.value, Value::List(_)) {
        return host(reader, node).into_iter().collect();
    }
    let mut hosts: Vec<String> = Vec::new();
    for item in reader.list(node, "[example.com]") {
        let Some(host) = host(reader, item) else { continue };
        if hosts.contains(&host) {
            let message = format!("`{host}` is listed twice");
            reader.report(item, Code::Contradiction, message, "keep one of the two");
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
pub(crate) struct Claim<'n> {
    pub(crate) service: &'n str,
    pub(crate) spec: &'n RouteSpec,
    pub(crate) node: &'n Node,
}

/// Reports every claim on requests that an earlier service claims, and addresses that cannot be
/// listened on beside an earlier one.
pub(crate) fn conflicts(reader: &mut Reader, claims: &[Claim<'_>]) {
    for (index, claim) in claims.iter().enumerate() {
        let earlier = claims[..index].iter();
        let taken = earlier.clone().find(|other| is_same(claim.spec, other.spec));
        if let Some(other) = taken {
            let message = format!(
                "{} is taken by service `{}` (line {})",
                described(claim.spec),
                other.service,
                other.node.place.line
            );
            let hint = "give one of them another `listen`, `host` or `path_prefix`";
            reader.report(claim.node, Code::RouteTaken, message, hint);
            continue;
        }
        if let Some(other) = earlier.clone().find(|other| covers(claim.spec, other.spec)) {
            let message = format!(
                "{} cannot be listened on beside {} of service `{}` (line {})",
                claim.spec.listen, other.spec.listen, other.service, other.node.place.line
            );
            let hint = "write the same address for both, or use another port";
            reader.report(claim.node, Code::RouteTaken, message, hint);
        }
    }
}

/// The same address, prefix and a common host. A route with hosts beside one without is fine: the
/// named host wins.
fn is_same(left: &RouteSpec, right: &RouteSpec) -> bool {
    let hosts = if left.hosts.is_empty() {
        right.hosts.is_empty()
    } else {
        left.hosts.iter().any(|host| right.hosts.contains(host))
    };
    left.listen == right.listen && left.path_prefix == right.path_prefix && hosts
}

/// One port on every interface and on one of them.
fn covers(left: &RouteSpec, right: &RouteSpec) -> bool {
    // Every IPv6 interface includes the IPv4 ones; the other way round it does not.
    let includes =
        |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    let (left, right) = (left.listen, right.listen);
    let overlap = includes(left.ip(), right.ip()) || includes(right.ip(), left.ip());
    left.port() == right.port() && left != right && overlap
}

fn described(spec: &RouteSpec) -> String {
    let hosts = if spec.hosts.is_empty() { String::new() } else { spec.hosts.join(", ") + " " };
    format!("{hosts}{} on {}", spec.path_prefix, spec.listen)
}
