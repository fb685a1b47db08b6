//! From states to the API's records. Pure.

use switchback_api::{
    Accepted, DeedEntry, Ledger, LedgerEntry, Mode, OperationEntry, RevisionStatus, RolloutOutcome,
    RolloutSummary, ServiceStatus, Share,
};
use switchback_domain::route::RouteMode;
use switchback_domain::{ReleaseId, Version, Weight};
use switchback_engine::{
    EndedRollout, Ending, Phase, PlanStep, Revision, Rollout, RolloutId, Service, describe_mode,
    describe_phase, describe_step,
};
use switchback_ports::data_plane::{ArmReport, Report};

/// A running rollout at a glance.
pub(crate) fn active(service: &Service, rollout: &Rollout) -> RolloutSummary {
    let steps = u32::try_from(rollout.plan.len()).unwrap_or(u32::MAX);
    let position = u32::try_from(rollout.position).unwrap_or(u32::MAX).saturating_add(1);
    RolloutSummary {
        id: rollout.request.id.to_string(),
        key: service.key.clone(),
        strategy: rollout.request.policy.strategy,
        from: rollout.baseline_version.clone(),
        to: rollout.request.release.version.clone(),
        phase: describe_phase(&rollout.phase).to_owned(),
        step: position.min(steps),
        steps,
        doing: rollout.current().map_or_else(String::new, describe_step),
        weight: service.weight_of(rollout.candidate()),
        waiting_for: waiting_for(rollout),
        started_ms: rollout.request.wall_ms,
        ended_ms: None,
        outcome: None,
        cause: rollout.cause.as_ref().map(|cause| cause.text.clone()),
        candidate_requests: rollout.counts.requests,
        candidate_failed: rollout.counts.failed,
        by: rollout.request.by.clone(),
    }
}

fn waiting_for(rollout: &Rollout) -> Option<String> {
    if let Some(paused) = &rollout.paused {
        return Some(format!("resume ({})", paused.reason));
    }
    if let Phase::Stuck { need } = &rollout.phase {
        return Some(need.clone());
    }
    let waits = match rollout.current()? {
        PlanStep::Pause(None) | PlanStep::Approve => true,
        PlanStep::Promote => !rollout.may_promote(),
        PlanStep::VerifyWayBack
        | PlanStep::Scale { .. }
        | PlanStep::Smoke(_)
        | PlanStep::SetWeight(_)
        | PlanStep::Pause(Some(_))
        | PlanStep::Analysis(_)
        | PlanStep::Hook(_)
        | PlanStep::DrainBaseline => false,
    };
    (waits && !rollout.approved).then(|| "promote".to_owned())
}

/// An ended rollout at a glance.
pub(crate) fn ended(service: &Service, ended: &EndedRollout) -> RolloutSummary {
    let (phase, outcome, weight) = match ended.ending {
        Ending::Promoted => ("Succeeded", RolloutOutcome::Promoted, Weight::ALL),
        Ending::RolledBack => ("RolledBack", RolloutOutcome::RolledBack, Weight::ZERO),
        Ending::Withdrawn => ("Withdrawn", RolloutOutcome::Withdrawn, Weight::ZERO),
        Ending::Superseded => ("Superseded", RolloutOutcome::Superseded, Weight::ZERO),
    };
    RolloutSummary {
        phase: phase.to_owned(),
        weight,
        waiting_for: None,
        ended_ms: Some(ended.ended_wall_ms),
        outcome: Some(outcome),
        ..active(service, &ended.rollout)
    }
}

/// A rollout that waits for its turn.
pub(crate) fn waiting(service: &Service, request: &switchback_engine::Request) -> RolloutSummary {
    RolloutSummary {
        id: request.id.to_string(),
        key: service.key.clone(),
        strategy: request.policy.strategy,
        from: service.stable().and_then(|stable| version(service, &stable.release)),
        to: request.release.version.clone(),
        phase: "Queued".to_owned(),
        step: 0,
        steps: 0,
        doing: String::new(),
        weight: Weight::ZERO,
        waiting_for: service.rollout.as_ref().map(|running| running.request.id.to_string()),
        started_ms: request.wall_ms,
        ended_ms: None,
        outcome: None,
        cause: None,
        candidate_requests: 0,
        candidate_failed: 0,
        by: request.by.clone(),
    }
}

/// One rollout of a service, wherever it stands: running, waiting or ended.
pub(crate) fn find(service: &Service, id: RolloutId) -> Option<RolloutSummary> {
    if let Some(rollout) = service.rollout.as_ref().filter(|r| r.request.id == id) {
        return Some(active(service, rollout));
    }
    if let Some(request) = service.queue.iter().find(|request| request.id == id) {
        return Some(waiting(service, request));
    }
    let found = service.ended.iter().rev().find(|ended| ended.rollout.request.id == id)?;
    Some(ended(service, found))
}

/// Every rollout the state remembers, oldest first.
pub(crate) fn all(service: &Service) -> Vec<RolloutSummary> {
    let past = service.ended.iter().map(|past| ended(service, past));
    let present = service.rollout.iter().map(|rollout| active(service, rollout));
    let future = service.queue.iter().map(|request| waiting(service, request));
    past.chain(present).chain(future).collect()
}

/// A service's state; instances, and whether it serves, are filled in by the caller, who knows
/// their processes and the data plane.
pub(crate) fn status(service: &Service) -> ServiceStatus {
    let share = |(release, weight): &(ReleaseId, Weight)| {
        let release_short = release.short().to_owned();
        Some(Share { version: version(service, release)?, release: release_short, weight: *weight })
    };
    ServiceStatus {
        key: service.key.clone(),
        url: url(service),
        stable: service.stable().and_then(|stable| revision(service, stable)),
        split: service.traffic.split.shares().iter().filter_map(share).collect(),
        rollout: service.rollout.as_ref().map(|rollout| active(service, rollout)),
        queue: service.queue.iter().map(|request| waiting(service, request)).collect(),
        serves: false,
        instances: Vec::new(),
        revisions: service.revisions.iter().rev().filter_map(|r| revision(service, r)).collect(),
        operations: service.operations.iter().rev().map(|o| operation(service, o)).collect(),
    }
}

fn operation(service: &Service, operation: &switchback_engine::Operation) -> OperationEntry {
    OperationEntry {
        mode: mode(&operation.mode),
        text: describe_mode(service, &operation.mode),
        by: operation.by.clone(),
        reason: operation.reason.clone(),
        at_ms: operation.wall_ms,
    }
}

/// What operators had a service do, newest first.
pub(crate) fn deeds(service: &Service) -> impl DoubleEndedIterator<Item = DeedEntry> {
    service.operations.iter().rev().map(|operation| DeedEntry {
        at_ms: operation.wall_ms,
        key: Some(service.key.clone()),
        text: describe_mode(service, &operation.mode),
        failed: false,
        by: operation.by.clone(),
        reason: operation.reason.clone(),
    })
}

/// What a route does instead of serving.
pub(crate) fn mode(mode: &RouteMode) -> Option<Mode> {
    match mode {
        RouteMode::Serve => None,
        RouteMode::Maintenance(_) => Some(Mode::Maintenance),
        RouteMode::Isolate => Some(Mode::Isolated),
        RouteMode::Divert { .. } => Some(Mode::Diverted),
        RouteMode::Pause(_) => Some(Mode::Held),
    }
}

fn revision(service: &Service, revision: &Revision) -> Option<RevisionStatus> {
    Some(RevisionStatus {
        revision: revision.number,
        version: version(service, &revision.release)?,
        release: revision.release.short().to_owned(),
        promoted_ms: revision.wall_ms,
    })
}

/// The version of a release the service knows.
pub(crate) fn version(service: &Service, release: &ReleaseId) -> Option<Version> {
    service.releases.get(release).map(|known| known.version.clone())
}

fn url(service: &Service) -> Option<String> {
    let serving = service.stable().map(|stable| &stable.release);
    let candidate = service.rollout.as_ref().map(Rollout::candidate);
    let route = service.releases.get(serving.or(candidate)?)?.workload.route.as_ref()?;
    let host = match route.hosts.first() {
        Some(host) => format!("{host}:{}", route.listen.port()),
        None => route.listen.to_string(),
    };
    let scheme = if route.tls.is_some() { "https" } else { "http" };
    Some(format!("{scheme}://{host}{}", route.path_prefix))
}

/// What a client is told whose request was taken in.
pub(crate) fn accepted(service: &Service, id: RolloutId) -> Accepted {
    let queued = service.queue.iter().any(|request| request.id == id);
    let known = find(service, id).is_some();
    Accepted {
        rollout: if known { id.to_string() } else { String::new() },
        queued,
        note: (!known).then(|| "the release serves already; its settings were updated".to_owned()),
    }
}

/// What became of every request, by a report of the data plane.
pub(crate) fn ledger(report: &Report) -> Ledger {
    let entry = |arm: &ArmReport| LedgerEntry {
        key: arm.arm.service.clone(),
        version: arm.version.clone(),
        in_flight: arm.in_flight,
        stats: arm.stats.clone(),
    };
    Ledger {
        versions: report.arms.iter().map(entry).collect(),
        unrouted: report.unrouted,
        refused: report.refused,
    }
}

/// `r12` as a number.
pub(crate) fn parse_id(text: &str) -> Option<RolloutId> {
    text.strip_prefix('r').unwrap_or(text).parse().ok().map(RolloutId)
}
