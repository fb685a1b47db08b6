//! Which instance of a version: the less busy of two drawn at random, passing over those that
//! just refused a connection. The last one left is never passed over.

use std::sync::Arc;

use rand::RngExt;

use crate::compiled::Endpoint;

/// Draws an instance that is not in `tried`; `None` when every one was tried.
pub(crate) fn draw(
    endpoints: &[Arc<Endpoint>],
    tried: &[u64],
    worker: usize,
) -> Option<Arc<Endpoint>> {
    if let ([only], []) = (endpoints, tried) {
        return Some(Arc::clone(only));
    }
    let untried = |endpoint: &&Arc<Endpoint>| !tried.contains(&endpoint.id);
    let healthy = |endpoint: &&Arc<Endpoint>| untried(endpoint) && !endpoint.is_ejected();
    let mut count = endpoints.iter().filter(healthy).count();
    if count > 0 {
        return less_busy(count, worker, |nth| endpoints.iter().filter(healthy).nth(nth));
    }
    count = endpoints.iter().filter(untried).count();
    less_busy(count, worker, |nth| endpoints.iter().filter(untried).nth(nth))
}

fn less_busy<'a>(
    count: usize,
    worker: usize,
    nth: impl Fn(usize) -> Option<&'a Arc<Endpoint>>,
) -> Option<Arc<Endpoint>> {
    if count <= 1 {
        return nth(0).cloned();
    }
    let mut random = rand::rng();
    let first = random.random_range(0..count);
    // Any other one, each with the same chance.
    let second = (first + random.random_range(1..count)) % count;
    let (first, second) = (nth(first)?, nth(second)?);
    let chosen = if second.load(worker) < first.load(worker) { second } else { first };
    Some(Arc::clone(chosen))
}

#[cfg(test)]
mod tests {
    use switchback_domain::InstanceId;

    use super::*;
    use crate::compiled::Visit;

    fn endpoints(count: u16) -> Vec<Arc<Endpoint>> {
        let endpoint = |n: u16| {
            let instance = InstanceId::from_stored(n.to_string());
            Arc::new(Endpoint::new(u64::from(n), instance, ([127, 0, 0, 1], 1000 + n).into(), 1))
        };
        (0..count).map(endpoint).collect()
    }

    #[test]
    fn a_refusing_instance_is_passed_over_but_never_the_last() {
        let all = endpoints(3);
        all[0].eject();
        assert!((0..200).all(|_| draw(&all, &[], 0).is_some_and(|drawn| drawn.id != 0)));
        all[1].eject();
        all[2].eject();
        assert!(draw(&all, &[], 0).is_some());
        assert_eq!(draw(&all, &[1, 2], 0).map(|drawn| drawn.id), Some(0));
        assert!(draw(&all, &[0, 1, 2], 0).is_none());
        all[0].readmit();
        assert_eq!(draw(&all, &[], 0).map(|drawn| drawn.id), Some(0));
    }

    #[test]
    fn the_less_busy_of_two_is_taken() {
        let all = endpoints(2);
        let _busy = Visit::begin(Arc::clone(&all[0]), 0);
        assert!((0..100).all(|_| draw(&all, &[], 0).is_some_and(|drawn| drawn.id == 1)));
        assert_eq!((all[0].in_flight(), all[1].in_flight()), (1, 0));
    }

    #[test]
    fn equal_instances_share_the_load() {
        let all = endpoints(4);
        let mut counts = [0_u32; 4];
        for _ in 0..4_000 {
            let drawn = draw(&all, &[], 0).unwrap();
            counts[usize::try_from(drawn.id).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
