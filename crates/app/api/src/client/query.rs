//! Routes and their parameters, percent-encoded.

use std::fmt::{Display, Write as _};

use switchback_domain::{EnvironmentName, ServiceName};

/// Which rollouts. The default is the newest of every service, as many as the control plane
/// gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RolloutsQuery {
    /// Only there.
    pub environment: Option<EnvironmentName>,
    /// Only of this one.
    pub service: Option<ServiceName>,
    /// At most so many.
    pub limit: Option<u32>,
}

impl RolloutsQuery {
    pub(super) fn route(&self) -> Query {
        self.route_to("/v1/rollouts")
    }

    /// The same question about something else.
    pub(super) fn route_to(&self, what: &str) -> Query {
        Query::new(what)
            .and("environment", self.environment.as_ref())
            .and("service", self.service.as_ref())
            .and("limit", self.limit)
    }
}

/// Which lines of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogsFrom {
    /// The newest so many.
    Tail(u32),
    /// What came after [`crate::Logs::cursor`].
    After(String),
}

/// Whose log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogsQuery {
    /// Only there.
    pub environment: Option<EnvironmentName>,
    /// Only of this service.
    pub service: Option<ServiceName>,
    /// Only of this instance.
    pub instance: Option<String>,
    /// Which lines.
    pub from: LogsFrom,
}

impl LogsQuery {
    pub(super) fn route(&self) -> Query {
        let query = Query::new("/v1/logs")
            .and("environment", self.environment.as_ref())
            .and("service", self.service.as_ref())
            .and("instance", self.instance.as_ref());
        match &self.from {
            LogsFrom::Tail(lines) => query.and("tail", Some(lines)),
            LogsFrom::After(cursor) => query.and("after", Some(cursor)),
        }
    }
}

/// A path and its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    text: String,
    first: bool,
}

impl Query {
    pub(super) fn new(path: &str) -> Self {
        Self { text: path.to_owned(), first: true }
    }

    /// One more path segment; only before the first parameter.
    pub(super) fn segment(mut self, segment: &str) -> Self {
        self.text.push('/');
        encode(segment, &mut self.text);
        self
    }

    /// One more parameter; `None` leaves it out.
    pub(super) fn and<T: Display>(mut self, name: &str, value: Option<T>) -> Self {
        let Some(value) = value else { return self };
        self.text.push(if self.first { '?' } else { '&' });
        self.first = false;
        self.text.push_str(name);
        self.text.push('=');
        encode(&value.to_string(), &mut self.text);
        self
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

/// Appends a text with everything encoded that is not unreserved (RFC 3986, section 2.3).
fn encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            into.push(char::from(byte));
        } else {
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_encoded_and_absent_ones_left_out() {
        let query = LogsQuery {
            environment: None,
            service: Some(ServiceName::new("api").unwrap()),
            instance: None,
            from: LogsFrom::After("a b&c=1/2".to_owned()),
        };
        assert_eq!(query.route().as_str(), "/v1/logs?service=api&after=a%20b%26c%3D1%2F2");
        assert_eq!(RolloutsQuery::default().route().as_str(), "/v1/rollouts");
        let route = Query::new("/v1/rollouts").segment("../r1").segment("events");
        assert_eq!(route.and("after", Some(3)).as_str(), "/v1/rollouts/..%2Fr1/events?after=3");
    }
}
