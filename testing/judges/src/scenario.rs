//! A scenario: two versions, traffic, and what happens over time.

use serde::{Deserialize, Serialize};
use switchback_domain::{Histogram, Weight};

use crate::arm::{Drawn, Draws, Grain, Ready, Version};
use crate::law::Law;
use crate::random::Random;

/// What a scenario is there to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The candidate is no worse: a rollback is a false one, and at most alpha are allowed.
    Healthy,
    /// Healthy as well, but the guarantee does not cover it; what it covers is not broken.
    Outside,
    /// The candidate is worse: no rollback is a miss.
    Regression,
}

/// What happens over time.
#[derive(Debug, Clone, PartialEq)]
pub enum Script {
    /// Nothing.
    Steady,
    /// The rate goes from 1 to 5 times and back, within an hour; slower versions as it rises.
    Diurnal,
    /// Both versions wander through theirs and back every 20 minutes.
    Drift,
    /// Both versions show their second one for so long every so often, and the rate is multiplied.
    Periodic {
        /// Seconds from one to the next.
        every: f64,
        /// Seconds.
        lasts: f64,
        /// Factor of the rate meanwhile.
        rate: f64,
    },
    /// Both versions show another one of theirs every so often.
    Mixes {
        /// Seconds.
        every: f64,
    },
    /// Each replica of the candidate wanders through the versions: an autoregressive level of this
    /// memory, a new value every so often.
    Noise {
        /// Seconds from one value to the next.
        every: f64,
        /// Correlation of a value with the next.
        memory: f64,
    },
    /// Each replica of the candidate stands still for so long every so often.
    Stalls {
        /// Seconds from one to the next.
        every: f64,
        /// Seconds.
        lasts: f64,
    },
    /// The candidate begins with its last version and comes closer to its first.
    Cold {
        /// Time constant in seconds.
        decay: f64,
    },
    /// The candidate's share goes round.
    Weights {
        /// Seconds on each.
        every: f64,
        /// The shares.
        percents: Vec<u16>,
    },
    /// The candidate's share rises step by step.
    Ramp {
        /// Seconds on each.
        every: f64,
        /// The shares; the last one stays.
        percents: Vec<u16>,
        /// Above this share it shows its second version.
        bad_above: u16,
    },
    /// The candidate shows its second version from then on.
    Onset {
        /// Seconds.
        after: f64,
    },
}

/// Sticky sessions: a bad one has this many errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sticky {
    /// Errors of a bad session.
    pub errors: u32,
    /// Whether its first one alone is counted, as it should.
    pub by_session: bool,
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Its name in tables and documents.
    pub name: String,
    /// What it is there to show.
    pub kind: Kind,
    /// Requests a second, both versions together.
    pub rate: f64,
    /// The candidate's share.
    pub weight: Weight,
    /// Replicas of the candidate.
    pub replicas: u32,
    /// Versions of the baseline; the first is what its history shows.
    pub baseline: Vec<Version>,
    /// Versions of the candidate.
    pub candidate: Vec<Version>,
    /// What happens.
    pub script: Script,
    /// How finely latencies are drawn.
    pub grain: Grain,
    /// Latencies of so many seconds from the start are left out.
    pub warm_up: u64,
    /// Errors come in sessions.
    pub sticky: Option<Sticky>,
    /// Requests are judged in groups of at most so many milliseconds; longer ones where nothing
    /// happens to single replicas, because an hour is long.
    pub group_millis_max: u64,
    /// And at most this part of the time so far: what a group adds to the time to detection.
    pub group_part: u64,
}

/// Replicas at most.
pub const REPLICAS_MAX: usize = 10;

/// What holds during a tick.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The rate is multiplied by this.
    pub rate: f64,
    /// The candidate's share.
    pub weight: Weight,
    /// The baseline's version.
    pub baseline: usize,
    /// The candidate's versions, one per replica that differs.
    pub candidate: [usize; REPLICAS_MAX],
    /// How many of them there are.
    pub replicas: usize,
}

/// What a script remembers.
#[derive(Debug, Clone)]
pub struct State {
    phase: [f64; REPLICAS_MAX],
    level: [f64; REPLICAS_MAX],
    next: f64,
    mix: usize,
    random: Random,
}

impl State {
    /// The start of a run.
    pub fn new(seed: u64, name: &str, run: u64) -> Self {
        let mut random = Random::new(seed, &format!("{name}, script"), run);
        let mut numbers = || std::array::from_fn(|_| random.uniform());
        let phase = numbers();
        let level = std::array::from_fn(|_| random.normal());
        Self { phase, level, next: 0.0, mix: 0, random }
    }
}

impl Scenario {
    /// What holds from `at` for `length` seconds. To be asked in order.
    pub fn moment(&self, state: &mut State, at: f64, length: f64) -> Moment {
        let mut moment = Moment {
            rate: 1.0,
            weight: self.weight,
            baseline: 0,
            candidate: [0; REPLICAS_MAX],
            replicas: 1,
        };
        match &self.script {
            Script::Steady => {}
            Script::Diurnal => {
                let swing = 0.5 - 0.5 * libm::cos(std::f64::consts::TAU * at / 3600.0);
                // Twelve levels, so that tables can be kept.
                let level = libm::floor(swing * 11.999);
                moment.rate = 1.0 + 4.0 * level / 11.0;
                both(&mut moment, scaled(level / 11.0, self.baseline.len()));
            }
            Script::Drift => {
                let turn = at / 1200.0 + state.phase[0];
                let swing = 0.5 + 0.5 * libm::sin(std::f64::consts::TAU * turn);
                both(&mut moment, scaled(swing, self.baseline.len()));
            }
            Script::Periodic { every, lasts, rate } => {
                if (at + state.phase[0] * every) % every < *lasts {
                    moment.rate = *rate;
                    both(&mut moment, 1);
                }
            }
            Script::Mixes { every } => {
                if at >= state.next {
                    state.next = at + every;
                    state.mix = state.random.below(self.baseline.len() as u64) as usize;
                }
                both(&mut moment, state.mix);
            }
            Script::Noise { every, memory } => self.wander(state, &mut moment, at, *every, *memory),
            Script::Stalls { every, lasts } => {
                moment.replicas = self.replicas as usize;
                for (version, phase) in moment.candidate.iter_mut().zip(state.phase) {
                    let share = stalled(at + phase * every, length, *every, *lasts);
                    *version = scaled(share, self.candidate.len());
                }
            }
            Script::Cold { decay } => {
                let left = libm::exp(-at / decay);
                moment.candidate[0] = scaled(left, self.candidate.len());
            }
            Script::Weights { every, percents } => {
                moment.weight = step(percents, libm::floor(at / every) as usize % percents.len());
            }
            Script::Ramp { every, percents, bad_above } => {
                let rung = (libm::floor(at / every) as usize).min(percents.len() - 1);
                moment.weight = step(percents, rung);
                moment.candidate[0] = usize::from(percents[rung] > *bad_above);
            }
            Script::Onset { after } => moment.candidate[0] = usize::from(at >= *after),
        }
        moment
    }

    fn wander(&self, state: &mut State, moment: &mut Moment, at: f64, every: f64, memory: f64) {
        moment.replicas = self.replicas as usize;
        while at >= state.next {
            state.next += every;
            for level in &mut state.level {
                let fresh = libm::sqrt(1.0 - memory * memory) * state.random.normal();
                *level = memory * *level + fresh;
            }
        }
        // Versions lie evenly from -4 to 4 standard deviations.
        for (version, level) in moment.candidate.iter_mut().zip(state.level) {
            *version = scaled((level.clamp(-4.0, 4.0) + 4.0) / 8.0, self.candidate.len());
        }
    }

    /// Makes the versions ready for drawing.
    pub fn ready(&self) -> Prepared<'_> {
        let prepare = |versions: &[Version]| {
            versions.iter().map(|version| Ready::new(version, self.grain)).collect::<Vec<_>>()
        };
        let (baseline, candidate) = (prepare(&self.baseline), prepare(&self.candidate));
        let mut history = Histogram::default();
        let mut random = Random::new(0, "history", 0);
        let mut past = Drawn::default();
        Draws::default().some(&mut random, 0, &baseline[0], 20_000.0, &mut past);
        for (micros, count) in &past.latencies {
            history.record_many(*micros, u64::from(*count));
        }
        Prepared { scenario: self, baseline, candidate, history }
    }
}

/// A scenario whose versions can be drawn from.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// The scenario.
    pub scenario: &'a Scenario,
    /// The baseline's versions.
    pub baseline: Vec<Ready>,
    /// The candidate's versions.
    pub candidate: Vec<Ready>,
    /// What the baseline did before: about 20,000 requests.
    pub history: Histogram,
}

impl Prepared<'_> {
    /// Law of the baseline before the rollout.
    pub fn usual(&self) -> &Law {
        &self.scenario.baseline[0].law
    }
}

fn both(moment: &mut Moment, version: usize) {
    moment.baseline = version;
    moment.candidate = [version; REPLICAS_MAX];
}

/// The index that lies at a share of the way.
fn scaled(share: f64, count: usize) -> usize {
    libm::round(share * (count - 1) as f64) as usize
}

fn step(percents: &[u16], at: usize) -> Weight {
    Weight::from_percent(percents[at])
}

/// The part of a span that a standstill covers.
fn stalled(from: f64, length: f64, every: f64, lasts: f64) -> f64 {
    let within = from % every;
    let overlap = |start: f64| (start + lasts).min(within + length) - start.max(within);
    let covered = overlap(0.0).max(0.0) + overlap(every).max(0.0);
    (covered / length).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios;

    #[test]
    fn standstills_cover_what_they_should() {
        for (from, length, share) in [(0.0, 1.0, 0.3), (29.9, 1.0, 0.3), (5.0, 1.0, 0.0)] {
            let found = stalled(from, length, 30.0, 0.3);
            assert!((found - share).abs() < 1e-9, "{from}: {found}");
        }
    }

    #[test]
    fn every_moment_of_every_scenario_names_versions_that_there_are() {
        for scenario in scenarios::all() {
            let mut state = State::new(1, &scenario.name, 1);
            for second in 0..3600 {
                let moment = scenario.moment(&mut state, f64::from(second), 1.0);
                assert!(moment.baseline < scenario.baseline.len(), "{}", scenario.name);
                let mut replicas = moment.candidate.iter().take(moment.replicas);
                assert!(replicas.all(|it| *it < scenario.candidate.len()), "{}", scenario.name);
                assert!((1..=REPLICAS_MAX).contains(&moment.replicas));
            }
        }
    }
}
