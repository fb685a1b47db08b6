//! How a route copes with instances that are slow or fail, and with more requests than it can
//! take. Data only: `core/config` makes it, `core/resilience` decides by it.
//!
//! Everything here may be left out, in stored records too. What is left out is off, but for
//! [`Balance`], which has good defaults.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Weight;

/// All of it, for one route. The default does nothing but balance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resilience {
    /// How long each phase of a request may take, beside the time to the response head.
    #[serde(skip_serializing_if = "Timeouts::is_default")]
    pub timeouts: Timeouts,
    /// Which instance of a version is asked.
    #[serde(skip_serializing_if = "Balance::is_default")]
    pub balance: Balance,
    /// When a version is not asked any more for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerPolicy>,
    /// How many requests are let in at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bulkhead: Option<Bulkhead>,
    /// The same, found by watching response times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptivePolicy>,
    /// How fast requests are let in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// The same for each client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_rate: Option<ClientRate>,
    /// Which failed attempts are repeated, beside those that never left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<RetryPolicy>,
    /// What clients get when nobody answers.
    #[serde(skip_serializing_if = "Fallback::is_none")]
    pub fallback: Fallback,
}

/// How long each phase of a request may take. `None` is the data plane's own limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Timeouts {
    /// Opening a connection to an instance.
    #[serde(skip_serializing_if = "Option::is_none", with = "maybe_millis", rename = "connect_ms")]
    pub connect: Option<Duration>,
    /// A pause of a client that uploads.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "maybe_millis",
        rename = "request_idle_ms"
    )]
    pub request_idle: Option<Duration>,
    /// A pause of an instance that answers.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "maybe_millis",
        rename = "response_idle_ms"
    )]
    pub response_idle: Option<Duration>,
    /// The whole request, from its head to the end of its answer.
    #[serde(skip_serializing_if = "Option::is_none", with = "maybe_millis", rename = "total_ms")]
    pub total: Option<Duration>,
}

impl Timeouts {
    /// Whether every limit is the data plane's own.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Which instance of a version is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Balance {
    /// How long a new instance gets fewer requests than the others; zero is not at all.
    #[serde(with = "crate::time::millis", rename = "slow_start_ms")]
    pub slow_start: Duration,
    /// When an instance is passed over; `None` is never. Written also when it is `None`, which is
    /// not the default.
    pub ejection: Option<EjectionPolicy>,
}

impl Default for Balance {
    fn default() -> Self {
        Self { slow_start: Duration::from_secs(30), ejection: Some(EjectionPolicy::default()) }
    }
}

impl Balance {
    /// Whether nothing else was asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// When an instance is passed over, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EjectionPolicy {
    /// So many failures in a row: answers with 5xx, or none.
    pub failures: u32,
    /// How long; times the number of ejections so far.
    #[serde(with = "crate::time::millis", rename = "base_ms")]
    pub base: Duration,
}

impl Default for EjectionPolicy {
    fn default() -> Self {
        Self { failures: 5, base: Duration::from_secs(30) }
    }
}

/// When a version is not asked any more for a while: so many failures in a row, or too few good
/// answers in ten seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BreakerPolicy {
    /// Failures in a row.
    pub failures: u32,
    /// The least share of good answers.
    pub success_min: Weight,
    /// Below so many requests in ten seconds the share says nothing.
    pub requests_min: u32,
    /// How long it rests the first time; doubled with each relapse.
    #[serde(with = "crate::time::millis", rename = "open_ms")]
    pub open: Duration,
    /// The longest rest.
    #[serde(with = "crate::time::millis", rename = "open_max_ms")]
    pub open_max: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            failures: 7,
            success_min: Weight::from_percent(50),
            requests_min: 20,
            open: Duration::from_secs(1),
            open_max: Duration::from_mins(1),
        }
    }
}

/// How many requests of a service are let in at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bulkhead {
    /// On their way at once.
    pub requests: u32,
    /// Waiting for one of these to end; more get 503 at once.
    pub pending: u32,
    /// How long one waits at most.
    #[serde(with = "crate::time::millis", rename = "pending_ms")]
    pub pending_timeout: Duration,
}

/// A limit of requests at once that follows response times (Netflix's Gradient2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdaptivePolicy {
    /// Where it begins.
    pub initial: u32,
    /// How low it may fall.
    pub min: u32,
    /// How high it may rise.
    pub max: u32,
}

impl Default for AdaptivePolicy {
    fn default() -> Self {
        Self { initial: 20, min: 20, max: 200 }
    }
}

/// So many requests in so much time; at least one request, a millisecond and a burst of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Requests.
    pub requests: u32,
    /// In this time.
    #[serde(with = "crate::time::millis", rename = "per_ms")]
    pub per: Duration,
    /// How many may come at once.
    pub burst: u32,
}

/// A rate for each client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRate {
    /// How fast.
    pub rate: Rate,
    /// What tells clients apart.
    pub key: ClientKey,
}

/// What tells clients apart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientKey {
    /// Their address.
    #[default]
    Address,
    /// A header, by its name in lower case; clients without it are told apart by their address.
    Header(String),
}

/// Which failed attempts are repeated. Only requests that may reach an instance twice without
/// harm: idempotent and without a body, and no byte of an answer was passed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryPolicy {
    /// Repetitions of one request.
    pub attempts: u32,
    /// Answers with these statuses are failures too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<u16>,
    /// Repetitions as a share of requests.
    pub budget: Weight,
    /// Repetitions in a second that are allowed beside that.
    pub per_second_min: u32,
    /// The longest pause before the first repetition; doubled with each.
    #[serde(with = "crate::time::millis", rename = "backoff_ms")]
    pub backoff: Duration,
    /// The longest pause of all.
    #[serde(with = "crate::time::millis", rename = "backoff_max_ms")]
    pub backoff_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 2,
            statuses: Vec::new(),
            budget: Weight::from_percent(20),
            per_second_min: 10,
            backoff: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
        }
    }
}

/// What clients get when nobody answers; the first of these that can be had.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Fallback {
    /// An answer of the baseline, when the candidate cannot be asked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub version: bool,
    /// The last good answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<StalePolicy>,
    /// Always the same answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<StaticAnswer>,
}

impl Fallback {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How long and how much of good answers is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StalePolicy {
    /// No older answer is given.
    #[serde(with = "crate::time::millis", rename = "max_age_ms")]
    pub max_age: Duration,
    /// Bytes kept for the route.
    pub bytes: u32,
}

impl Default for StalePolicy {
    fn default() -> Self {
        Self { max_age: Duration::from_mins(5), bytes: 1 << 20 }
    }
}

/// An answer that is always the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticAnswer {
    /// Its status, 200 to 599.
    pub status: u16,
    /// Its body.
    pub body: String,
    /// Its content type.
    pub content_type: String,
}

/// Serde for a [`Duration`] that may be absent, as whole milliseconds.
mod maybe_millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        duration
            .map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
            .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_nothing_is_written_as_nothing() {
        assert_eq!(serde_json::to_string(&Resilience::default()).unwrap(), "{}");
        assert_eq!(serde_json::from_str::<Resilience>("{}").unwrap(), Resilience::default());
    }

    #[test]
    fn all_of_it_survives_being_stored() {
        let rate = Rate { requests: 10, per: Duration::from_secs(1), burst: 5 };
        let answer =
            StaticAnswer { status: 200, body: "[]".to_owned(), content_type: "x/y".to_owned() };
        let all = Resilience {
            timeouts: Timeouts { total: Some(Duration::from_secs(9)), ..Timeouts::default() },
            balance: Balance { slow_start: Duration::ZERO, ejection: None },
            breaker: Some(BreakerPolicy::default()),
            bulkhead: Some(Bulkhead {
                requests: 1,
                pending: 2,
                pending_timeout: Duration::from_millis(3),
            }),
            adaptive: Some(AdaptivePolicy::default()),
            rate: Some(rate),
            client_rate: Some(ClientRate { rate, key: ClientKey::Header("x-key".to_owned()) }),
            retries: Some(RetryPolicy { statuses: vec![503], ..RetryPolicy::default() }),
            fallback: Fallback {
                version: true,
                stale: Some(StalePolicy::default()),
                answer: Some(answer),
            },
        };
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Resilience>(&text).unwrap(), all, "{text}");
    }
}
