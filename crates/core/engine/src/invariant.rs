//! What must hold in every state; checked after every simulated event and counted in production.

use switchback_domain::Weight;

use crate::rollout::Phase;
use crate::service::Service;

/// A broken invariant, by its number in ARCHITECTURE.md.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The number.
    pub invariant: u8,
    /// What is wrong.
    pub text: String,
}

/// Every invariant that does not hold in this state.
pub fn violations(service: &Service) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut check = |holds: bool, invariant: u8, text: &str| {
        if !holds {
            found.push(Violation { invariant, text: format!("{}: {text}", service.key) });
        }
    };
    let shares = service.traffic.split.shares();
    let sum: u32 = shares.iter().map(|(_, weight)| u32::from(weight.basis_points())).sum();
    check(sum == 0 || sum == u32::from(Weight::ALL.basis_points()), 3, "weights do not sum to all");
    for (release, weight) in shares {
        let pool = service.pools.get(release);
        check(
            *weight == Weight::ZERO || pool.is_some_and(|pool| pool.desired > 0),
            5,
            "a release with a share is being stopped",
        );
        check(service.releases.contains_key(release), 1, "a share for an unknown release");
    }
    if let Some(rollout) = &service.rollout {
        let baseline = rollout.baseline.as_ref();
        let kept = |release| service.pools.get(release).is_some_and(|pool| pool.desired > 0);
        let is_rolling =
            rollout.request.policy.strategy == switchback_domain::strategy::StrategyKind::Rolling;
        check(
            baseline.is_none_or(kept) || rollout.promoted || is_rolling,
            4,
            "the baseline is gone before the promotion",
        );
        check(baseline != Some(rollout.candidate()), 4, "a release is its own baseline");
        check(rollout.cause.is_some() || rollout.is_forward(), 10, "taken back without a cause");
        check(
            !matches!(rollout.phase, Phase::Promoting) || rollout.cause.is_none(),
            10,
            "promoting what has failed",
        );
    }
    for revision in &service.revisions {
        check(service.releases.contains_key(&revision.release), 11, "a revision without release");
    }
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use switchback_domain::strategy::StrategyKind;

    use super::*;
    use crate::rollout::{Cause, CauseKind};
    use crate::step::testing::{Story, policy, release};

    const NOTHING: [u8; 0] = [];

    /// v1 serves 75 %, v2 25 %: two instances and one.
    fn amid_a_canary() -> Service {
        let mut story = Story::serving(&policy(StrategyKind::Canary));
        story.deploy("v2", &policy(StrategyKind::Canary));
        story.run_to("Shifting");
        story.service
    }

    fn broken(change: impl FnOnce(&mut Service)) -> Vec<u8> {
        let mut service = amid_a_canary();
        change(&mut service);
        violations(&service).into_iter().map(|violation| violation.invariant).collect()
    }

    fn stop(service: &mut Service, version: &str) {
        service.pools.get_mut(&release(version).id).expect("it has instances").desired = 0;
    }

    #[test]
    fn nothing_is_wrong_amid_a_canary() {
        assert_eq!(broken(|_| {}), NOTHING);
    }

    #[test]
    fn what_has_a_share_is_not_being_stopped() {
        assert_eq!(broken(|service| stop(service, "v2")), [5]);
        assert_eq!(broken(|service| drop(service.pools.remove(&release("v2").id))), [5]);
    }

    #[test]
    fn the_baseline_stays_until_the_promotion_except_in_a_rolling_update() {
        assert_eq!(broken(|service| stop(service, "v1")), [5, 4]);
        let rolling = |service: &mut Service| {
            stop(service, "v1");
            let rollout = service.rollout.as_mut().expect("one runs");
            Arc::make_mut(&mut rollout.request).policy.strategy = StrategyKind::Rolling;
        };
        assert_eq!(broken(rolling), [5]);
        let promoted = |service: &mut Service| {
            stop(service, "v1");
            service.rollout.as_mut().expect("one runs").promoted = true;
        };
        assert_eq!(broken(promoted), [5]);
    }

    #[test]
    fn nothing_is_its_own_baseline() {
        let own = |service: &mut Service| {
            let rollout = service.rollout.as_mut().expect("one runs");
            rollout.baseline = Some(rollout.candidate().clone());
        };
        assert_eq!(broken(own), [4]);
    }

    #[test]
    fn what_is_taken_back_has_a_cause_and_what_has_one_is_not_promoted() {
        let phase = |phase, cause: Option<CauseKind>| {
            move |service: &mut Service| {
                let rollout = service.rollout.as_mut().expect("one runs");
                rollout.phase = phase;
                rollout.cause = cause.map(|kind| Cause::new(kind, "why"));
            }
        };
        assert_eq!(broken(phase(Phase::RollingBack, None)), [10]);
        assert_eq!(broken(phase(Phase::RollingBack, Some(CauseKind::Aborted))), NOTHING);
        assert_eq!(broken(phase(Phase::Promoting, None)), NOTHING);
        assert_eq!(broken(phase(Phase::Promoting, Some(CauseKind::Aborted))), [10]);
    }

    #[test]
    fn a_release_that_is_referred_to_is_kept() {
        assert_eq!(broken(|service| drop(service.releases.remove(&release("v2").id))), [1]);
        assert_eq!(broken(|service| drop(service.releases.remove(&release("v1").id))), [1, 11]);
    }
}
