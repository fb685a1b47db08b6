//! One instance of four is ten times as slow: how choosing by peak EWMA compares with taking
//! turns, in simulated time and with drawn arrivals.

use std::time::Duration;

use switchback_resilience::{Moment, PeakEwma};

const TIMES: [u64; 4] = [10_000, 10_000, 10_000, 100_000];
const REQUESTS: usize = 60_000;

/// Chance that is the same each time (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }
}

/// The 99th percentile of response times in microseconds, and how many the slow one got.
fn simulated(choose: impl Fn(usize, &mut Dice, [f64; 4]) -> usize) -> (u64, usize) {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let mut ewmas = [PeakEwma::new(Moment::default()); 4];
    // (when it ends, where, when it began), in microseconds.
    let mut running: Vec<(u64, usize, u64)> = Vec::new();
    let (mut now, mut times, mut slow) = (0, Vec::with_capacity(REQUESTS), 0);
    let at = |micros: u64| Moment::default() + Duration::from_micros(micros);
    for n in 0..REQUESTS {
        now += dice.below(2_000);
        running.sort_unstable();
        let ended = running.partition_point(|(end, ..)| *end <= now);
        for (end, place, began) in running.drain(..ended) {
            ewmas[place] = ewmas[place].observed(at(end), Duration::from_micros(end - began));
        }
        let pending = |place| running.iter().filter(|(_, other, _)| *other == place).count() as u64;
        let loads = [0, 1, 2, 3].map(|place| ewmas[place].load(at(now), pending(place)));
        let place = choose(n, &mut dice, loads);
        slow += usize::from(place == 3);
        let took = TIMES[place] / 2 + dice.below(TIMES[place]);
        times.push(took);
        running.push((now + took, place, now));
    }
    times.sort_unstable();
    (times[REQUESTS * 99 / 100], slow)
}

#[test]
fn the_99th_percentile_is_less_than_half_of_what_taking_turns_gives() {
    let (turns, _) = simulated(|n, _, _| n % 4);
    let (ours, slow) = simulated(|_, dice, loads| {
        let first = usize::try_from(dice.below(4)).unwrap_or_default();
        let second = (first + 1 + usize::try_from(dice.below(3)).unwrap_or_default()) % 4;
        if loads[second] < loads[first] { second } else { first }
    });
    assert!(ours * 2 <= turns, "{ours} against {turns} microseconds");
    assert!(slow > 0 && slow < REQUESTS / 100, "seldom, but not never: {slow}");
}
