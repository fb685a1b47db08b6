//! States and steps in words, for notes and for the command line.

use switchback_domain::route::{Destination, PauseLimits, RouteMode};
use switchback_domain::time::humane;
use switchback_domain::{InstanceHealth, InstanceReport, Outcome, ReleaseId, Verdict};

use crate::plan::PlanStep;
use crate::rollout::Phase;
use crate::service::{Pool, Service};

/// A phase as users see it.
pub fn describe_phase(phase: &Phase) -> &'static str {
    match phase {
        Phase::Verifying => "Verifying",
        Phase::Provisioning => "Provisioning",
        Phase::Validating => "Validating",
        Phase::Shifting => "Shifting",
        Phase::Observing => "Observing",
        Phase::AwaitingApproval => "AwaitingApproval",
        Phase::Promoting => "Promoting",
        Phase::DrainingBaseline => "DrainingBaseline",
        Phase::RollingBack => "RollingBack",
        Phase::Withdrawing => "Withdrawing",
        Phase::Stuck { .. } => "Stuck",
    }
}

/// What an operator has a service's route do, as users see it.
pub fn describe_mode(service: &Service, mode: &RouteMode) -> String {
    match mode {
        RouteMode::Serve => "serves".to_owned(),
        RouteMode::Maintenance(of) => {
            format!("in maintenance, clients told to come again in {}", humane(of.retry_after))
        }
        RouteMode::Isolate => "isolated".to_owned(),
        RouteMode::Divert { to: Destination::Version(release) } => {
            format!("diverted to version {}", version_of(service, release))
        }
        RouteMode::Divert { to: Destination::Service(key) } => format!("diverted to {key}"),
        RouteMode::Pause(limits) => {
            let PauseLimits { deadline, cap } = limits;
            format!("held: up to {cap} requests wait, each for {} at most", humane(*deadline))
        }
    }
}

/// A step as users see it.
pub fn describe_step(step: &PlanStep) -> String {
    match step {
        PlanStep::VerifyWayBack => "verify the way back".to_owned(),
        PlanStep::Scale { candidate, baseline: None } => format!("{candidate} new ready"),
        PlanStep::Scale { candidate, baseline: Some(left) } => {
            format!("{candidate} new ready, {left} old left")
        }
        PlanStep::Smoke(hook) => format!("smoke test {}", hook.name),
        PlanStep::SetWeight(weight) => format!("weight {weight}"),
        PlanStep::Pause(Some(duration)) => format!("pause {}", humane(*duration)),
        PlanStep::Pause(None) => "pause until promoted".to_owned(),
        PlanStep::Analysis(analysis) => format!("analysis {}", humane(analysis.duration)),
        PlanStep::Approve => "wait for approval".to_owned(),
        PlanStep::Hook(hook) => format!("hook {}", hook.name),
        PlanStep::Promote => "promote".to_owned(),
        PlanStep::DrainBaseline => "hold back, then stop the old version".to_owned(),
    }
}

pub(crate) fn describe_split(service: &Service) -> String {
    let shares = service.traffic.split.shares().iter();
    let words: Vec<_> = shares
        .map(|(release, weight)| format!("{} {weight}", version_of(service, release)))
        .collect();
    if words.is_empty() { "nobody serves".to_owned() } else { words.join(", ") }
}

pub(crate) fn describe_instance(
    service: &Service,
    release: &ReleaseId,
    report: &InstanceReport,
) -> String {
    let state = match report.health {
        InstanceHealth::Starting => "starting",
        InstanceHealth::Ready => "ready",
        InstanceHealth::Unready => "not ready any more",
        InstanceHealth::Exited => "ended, will be started again",
        InstanceHealth::CrashLoop => "ends again and again",
        InstanceHealth::Stopping => "stopping",
    };
    let version = version_of(service, release);
    match &report.reason {
        Some(reason) if report.health != InstanceHealth::Ready => {
            format!("{version} {}: {state} ({reason})", report.id)
        }
        _ => format!("{version} {}: {state}", report.id),
    }
}

/// Why the instances of a pool are not ready, in one line.
pub(crate) fn describe_reasons(pool: &Pool) -> String {
    let unready = pool.instances.iter().filter(|i| i.health != InstanceHealth::Ready);
    unready
        .max_by_key(|instance| (instance.health, instance.reason.is_some()))
        .and_then(|instance| instance.reason.clone())
        .unwrap_or_else(|| "nothing was seen of them".to_owned())
}

pub(crate) fn describe_verdict(verdict: &Verdict) -> String {
    let worst = verdict.findings.iter().find(|finding| finding.outcome == verdict.outcome);
    let why = worst.map_or_else(String::new, |finding| format!(": {}", finding.summary));
    let word = match verdict.outcome {
        Outcome::Regressed => "regressed",
        Outcome::Safe => "safe",
        Outcome::Undecided => "undecided",
    };
    format!("{word}{why}")
}

fn version_of(service: &Service, release: &ReleaseId) -> String {
    let known = service.releases.get(release).map(|release| release.version.to_string());
    known.unwrap_or_else(|| release.short().to_owned())
}

#[cfg(test)]
mod tests {
    use switchback_domain::{Finding, InstanceId};

    use super::*;
    use crate::step::testing::{key, release, verdict};

    #[test]
    fn why_an_instance_was_not_ready_is_no_news_once_it_is() {
        let (service, release) = (Service::new(key()), release("v1").id);
        let says = |health| {
            let id = InstanceId::new(&key(), &release, 0);
            let reason = Some("no answer".to_owned());
            let report = InstanceReport { id, address: None, health, restarts: 0, reason };
            describe_instance(&service, &release, &report)
        };
        assert!(says(InstanceHealth::Unready).ends_with(": not ready any more (no answer)"));
        assert!(says(InstanceHealth::Ready).ends_with(": ready"));
    }

    #[test]
    fn a_verdict_is_told_with_the_finding_that_decided_it() {
        let mut verdict = verdict(Outcome::Regressed);
        let (outcome, summary) = (Outcome::Safe, "latency is fine".to_owned());
        let fine = Finding { outcome, summary, ..verdict.findings[0].clone() };
        verdict.findings.insert(0, fine);
        assert_eq!(describe_verdict(&verdict), "regressed: Regressed by the numbers");
    }
}
