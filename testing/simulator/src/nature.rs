//! What versions are like: which start slowly, never, end again and again, answer badly.

use std::time::Duration;

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

/// Where an instance is, and what its readiness probe would say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Its process runs and does not answer yet.
    Starting,
    Ready,
    Unready,
    /// Its process ended and will be started again.
    Exited,
    CrashLoop,
    Stopping,
    /// Nothing of it is left but its record.
    Lost,
}

/// A version's properties.
#[derive(Debug, Clone)]
pub(crate) struct Nature {
    pub(crate) temper: Temper,
    /// Requests that fail, in per mille.
    pub(crate) errors: u32,
    /// Most milliseconds to become ready.
    pub(crate) start: u32,
    /// Most milliseconds to stop.
    pub(crate) stop: u32,
    pub(crate) load: Load,
}

/// What its answers and instances take, and what is measured of it besides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// How long every answer takes, in microseconds.
    pub(crate) latency: u64,
    pub(crate) cores: f64,
    pub(crate) memory_bytes: u64,
    /// What its command prints and its metric source says.
    pub(crate) number: f64,
}

impl Default for Load {
    fn default() -> Self {
        Self { latency: 10_000, cores: 0.2, memory_bytes: 100 << 20, number: 1.0 }
    }
}

impl Nature {
    pub(crate) fn draw(random: &mut Random, is_bad: bool) -> Self {
        let (mut temper, mut errors) = (Temper::Steady, random.between(0, 2));
        let mut load = Load::default();
        if is_bad {
            match random.between(0, 11) {
                0 => temper = Temper::NeverReady,
                1 => temper = Temper::CrashLoop,
                2 | 3 => temper = Temper::Flaps,
                4 => temper = Temper::Limps,
                5 => temper = Temper::Dies,
                6 => load.latency *= 3,
                7 => load.memory_bytes *= 5,
                _ => errors = random.between(200, 600),
            }
        }
        let (start, stop) = (random.between(500, 8_000), random.between(50, 12_000));
        Self { temper, errors, start, stop, load }
    }

    pub(crate) fn heal(&mut self) {
        (self.temper, self.errors) = (Temper::Steady, 0);
    }

    /// What an instance will do next by itself, and when. `is_killed` ends a healthy one.
    pub(crate) fn next(
        &self,
        condition: Condition,
        place: Place,
        is_killed: bool,
        random: &mut Random,
    ) -> Option<(Duration, Condition)> {
        use Condition::{CrashLoop, Exited, Lost, Ready, Starting, Stopping, Unready};
        let gives_up = place.restarts >= 2;
        Some(match (condition, self.temper) {
            (Starting, Temper::Limps) if place.ordinal % 2 == 1 => return None,
            (Starting, Temper::CrashLoop) => (random.millis(50, 2_000), Exited),
            (Starting, Temper::Steady | Temper::Flaps | Temper::Limps | Temper::Dies) => {
                (random.millis(200, self.start), Ready)
            }
            (Ready, Temper::Flaps | Temper::Limps) => (random.millis(1_000, 20_000), Unready),
            (Ready, Temper::Dies) => (random.millis(2_000, 40_000), Exited),
            (Ready, Temper::NeverReady | Temper::CrashLoop) => (random.millis(0, 1_000), Exited),
            (Ready, Temper::Steady) if is_killed => (random.millis(1_000, 90_000), Exited),
            (Starting, Temper::NeverReady) | (Ready, Temper::Steady) | (Stopping | Lost, _) => {
                return None;
            }
            (Unready, _) => (random.millis(500, 8_000), Ready),
            (Exited, Temper::CrashLoop | Temper::Dies) if gives_up => {
                (random.millis(10, 100), CrashLoop)
            }
            (Exited, _) => (random.millis(500, 4_000), Starting),
            (CrashLoop, _) => (random.millis(5_000, 60_000), Starting),
        })
    }
}

/// Which instance of its version, and how often it was started again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) ordinal: u32,
    pub(crate) restarts: u32,
}
