//! Asking metric sources: Prometheus, JSON documents, whatever else knows a number. Not here: what
//! to make of the numbers.

pub mod conformance;
pub mod fake;

use std::time::Duration;

use async_trait::async_trait;
use switchback_domain::Timestamp;
use switchback_domain::metric::{Answer, MetricSource};

/// One query to one source, templates filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Whom.
    pub source: MetricSource,
    /// What, in the source's language.
    pub query: String,
    /// The moment the number is to be about, by our wall clock.
    pub at: Timestamp,
    /// After this the answer is no use any more.
    pub timeout: Duration,
}

/// Asks metric sources.
#[async_trait]
pub trait Metrics: Send + Sync {
    /// Asks once. Never fails and always answers within the timeout (and a moment): what goes
    /// wrong is the answer. No answer holds more than a few hundred bytes, nor a secret.
    async fn query(&self, question: &Question) -> Answer;
}
