//! Runs that see every request: ours, as it stands in the product.

use std::time::Duration;

use switchback_analysis::label::errors::ErrorCounts;
use switchback_analysis::sticky::SeenSessions;
use switchback_analysis::{ArmBatch, Batch, Settings, Trial};
use switchback_domain::{Timestamp, Weight};

use crate::arm::{Drawn, Draws};
use crate::random::Random;
use crate::scenario::{Moment, Prepared, State, Sticky};
use crate::tally::Ending;

/// Requests in the first groups, about.
const GROUP: f64 = 20.0;
/// The first groups take between these.
const FIRST_MILLIS: [u64; 2] = [5, 1000];
/// The product's tick: decisions are made then.
const TICK_MILLIS: u64 = 100;

/// A run of a prepared scenario.
pub struct Run<'a> {
    prepared: &'a Prepared<'a>,
    state: State,
    random: Random,
    draws: &'a mut Draws,
    first_millis: u64,
    /// Groups never get longer.
    is_steady: bool,
    millis: u64,
    sessions: Sessions,
}

/// Errors of sticky sessions that are still to come.
struct Sessions {
    sticky: Option<Sticky>,
    seen: [SeenSessions; 2],
    open: Vec<(u64, bool, u32)>,
    next: u64,
}

/// What came of a group of requests.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// The candidate's share.
    pub weight: Weight,
    /// The candidate's requests, by replica.
    pub candidate: Vec<Drawn>,
    /// The baseline's requests.
    pub baseline: Drawn,
    /// Errors of sessions, candidate's and baseline's.
    pub session_errors: [u64; 2],
}

impl Group {
    fn candidate_failed(&self) -> u64 {
        let failed: u64 = self.candidate.iter().map(|drawn| drawn.failed + drawn.hung).sum();
        failed + self.session_errors[0]
    }

    fn arm(drawn: &[Drawn], session_errors: u64) -> ArmBatch {
        let mut arm = ArmBatch { failed_answers: session_errors, ..ArmBatch::default() };
        for drawn in drawn {
            arm.unfinished += drawn.hung;
            arm.failed_answers += drawn.failed;
            for (micros, count) in &drawn.latencies {
                arm.latency.record_many(*micros, u64::from(*count));
            }
        }
        arm
    }

    /// Milliseconds after its last arrival until all of it has ended.
    fn lasts(&self, cap: u64) -> u64 {
        let all = || self.candidate.iter().chain([&self.baseline]);
        if all().any(|drawn| drawn.hung > 0) {
            return cap;
        }
        (all().map(Drawn::slowest).max().unwrap_or_default() / 1000).min(cap)
    }
}

impl<'a> Run<'a> {
    /// The start of a run.
    pub fn new(prepared: &'a Prepared<'a>, draws: &'a mut Draws, seed: u64, run: u64) -> Self {
        let scenario = prepared.scenario;
        let first = (GROUP / scenario.rate * 1000.0) as u64;
        Self {
            state: State::new(seed, &scenario.name, run),
            random: Random::new(seed, &scenario.name, run),
            draws,
            first_millis: first.clamp(FIRST_MILLIS[0], FIRST_MILLIS[1]),
            is_steady: false,
            millis: 0,
            sessions: Sessions {
                sticky: scenario.sticky,
                seen: [SeenSessions::new(1), SeenSessions::new(1)],
                open: Vec::new(),
                next: 0,
            },
            prepared,
        }
    }

    /// The same in groups of so many milliseconds from beginning to end, as the data plane makes
    /// them.
    #[must_use]
    pub fn in_cohorts(self, millis: u64) -> Self {
        Self { first_millis: millis, is_steady: true, ..self }
    }

    /// Milliseconds so far.
    pub fn millis(&self) -> u64 {
        self.millis
    }

    /// Lets the next requests come.
    pub fn next(&mut self, group: &mut Group) {
        let mut length = self.first_millis;
        let scenario = self.prepared.scenario;
        let (most, part) = (scenario.group_millis_max, scenario.group_part);
        while !self.is_steady && length * 2 * part <= self.millis && length * 2 <= most {
            length *= 2;
        }
        let (at, span) = (self.millis as f64 / 1000.0, length as f64 / 1000.0);
        let moment = self.prepared.scenario.moment(&mut self.state, at, span);
        self.draw(&moment, span, group);
        group.session_errors = self.sessions.errors(
            &mut self.random,
            self.millis,
            span * self.prepared.scenario.rate,
            &moment,
            self.prepared.baseline[moment.baseline].fails(),
        );
        if self.sessions.sticky.is_some() {
            group.baseline.failed = 0;
            group.candidate.iter_mut().for_each(|drawn| drawn.failed = 0);
        }
        self.millis += length;
    }

    fn draw(&mut self, moment: &Moment, span: f64, group: &mut Group) {
        group.weight = moment.weight;
        let share = f64::from(moment.weight.basis_points()) / 10_000.0;
        let requests = self.prepared.scenario.rate * moment.rate * span;
        let baseline = &self.prepared.baseline[moment.baseline];
        let (random, mean) = (&mut self.random, requests * (1.0 - share));
        self.draws.some(random, moment.baseline, baseline, mean, &mut group.baseline);
        group.candidate.resize_with(moment.replicas, Drawn::default);
        let mean = requests * share / moment.replicas as f64;
        for (drawn, version) in group.candidate.iter_mut().zip(moment.candidate) {
            let ready = &self.prepared.candidate[version];
            self.draws.some(random, 1000 + version, ready, mean, drawn);
        }
    }
}

impl Sessions {
    /// Errors of this group: bad sessions begin, and those that began go on, one error each two
    /// seconds.
    fn errors(
        &mut self,
        random: &mut Random,
        millis: u64,
        requests: f64,
        moment: &Moment,
        fails: f64,
    ) -> [u64; 2] {
        let Some(sticky) = self.sticky else { return [0, 0] };
        let share = f64::from(moment.weight.basis_points()) / 10_000.0;
        for _ in 0..random.poisson(requests * fails / f64::from(sticky.errors)) {
            self.next += 1;
            let is_candidate = random.chance(share);
            // The session's key; the time of its next error rides along.
            self.open.push((self.next | millis << 32, is_candidate, 0));
        }
        let mut errors = [0, 0];
        let seen = &mut self.seen;
        self.open.retain_mut(|(session, is_candidate, count)| {
            let due = (*session >> 32) + 2000 * u64::from(*count);
            if due > millis {
                return true;
            }
            *count += 1;
            let arm = usize::from(!*is_candidate);
            if !sticky.by_session || seen[arm].is_first(*session & 0xffff_ffff) {
                errors[arm] += 1;
            }
            *count < sticky.errors
        });
        errors
    }
}

/// How the judge is set in a run.
#[derive(Debug, Clone)]
pub struct Ours {
    /// Settings; cap age and slack are overridden by the scenario's unless fixed.
    pub settings: Settings,
    /// Keep the slack as it is in the settings.
    pub keeps_slack: bool,
    /// A candidate's failed request is counted so many times: 1.
    pub counts_failures: u64,
    /// The share that the judge is told, as a part of the true one: 1.
    pub told_share: f64,
}

impl Default for Ours {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            keeps_slack: false,
            counts_failures: 1,
            told_share: 1.0,
        }
    }
}

impl Ours {
    /// A trial of this scenario.
    ///
    /// # Panics
    ///
    /// If the settings mean nothing.
    pub fn trial(&self, prepared: &Prepared<'_>) -> Trial {
        let scenario = prepared.scenario;
        let start = Timestamp::from_millis(0);
        let mut settings = self.settings.clone();
        settings.cap_age = Settings::cap_age_for(&prepared.history);
        if !self.keeps_slack {
            settings.slack = Settings::slack_for(scenario.replicas);
        }
        if scenario.warm_up > 0 {
            settings.latency_from = start + Duration::from_secs(scenario.warm_up);
        }
        let usual = ErrorCounts {
            baseline_requests: 1_000_000,
            baseline_failed: (1e6 * prepared.baseline[0].fails()) as u64,
            ..ErrorCounts::default()
        };
        Trial::new(settings, &prepared.history, usual, start)
            .expect("the bench's settings are within the judge's limits")
    }

    pub(crate) fn batch(&self, group: &Group, at: u64, sequence: u64) -> Batch {
        let mut candidate = Group::arm(&group.candidate, group.session_errors[0]);
        candidate.failed_answers *= self.counts_failures;
        let baseline = Group::arm(std::slice::from_ref(&group.baseline), group.session_errors[1]);
        let told = f64::from(group.weight.basis_points()) * self.told_share;
        Batch {
            at: Timestamp::from_millis(at),
            source: String::new(),
            sequence,
            weight: Weight::from_basis_points(libm::round(told) as u16).unwrap_or(group.weight),
            candidate,
            baseline,
        }
    }

    /// Runs it to its end or for so many seconds. A group of arrivals is judged when the last of
    /// it, and of those before it, has ended or reached the cap age.
    pub fn run(&self, run: &mut Run<'_>, seconds: u64) -> Ending {
        let mut trial = self.trial(run.prepared);
        let cap = Settings::cap_age_for(&run.prepared.history).as_millis() as u64;
        let (mut group, mut closed, mut sequence) = (Group::default(), 0, 0);
        let mut ending = Ending::default();
        while run.millis() < seconds * 1000 {
            run.next(&mut group);
            closed = closed.max(run.millis() + group.lasts(cap));
            sequence += 1;
            ending.spent += group.candidate_failed();
            trial.feed(&self.batch(&group, closed, sequence));
            if trial.fired().is_some() {
                let decided = closed.div_ceil(TICK_MILLIS) * TICK_MILLIS;
                while run.millis() < decided {
                    run.next(&mut group);
                    ending.spent += group.candidate_failed();
                }
                let counts = trial.evidence().counts;
                ending.fired = true;
                ending.seconds = decided as f64 / 1000.0;
                ending.requests = counts.candidate_requests;
                ending.failed = counts.candidate_failed;
                return ending;
            }
        }
        ending
    }
}
