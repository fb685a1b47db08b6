//! Strategies turn a policy into a ladder of steps; after that there is one machine for all.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use switchback_domain::Weight;
use switchback_domain::seeded::bug;
use switchback_domain::strategy::{AnalysisStep, Hook, RolloutPolicy, Step, StrategyKind};

use crate::rollout::RequestKind;

/// One step of a running rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanStep {
    /// Check that there is a way back.
    VerifyWayBack,
    /// Bring both sides to this strength; done when the candidate's are ready and the baseline's
    /// surplus is gone.
    Scale {
        /// Candidate instances.
        candidate: u32,
        /// Baseline instances; `None` leaves them.
        baseline: Option<u32>,
    },
    /// Check the candidate before it gets traffic.
    Smoke(Hook),
    /// Move traffic.
    SetWeight(Weight),
    /// Wait; without a duration for an operator.
    Pause(Option<Duration>),
    /// Judge.
    Analysis(AnalysisStep),
    /// Wait for an operator's word.
    Approve,
    /// Run a command.
    Hook(Hook),
    /// Make the candidate the stable version.
    Promote,
    /// Keep the baseline for the hold-back time, then stop it.
    DrainBaseline,
}

/// The ladder for a request. `baseline` is how many instances serve now; `None` when nothing
/// was ever promoted.
pub fn plan(policy: &RolloutPolicy, kind: RequestKind, baseline: Option<u32>) -> Vec<PlanStep> {
    let smoke = policy.smoke_tests.iter().cloned().map(PlanStep::Smoke);
    let Some(present) = baseline else {
        let mut first = vec![full(policy)];
        first.extend(smoke);
        first.extend([PlanStep::SetWeight(Weight::ALL), PlanStep::Promote]);
        return first;
    };
    // Going back is the way back: what serves now may be broken, and must not stand in its way.
    let mut ladder = match kind {
        RequestKind::Deploy => vec![PlanStep::VerifyWayBack],
        RequestKind::Rollback => Vec::new(),
    };
    match (kind, policy.strategy) {
        (RequestKind::Rollback, _) => {
            ladder.extend([full(policy), PlanStep::SetWeight(Weight::ALL)]);
        }
        (RequestKind::Deploy, StrategyKind::Rolling) => {
            ladder.extend(rolling(policy, present));
            ladder.extend(policy.steps.iter().filter_map(after_the_shift));
        }
        (RequestKind::Deploy, StrategyKind::BlueGreen) => {
            ladder.push(full(policy));
            ladder.extend(policy.steps.iter().flat_map(|step| translate(step, None)));
        }
        (RequestKind::Deploy, StrategyKind::Canary) => {
            let replicas = Some(policy.replicas);
            ladder.extend(policy.steps.iter().flat_map(|step| translate(step, replicas)));
        }
    }
    end_with_all(&mut ladder, policy);
    check_before_traffic(&mut ladder, smoke);
    ladder.extend([PlanStep::Promote, PlanStep::DrainBaseline]);
    ladder
}

fn full(policy: &RolloutPolicy) -> PlanStep {
    PlanStep::Scale { candidate: policy.replicas, baseline: None }
}

/// Whatever the user's steps are, the promotion finds the candidate at full strength with all
/// traffic.
fn end_with_all(ladder: &mut Vec<PlanStep>, policy: &RolloutPolicy) {
    let last = ladder.iter().rev().find(|step| matches!(step, PlanStep::SetWeight(_)));
    if last != Some(&PlanStep::SetWeight(Weight::ALL)) {
        ladder.extend([full(policy), PlanStep::SetWeight(Weight::ALL)]);
    }
}

/// Smoke tests run once, right before the first traffic.
fn check_before_traffic(ladder: &mut Vec<PlanStep>, smoke: impl Iterator<Item = PlanStep>) {
    let is_shift = |step: &PlanStep| matches!(step, PlanStep::SetWeight(_));
    let first = ladder.iter().position(is_shift).unwrap_or(ladder.len());
    ladder.splice(first..first, smoke);
}

/// A user's step; with `replicas`, each weight is preceded by the instances that carry it.
fn translate(step: &Step, replicas: Option<u32>) -> Vec<PlanStep> {
    match step {
        Step::SetWeight(weight) => {
            let scale = replicas.map(|replicas| PlanStep::Scale {
                candidate: weight.share_of(replicas).max(1),
                baseline: None,
            });
            scale.into_iter().chain([PlanStep::SetWeight(*weight)]).collect()
        }
        Step::Pause { .. } | Step::Analysis(_) | Step::Approve | Step::Hook(_) => {
            after_the_shift(step).into_iter().collect()
        }
    }
}

fn after_the_shift(step: &Step) -> Option<PlanStep> {
    match step {
        Step::SetWeight(_) => None,
        Step::Pause { duration_ms } => {
            Some(PlanStep::Pause(duration_ms.map(Duration::from_millis)))
        }
        Step::Analysis(analysis) => Some(PlanStep::Analysis(analysis.clone())),
        Step::Approve => Some(PlanStep::Approve),
        Step::Hook(hook) => Some(PlanStep::Hook(hook.clone())),
    }
}

/// Start new ones up to the surge, shift their share, stop old ones down to what must stay
/// available, and again. Shift before shrink: a share moves before its old instances go. The
/// last old ones stay until the promotion.
fn rolling(policy: &RolloutPolicy, present: u32) -> Vec<PlanStep> {
    let replicas = policy.replicas;
    let surge = surge(policy);
    let unavailable = policy.max_unavailable + u32::from(bug("one-too-few"));
    let available = replicas.saturating_sub(unavailable);
    let (mut steps, mut old, mut new) = (Vec::new(), present, 0);
    while new < replicas {
        let room = (replicas + surge).saturating_sub(old);
        if room > new {
            new = room.min(replicas);
            steps.push(PlanStep::Scale { candidate: new, baseline: None });
        }
        // Nothing new is ready yet: somebody has to serve.
        let serving = u32::from(new == 0);
        let old_next = available.saturating_sub(new).max(serving).min(old);
        if new > 0 {
            steps.push(PlanStep::SetWeight(Weight::ratio(new, new + old_next)));
        }
        if old_next == 0 && new == replicas {
            break;
        }
        if old_next < old {
            old = old_next;
            steps.push(PlanStep::Scale { candidate: new, baseline: Some(old) });
        }
    }
    steps
}

/// A single replica cannot be replaced without a second one beside it.
fn surge(policy: &RolloutPolicy) -> u32 {
    policy.max_surge.max(u32::from(policy.max_unavailable == 0 || policy.replicas == 1))
}

#[cfg(test)]
#[allow(clippy::wildcard_enum_match_arm, reason = "the tests pick out one kind of step")]
mod tests {
    use super::*;
    use crate::step::testing::policy;

    fn weights(ladder: &[PlanStep]) -> Vec<u16> {
        let weight = |step: &PlanStep| match step {
            PlanStep::SetWeight(weight) => Some(weight.basis_points() / 100),
            _ => None,
        };
        ladder.iter().filter_map(weight).collect()
    }

    #[test]
    fn a_canary_starts_the_instances_each_weight_needs() {
        let mut policy = policy(StrategyKind::Canary);
        policy.replicas = 4;
        policy.steps = [5, 25, 50, 100].map(|p| Step::SetWeight(Weight::from_percent(p))).to_vec();
        let ladder = plan(&policy, RequestKind::Deploy, Some(4));
        let scales: Vec<_> = ladder
            .iter()
            .filter_map(|step| match step {
                PlanStep::Scale { candidate, .. } => Some(*candidate),
                _ => None,
            })
            .collect();
        assert_eq!(scales, [1, 1, 2, 4]);
        assert_eq!(weights(&ladder), [5, 25, 50, 100]);
        assert_eq!(ladder.first(), Some(&PlanStep::VerifyWayBack));
        assert_eq!(ladder.last(), Some(&PlanStep::DrainBaseline));
    }

    #[test]
    fn a_rolling_update_never_exceeds_its_surge_nor_falls_short() {
        for replicas in 1..=7 {
            for surge in 0..=3 {
                for unavailable in 0..=2_u32.min(replicas) {
                    let mut policy = policy(StrategyKind::Rolling);
                    (policy.replicas, policy.max_surge, policy.max_unavailable) =
                        (replicas, surge, unavailable);
                    check_rolling(&policy, &plan(&policy, RequestKind::Deploy, Some(replicas)));
                }
            }
        }
    }

    /// The steps of a rolling update before its promotion, in words: `+2` brings the new ones to
    /// two, `-1` the old ones to one.
    fn rolling_words(numbers: [u32; 3], present: u32) -> String {
        let mut policy = policy(StrategyKind::Rolling);
        [policy.replicas, policy.max_surge, policy.max_unavailable] = numbers;
        let word = |step: &PlanStep| match step {
            PlanStep::Scale { candidate, baseline: None } => Some(format!("+{candidate}")),
            PlanStep::Scale { baseline: Some(left), .. } => Some(format!("-{left}")),
            PlanStep::SetWeight(weight) => Some(weight.to_string()),
            _ => None,
        };
        let ladder = plan(&policy, RequestKind::Deploy, Some(present));
        ladder.iter().filter_map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_rolling_update_climbs_as_its_numbers_say() {
        // Replicas, surge and how many may be missing; how many serve; the ladder.
        for (numbers, present, expected) in [
            ([3, 1, 0], 3, "+1 33.33% -2 +2 66.66% -1 +3 100%"),
            ([3, 0, 1], 3, "-2 +1 50% -1 +2 100% -0 +3 100%"),
            ([3, 2, 1], 3, "+2 100% -0 +3 100%"),
            ([4, 3, 0], 4, "+3 75% -1 +4 100%"),
            ([1, 0, 1], 1, "+1 100%"),
            ([2, 0, 2], 2, "-1 +1 100% -0 +2 100%"),
            ([2, 1, 0], 5, "-2 +1 50% -1 +2 100%"),
            ([4, 1, 0], 1, "+4 100%"),
        ] {
            assert_eq!(rolling_words(numbers, present), expected, "{numbers:?} {present}");
        }
    }

    fn check_rolling(policy: &RolloutPolicy, ladder: &[PlanStep]) {
        let surge = surge(policy);
        let (mut old, mut new, mut weight) = (policy.replicas, 0, Weight::ZERO);
        for step in ladder {
            match step {
                PlanStep::Scale { candidate, baseline } => {
                    assert!(*candidate >= new);
                    new = *candidate;
                    if let Some(baseline) = baseline {
                        assert!(*baseline <= old);
                        old = *baseline;
                    }
                    assert!(old > 0 || weight == Weight::ALL, "somebody serves: {ladder:?}");
                    assert!(old + new <= policy.replicas + surge, "{ladder:?}");
                    assert!(old + new >= policy.replicas - policy.max_unavailable, "{ladder:?}");
                }
                PlanStep::SetWeight(next) => {
                    assert!(*next >= weight && new > 0);
                    weight = *next;
                }
                _ => {}
            }
        }
        assert_eq!((new, weight), (policy.replicas, Weight::ALL), "{ladder:?}");
    }

    #[test]
    fn the_first_deployment_and_a_rollback_take_the_short_way() {
        let policy = policy(StrategyKind::Canary);
        assert_eq!(weights(&plan(&policy, RequestKind::Deploy, None)), [100]);
        assert_eq!(weights(&plan(&policy, RequestKind::Rollback, Some(1))), [100]);
    }
}
