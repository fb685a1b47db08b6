//! Metric sources over HTTP: one file per kind. What the data plane counts is not asked here: the
//! control plane has it already.

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod json;
mod prometheus;

use async_trait::async_trait;
use switchback_domain::metric::{Answer, MetricSource};
use switchback_ports::Metrics;
use switchback_ports::metrics::Question;

/// Longest text of a source that is passed on, in characters.
const SHOWN_MAX: usize = 100;

/// Asks sources over HTTP/1.1, one connection per question: a dead source leaves nothing behind.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpMetrics;

#[async_trait]
impl Metrics for HttpMetrics {
    async fn query(&self, question: &Question) -> Answer {
        let answer = async {
            match &question.source {
                MetricSource::DataPlane => {
                    Answer::Failed("the data plane's figures are not asked for over HTTP".into())
                }
                MetricSource::Prometheus(endpoint) => {
                    prometheus::ask(endpoint, &question.query, question.at).await
                }
                MetricSource::Json(endpoint) => {
                    json::ask(endpoint, &question.query, question.at).await
                }
            }
        };
        tokio::time::timeout(question.timeout, answer).await.unwrap_or(Answer::TooLate)
    }
}

/// The beginning of a source's words on one line.
fn shown(text: &str) -> String {
    switchback_http::shown(text, SHOWN_MAX)
}
