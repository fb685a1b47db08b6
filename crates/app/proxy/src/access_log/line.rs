//! One request as a line: what is known of it when it has ended, as JSON or in the Common Log
//! Format. Never its query, its cookies or any other header: they hold secrets.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use switchback_domain::route::LogFormat;
use switchback_domain::{InstanceId, ServiceKey, Version};
use switchback_routing::{Reason, RequestView};

use super::Buffer;
use crate::counters::Outcome;
use crate::limits::ACCESS_LOG_TEXT_BYTES_MAX;
use crate::trace;

/// A request whose line is written when this is dropped.
#[derive(Debug)]
pub(crate) struct Record {
    log: Rc<Buffer>,
    format: LogFormat,
    began: SystemTime,
    started: Instant,
    client: IpAddr,
    method: String,
    host: String,
    path: String,
    route: ServiceKey,
    request_id: Option<String>,
    trace_id: Option<String>,
    version: Option<(Version, Reason)>,
    instance: Option<InstanceId>,
    /// 0 without an answer.
    status: u16,
    ended: Ended,
}

/// How a request ended.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// `None`: it came to no version.
    pub(crate) outcome: Option<Outcome>,
    /// Why, where the outcome does not say it.
    pub(crate) why: &'static str,
    /// Bytes of its body and of the answer's.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) retries: u32,
}

impl Record {
    /// A request that has just been looked at.
    pub(crate) fn new(
        log: &Rc<Buffer>,
        format: LogFormat,
        route: &ServiceKey,
        asked: &RequestView<'_>,
    ) -> Box<Self> {
        Box::new(Self {
            log: Rc::clone(log),
            format,
            began: SystemTime::now(),
            started: Instant::now(),
            client: asked.client,
            method: shortened(asked.method),
            host: shortened(asked.host),
            path: shortened(asked.path),
            route: route.clone(),
            request_id: None,
            trace_id: None,
            version: None,
            instance: None,
            status: 0,
            ended: Ended::default(),
        })
    }

    /// What its instance is told it is called, by `x-request-id` and `traceparent`.
    pub(crate) fn named(&mut self, request_id: Option<String>, trace_parent: Option<&str>) {
        self.request_id = request_id.map(|id| shortened(&id));
        self.trace_id = trace_parent.and_then(trace::id_of).map(str::to_owned);
    }

    /// The version that is asked.
    pub(crate) fn assigned(&mut self, version: Version, reason: Reason) {
        self.version = Some((version, reason));
    }

    /// An answer with this status came from an instance.
    pub(crate) fn answered(&mut self, status: u16, instance: &InstanceId) {
        self.status = status;
        self.instance = Some(instance.clone());
    }

    /// It gets an answer of ours with a body so long.
    pub(crate) fn refused(&mut self, status: u16, why: &'static str, bytes: usize) {
        self.status = status;
        self.ended.why = why;
        self.ended.sent = bytes as u64;
    }

    /// It came to its end with a version.
    pub(crate) fn ended(&mut self, ended: Ended) {
        let own = std::mem::replace(&mut self.ended, ended);
        self.ended.why = own.why;
        // What we said ourselves, no version has sent.
        self.ended.sent += own.sent;
    }

    fn write(&self, out: &mut Vec<u8>) {
        let since = self.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        match self.format {
            LogFormat::Json => self.write_json(since, out),
            LogFormat::Common => self.write_common(since, out),
        }
        out.push(b'\n');
    }

    fn write_json(&self, since: Duration, out: &mut Vec<u8>) {
        let moment = Moment::of(since.as_secs());
        let line = Line {
            time: format!("{}.{:03}Z", moment.date_time(), since.subsec_millis()),
            client: self.client,
            method: &self.method,
            host: &self.host,
            path: &self.path,
            status: (self.status > 0).then_some(self.status),
            bytes: self.ended.sent,
            bytes_received: self.ended.received,
            duration_us: u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
            environment: self.route.environment.as_str(),
            service: self.route.service.as_str(),
            version: self.version.as_ref().map(|(version, _)| version.as_str()),
            instance: self.instance.as_ref().map(InstanceId::as_str),
            outcome: self.ended.outcome.map_or("turned_away", outcome_name),
            why: Some(self.ended.why).filter(|why| !why.is_empty()),
            retries: self.ended.retries,
            assigned_by: self.version.as_ref().map(|(_, reason)| reason_name(*reason)),
            request_id: self.request_id.as_deref(),
            trace_id: self.trace_id.as_deref(),
        };
        // Text and numbers always serialize, and writing to memory cannot fail.
        let _ = serde_json::to_writer(out, &line);
    }

    fn write_common(&self, since: Duration, out: &mut Vec<u8>) {
        let moment = Moment::of(since.as_secs()).common();
        let (method, path) = (quoted(&self.method), quoted(&self.path));
        let status = if self.status > 0 { self.status.to_string() } else { "-".to_owned() };
        let bytes = self.ended.sent;
        // Writing to memory cannot fail.
        let _ = write!(
            out,
            "{} - - [{moment}] \"{method} {path} HTTP/1.1\" {status} {bytes}",
            self.client
        );
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.log.take(|out| self.write(out));
    }
}

#[derive(Serialize)]
struct Line<'l> {
    time: String,
    client: IpAddr,
    method: &'l str,
    host: &'l str,
    path: &'l str,
    status: Option<u16>,
    bytes: u64,
    bytes_received: u64,
    duration_us: u64,
    environment: &'l str,
    service: &'l str,
    version: Option<&'l str>,
    instance: Option<&'l str>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    retries: u32,
    assigned_by: Option<&'static str>,
    request_id: Option<&'l str>,
    trace_id: Option<&'l str>,
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Answered(_) => "answered",
        Outcome::ConnectFailed => "connect_failed",
        Outcome::Broken => "broken",
        Outcome::TimedOut => "timed_out",
        Outcome::ClientGone => "client_gone",
        Outcome::BreakerOpen => "breaker_open",
        Outcome::Dropped => "dropped",
        Outcome::Cut => "cut",
    }
}

fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::Only => "only",
        Reason::Coin => "coin",
        Reason::Cohort => "cohort",
        Reason::Preview => "preview",
        Reason::Named => "named",
        Reason::Rule => "rule",
    }
}

/// Clients choose these texts; a line has an end.
fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(ACCESS_LOG_TEXT_BYTES_MAX)].to_owned()
}

/// For between double quotes: nobody but us ends a field or a line.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => {
                // Writing to memory cannot fail.
                let _ = write!(quoted, "\\x{byte:02x}");
            }
            _ => quoted.push(char::from(byte)),
        }
    }
    quoted
}

/// A second of the calendar, in UTC.
struct Moment {
    year: u64,
    month: u64,
    day: u64,
    of_day: u64,
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Moment {
    /// So many seconds after 1970 began: Howard Hinnant's `civil_from_days`, for days after it.
    fn of(seconds: u64) -> Self {
        let days = seconds / 86_400 + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: year + 400 * era + u64::from(month <= 2),
            month,
            day: of_year - (153 * from_march + 2) / 5 + 1,
            of_day: seconds % 86_400,
        }
    }

    fn time(&self) -> String {
        let (hour, minute) = (self.of_day / 3_600, self.of_day / 60 % 60);
        format!("{hour:02}:{minute:02}:{:02}", self.of_day % 60)
    }

    fn date_time(&self) -> String {
        format!("{:04}-{:02}-{:02}T{}", self.year, self.month, self.day, self.time())
    }

    fn common(&self) -> String {
        let month = usize::try_from(self.month - 1).ok().and_then(|at| MONTHS.get(at));
        let month = month.copied().unwrap_or_default();
        format!("{:02}/{month}/{:04}:{} +0000", self.day, self.year, self.time())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_told_by_the_calendar() {
        for (seconds, date, common) in [
            (0, "1970-01-01T00:00:00", "01/Jan/1970:00:00:00 +0000"),
            (951_782_399, "2000-02-28T23:59:59", "28/Feb/2000:23:59:59 +0000"),
            (951_782_400, "2000-02-29T00:00:00", "29/Feb/2000:00:00:00 +0000"),
            (1_798_761_600, "2027-01-01T00:00:00", "01/Jan/2027:00:00:00 +0000"),
        ] {
            let moment = Moment::of(seconds);
            assert_eq!((moment.date_time(), moment.common()), (date.to_owned(), common.to_owned()));
        }
    }

    #[test]
    fn nobody_ends_a_field_or_a_line_from_outside() {
        assert_eq!(quoted("/a\"b\\c\nd\u{e9}"), "/a\\x22b\\x5cc\\x0ad\\xc3\\xa9");
        let long = "\u{e9}".repeat(ACCESS_LOG_TEXT_BYTES_MAX);
        assert!(shortened(&format!("x{long}")).len() < ACCESS_LOG_TEXT_BYTES_MAX);
    }
}
