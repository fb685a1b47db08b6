//! Which instance of a version: of two drawn at random the one that answers sooner, by its recent
//! response times and what is on its way to it; new ones less often. Those that refuse or fail
//! again and again are passed over, but never the last one left.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use switchback_resilience::{Moment, may_eject, turns_away};

use crate::compiled::{Arm, Endpoint};

/// Draws an instance of `arm` that is not in `tried`, and gives its place; `None` when every one was
/// tried.
pub(crate) fn draw(
    arm: &Arm,
    tried: &[u64],
    worker: usize,
    now: impl FnOnce() -> Moment,
) -> Option<usize> {
    let endpoints = &arm.endpoints;
    if let ([_], []) = (endpoints.as_slice(), tried) {
        return Some(0);
    }
    let place = Place { worker, now: now(), slow_start: arm.balance.slow_start };
    let all = || endpoints.iter().map(Arc::as_ref).enumerate();
    let untried = |(_, endpoint): &(usize, &Endpoint)| !tried.contains(&endpoint.id);
    let healthy = |one: &(usize, &Endpoint)| untried(one) && !one.1.is_passed_over(place.now);
    let mut count = all().filter(healthy).count();
    if count > 0 {
        return place.better(count, |nth| all().filter(healthy).nth(nth));
    }
    count = all().filter(untried).count();
    place.better(count, |nth| all().filter(untried).nth(nth))
}

/// Where and when instances are compared.
struct Place {
    worker: usize,
    now: Moment,
    slow_start: Duration,
}

impl Place {
    fn better<'a>(
        &self,
        count: usize,
        nth: impl Fn(usize) -> Option<(usize, &'a Endpoint)>,
    ) -> Option<usize> {
        if count <= 1 {
            return nth(0).map(|(at, _)| at);
        }
        let mut random = rand::rng();
        let first = random.random_range(0..count);
        // Any other one, each with the same chance.
        let second = (first + random.random_range(1..count)) % count;
        let (first, second) = (nth(first)?, nth(second)?);
        let load = |(_, endpoint): (usize, &Endpoint)| endpoint.load(self.worker, self.now);
        let (chosen, other) =
            if load(second) < load(first) { (second, first) } else { (first, second) };
        let readiness = |endpoint: &Endpoint| endpoint.readiness(self.now, self.slow_start);
        let (own, others) = (readiness(chosen.1), readiness(other.1));
        let spared = own < others && turns_away(own, others, random.random());
        Some(if spared { other.0 } else { chosen.0 })
    }
}

/// How an instance did with an attempt, as far as its head tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Good,
    /// An answer with 5xx, or none.
    Bad,
}

impl Arm {
    /// Learns from an attempt. With one instance there is nothing to choose, so nothing to learn.
    pub(crate) fn learn(
        &self,
        endpoint: &Endpoint,
        worker: usize,
        deed: Deed,
        since: impl FnOnce() -> Moment,
        now: impl FnOnce() -> Moment,
    ) {
        if self.endpoints.len() < 2 {
            return;
        }
        let (since, now) = (since(), now());
        match deed {
            Deed::Good => {
                endpoint.answered(worker, now, now.since(since));
                if let Some(policy) = &self.balance.ejection {
                    endpoint.succeeded(policy, now);
                }
            }
            Deed::Bad => {
                endpoint.slowed(worker, now, now.since(since));
                self.hold_against(endpoint, now);
            }
        }
    }

    /// Ejects an instance that failed once too often. One at a time, so that never too many are.
    fn hold_against(&self, endpoint: &Endpoint, now: Moment) {
        let Some(policy) = &self.balance.ejection else { return };
        self.health.ejecting(|ejections| {
            let ejected = self.endpoints.iter().filter(|other| other.is_ejected(now)).count();
            let may = may_eject(ejected, self.endpoints.len());
            *ejections += u64::from(endpoint.failed(policy, now, may));
        });
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use switchback_domain::InstanceId;
    use switchback_domain::resilience::Balance;
    use switchback_ports::data_plane::conformance::sample_arm;

    use super::*;
    use crate::clock;
    use crate::compiled::{Health, Visit};
    use crate::counters::Counters;

    fn arm_of(count: u16) -> Arm {
        let endpoint = |n: u16| {
            let instance = InstanceId::from_stored(n.to_string());
            Arc::new(Endpoint::new(u64::from(n), instance, ([127, 0, 0, 1], 1000 + n).into(), 1))
        };
        Arm {
            version: sample_arm("v1", &[]).version,
            id: sample_arm("v1", &[]).id,
            counters: Arc::new(Counters::new(1)),
            endpoints: (0..count).map(endpoint).collect(),
            part: None,
            balance: Balance::default(),
            health: Arc::new(Health::default()),
            breaker: None,
            upstream: switchback_domain::tls::UpstreamSpec::default(),
        }
    }

    fn drawn(arm: &Arm, tried: &[u64]) -> Option<u64> {
        draw(arm, tried, 0, clock::now).map(|at| arm.endpoints[at].id)
    }

    fn fail(arm: &Arm, id: usize, times: usize) {
        for _ in 0..times {
            arm.learn(&arm.endpoints[id], 0, Deed::Bad, clock::now, clock::now);
        }
    }

    #[test]
    fn a_refusing_instance_is_passed_over_but_never_the_last() {
        let arm = arm_of(3);
        arm.endpoints[0].refused(clock::now());
        assert!((0..200).all(|_| drawn(&arm, &[]).is_some_and(|id| id != 0)));
        arm.endpoints[1].refused(clock::now());
        arm.endpoints[2].refused(clock::now());
        assert!(drawn(&arm, &[]).is_some());
        assert_eq!(drawn(&arm, &[1, 2]), Some(0));
        assert_eq!(drawn(&arm, &[0, 1, 2]), None);
        arm.endpoints[0].took_connection();
        assert_eq!(drawn(&arm, &[]), Some(0));
    }

    #[test]
    fn failing_instances_are_ejected_up_to_half_of_them() {
        let arm = arm_of(4);
        for id in 0..4 {
            fail(&arm, id, 20);
        }
        let now = clock::now();
        let out: Vec<_> = arm.endpoints.iter().filter(|one| one.is_ejected(now)).collect();
        assert_eq!((out.len(), arm.health.ejections()), (2, 2));
        assert!((0..200).all(|_| drawn(&arm, &[]).is_some_and(|id| id > 1)));
        let two = arm_of(2);
        fail(&two, 0, 5);
        fail(&two, 1, 50);
        assert_eq!(two.health.ejections(), 1, "never the last");
    }

    #[test]
    fn the_less_busy_of_two_is_taken() {
        let arm = Rc::new(Arc::new(arm_of(2)));
        let _busy = Visit::begin(Rc::clone(&arm), 0, 0);
        assert!((0..100).all(|_| drawn(&arm, &[]) == Some(1)));
        assert_eq!((arm.endpoints[0].in_flight(), arm.endpoints[1].in_flight()), (1, 0));
    }

    #[test]
    fn the_faster_of_two_is_taken() {
        let arm = arm_of(2);
        let now = clock::now();
        arm.endpoints[0].answered(0, now, Duration::from_millis(300));
        assert!((0..100).all(|_| drawn(&arm, &[]) == Some(1)));
    }

    #[test]
    fn equal_instances_share_the_load() {
        let arm = arm_of(4);
        let mut counts = [0_u32; 4];
        let start = clock::now();
        for n in 0..4_000 {
            let now = start + Duration::from_millis(n);
            let id = draw(&arm, &[], 0, || now).unwrap();
            counts[id] += 1;
            arm.endpoints[id].answered(0, now, Duration::from_millis(1));
        }
        assert!(counts.iter().all(|count| *count > 400), "{counts:?}");
    }
}
