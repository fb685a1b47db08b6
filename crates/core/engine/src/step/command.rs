//! Requests for rollouts and the words of operators.

use std::sync::Arc;

use switchback_domain::route::RouteMode;
use switchback_domain::seeded::bug;
use switchback_domain::strategy::{BusyPolicy, RolloutPolicy};
use switchback_domain::{Split, Weight};

use super::Work;
use crate::event::{Command, Counts, NoteKind, Rejection};
use crate::plan::{PlanStep, plan};
use crate::rollout::{Cause, CauseKind, Ending, Paused, Phase, Request, Rollout, RolloutId};
use crate::service::{OPERATIONS_MAX, Operation, QUEUE_MAX, Service};
use crate::words::describe_mode;

impl Work {
    pub(super) fn request(&mut self, request: &Request) -> Result<(), Rejection> {
        let Some(active) = &self.service.rollout else { return self.request_idle(request) };
        let running = active.request.id;
        if active.promoted && self.service.queue.is_empty() {
            // The candidate is the stable version already: only its predecessor's end is awaited,
            // and that one may be just what is asked for.
            self.end(Ending::Promoted, "promoted; the next rollout begins");
            return self.request_idle(request);
        }
        match request.policy.on_busy {
            BusyPolicy::Refuse => return Err(Rejection::Busy { running }),
            BusyPolicy::Queue if self.service.queue.len() >= QUEUE_MAX => {
                return Err(Rejection::QueueFull(QUEUE_MAX));
            }
            BusyPolicy::Queue => {}
            BusyPolicy::Supersede => self.supersede(request),
        }
        self.note(NoteKind::Command, format!("{} waits for {running}", request.id));
        self.service.releases.insert(request.release.id.clone(), request.release.clone());
        if !bug("queue-forgets") {
            self.service.queue.push(request.clone());
        }
        Ok(())
    }

    fn request_idle(&mut self, request: &Request) -> Result<(), Rejection> {
        match self.service.stable() {
            Some(stable) if stable.release == request.release.id => {
                if stable.policy == request.policy {
                    return Err(Rejection::Unchanged);
                }
                self.take_on(&request.policy);
            }
            _ => self.start(request.clone()),
        }
        Ok(())
    }

    /// Not a new release, only more or fewer of the same, or other rules for the next one.
    fn take_on(&mut self, policy: &RolloutPolicy) {
        let Some(stable) = self.service.revisions.last_mut() else { return };
        let stable = Arc::make_mut(stable);
        stable.policy = policy.clone();
        let (release, replicas) = (stable.release.clone(), policy.replicas);
        self.set_desired(&release, replicas);
        self.note(NoteKind::Note, format!("same release, {replicas} instances"));
    }

    /// What waited has become the stable version meanwhile: there is nothing to bring in.
    pub(super) fn end_unstarted(&mut self, request: Request) {
        self.take_on(&request.policy);
        self.service.rollout = Some(new_rollout(&self.service, request));
        self.end(Ending::Promoted, "this release is serving already");
    }

    /// Takes the running one back and forgets those that wait.
    fn supersede(&mut self, by: &Request) {
        let text = format!("superseded by {} ({})", by.id, by.release.version);
        let cause = Cause::new(CauseKind::Superseded, text);
        for request in std::mem::take(&mut self.service.queue) {
            self.end_waiting(request, Ending::Superseded, &cause);
        }
        if bug("superseded-dropped") {
            self.service.rollout = None;
        }
        if self.service.rollout.as_ref().is_some_and(Rollout::is_forward) {
            self.take_back(cause);
        }
    }

    /// Takes one that waits out of the queue.
    fn cancel(&mut self, id: RolloutId, cause: &Cause) -> Result<(), Rejection> {
        let waits = self.service.queue.iter().position(|request| request.id == id);
        let Some(at) = waits else {
            let why = "it does not wait".to_owned();
            return Err(Rejection::NotNow { rollout: id, verb: "cancelled", why });
        };
        let request = self.service.queue.remove(at);
        self.end_waiting(request, Ending::Withdrawn, cause);
        Ok(())
    }

    /// Ends a rollout that never began; the running one goes on.
    fn end_waiting(&mut self, request: Request, ending: Ending, cause: &Cause) {
        let rollout = new_rollout(&self.service, request);
        let rollout = Rollout { cause: Some(cause.clone()), ..rollout };
        let running = self.service.rollout.replace(rollout);
        self.end(ending, cause.text.clone());
        self.service.rollout = running;
    }

    pub(super) fn start(&mut self, request: Request) {
        let release = request.release.clone();
        let rollout = new_rollout(&self.service, request);
        let (version, by) = (&release.version, &rollout.request.by);
        let text = match &rollout.baseline_version {
            Some(old) => format!("{by} asks for {version} in place of {old}"),
            None => format!("{by} asks for {version}, the first version"),
        };
        self.service.releases.insert(release.id.clone(), release);
        self.service.rollout = Some(rollout);
        self.note(NoteKind::Command, text);
        self.enter(0);
    }

    /// What a route does is the operator's alone to say: no rollout begins, waits or ends by it.
    pub(super) fn operate(&mut self, operation: &Operation) {
        let what = describe_mode(&self.service, &operation.mode);
        let why = operation.reason.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        self.note(NoteKind::Command, format!("{what}, by {}{why}", operation.by));
        let operations = &mut self.service.operations;
        if let Some(RouteMode::Maintenance(past)) = operations.last_mut().map(|last| &mut last.mode)
        {
            past.page = String::new();
        }
        operations.push(operation.clone());
        let surplus = operations.len().saturating_sub(OPERATIONS_MAX);
        operations.drain(..surplus);
    }

    pub(super) fn command(&mut self, command: &Command) -> Result<(), Rejection> {
        let active = || self.service.rollout.as_ref().ok_or(Rejection::NoRollout);
        match command {
            Command::Promote { full, by } => {
                going_forward(active()?, "promoted")?;
                self.promote_command(*full, by)
            }
            Command::Pause { by, reason } => {
                let rollout = active()?;
                going_forward(rollout, "paused")?;
                if rollout.paused.is_some() {
                    return Err(not_now(rollout, "paused", "it is paused already"));
                }
                let reason = reason.clone().unwrap_or_else(|| "no reason given".to_owned());
                self.pause(format!("paused by {by}: {reason}"));
                Ok(())
            }
            Command::Resume { by } => {
                let rollout = active()?;
                if rollout.paused.is_none() {
                    return Err(not_now(rollout, "resumed", "it is not paused"));
                }
                self.note(NoteKind::Command, format!("resumed by {by}"));
                self.resume();
                Ok(())
            }
            Command::Abort { by, reason } => {
                going_forward(active()?, "aborted")?;
                self.take_back(stopped("aborted", by, reason.as_ref()));
                Ok(())
            }
            Command::Cancel { rollout, by, reason } => {
                self.cancel(*rollout, &stopped("cancelled", by, reason.as_ref()))
            }
        }
    }

    pub(super) fn pause(&mut self, reason: String) {
        self.note(NoteKind::Command, reason.clone());
        let since = self.now;
        if let Some(rollout) = &mut self.service.rollout {
            rollout.paused = Some(Paused { since, reason });
        }
    }

    /// Goes on where it stopped; time spent paused counts towards no delay and no deadline. What
    /// moved during the pause has waited only since then: no deadline counts from the future. Where
    /// one had passed already, whoever resumes grants another one.
    fn resume(&mut self) {
        let now = self.now;
        let Some(rollout) = &mut self.service.rollout else { return };
        if let Some(paused) = rollout.paused.take() {
            for at in [&mut rollout.entered_at, &mut rollout.progress_at] {
                let since = if bug("pause-in-full") { paused.since } else { paused.since.max(*at) };
                *at = *at + now.since(since);
            }
        }
        if self.overdue().is_some()
            && !bug("resumed-into-deadline")
            && let Some(rollout) = &mut self.service.rollout
        {
            (rollout.entered_at, rollout.progress_at) = (now, now);
        }
    }

    fn promote_command(&mut self, full: bool, by: &str) -> Result<(), Rejection> {
        let Some(rollout) = &self.service.rollout else { return Err(Rejection::NoRollout) };
        match rollout.current() {
            Some(
                PlanStep::Pause(_) | PlanStep::Analysis(_) | PlanStep::Approve | PlanStep::Promote,
            ) => {}
            Some(PlanStep::SetWeight(_)) if full => {}
            Some(PlanStep::SetWeight(_) | PlanStep::DrainBaseline) | None => {
                return Err(not_now(rollout, "promoted", "the present step waits for nobody"));
            }
            Some(
                PlanStep::VerifyWayBack
                | PlanStep::Scale { .. }
                | PlanStep::Smoke(_)
                | PlanStep::Hook(_),
            ) => {
                return Err(not_now(rollout, "promoted", "the candidate is still being checked"));
            }
        }
        let now = self.now;
        let which = if full { " in full" } else { "" };
        self.note(NoteKind::Command, format!("promoted{which} by {by}"));
        self.resume();
        if let Some(rollout) = &mut self.service.rollout {
            rollout.approved = true;
            rollout.progress_at = now;
            if full {
                shorten(rollout);
            }
        }
        Ok(())
    }
}

/// Leaves out every step between the present one and the promotion, except checks that the
/// candidate has to pass before its first traffic.
fn shorten(rollout: &mut Rollout) {
    rollout.full = true;
    if rollout.current() == Some(&PlanStep::Promote) {
        return;
    }
    let replicas = rollout.request.policy.replicas;
    let plan = Arc::make_mut(&mut rollout.plan);
    let mut left_out = plan.split_off(rollout.position + 1);
    left_out.retain(|step| matches!(step, PlanStep::Smoke(_)));
    plan.push(PlanStep::Scale { candidate: replicas, baseline: None });
    plan.extend(left_out);
    plan.extend([PlanStep::SetWeight(Weight::ALL), PlanStep::Promote]);
    if rollout.baseline.is_some() {
        plan.push(PlanStep::DrainBaseline);
    }
}

pub(super) fn new_rollout(service: &Service, request: Request) -> Rollout {
    let baseline = service.stable().map(|stable| stable.release.clone());
    let replicas = service.stable().map(|stable| stable.policy.replicas);
    let version = |release| service.releases.get(release).map(|known| known.version.clone());
    let now = request.asked_at;
    Rollout {
        plan: Arc::new(plan(&request.policy, request.kind, replicas)),
        baseline_version: baseline.as_ref().and_then(version),
        baseline,
        request: Arc::new(request),
        position: 0,
        phase: Phase::Verifying,
        entered_at: now,
        progress_at: now,
        reached: 0,
        approved: false,
        passed: false,
        full: false,
        paused: None,
        cause: None,
        promoted: false,
        verdict: None,
        counts: Counts::default(),
        last_seen: Vec::new(),
    }
}

/// Somebody has had enough of it.
fn stopped(how: &str, by: &str, reason: Option<&String>) -> Cause {
    let why = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    Cause::new(CauseKind::Aborted, format!("{how} by {by}{why}"))
}

fn going_forward(rollout: &Rollout, verb: &'static str) -> Result<(), Rejection> {
    if rollout.promoted {
        return Err(not_now(
            rollout,
            verb,
            "it is promoted already; `switchback rollback` undoes it",
        ));
    }
    if !rollout.is_forward() {
        return Err(not_now(rollout, verb, "it is being taken back"));
    }
    Ok(())
}

fn not_now(rollout: &Rollout, verb: &'static str, why: &str) -> Rejection {
    Rejection::NotNow { rollout: rollout.request.id, verb, why: why.to_owned() }
}

/// The split in which the stable version of the service gets everything.
pub(super) fn all_to_baseline(rollout: &Rollout) -> Split<switchback_domain::ReleaseId> {
    rollout.baseline.clone().map_or_else(Split::none, Split::all)
}
