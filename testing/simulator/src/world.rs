//! Instances and the natures of versions: what starts slowly, never, again and again, or dies.

use std::collections::BTreeMap;
use std::time::Duration;

use switchback_domain::{
    InstanceHealth, InstanceId, InstanceReport, Outcome, ReleaseId, ServiceKey, Timestamp,
};

use crate::plane::Plane;
use crate::random::Random;

/// How instances of a version behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Temper {
    Steady,
    NeverReady,
    CrashLoop,
    Flaps,
    /// Some instances flap, the others are never ready.
    Limps,
    Dies,
}

/// A version's properties.
#[derive(Debug, Clone)]
pub(crate) struct Nature {
    pub(crate) temper: Temper,
    /// What the judge finds; `None` is silence.
    pub(crate) quality: Option<Outcome>,
    /// Most milliseconds to become ready.
    pub(crate) start: u32,
    /// Most milliseconds to stop.
    pub(crate) stop: u32,
}

impl Nature {
    pub(crate) fn draw(random: &mut Random, bad: bool) -> Self {
        let (mut temper, mut quality) = (Temper::Steady, Some(Outcome::Safe));
        if bad {
            match random.between(0, 11) {
                0 => temper = Temper::NeverReady,
                1 => temper = Temper::CrashLoop,
                2 | 7 => temper = Temper::Flaps,
                8 => temper = Temper::Limps,
                3 => temper = Temper::Dies,
                4 => quality = Some(Outcome::Undecided),
                5 => quality = None,
                _ => quality = Some(Outcome::Regressed),
            }
        }
        Self {
            temper,
            quality,
            start: random.between(500, 20_000),
            stop: random.between(50, 40_000),
        }
    }

    pub(crate) fn heal(&mut self) {
        self.temper = Temper::Steady;
    }
}

/// One instance.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) health: InstanceHealth,
    restarts: u32,
    /// Counts its changes: a change planned before another one came is void.
    pub(crate) life: u64,
    /// Requests are on their way until then.
    pub(crate) busy_until: Timestamp,
}

/// A change that an instance will make by itself.
pub(crate) struct Planned {
    pub(crate) delay: Duration,
    pub(crate) life: u64,
    pub(crate) to: InstanceHealth,
}

/// Everything outside the control plane.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) natures: BTreeMap<ReleaseId, Nature>,
    pub(crate) instances: BTreeMap<(ReleaseId, u32), Instance>,
    pub(crate) plane: Plane,
    lives: u64,
}

impl World {
    /// Starts the instance unless it is there. Says whether it was started.
    pub(crate) fn start(&mut self, release: &ReleaseId, ordinal: u32) -> bool {
        let place = (release.clone(), ordinal);
        if self.instances.contains_key(&place) {
            return false;
        }
        self.lives += 1;
        let (health, life) = (InstanceHealth::Starting, self.lives);
        let instance = Instance { health, restarts: 0, life, busy_until: Timestamp::default() };
        self.instances.insert(place, instance);
        true
    }

    pub(crate) fn set(&mut self, release: &ReleaseId, ordinal: u32, to: InstanceHealth) {
        self.lives += 1;
        let lives = self.lives;
        if let Some(instance) = self.instances.get_mut(&(release.clone(), ordinal)) {
            instance.restarts += u32::from(to == InstanceHealth::Starting);
            (instance.health, instance.life) = (to, lives);
        }
    }

    pub(crate) fn is_alive(&self, release: &ReleaseId, ordinal: u32, life: u64) -> bool {
        self.instances.get(&(release.clone(), ordinal)).is_some_and(|found| found.life == life)
    }

    /// What the instance will do next by itself.
    pub(crate) fn plan(
        &self,
        release: &ReleaseId,
        ordinal: u32,
        killed: u32,
        random: &mut Random,
    ) -> Option<Planned> {
        use InstanceHealth::{CrashLoop, Exited, Ready, Starting, Stopping, Unready};
        let (nature, instance) =
            (self.natures.get(release)?, self.instances.get(&(release.clone(), ordinal))?);
        let (delay, to) = match (instance.health, nature.temper) {
            (Starting, Temper::Limps) if ordinal % 2 == 1 => return None,
            (Starting, Temper::CrashLoop) => (random.millis(50, 2_000), Exited),
            (Starting, Temper::Steady | Temper::Flaps | Temper::Limps | Temper::Dies) => {
                (random.millis(200, nature.start), Ready)
            }
            (Ready, Temper::Flaps | Temper::Limps) => (random.millis(1_000, 30_000), Unready),
            (Ready, Temper::Dies) => (random.millis(2_000, 60_000), Exited),
            (Ready, Temper::NeverReady | Temper::CrashLoop) => (random.millis(0, 1_000), Exited),
            (Ready, Temper::Steady) if random.chance(killed) => {
                (random.millis(1_000, 400_000), Exited)
            }
            (Starting, Temper::NeverReady) | (Ready, Temper::Steady) | (Stopping, _) => {
                return None;
            }
            (Unready, _) => (random.millis(500, 10_000), Ready),
            (Exited, Temper::CrashLoop | Temper::Dies) if instance.restarts >= 2 => {
                (random.millis(10, 100), CrashLoop)
            }
            (Exited, _) => (random.millis(500, 4_000), Starting),
            (CrashLoop, _) => (random.millis(5_000, 60_000), Starting),
        };
        Some(Planned { delay, life: instance.life, to })
    }

    /// What a look at a release's instances shows.
    pub(crate) fn report(&self, key: &ServiceKey, release: &ReleaseId) -> Vec<InstanceReport> {
        self.of(release)
            .map(|(ordinal, instance)| InstanceReport {
                id: InstanceId::new(key, release, ordinal),
                address: None,
                health: instance.health,
                restarts: instance.restarts,
                reason: None,
            })
            .collect()
    }

    /// Instances of a release.
    pub(crate) fn of(&self, release: &ReleaseId) -> impl Iterator<Item = (u32, &Instance)> {
        let range = (release.clone(), 0)..=(release.clone(), u32::MAX);
        self.instances.range(range).map(|((_, ordinal), instance)| (*ordinal, instance))
    }

    /// Releases that have instances.
    pub(crate) fn releases(&self) -> Vec<ReleaseId> {
        let mut releases: Vec<_> =
            self.instances.keys().map(|(release, _)| release.clone()).collect();
        releases.dedup();
        releases
    }
}
