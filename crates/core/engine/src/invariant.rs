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
