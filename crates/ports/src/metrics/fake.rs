//! A source in memory: answers as it was told to.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use switchback_domain::metric::Answer;

use super::{Metrics, Question};

/// Answers each query as it was told; others with nothing. Remembers what it was asked.
#[derive(Debug, Default)]
pub struct FakeMetrics {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    answers: BTreeMap<String, Answer>,
    asked: Vec<Question>,
}

impl FakeMetrics {
    /// From now on, a query is answered like this. A number is about the moment asked for.
    pub fn answer(&self, query: &str, answer: Answer) {
        self.locked(|state| state.answers.insert(query.to_owned(), answer));
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Question> {
        self.locked(|state| state.asked.clone())
    }

    fn locked<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        act(&mut state)
    }
}

#[async_trait]
impl Metrics for FakeMetrics {
    async fn query(&self, question: &Question) -> Answer {
        let answer = self.locked(|state| {
            state.asked.push(question.clone());
            state.answers.get(&question.query).cloned()
        });
        match answer {
            Some(Answer::Number { value, .. }) => Answer::Number { value, at: question.at },
            Some(other) => other,
            None => Answer::NoData,
        }
    }
}

#[cfg(test)]
mod tests {
    use switchback_domain::Timestamp;
    use switchback_domain::metric::MetricSource;

    use super::super::conformance::{Places, check};
    use super::*;

    #[tokio::test]
    async fn the_fake_conforms() {
        let metrics = FakeMetrics::default();
        let number = |value| Answer::Number { value, at: Timestamp::default() };
        metrics.answer("number", number(0.25));
        metrics.answer("nan", number(f64::NAN));
        metrics.answer("several", Answer::SeveralSeries(2));
        metrics.answer("text", Answer::NotANumber("high".to_owned()));
        metrics.answer("wrong", Answer::Failed("parse error".to_owned()));
        metrics.answer("dead", Answer::Failed("refused".to_owned()));
        metrics.answer("slow", Answer::TooLate);
        let at = |query: &str| (MetricSource::DataPlane, query.to_owned());
        let places = Places {
            number: at("number"),
            nothing: at("nothing"),
            several: at("several"),
            not_finite: Some(at("nan")),
            text: at("text"),
            wrong: at("wrong"),
            dead: at("dead"),
            slow: at("slow"),
        };
        check(&metrics, &places).await;
        assert_eq!(metrics.asked().len(), 9);
    }
}
