//! What all workers counted of rollouts' requests, added up tick by tick and kept for a while, so
//! that a control plane that was away finds what it missed. Lives on the control thread.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use switchback_analysis::cohort::Arm as Side;
use switchback_analysis::{ArmBatch, Settings};
use switchback_domain::{Histogram, Weight};
use switchback_ports::data_plane::{Batches as Answer, Counted, Cursor, TrialId};
use switchback_routing::{ArmId, Route, Table};

use crate::cohorts::{Closed, Collected, Part, Trial};
use crate::limits::{BATCH_BUCKETS_MAX, BATCHES_MAX, RETIRED_ARMS_MAX};
use crate::sessions::Sessions;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    trials: BTreeMap<TrialId, Entry>,
    /// Counts the trials that were begun.
    begun: u64,
    kept: VecDeque<Kept>,
    /// Histogram buckets in what is kept.
    buckets: usize,
    /// The place of the newest.
    place: u64,
    /// What came after this place is a successor's to tell.
    sealed: Option<u64>,
}

/// What a process has gathered, for its successor.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Gathered {
    trials: Vec<Begun>,
    batches: Answer,
}

/// A trial, and the number of its last batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Begun {
    id: TrialId,
    cap_age_ms: u64,
    sequence: u64,
}

#[derive(Debug)]
struct Entry {
    trial: Arc<Trial>,
    sequence: u64,
    /// Closed by some workers, by tick and weight.
    waiting: BTreeMap<(u64, Weight), [ArmBatch; 2]>,
}

#[derive(Debug)]
struct Kept {
    closed: Instant,
    counted: Counted,
}

impl Batches {
    /// Who takes part in a trial under this table: the versions that a coin chooses between.
    /// `history` knows the latencies of a version so far.
    pub(crate) fn parts(
        &mut self,
        table: &Table,
        history: impl Fn(&ArmId) -> Histogram,
    ) -> BTreeMap<ArmId, Part> {
        let mut parts = BTreeMap::new();
        for route in &table.routes {
            let Some((id, weight)) = coin(table, route) else { continue };
            let others = route.split.shares().iter().map(|(release, _)| release);
            let others: Vec<_> = others.filter(|release| **release != id.candidate).collect();
            let arm = |release| ArmId { service: id.service.clone(), release };
            let trial = self.trial(&id, || {
                let of_baseline = others.iter().map(|release| history(&arm((*release).clone())));
                of_baseline.fold(Histogram::default(), |sum, latency| sum.merge(&latency))
            });
            let part = |side| Part { trial: Arc::clone(&trial), side, weight };
            parts.insert(arm(id.candidate.clone()), part(Side::Candidate));
            parts.extend(others.iter().map(|it| (arm((*it).clone()), part(Side::Baseline))));
        }
        parts
    }

    fn trial(&mut self, id: &TrialId, history: impl FnOnce() -> Histogram) -> Arc<Trial> {
        let entry = self.entry(id, || Settings::cap_age_for(&history()));
        Arc::clone(&entry.trial)
    }

    fn entry(&mut self, id: &TrialId, cap_age: impl FnOnce() -> Duration) -> &mut Entry {
        if !self.trials.contains_key(id) {
            self.forget();
            self.begun += 1;
        }
        let number = self.begun;
        self.trials.entry(id.clone()).or_insert_with(|| {
            let (id, cap_age, sessions) = (id.clone(), cap_age(), Sessions::default());
            let trial = Arc::new(Trial { number, id, cap_age, sessions });
            Entry { trial, sequence: 0, waiting: BTreeMap::new() }
        })
    }

    /// Drops the trial that began first, above the limit.
    fn forget(&mut self) {
        if self.trials.len() < RETIRED_ARMS_MAX {
            return;
        }
        let first = self.trials.values().min_by_key(|entry| entry.trial.number);
        if let Some(id) = first.map(|entry| entry.trial.id.clone()) {
            self.trials.remove(&id);
        }
    }

    /// Adds what every worker has closed by now. Says whether some of them still have open cohorts.
    pub(crate) fn add(&mut self, now: Instant, workers: Vec<Collected>) -> bool {
        let Some(present) = workers.iter().map(|worker| worker.tick).min() else { return false };
        let mut complete: BTreeMap<TrialId, u64> = BTreeMap::new();
        let mut is_open = false;
        for lane in workers.into_iter().flat_map(|worker| worker.lanes) {
            is_open |= lane.is_open;
            let until = complete.entry(lane.trial.id.clone()).or_insert(present);
            *until = lane.open_from.min(*until);
            if let Some(entry) = self.trials.get_mut(&lane.trial.id) {
                lane.closed.iter().for_each(|closed| entry.take(closed));
            }
        }
        for entry in self.trials.values_mut() {
            let until = complete.get(&entry.trial.id).copied().unwrap_or(present);
            while let Some(counted) = entry.next(until) {
                self.place += 1;
                self.buckets += buckets(&counted);
                self.kept.push_back(Kept { closed: now, counted });
            }
        }
        self.trim();
        is_open || self.trials.values().any(|entry| !entry.waiting.is_empty())
    }

    fn trim(&mut self) {
        while self.kept.len() > BATCHES_MAX || self.buckets > BATCH_BUCKETS_MAX {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.buckets -= buckets(&oldest.counted);
        }
    }

    /// What was counted after a place; everything that is kept for a cursor of another life.
    pub(crate) fn after(&self, incarnation: &str, cursor: &Cursor) -> Answer {
        let read = if cursor.incarnation == incarnation { cursor.place } else { 0 };
        let until = self.sealed.unwrap_or(self.place);
        let next = Cursor { incarnation: incarnation.to_owned(), place: until };
        Answer { next, batches: self.between(read, until) }
    }

    /// What came after a place, up to another one.
    fn between(&self, after: u64, until: u64) -> Vec<Counted> {
        let before_oldest = self.place.saturating_sub(self.kept.len() as u64);
        let places = (before_oldest + 1..).zip(&self.kept);
        let chosen = places.filter(|(place, _)| *place > after && *place <= until);
        chosen.map(|(_, kept)| kept.aged()).collect()
    }

    /// From now on whoever reads is told no more than what is there, which a successor will have.
    /// Gives the place of its newest.
    pub(crate) fn seal(&mut self) -> u64 {
        *self.sealed.insert(self.place)
    }

    /// There is no successor after all.
    pub(crate) fn unseal(&mut self) {
        self.sealed = None;
    }

    /// What a successor has to know beyond what it was told.
    pub(crate) fn gathered(&self, told: &Cursor) -> Gathered {
        let begun = |entry: &Entry| Begun {
            id: entry.trial.id.clone(),
            cap_age_ms: millis(entry.trial.cap_age),
            sequence: entry.sequence,
        };
        let trials = self.trials.values().map(begun).collect();
        Gathered { trials, batches: self.after(&told.incarnation, told) }
    }

    /// Goes on where a predecessor was.
    pub(crate) fn go_on(&mut self, now: Instant, gathered: Gathered) {
        for Begun { id, cap_age_ms, sequence } in gathered.trials {
            self.entry(&id, || Duration::from_millis(cap_age_ms)).sequence = sequence;
        }
        self.place = gathered.batches.next.place;
        gathered.batches.batches.into_iter().for_each(|counted| self.keep(now, counted));
        self.trim();
    }

    /// What came after both a place and the seal.
    pub(crate) fn since(&self, place: u64) -> Answer {
        let after = place.max(self.sealed.unwrap_or_default());
        let next = Cursor { place: self.place, ..Cursor::default() };
        Answer { next, batches: self.between(after, self.place) }
    }

    /// Takes in what a process gathered that was replaced, under numbers of this one.
    pub(crate) fn adopt(&mut self, now: Instant, batches: Vec<Counted>) {
        for counted in batches {
            let cap_age = Duration::from_millis(counted.cap_age_ms);
            let entry = self.entry(&counted.trial, || cap_age);
            entry.sequence += 1;
            let sequence = entry.sequence;
            self.place += 1;
            self.keep(now, Counted { sequence, ..counted });
        }
        self.trim();
    }

    fn keep(&mut self, now: Instant, counted: Counted) {
        self.buckets += buckets(&counted);
        let age = Duration::from_millis(counted.age_ms);
        let closed = now.checked_sub(age).unwrap_or(now);
        self.kept.push_back(Kept { closed, counted });
    }
}

impl Gathered {
    /// How far it goes.
    pub(crate) fn next(&self) -> &Cursor {
        &self.batches.next
    }
}

impl Kept {
    fn aged(&self) -> Counted {
        Counted { age_ms: millis(self.closed.elapsed()), ..self.counted.clone() }
    }
}

impl Entry {
    fn take(&mut self, closed: &Closed) {
        let sums = self.waiting.entry((closed.tick, closed.weight)).or_default();
        let [candidate, baseline] = sums;
        add(candidate, &closed.candidate);
        add(baseline, &closed.baseline);
    }

    /// The next batch of a tick before `until`.
    fn next(&mut self, until: u64) -> Option<Counted> {
        let oldest = self.waiting.first_entry().filter(|oldest| oldest.key().0 < until)?;
        let ((_, weight), [candidate, baseline]) = oldest.remove_entry();
        self.sequence += 1;
        let cap_age_ms = millis(self.trial.cap_age);
        let (trial, sequence) = (self.trial.id.clone(), self.sequence);
        Some(Counted { trial, cap_age_ms, age_ms: 0, sequence, weight, candidate, baseline })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn add(sum: &mut ArmBatch, more: &ArmBatch) {
    sum.unanswered += more.unanswered;
    sum.unfinished += more.unfinished;
    sum.failed_answers += more.failed_answers;
    sum.events += more.events;
    sum.latency = sum.latency.merge(&more.latency);
}

fn buckets(counted: &Counted) -> usize {
    counted.candidate.latency.buckets().count() + counted.baseline.latency.buckets().count()
}

/// The coin of a route: whose it is, and the candidate's share. None without two sides, and none
/// where two routes of one service are shared in different ways.
fn coin(table: &Table, route: &Route) -> Option<(TrialId, Weight)> {
    let candidate = route.steering.candidate.as_ref()?;
    let weight = route.split.weight_of(&candidate.release);
    let is_alone = || {
        let mut same = table.routes.iter().filter(|other| other.service == route.service);
        same.all(|other| other.split == route.split && other.steering == route.steering)
    };
    if weight == Weight::ZERO || weight == Weight::ALL || !is_alone() {
        return None;
    }
    let (service, release) = (route.service.clone(), candidate.release.clone());
    Some((TrialId { service, candidate: release, salt: candidate.salt.clone() }, weight))
}

#[cfg(test)]
mod tests {
    use switchback_domain::{ReleaseId, Split};
    use switchback_ports::data_plane::conformance::{sample_arm, sample_table};
    use switchback_routing::Candidate;

    use super::*;
    use crate::cohorts::Cohorts;
    use crate::counters::Outcome;

    fn table(percent: u16) -> Table {
        let arms = vec![sample_arm("v1", &[]), sample_arm("v2", &[])];
        let listen = ([127, 0, 0, 1], 1).into();
        let mut table = sample_table(switchback_domain::Generation::default(), listen, arms);
        let [old, new] = ["v1", "v2"].map(ReleaseId::from_stored);
        let weight = Weight::from_percent(percent);
        table.routes[0].split = Split::between(old, new.clone(), weight);
        table.routes[0].steering.candidate =
            Some(Candidate { release: new, salt: "r1".to_owned(), open: true });
        table
    }

    fn parts(batches: &mut Batches, percent: u16) -> Vec<Part> {
        batches.parts(&table(percent), |_| Histogram::default()).into_values().collect()
    }

    #[test]
    fn there_is_a_trial_only_while_both_versions_are_drawn() {
        let mut batches = Batches::default();
        for (percent, count) in [(0, 0), (5, 2), (50, 2), (100, 0)] {
            assert_eq!(parts(&mut batches, percent).len(), count, "{percent}");
        }
        let [first, second] = [5, 25].map(|percent| parts(&mut batches, percent));
        assert_eq!(first[0].trial.number, second[0].trial.number, "one trial at every weight");
        assert_eq!(first[0].trial.cap_age, Duration::from_secs(10), "nothing is known yet");
        let mut other = table(5);
        other.routes.push(other.routes[0].clone());
        other.routes[1].split = table(25).routes[0].split.clone();
        assert!(batches.parts(&other, |_| Histogram::default()).is_empty(), "two coins");
    }

    #[test]
    fn workers_are_added_up_once_all_of_them_are_complete() {
        let (mut batches, born) = (Batches::default(), Instant::now());
        let parts = parts(&mut batches, 5);
        let at = |millis| born + Duration::from_millis(millis);
        let workers = [Cohorts::new(born), Cohorts::new(born)];
        let slow = workers[1].arrive(&parts[1], at(5), None);
        for worker in &workers {
            worker.arrive(&parts[0], at(5), None).end(Outcome::Answered(1), 3_000);
        }
        let collect = |millis| workers.iter().map(|it| it.collect(at(millis))).collect();
        assert!(batches.add(at(150), collect(150)), "one is on its way");
        assert!(batches.after("me", &Cursor::default()).batches.is_empty());
        slow.end(Outcome::ConnectFailed, 200_000);
        assert!(!batches.add(at(250), collect(250)));
        let answer = batches.after("me", &Cursor::default());
        assert_eq!((answer.next.place, answer.batches.len()), (1, 1));
        let counted = &answer.batches[0];
        assert_eq!((counted.candidate.requests(), counted.baseline.requests()), (1, 2));
        assert_eq!((counted.sequence, counted.weight), (1, Weight::from_percent(5)));
        assert!(batches.after("me", &answer.next).batches.is_empty(), "read once");
        let other = Cursor { incarnation: "other".to_owned(), ..answer.next };
        assert_eq!(batches.after("me", &other).batches.len(), 1, "of another life");
    }

    #[test]
    fn a_successor_goes_on_with_what_was_gathered_and_takes_the_rest_in_once() {
        let born = Instant::now();
        let at = |millis| born + Duration::from_millis(millis);
        let (mut old, worker) = (Batches::default(), Cohorts::new(born));
        let of_old = parts(&mut old, 5);
        let count = |batches: &mut Batches, millis| {
            worker.arrive(&of_old[0], at(millis), None).end(Outcome::Answered(1), 3_000);
            batches.add(at(millis + 100), vec![worker.collect(at(millis + 100))]);
        };
        count(&mut old, 0);
        let mut new = Batches::default();
        let offered = old.gathered(&Cursor::default());
        let told = offered.next().clone();
        new.go_on(at(100), offered);
        let cap_age = new.trial(&of_old[0].trial.id, Histogram::default).cap_age;
        assert_eq!(cap_age, of_old[0].trial.cap_age, "kept, whatever is known here");
        count(&mut old, 200);
        assert_eq!(old.seal(), 2);
        new.go_on(at(300), old.gathered(&told));
        count(&mut old, 400);
        assert_eq!(old.after("me", &Cursor::default()).next.place, 2, "the rest is the other's");
        let rest = old.since(0);
        assert_eq!((rest.next.place, rest.batches.len()), (3, 1));
        assert!(old.since(3).batches.is_empty(), "told already");
        new.adopt(at(500), rest.batches);
        let read = new.after("me", &Cursor { incarnation: "me".to_owned(), place: 1 });
        let sequences: Vec<u64> = read.batches.iter().map(|batch| batch.sequence).collect();
        assert_eq!((sequences, read.next.place), (vec![2, 3], 3));
        old.unseal();
        assert_eq!(old.after("me", &Cursor::default()).next.place, 3, "nobody took over");
    }

    #[test]
    fn the_oldest_batches_go_first_and_their_numbers_stay() {
        let (mut batches, born) = (Batches::default(), Instant::now());
        let parts = parts(&mut batches, 5);
        let worker = Cohorts::new(born);
        let count = BATCHES_MAX as u64 + 10;
        for tick in 0..count {
            let now = born + Duration::from_millis(100 * tick);
            worker.arrive(&parts[0], now, None).end(Outcome::Answered(1), 3_000);
            batches.add(now, vec![worker.collect(now)]);
        }
        let answer = batches.after("me", &Cursor::default());
        let sequences: Vec<u64> = answer.batches.iter().map(|batch| batch.sequence).collect();
        assert_eq!(sequences.len(), BATCHES_MAX);
        assert_eq!(sequences.last(), Some(&(count - 1)), "the last tick is not over");
        assert!(answer.batches.windows(2).all(|two| two[0].sequence + 1 == two[1].sequence));
    }
}
