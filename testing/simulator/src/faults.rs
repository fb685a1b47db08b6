//! How often what goes wrong. Each seed draws its own rates, and leaves about half of the faults
//! out: some bugs only show when little else happens.

use crate::random::Random;

/// Rates in per mille of the occasions for each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// The control plane dies at an event.
    pub(crate) crash: u32,
    /// A table never reaches the data plane.
    pub(crate) publish_lost: u32,
    /// It does so much later.
    pub(crate) publish_late: u32,
    /// It does so twice.
    pub(crate) publish_twice: u32,
    /// The data plane's answer is lost.
    pub(crate) answer_lost: u32,
    /// The data plane cannot be reached for minutes, from a table on.
    pub(crate) outage: u32,
    /// A change of an instance is noticed only by the next poll.
    pub(crate) watch_lost: u32,
    /// Something already reported is reported again.
    pub(crate) told_twice: u32,
    /// A healthy instance is killed.
    pub(crate) killed: u32,
    /// A hook fails, or says nothing.
    pub(crate) hook: u32,
    /// The way back is blocked.
    pub(crate) obstacle: u32,
    /// The clock makes a step forward at an event.
    pub(crate) clock: u32,
    /// A version has something wrong with it.
    pub(crate) bad_version: u32,
    /// An operator interferes, at each of the occasions.
    pub(crate) operator: u32,
}

impl Faults {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let mut rate = |most: u32| {
            if random.chance(500) { random.between(1, most) } else { 0 }
        };
        Self {
            crash: rate(60),
            publish_lost: rate(400),
            publish_late: rate(300),
            publish_twice: rate(300),
            answer_lost: rate(400),
            outage: rate(60),
            watch_lost: rate(300),
            told_twice: rate(100),
            killed: rate(300),
            hook: rate(400),
            obstacle: rate(300),
            clock: rate(20),
            bad_version: rate(900),
            operator: rate(600),
        }
    }
}
