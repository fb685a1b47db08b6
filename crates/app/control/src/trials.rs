//! The exact tests of all rollouts, beside the driver's other state: fed from the data plane,
//! written to the journal, asked by the judge.

use switchback_analysis::Settings;
use switchback_api::{Problem, TrialRecord};
use switchback_domain::strategy::RolloutPolicy;
use switchback_domain::{ArmStats, Release, ServiceKey, Timestamp, Weight};
use switchback_engine::{Request, Rollout, RolloutId, Service};
use switchback_ports::data_plane::{Batches, Counted};

use crate::calls::unknown_rollout;
use crate::driver::Driver;
use crate::exact::{self, Begun, Exact};
use crate::judging;
use crate::problem::journal;

impl Driver {
    /// Feeds the tests of the rollouts that run. What was fed before is recognised by its number.
    pub(crate) fn counted(&mut self, batches: &Batches) {
        let (now, incarnation) = (self.now(), &batches.next.incarnation);
        for counted in &batches.batches {
            if let Some(exact) = self.exact_of(counted, now) {
                exact.feed(counted.batch(incarnation, now));
            }
        }
    }

    /// The test that a batch belongs to.
    fn exact_of(&mut self, counted: &Counted, now: Timestamp) -> Option<&mut Exact> {
        let key = &counted.trial.service;
        let service = self.book.services().get(key)?;
        let rollout = service.rollout.as_ref().filter(|rollout| {
            let is_its = *rollout.candidate() == counted.trial.candidate;
            is_its && rollout.request.id.to_string() == counted.trial.salt
        })?;
        let id = rollout.request.id;
        if self.exacts.get(key).is_none_or(|exact| exact.rollout != id) {
            let settings = settings(service, rollout, counted, now)?;
            let records = self.book.trial_of(id).ok()?;
            let none = ArmStats::default();
            let before = self.before.get(key).filter(|(of, _)| *of == id);
            let begun = Begun::new(id, settings, before.map_or(&none, |(_, stats)| stats), now);
            let exact = Exact::restore(id, &records).or_else(|| Exact::begin(id, begun).ok())?;
            self.exacts.insert(key.clone(), exact);
        }
        self.exacts.get_mut(key)
    }

    /// Remembers what the baselines did before their candidates got the first request: a test may
    /// not bet on what it has seen.
    pub(crate) fn remember_baselines(&mut self) {
        let Some(heard) = &self.heard else { return };
        for (key, service) in self.book.active() {
            let Some(rollout) = &service.rollout else { continue };
            let Some(baseline) = &rollout.baseline else { continue };
            let has_begun = service.weight_of(rollout.candidate()) != Weight::ZERO;
            if rollout.is_forward() && !has_begun {
                let stats = judging::arm(&heard.report, key, baseline);
                self.before.insert(key.clone(), (rollout.request.id, stats));
            }
        }
        let is_running = |key: &ServiceKey, id: RolloutId| {
            let rollout = self.book.services().get(key).and_then(|it| it.rollout.as_ref());
            rollout.is_some_and(|rollout| rollout.request.id == id)
        };
        self.before.retain(|key, (id, _)| is_running(key, *id));
    }

    /// Writes down what the tests were fed and have said, all of it in one write. A journal that
    /// takes nothing will be tried again: the tests go on in memory, and the data plane remembers,
    /// too.
    pub(crate) fn keep_trials(&mut self) {
        let now = self.now();
        let (mut records, mut ends) = (Vec::new(), Vec::new());
        for exact in self.exacts.values() {
            records.extend(exact.unwritten(now));
            ends.push(records.len());
        }
        if !records.is_empty() && self.book.note(&records).is_ok() {
            let mut from = 0;
            for (exact, end) in self.exacts.values_mut().zip(ends) {
                if from < end {
                    exact.written(&records[from..end]);
                }
                from = end;
            }
        }
        let services = self.book.services();
        self.exacts.retain(|key, exact| {
            let rollout = services.get(key).and_then(|service| service.rollout.as_ref());
            rollout.is_some_and(|rollout| rollout.request.id == exact.rollout)
        });
    }

    /// Everything written about a rollout's tests.
    pub(crate) fn trials_of(&mut self, id: RolloutId) -> Result<Vec<TrialRecord>, Problem> {
        self.book.service_of(id).ok_or_else(|| unknown_rollout(id))?;
        let records = self.book.trial_of(id).map_err(|error| journal(&error))?;
        Ok(exact::tell(id, &records))
    }
}

/// What the candidate is held against; `None` if it is not to be tested.
fn settings(
    service: &Service,
    rollout: &Rollout,
    counted: &Counted,
    now: Timestamp,
) -> Option<Settings> {
    let Request { policy, release, .. } = &*rollout.request;
    let replicas = service.pool(rollout.candidate()).desired;
    Some(Settings {
        cap_age: std::time::Duration::from_millis(counted.cap_age_ms),
        latency_from: now + policy.exact_test.as_ref()?.warm_up,
        ..settings_of(policy, release, replicas)?
    })
}

/// The same for a candidate of so many replicas, as far as it is known before the first request.
pub(crate) fn settings_of(
    policy: &RolloutPolicy,
    release: &Release,
    replicas: u32,
) -> Option<Settings> {
    let rules = policy.exact_test_of_requests()?;
    let slack = match rules.latency_tolerance {
        Some(points) => switchback_analysis::label::bins::Slack::from_basis_points(points),
        None => Settings::slack_for(replicas),
    };
    let route = release.workload.route.as_ref();
    Some(Settings {
        alpha: rules.alpha,
        error_ratio: rules.error_ratio,
        slack,
        latency_nats_per_second: rules.nats_per_second,
        sticky: route.is_some_and(|route| route.rules.affinity.is_some()),
        ..Settings::default()
    })
}
