//! What every source's adapter must do, however its source speaks.

#![allow(
    clippy::missing_panics_doc,
    clippy::wildcard_enum_match_arm,
    reason = "called by tests only; whatever else comes fails them"
)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use switchback_domain::Timestamp;
use switchback_domain::metric::{Answer, MetricSource};

use super::{Metrics, Question};

/// A source and a query.
pub type Place = (MetricSource, String);

/// Where the suite finds what it needs.
#[derive(Debug)]
pub struct Places {
    /// Holds the number 0.25.
    pub number: Place,
    /// Holds nothing.
    pub nothing: Place,
    /// Holds two numbers.
    pub several: Place,
    /// Holds NaN, where the source can say so.
    pub not_finite: Option<Place>,
    /// Holds a text.
    pub text: Place,
    /// The source refuses this.
    pub wrong: Place,
    /// Nobody listens there.
    pub dead: Place,
    /// Connects and never answers.
    pub slow: Place,
}

/// Longest answer that may be kept of a failure.
const DETAIL_BYTES_MAX: usize = 500;

/// Panics if the adapter does not conform.
pub async fn check(metrics: &dyn Metrics, places: &Places) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp::default() + now;
    let ask = async |(source, query): &Place| {
        let timeout = Duration::from_millis(500);
        let (source, query) = (source.clone(), query.clone());
        metrics.query(&Question { source, query, at: now, timeout }).await
    };
    for _ in 0..2 {
        match ask(&places.number).await {
            Answer::Number { value, at } => {
                assert!((value - 0.25).abs() < f64::EPSILON, "{value}");
                assert_eq!(at, now, "the number is about the moment asked for");
            }
            other => panic!("the number: {other:?}"),
        }
    }
    assert_eq!(ask(&places.nothing).await, Answer::NoData);
    assert_eq!(ask(&places.several).await, Answer::SeveralSeries(2));
    if let Some(place) = &places.not_finite {
        let answer = ask(place).await;
        let is_named = matches!(&answer, Answer::Number { value, .. } if value.is_nan());
        assert!(is_named, "NaN is told, not hidden: {answer:?}");
    }
    match ask(&places.text).await {
        Answer::NotANumber(found) => assert!(found.len() <= DETAIL_BYTES_MAX, "{found}"),
        other => panic!("a text: {other:?}"),
    }
    for place in [&places.wrong, &places.dead] {
        match ask(place).await {
            Answer::Failed(why) => {
                assert!(!why.is_empty() && why.len() <= DETAIL_BYTES_MAX, "{why}");
            }
            other => panic!("a failure: {other:?}"),
        }
    }
    assert_eq!(ask(&places.slow).await, Answer::TooLate);
}
