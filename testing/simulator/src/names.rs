//! Short names of events, endings and causes, for timelines, marks and the table of transitions.

use switchback_domain::Outcome;
use switchback_engine::{CauseKind, Command, Ending, Event, EventKind, Rejection};

pub(crate) fn ending_name(ending: Ending) -> &'static str {
    match ending {
        Ending::Promoted => "ended: promoted",
        Ending::RolledBack => "ended: rolled back",
        Ending::Withdrawn => "ended: withdrawn",
        Ending::Superseded => "ended: superseded",
    }
}

pub(crate) fn event_name(event: &Event) -> &'static str {
    match &event.kind {
        EventKind::Requested(_) => "requested",
        EventKind::Commanded(Command::Promote { full: false, .. }) => "promote",
        EventKind::Commanded(Command::Promote { full: true, .. }) => "promote in full",
        EventKind::Commanded(Command::Pause { .. }) => "pause",
        EventKind::Commanded(Command::Resume { .. }) => "resume",
        EventKind::Commanded(Command::Abort { .. }) => "abort",
        EventKind::Commanded(Command::Cancel { .. }) => "cancel",
        EventKind::PoolObserved { .. } => "instances observed",
        EventKind::TrafficAcknowledged { .. } => "traffic acknowledged",
        EventKind::WayBackChecked { obstacles, .. } if obstacles.is_empty() => "way back clear",
        EventKind::WayBackChecked { .. } => "way back blocked",
        EventKind::HookFinished { passed: true, .. } => "hook passed",
        EventKind::HookFinished { passed: false, .. } => "hook failed",
        EventKind::Judged { verdict, .. } => match verdict.outcome {
            Outcome::Regressed => "judged regressed",
            Outcome::Safe => "judged safe",
            Outcome::Undecided => "judged undecided",
        },
        EventKind::Operated(_) => "operated",
        EventKind::Ticked => "time passed",
    }
}

pub(crate) fn detail(event: &Event) -> String {
    match &event.kind {
        EventKind::Requested(request) => {
            format!("{} {} {:?}", request.id, request.release.version, request.policy)
        }
        EventKind::PoolObserved { release, instances } => {
            let health: Vec<_> = instances.iter().map(|instance| instance.health).collect();
            format!("{release} {health:?}")
        }
        EventKind::TrafficAcknowledged { shift } => format!("{shift}"),
        EventKind::HookFinished { position, .. } | EventKind::Judged { position, .. } => {
            format!("at step {}", position + 1)
        }
        EventKind::Operated(operation) => format!("{:?}", operation.mode),
        EventKind::Commanded(_) | EventKind::WayBackChecked { .. } | EventKind::Ticked => {
            String::new()
        }
    }
}

pub(crate) fn rejection_name(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::Busy { .. } => "busy",
        Rejection::QueueFull(_) => "queue full",
        Rejection::Unchanged => "unchanged",
        Rejection::NoRollout => "no rollout",
        Rejection::NotNow { verb, .. } => verb,
    }
}

pub(crate) fn cause_name(kind: CauseKind) -> &'static str {
    match kind {
        CauseKind::Regressed => "regressed",
        CauseKind::NotReady => "not ready",
        CauseKind::CrashLoop => "crash loop",
        CauseKind::Died => "died",
        CauseKind::CheckFailed => "check failed",
        CauseKind::NoEvidence => "no evidence",
        CauseKind::Deadline => "deadline",
        CauseKind::NotVerified => "not verified",
        CauseKind::Aborted => "aborted",
        CauseKind::Superseded => "superseded",
    }
}
