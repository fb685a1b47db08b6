//! What must hold after every event, said a second time and independently of the engine: its own
//! `violations`, and what takes two states, the world or the past to see.

use std::collections::{BTreeMap, BTreeSet};

use switchback_domain::strategy::{FailureAction, StrategyKind};
use switchback_domain::{Outcome, ReleaseId, Split, Timestamp, Weight};
use switchback_engine::{
    CauseKind, Command, Effect, Event, EventKind, Phase, PlanStep, RequestKind, Rollout, RolloutId,
    Service, Transition, outstanding, violations,
};

/// No step has so many instances to wait for.
const PROGRESS_MAX: u32 = 40;

/// Remembers what the engine was told about the active rollout.
#[derive(Default)]
pub(crate) struct Oracle {
    rollout: Option<RolloutId>,
    /// Steps that were told to have passed.
    passed: BTreeSet<usize>,
    /// Whether an operator said `promote`.
    word: bool,
    /// How often the present step was granted more time.
    progress: u32,
    /// What the control plane had heard about the candidate when the present step began.
    heard_before: u64,
    heard_next: Option<u64>,
    /// When it began: later than `entered_at` says after a pause, during which the judge looks on.
    began: Timestamp,
    began_next: Option<Timestamp>,
    ended: BTreeMap<RolloutId, u32>,
    accepted: BTreeSet<RolloutId>,
}

/// A transition with what is around it.
pub(crate) struct Moment<'a> {
    pub(crate) before: &'a Service,
    pub(crate) event: &'a Event,
    pub(crate) next: &'a Transition,
    pub(crate) now: Timestamp,
    /// Whom the data plane serves.
    pub(crate) served: &'a Split<ReleaseId>,
    /// A version has lent its share to the other one, because it had nobody to answer.
    pub(crate) is_lent: bool,
    /// Requests of the candidate that the control plane was told of, ever.
    pub(crate) heard: u64,
    /// How many of a thousand requests to the candidate fail in truth.
    pub(crate) errors: u32,
}

impl Oracle {
    pub(crate) fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        let after = &moment.next.service;
        if let Some(violation) = violations(after).first() {
            return Err(format!("invariant {}: {}", violation.invariant, violation.text));
        }
        self.learn(moment);
        self.check_verdict(moment)?;
        self.check_ended(moment)?;
        check_effects(moment)?;
        check_weights(moment)?;
        check_shrinking(moment)?;
        check_words(moment)?;
        check_request(moment)?;
        check_way_back(moment)?;
        check_held(moment)?;
        check_revisions(moment)?;
        check_deadlines(moment)?;
        if let Some(rollout) = &after.rollout {
            check_baseline(moment, rollout)?;
            check_outstanding(moment, rollout)?;
            self.check_progress(moment, rollout)?;
            self.check_promotion(moment, rollout)?;
        }
        Ok(())
    }

    /// Rollouts that were asked for, taken in and have not ended.
    pub(crate) fn open(&self) -> BTreeSet<RolloutId> {
        self.accepted.iter().filter(|id| !self.ended.contains_key(id)).copied().collect()
    }

    /// Learns from what was checked once before.
    pub(crate) fn recall(&mut self, moment: &Moment<'_>) {
        self.learn(moment);
        self.heard_before = self.heard_next.take().unwrap_or(self.heard_before);
        self.began = self.began_next.take().unwrap_or(self.began);
        for ended in moment.next.service.ended.iter().skip(moment.before.ended.len()) {
            self.ended.insert(ended.rollout.request.id, 1);
        }
    }

    fn learn(&mut self, moment: &Moment<'_>) {
        let active = moment.before.rollout.as_ref().map(|rollout| rollout.request.id);
        if self.rollout != active {
            let (ended, accepted) =
                (std::mem::take(&mut self.ended), std::mem::take(&mut self.accepted));
            *self = Self { rollout: active, ended, accepted, ..Self::default() };
        }
        let place = |service: &Service| {
            service.rollout.as_ref().map(|rollout| (rollout.request.id, rollout.position))
        };
        if place(moment.before) != place(&moment.next.service) {
            self.heard_next = Some(moment.heard);
            self.began_next = Some(moment.now);
        }
        if let EventKind::Requested(request) = &moment.event.kind {
            let (id, after) = (request.id, &moment.next.service);
            let active = after.rollout.as_ref().map(|rollout| rollout.request.id);
            if active == Some(id) || after.queue.iter().any(|waiting| waiting.id == id) {
                self.accepted.insert(id);
            }
        }
        match &moment.event.kind {
            EventKind::HookFinished { rollout, position, passed: true, .. }
                if Some(*rollout) == active =>
            {
                self.passed.insert(*position);
            }
            EventKind::Judged { rollout, position, verdict }
                if Some(*rollout) == active && verdict.outcome == Outcome::Safe =>
            {
                self.passed.insert(*position);
            }
            EventKind::Commanded(Command::Promote { .. }) => self.word = true,
            EventKind::Requested(_)
            | EventKind::Commanded(_)
            | EventKind::PoolObserved { .. }
            | EventKind::TrafficAcknowledged { .. }
            | EventKind::WayBackChecked { .. }
            | EventKind::HookFinished { .. }
            | EventKind::Judged { .. }
            | EventKind::Operated(_)
            | EventKind::Ticked => {}
        }
    }

    /// Missing data is no pass, and what fails is not found safe.
    fn check_verdict(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        let before = std::mem::replace(&mut self.heard_before, 0);
        self.heard_before = self.heard_next.take().unwrap_or(before);
        let began = self.began;
        self.began = self.began_next.take().unwrap_or(began);
        let (EventKind::Judged { position, verdict, .. }, Some(was)) =
            (&moment.event.kind, &moment.before.rollout)
        else {
            return Ok(());
        };
        let Some(PlanStep::Analysis(step)) = was.current() else { return Ok(()) };
        let is_pass = verdict.outcome == Outcome::Safe && was.position == *position;
        if !is_pass || was.request.id != self.rollout.unwrap_or(was.request.id) {
            return Ok(());
        }
        if moment.now < began + step.duration {
            return Err(format!("found safe after {:?}", moment.now.since(began)));
        }
        let heard = moment.heard.saturating_sub(before);
        if heard < step.thresholds.samples_min {
            return Err(format!("found safe after {heard} requests"));
        }
        if moment.errors >= 200 {
            return Err(format!("found safe while {} of 1000 requests fail", moment.errors));
        }
        Ok(())
    }

    /// Every rollout ends once, and what has ended stays so.
    fn check_ended(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        let known = moment.before.ended.len();
        for ended in moment.next.service.ended.iter().skip(known) {
            let id = ended.rollout.request.id;
            let times = self.ended.entry(id).or_default();
            *times += 1;
            if *times > 1 {
                return Err(format!("{id} ended twice"));
            }
        }
        let active = moment.next.service.rollout.as_ref().map(|rollout| rollout.request.id);
        match active.filter(|id| self.ended.contains_key(id)) {
            Some(id) => Err(format!("{id} has ended and runs again")),
            None => Ok(()),
        }
    }

    /// Invariant 10: what makes no lasting progress ends, also when it looks busy.
    fn check_progress(&mut self, moment: &Moment<'_>, rollout: &Rollout) -> Result<(), String> {
        let is_same = |was: &Rollout| {
            (was.request.id, was.position) == (rollout.request.id, rollout.position)
                && was.is_forward() == rollout.is_forward()
        };
        match moment.before.rollout.as_ref().filter(|was| is_same(was)) {
            None => self.progress = 0,
            Some(was) => self.progress += u32::from(was.progress_at != rollout.progress_at),
        }
        if self.progress > PROGRESS_MAX {
            return Err(format!("progress without end since {}", rollout.entered_at));
        }
        Ok(())
    }

    /// Missing data never promotes, nor does a check that was not passed.
    fn check_promotion(&self, moment: &Moment<'_>, rollout: &Rollout) -> Result<(), String> {
        let was = moment.before.rollout.as_ref();
        let is_news = rollout.promoted
            && was.is_some_and(|was| was.request.id == rollout.request.id && !was.promoted);
        if !is_news {
            return Ok(());
        }
        let excused = self.word || rollout.request.policy.failure_action == FailureAction::Continue;
        for (position, step) in rollout.plan.iter().enumerate() {
            let holds = match step {
                PlanStep::Smoke(_) | PlanStep::Hook(_) => self.passed.contains(&position),
                PlanStep::Analysis(_) => excused || self.passed.contains(&position),
                PlanStep::VerifyWayBack
                | PlanStep::Scale { .. }
                | PlanStep::SetWeight(_)
                | PlanStep::Pause(_)
                | PlanStep::Approve
                | PlanStep::Promote
                | PlanStep::DrainBaseline => true,
            };
            if !holds {
                return Err(format!("promoted although step {} was not passed", position + 1));
            }
        }
        let asks = !rollout.request.policy.auto_promote
            && rollout.baseline.is_some()
            && rollout.request.kind == RequestKind::Deploy;
        let waits = |step: &PlanStep| matches!(step, PlanStep::Approve | PlanStep::Pause(None));
        if !self.word && (asks || rollout.plan.iter().any(waits)) {
            return Err("promoted although nobody gave the word".to_owned());
        }
        let restorable = moment.next.service.revision_to_restore(None).is_some();
        if rollout.baseline.is_some() && !restorable {
            return Err("promoted and there is nothing to go back to".to_owned());
        }
        let ready = moment.next.service.pool(rollout.candidate()).ready();
        if ready < needed(rollout, Weight::ALL) {
            return Err(format!("promoted with {ready} ready instances"));
        }
        Ok(())
    }
}

/// A rollout adds one revision, at its promotion.
fn check_revisions(moment: &Moment<'_>) -> Result<(), String> {
    let number = |service: &Service| service.stable().map_or(0, |stable| stable.number);
    let added = number(&moment.next.service) - number(moment.before);
    let was_promoted = moment.before.rollout.as_ref().is_none_or(|rollout| rollout.promoted);
    let is_step = added <= u64::from(!was_promoted);
    if is_step { Ok(()) } else { Err("one promotion too many".to_owned()) }
}

/// Whoever says `promote` or `resume` is not answered by a deadline that ran while it was waited
/// for that word.
fn check_words(moment: &Moment<'_>) -> Result<(), String> {
    let (EventKind::Commanded(Command::Promote { .. } | Command::Resume { .. }), Some(was)) =
        (&moment.event.kind, &moment.before.rollout)
    else {
        return Ok(());
    };
    let after = &moment.next.service;
    let is_same = after.rollout.as_ref().filter(|is| is.request.id == was.request.id);
    let paused = is_same.and_then(|is| is.paused.as_ref()).filter(|_| was.paused.is_some());
    // What a deadline says, by its words.
    let overdue = [" ready after ", "no verdict after ", " made no progress for "];
    if paused.is_some_and(|paused| overdue.iter().any(|words| paused.reason.contains(words))) {
        return Err("a word was given and a deadline paused it again".to_owned());
    }
    let ended = after.ended.iter().skip(moment.before.ended.len()).map(|ended| &ended.rollout);
    let cause = after.rollout.iter().chain(ended).find(|is| is.request.id == was.request.id);
    match cause.and_then(|rollout| rollout.cause.as_ref()).map(|cause| cause.kind) {
        Some(CauseKind::Deadline | CauseKind::NotReady | CauseKind::NoEvidence) => {
            Err("a word was given and a deadline answered".to_owned())
        }
        _ => Ok(()),
    }
}

/// Whoever asks for something and is not refused gets it, or waits for it.
fn check_request(moment: &Moment<'_>) -> Result<(), String> {
    let EventKind::Requested(request) = &moment.event.kind else { return Ok(()) };
    let after = &moment.next.service;
    let runs = after.rollout.as_ref().is_some_and(|rollout| rollout.request.id == request.id);
    let waits = after.queue.iter().any(|waiting| waiting.id == request.id);
    let ended = after.ended.iter().any(|ended| ended.rollout.request.id == request.id);
    let serves = after.stable().is_some_and(|stable| stable.release == request.release.id);
    if runs || waits || ended || serves { Ok(()) } else { Err("a request was lost".to_owned()) }
}

/// Nothing begins without a way back, unless somebody accepted that.
fn check_way_back(moment: &Moment<'_>) -> Result<(), String> {
    let (EventKind::WayBackChecked { obstacles, .. }, Some(was)) =
        (&moment.event.kind, &moment.before.rollout)
    else {
        return Ok(());
    };
    let is_asked = was.current() == Some(&PlanStep::VerifyWayBack) && !was.passed;
    let goes_on = moment
        .next
        .service
        .rollout
        .as_ref()
        .is_some_and(|rollout| rollout.request.id == was.request.id && rollout.is_forward());
    if is_asked && goes_on && !obstacles.is_empty() && !was.request.accept_no_rollback {
        return Err("went on without a way back".to_owned());
    }
    Ok(())
}

/// What is paused stays where it is unless somebody says so, and a timed pause takes its time.
fn check_held(moment: &Moment<'_>) -> Result<(), String> {
    let (Some(was), Some(is)) = (&moment.before.rollout, &moment.next.service.rollout) else {
        return Ok(());
    };
    let is_word = match &moment.event.kind {
        EventKind::Commanded(_) | EventKind::Requested(_) => true,
        EventKind::PoolObserved { .. }
        | EventKind::Operated(_)
        | EventKind::TrafficAcknowledged { .. }
        | EventKind::WayBackChecked { .. }
        | EventKind::HookFinished { .. }
        | EventKind::Judged { .. }
        | EventKind::Ticked => false,
    };
    let moved = was.request.id == is.request.id && is.is_forward() && was.position != is.position;
    if is_word || !moved {
        return Ok(());
    }
    if was.paused.is_some() && was.is_forward() {
        return Err("went on although it is paused".to_owned());
    }
    if let Some(PlanStep::Pause(Some(pause))) = was.current()
        && !was.approved
        && moment.now < was.entered_at + *pause
    {
        return Err(format!("a pause of {pause:?} ended early"));
    }
    Ok(())
}

fn check_effects(moment: &Moment<'_>) -> Result<(), String> {
    let before = outstanding(moment.before);
    let mut missing = outstanding(&moment.next.service);
    missing.retain(|effect| !before.contains(effect));
    if missing == moment.next.effects { Ok(()) } else { Err("effects are missing".to_owned()) }
}

/// Invariant 1, at the moment of the decision.
fn check_weights(moment: &Moment<'_>) -> Result<(), String> {
    let (before, after) = (moment.before, &moment.next.service);
    let sum: u32 =
        after.traffic.split.shares().iter().map(|(_, w)| u32::from(w.basis_points())).sum();
    if sum != 0 && sum != 10_000 {
        return Err(format!("the split sums to {sum}"));
    }
    for (release, weight) in after.traffic.split.shares() {
        if *weight <= before.weight_of(release) {
            continue;
        }
        let ready = after.pool(release).ready();
        if ready == 0 {
            return Err(format!("{weight} to {release}, which has no ready instance"));
        }
        let Some(rollout) = &after.rollout else { continue };
        if rollout.candidate() == release && ready < needed(rollout, *weight) {
            return Err(format!("{weight} to {release} with {ready} ready instances"));
        }
        let strength = after.stable().map_or(1, |stable| stable.policy.replicas);
        let nobody_else = after.pool(rollout.candidate()).ready() == 0;
        let nearly_all = before.weight_of(release) >= Weight::from_percent(90);
        let patience = rollout.request.policy.progress_deadline;
        let in_vain = before
            .rollout
            .as_ref()
            .is_some_and(|before| moment.now >= before.progress_at + patience);
        if rollout.baseline.as_ref() == Some(release)
            && !(nobody_else || nearly_all || in_vain)
            && *weight > Weight::ratio(ready, strength)
        {
            return Err(format!("{weight} back to {release} with {ready} of {strength} ready"));
        }
    }
    Ok(())
}

fn needed(rollout: &Rollout, weight: Weight) -> u32 {
    let policy = &rollout.request.policy;
    let is_rolling = policy.strategy == StrategyKind::Rolling;
    let missing = match rollout.request.kind {
        RequestKind::Deploy if is_rolling => policy.max_unavailable,
        RequestKind::Deploy | RequestKind::Rollback => 0,
    };
    // Said independently of `Weight::share_of`.
    let strength = policy.replicas.saturating_sub(missing);
    let parts = u32::from(weight.basis_points()) * strength;
    (parts / 10_000 + u32::from(!parts.is_multiple_of(10_000))).max(1)
}

/// Delays and deadlines count from something that has happened. On the way back they may count from
/// when the last requests will have had their time.
fn check_deadlines(moment: &Moment<'_>) -> Result<(), String> {
    let Some(rollout) = &moment.next.service.rollout else { return Ok(()) };
    let newest = rollout.entered_at.max(rollout.progress_at);
    if rollout.is_forward() && newest > moment.now {
        let ahead = newest.since(moment.now);
        return Err(format!("{}: a deadline counts from in {ahead:?}", rollout.request.id));
    }
    Ok(())
}

/// Invariant 5: nothing is stopped while the data plane gives it requests, as the data plane
/// itself sees it.
fn check_shrinking(moment: &Moment<'_>) -> Result<(), String> {
    for (release, pool) in &moment.next.service.pools {
        let shrinks = pool.desired < moment.before.pool(release).desired;
        let weight = moment.served.weight_of(release);
        if pool.desired == 0 && shrinks && weight > Weight::ZERO {
            return Err(format!("{release} is stopped while the data plane gives it {weight}"));
        }
        let was = moment.before.rollout.as_ref().map(|rollout| rollout.request.id);
        let Some(rollout) = &moment.next.service.rollout else { continue };
        if was != Some(rollout.request.id) {
            // Somebody asked for fewer, before this rollout began.
            continue;
        }
        let policy = &rollout.request.policy;
        let available = policy.replicas.saturating_sub(policy.max_unavailable);
        let carried = u32::from(weight.basis_points()) * available / 10_000;
        // What was lent goes back with the next table, and nothing stops before that.
        let is_baseline = rollout.baseline.as_ref() == Some(release);
        if shrinks && is_baseline && pool.desired < carried && !moment.is_lent {
            return Err(format!("{release} shrinks to {} at {weight}", pool.desired));
        }
    }
    Ok(())
}

/// Invariant 4: the baseline keeps its strength until the hold-back time is over.
fn check_baseline(moment: &Moment<'_>, rollout: &Rollout) -> Result<(), String> {
    let after = &moment.next.service;
    let Some(baseline) = &rollout.baseline else { return Ok(()) };
    let is_rolling = rollout.request.policy.strategy == StrategyKind::Rolling
        && rollout.request.kind == RequestKind::Deploy;
    let hold_back = rollout.entered_at + rollout.request.policy.scale_down_delay;
    if is_rolling || (rollout.promoted && moment.now >= hold_back) {
        return Ok(());
    }
    let mut revisions = after.revisions.iter().rev();
    let strength = revisions.find(|revision| revision.release == *baseline);
    let (has, wants) =
        (after.pool(baseline).desired, strength.map_or(1, |found| found.policy.replicas));
    if has < wants {
        return Err(format!("the baseline is down to {has} of {wants}"));
    }
    Ok(())
}

/// A phase that waits for nobody has something under way, or an alarm clock that is still to ring.
fn check_outstanding(moment: &Moment<'_>, rollout: &Rollout) -> Result<(), String> {
    let service = &moment.next.service;
    let mut busy = service.pools.values().any(|pool| pool.present() != pool.desired);
    for effect in outstanding(service) {
        busy |= match effect {
            Effect::WakeAt(at) if at <= moment.now => {
                return Err(format!("the alarm clock rang at {at} and nothing came of it"));
            }
            Effect::KeepPool { .. } => false,
            Effect::Publish { .. }
            | Effect::CheckWayBack { .. }
            | Effect::RunHook { .. }
            | Effect::Judge { .. }
            | Effect::WakeAt(_) => true,
        };
    }
    let waits = rollout.paused.is_some()
        || matches!(rollout.phase, Phase::AwaitingApproval | Phase::Stuck { .. });
    if busy || waits {
        return Ok(());
    }
    Err(format!("{:?} with nothing outstanding", rollout.phase))
}
