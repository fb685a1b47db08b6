//! The metrics of a rollout: which are to be asked for now, what became of those that were, and
//! what they say to the verdict. Whom to ask how is the adapters'.

use std::time::Duration;

use switchback_analysis::metric::{Judgement, Metric};
use switchback_domain::metric::{Answer, MetricQueries, MetricSource, MetricSpec};
use switchback_domain::template::{Variables, render};
use switchback_domain::trigger::{Thresholds, Triggers};
use switchback_domain::{ArmStats, Outcome, ServiceKey, Timestamp, Verdict, Version};
use switchback_engine::{Command, EventKind, Rollout, RolloutId, Service};
use switchback_ports::data_plane::Report;

use crate::clock;
use crate::driver::Driver;
use crate::judging::{self, Trial};
use crate::order::Order;

/// Answers are waited for as long as an interval, within these bounds.
const TIMEOUT_MIN: Duration = Duration::from_secs(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// A metric of one rollout: of all of it, or of the step at a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricId {
    rollout: RolloutId,
    position: Option<usize>,
    name: String,
}

/// The metrics of a rollout that are watched now.
pub(crate) struct Watch {
    rollout: RolloutId,
    watched: Vec<Watched>,
}

struct Watched {
    position: Option<usize>,
    metric: Metric,
    asked: Option<Timestamp>,
    is_waiting: bool,
    before: Option<Figures>,
}

/// What the data plane had counted at the last measurement.
struct Figures {
    incarnation: String,
    candidate: ArmStats,
    baseline: Option<ArmStats>,
}

impl Watch {
    /// Begins with the metrics of the whole rollout.
    pub(crate) fn new(rollout: RolloutId, triggers: &Triggers, now: Timestamp) -> Self {
        let watched = triggers.metrics.iter().map(|spec| Watched::new(None, spec, now)).collect();
        Self { rollout, watched }
    }

    /// The same, in a step.
    pub(crate) fn with(
        mut self,
        position: usize,
        step: Option<&Thresholds>,
        now: Timestamp,
    ) -> Self {
        self.enter(position, step, now);
        self
    }

    /// Goes on to another step, or to none.
    pub(crate) fn enter(&mut self, position: usize, step: Option<&Thresholds>, now: Timestamp) {
        self.watched.retain(|watched| watched.position.is_none());
        let specs = step.map(|step| step.metrics.as_slice()).unwrap_or_default();
        self.watched.extend(specs.iter().map(|spec| Watched::new(Some(position), spec, now)));
    }

    /// Takes what a source said; answers about what is not watched any more are nobody's.
    pub(crate) fn answered(
        &mut self,
        id: &MetricId,
        now: Timestamp,
        asked_at: Timestamp,
        answers: &[Answer],
    ) {
        if id.rollout != self.rollout {
            return;
        }
        let mut watched = self.watched.iter_mut();
        let is_it =
            |it: &&mut Watched| it.position == id.position && it.metric.spec().name == id.name;
        if let Some(watched) = watched.find(is_it) {
            watched.is_waiting = false;
            watched.metric.take(now, asked_at, answers);
        }
    }

    /// The verdict with what the metrics say. Any may take the candidate back, any may hold a
    /// step, and none is a reason to go on by itself.
    pub(crate) fn joined(&self, verdict: Verdict, now: Timestamp) -> Verdict {
        let mut said: Vec<Judgement> =
            self.watched.iter().map(|watched| watched.metric.judge(now)).collect();
        // What decides is named first; dry runs come last.
        said.sort_by_key(|it| (!it.holds, it.finding.outcome != Outcome::Regressed));
        let regressed = said.iter().any(|it| it.finding.outcome == Outcome::Regressed);
        let holds = said.iter().any(|it| it.holds);
        let outcome = match verdict.outcome {
            Outcome::Regressed => Outcome::Regressed,
            Outcome::Safe | Outcome::Undecided if regressed => Outcome::Regressed,
            Outcome::Safe if holds => Outcome::Undecided,
            Outcome::Safe | Outcome::Undecided => verdict.outcome,
        };
        let decides = outcome != verdict.outcome;
        let said = said.into_iter().map(|it| it.finding);
        let findings = if decides {
            said.chain(verdict.findings).collect()
        } else {
            verdict.findings.into_iter().chain(said).collect()
        };
        Verdict { outcome, findings, ..verdict }
    }

    /// Why somebody is to be asked, if so; they are asked once.
    pub(crate) fn asks(&mut self, now: Timestamp) -> Option<String> {
        let mut reason = None;
        for watched in &mut self.watched {
            let judgement = watched.metric.judge(now);
            if judgement.asks {
                watched.metric.asked();
                reason.get_or_insert(judgement.finding.summary);
            }
        }
        reason
    }
}

impl Watched {
    fn new(position: Option<usize>, spec: &MetricSpec, now: Timestamp) -> Self {
        let metric = Metric::new(spec.clone(), now);
        Self { position, metric, asked: None, is_waiting: false, before: None }
    }

    /// What the data plane counted since the last measurement; the first one only begins.
    fn figures(&mut self, query: &str, now: Figures, at: Timestamp) -> Option<[Answer; 2]> {
        let earlier = self.before.replace(now)?;
        let now = self.before.as_ref()?;
        if earlier.incarnation != now.incarnation {
            let began = || Answer::Failed("the data plane began anew".to_owned());
            return Some([began(), began()]);
        }
        let answer = |now: Option<&ArmStats>, earlier: Option<&ArmStats>| {
            let value = now.zip(earlier).and_then(|(now, then)| figure(query, &now.since(then)));
            value.map_or(Answer::NoData, |value| Answer::Number { value, at })
        };
        Some([
            answer(Some(&now.candidate), Some(&earlier.candidate)),
            answer(now.baseline.as_ref(), earlier.baseline.as_ref()),
        ])
    }
}

/// One of the data plane's figures; `None` without requests to tell it from.
#[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn figure(name: &str, stats: &ArmStats) -> Option<f64> {
    let quantile = |share| stats.latency.quantile(share).map(|micros| micros as f64 / 1e6);
    match name {
        "error_rate" => stats.error_rate(),
        "success_rate" => stats.error_rate().map(|rate| 1.0 - rate),
        "requests" => Some(stats.finished() as f64),
        "latency_mean" => stats.latency.mean().map(|micros| micros / 1e6),
        "latency_p50" => quantile(0.50),
        "latency_p95" => quantile(0.95),
        "latency_p99" => quantile(0.99),
        _ => None,
    }
}

impl Driver {
    /// Has the metrics asked for that are due.
    pub(crate) fn ask_metrics(
        &mut self,
        service: &Service,
        rollout: &Rollout,
        trial: &mut Trial,
        now: Timestamp,
    ) {
        let Some(heard) = &self.heard else { return };
        let project = self.settings.project.as_str();
        for watched in &mut trial.watch.watched {
            if watched.is_waiting || watched.metric.due(watched.asked) > now {
                continue;
            }
            watched.asked = Some(now);
            let spec = watched.metric.spec();
            if let (MetricSource::DataPlane, MetricQueries::Number { candidate, .. }) =
                (&spec.source, &spec.queries)
            {
                let query = candidate.clone();
                let wall = Timestamp::from_millis(clock::wall_ms());
                let figures = figures(&heard.report, service, rollout);
                if let Some(answers) = watched.figures(&query, figures, wall) {
                    watched.metric.take(now, wall, &answers);
                }
                continue;
            }
            watched.is_waiting = true;
            let texts = Texts { service, rollout, project };
            let position = watched.position;
            let id = MetricId { rollout: rollout.request.id, position, name: spec.name.clone() };
            self.orders.push(Order::AskMetric {
                key: service.key.clone(),
                id,
                source: texts.source(&spec.source),
                queries: texts.queries(&spec.queries),
                timeout: spec.interval.clamp(TIMEOUT_MIN, TIMEOUT_MAX),
            });
        }
    }

    /// Pauses a rollout whose numbers do not come, so that somebody decides.
    pub(crate) fn ask_somebody(&mut self, key: &ServiceKey, reason: String) {
        let by = "on_insufficient".to_owned();
        let command = Command::Pause { by, reason: Some(reason) };
        self.apply(key, EventKind::Commanded(command));
    }
}

fn figures(report: &Report, service: &Service, rollout: &Rollout) -> Figures {
    let arm = |release| judging::arm(report, &service.key, release);
    Figures {
        incarnation: report.incarnation.clone(),
        candidate: arm(rollout.candidate()),
        baseline: rollout.baseline.as_ref().map(arm),
    }
}

/// Fills in what queries and addresses leave open.
struct Texts<'a> {
    service: &'a Service,
    rollout: &'a Rollout,
    project: &'a str,
}

impl Texts<'_> {
    fn render(&self, text: &str, version: &Version) -> String {
        let variables = Variables::from([
            ("version", version.to_string()),
            ("environment", self.service.key.environment.to_string()),
            ("service", self.service.key.service.to_string()),
            ("project", self.project.to_owned()),
            ("rollout", self.rollout.request.id.to_string()),
        ]);
        render(text, &variables)
    }

    fn candidate(&self, text: &str) -> String {
        self.render(text, &self.rollout.request.release.version)
    }

    /// Of the version that serves now; of none, which no source knows, where there is none.
    fn baseline(&self, text: &str) -> Option<String> {
        let release = self.service.releases.get(self.rollout.baseline.as_ref()?)?;
        Some(self.render(text, &release.version))
    }

    /// Addresses are the candidate's.
    fn source(&self, source: &MetricSource) -> MetricSource {
        let mut source = source.clone();
        match &mut source {
            MetricSource::DataPlane => {}
            MetricSource::Prometheus(endpoint) | MetricSource::Json(endpoint) => {
                endpoint.url = self.candidate(&endpoint.url);
            }
        }
        source
    }

    /// Without a baseline its queries are left out: what compares with it then holds.
    fn queries(&self, queries: &MetricQueries) -> Vec<String> {
        match queries {
            MetricQueries::Number { candidate, baseline } => {
                let baseline = baseline.as_deref().and_then(|text| self.baseline(text));
                std::iter::once(self.candidate(candidate)).chain(baseline).collect()
            }
            MetricQueries::Counters { numerator, denominator } => {
                let both = [numerator, denominator];
                let candidate = both.map(|text| Some(self.candidate(text)));
                let baseline = both.map(|text| self.baseline(text));
                candidate.into_iter().chain(baseline).flatten().collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use switchback_domain::condition::Condition;
    use switchback_domain::metric::{MetricRule, OnInsufficient};

    use super::*;
    use crate::testing::said;

    const ROLLOUT: RolloutId = RolloutId(7);
    const START: Timestamp = Timestamp::from_millis(1_000_000);

    fn spec(name: &str, dry_run: bool) -> MetricSpec {
        let success = Condition::parse("result < 1").ok();
        MetricSpec {
            name: name.to_owned(),
            source: MetricSource::DataPlane,
            queries: MetricQueries::Number { candidate: "error_rate".to_owned(), baseline: None },
            rule: MetricRule::Conditions { success, failure: None },
            interval: Duration::from_secs(10),
            initial_delay: Duration::ZERO,
            failure_limit: 0,
            consecutive_error_limit: 0,
            inconclusive_limit: 0,
            dry_run,
            critical: true,
            on_insufficient: OnInsufficient::Ask,
        }
    }

    fn watch(specs: &[MetricSpec]) -> Watch {
        let triggers = Triggers { metrics: specs.to_vec(), ..Triggers::default() };
        Watch::new(ROLLOUT, &triggers, START)
    }

    fn hear(watch: &mut Watch, name: &str, position: Option<usize>, answer: Answer) {
        let id = MetricId { rollout: ROLLOUT, position, name: name.to_owned() };
        let at = watch.watched.iter().filter_map(|it| it.asked).max().unwrap_or(START);
        watch.answered(&id, START, at, &[answer]);
    }

    fn number(value: f64) -> Answer {
        Answer::Number { value, at: START }
    }

    #[test]
    fn a_metric_takes_back_and_holds_and_never_passes_what_the_rules_do_not() {
        use Outcome::{Regressed, Safe, Undecided};
        for (answer, rules, outcome, first) in [
            (None, Safe, Undecided, "metric.a"),
            (Some(Answer::TooLate), Safe, Undecided, "metric.a"),
            (Some(number(0.5)), Safe, Safe, "error_rate"),
            (Some(number(0.5)), Undecided, Undecided, "error_rate"),
            (Some(number(1.5)), Safe, Regressed, "metric.a"),
            (Some(number(1.5)), Undecided, Regressed, "metric.a"),
            (Some(number(0.5)), Regressed, Regressed, "error_rate"),
        ] {
            let mut watch = watch(&[spec("a", false)]);
            if let Some(answer) = answer.clone() {
                hear(&mut watch, "a", None, answer);
            }
            let joined = watch.joined(said(rules, "error_rate"), START);
            assert_eq!(joined.outcome, outcome, "{answer:?} {rules:?}");
            assert_eq!(joined.findings[0].rule, first, "{answer:?} {rules:?}");
            assert_eq!(joined.findings.len(), 2);
        }
    }

    #[test]
    fn a_dry_run_is_told_and_decides_nothing() {
        let mut watch = watch(&[spec("a", true)]);
        hear(&mut watch, "a", None, number(5.0));
        let joined = watch.joined(said(Outcome::Safe, "error_rate"), START);
        assert_eq!((joined.outcome, joined.findings.len()), (Outcome::Safe, 2));
        assert!(joined.cause().is_none() && joined.findings[1].summary.starts_with("dry run"));
        assert_eq!(watch.asks(START), None);
    }

    #[test]
    fn a_step_has_its_own_metrics_and_answers_to_others_are_nobodys() {
        let mut watch = watch(&[]);
        let thresholds = Thresholds {
            success_rate_min: None,
            error_rate_max: None,
            latency_p95_max: None,
            latency_p99_max: None,
            latency_ratio_max: None,
            samples_min: 1,
            metrics: vec![spec("a", false)],
        };
        watch.enter(3, Some(&thresholds), START);
        hear(&mut watch, "a", None, number(0.5));
        hear(&mut watch, "a", Some(2), number(0.5));
        assert_eq!(
            watch.joined(said(Outcome::Safe, "error_rate"), START).outcome,
            Outcome::Undecided
        );
        hear(&mut watch, "a", Some(3), number(0.5));
        assert_eq!(watch.joined(said(Outcome::Safe, "error_rate"), START).outcome, Outcome::Safe);
        watch.enter(4, None, START);
        assert_eq!(watch.joined(said(Outcome::Safe, "error_rate"), START).findings.len(), 1);
    }

    #[test]
    fn somebody_is_asked_once() {
        let mut watch = watch(&[spec("a", false)]);
        hear(&mut watch, "a", None, Answer::NoData);
        assert!(watch.asks(START).is_some_and(|reason| reason.contains("returned nothing")));
        assert_eq!(watch.asks(START), None);
    }

    #[test]
    fn the_data_planes_figures_are_those_since_the_last_measurement() {
        let mut watched = Watched::new(None, &spec("a", false), START);
        let figures = |good: u64, bad: u64, incarnation: &str| {
            let arm = |bad| {
                let mut stats = ArmStats { accepted: good + bad, ..ArmStats::default() };
                (stats.responses[1], stats.responses[4]) = (good, bad);
                stats
            };
            let incarnation = incarnation.to_owned();
            Figures { incarnation, candidate: arm(bad), baseline: Some(arm(0)) }
        };
        assert_eq!(watched.figures("error_rate", figures(50, 50, "one"), START), None);
        let later = watched.figures("error_rate", figures(140, 60, "one"), START);
        assert_eq!(later, Some([0.1, 0.0].map(number)));
        let none = watched.figures("error_rate", figures(140, 60, "one"), START);
        assert_eq!(none, Some([Answer::NoData, Answer::NoData]), "no request is no number");
        let other = watched.figures("error_rate", figures(10, 0, "two"), START);
        assert!(other.is_some_and(|[answer, _]| matches!(answer, Answer::Failed(_))));
    }
}
