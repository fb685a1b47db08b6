//! What goes wrong, how often, and what of it did. Each schedule draws which faults are on and
//! their rates: some bugs only show when little else happens.
//!
//! Every fault has dice of its own, so that leaving one out does not change when the others
//! strike: a failing schedule can be reduced to the few that matter.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::random::{Random, mix};

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident = $most:literal,)+) => {
        /// Something that goes wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Fault {
            $($(#[doc = $doc])+ $name,)+
        }

        /// Each with its highest rate, in per mille of the occasions for it.
        const ALL: &[(Fault, u32)] = &[$((Fault::$name, $most),)+];
    };
}

faults! {
    /// The control plane dies before, during or after a write to the journal.
    CrashAtWrite = 12,
    /// It dies after some of the orders that follow from an event were given.
    CrashAmidOrders = 15,
    /// It dies while nothing happens.
    CrashAtRest = 20,
    /// The machine starts anew: every process is gone, the wall clock is off.
    Reboot = 6,
    /// The control plane stands still while another one takes over, and wakes up again.
    Freeze = 10,
    /// Somebody starts an older binary on the journal of a newer one.
    OlderBinary = 300,
    /// Somebody puts an older copy of the journal in its place before the control plane starts.
    OlderJournal = 40,
    /// The disk is full.
    DiskFull = 40,
    /// A write fails and nothing was written.
    DiskFails = 40,
    /// A write fails although all of it is there.
    DiskInDoubt = 20,
    /// The clock makes a step forward.
    ClockStep = 10,
    /// A table never reaches the data plane.
    TableLost = 300,
    /// It does so much later.
    TableLate = 300,
    /// It does so twice.
    TableTwice = 300,
    /// The data plane's answer is lost.
    AnswerLost = 300,
    /// It is told once more, later.
    AnswerTwice = 200,
    /// The data plane cannot be reached for minutes.
    Outage = 30,
    /// The data plane dies and serves on with what it saved.
    PlaneRestart = 20,
    /// An address cannot be listened on.
    NotListening = 30,
    /// A start fails and nothing was started.
    StartFails = 200,
    /// A start fails although the instance was started.
    StartInDoubt = 100,
    /// A start happens much later.
    StartLate = 150,
    /// A stop fails and nothing was stopped.
    StopFails = 200,
    /// A stop fails although the instance is gone.
    StopInDoubt = 100,
    /// A change of an instance is noticed only much later.
    ChangeMissed = 300,
    /// A list of instances arrives when it is not true any more.
    ListStale = 150,
    /// A probe says the contrary of what is.
    ProbeWrong = 150,
    /// A healthy instance is killed.
    Killed = 200,
    /// A hook fails.
    HookFails = 300,
    /// A hook never ends.
    HookSilent = 100,
    /// The data plane's figures cannot be had for a while.
    FiguresSilent = 80,
    /// The figures stand still.
    FiguresFrozen = 80,
    /// The figures begin anew.
    FiguresReset = 60,
    /// What was counted for exact tests is told once more.
    BatchesTwice = 100,
    /// Some of what was counted for exact tests is lost.
    BatchesLost = 30,
    /// A version has something wrong with it.
    BadVersion = 900,
    /// An operator has a route do something else than serve.
    Operation = 100,
    /// An operator interferes.
    Operator = 600,
}

/// A fault that struck: which, and at which of the occasions for it.
pub(crate) type Strike = (Fault, u32);

/// The faults of one schedule.
#[derive(Debug)]
pub(crate) struct Faults {
    seed: u64,
    rates: Vec<u32>,
    occasions: Vec<u32>,
    /// Only these may strike, if given.
    allowed: Option<BTreeSet<Strike>>,
    struck: Vec<Strike>,
    /// Strikes at its next occasion, whatever the dice say.
    arranged: Option<Fault>,
    over: bool,
}

impl Faults {
    /// Draws the rates: about half of the faults are on.
    pub(crate) fn draw(seed: u64, allowed: Option<BTreeSet<Strike>>) -> Self {
        let mut random = Random::new(mix(seed, 0xFA));
        // A third of the schedules is calm, a third rough.
        let on = *random.pick(&[200, 450, 700]);
        let rate = |most: u32| if random.chance(on) { random.between(1, most) } else { 0 };
        let rates = ALL.iter().map(|(_, most)| *most).map(rate).collect();
        let occasions = vec![0; ALL.len()];
        Self { seed, rates, occasions, allowed, struck: Vec::new(), arranged: None, over: false }
    }

    /// Whether the fault strikes at this occasion.
    pub(crate) fn strikes(&mut self, fault: Fault) -> bool {
        if self.arranged == Some(fault) {
            self.arranged = None;
            return true;
        }
        let (index, most) = (fault as usize, 1_000);
        let rate = self.rates[index];
        if self.over || rate == 0 {
            return false;
        }
        self.occasions[index] += 1;
        let strike = (fault, self.occasions[index]);
        let drawn = mix(mix(self.seed, index as u64 + 1), u64::from(strike.1)) % most;
        let is_allowed = self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&strike));
        let strikes = drawn < u64::from(rate) && is_allowed;
        if strikes {
            self.struck.push(strike);
        }
        strikes
    }

    /// Has a fault strike at its next occasion.
    pub(crate) fn arrange(&mut self, fault: Fault) {
        self.arranged = Some(fault);
    }

    /// Nothing goes wrong any more.
    pub(crate) fn end(&mut self) {
        self.over = true;
    }

    /// What struck so far.
    pub(crate) fn struck(&self) -> &[Strike] {
        &self.struck
    }

    /// What is on, for people.
    pub(crate) fn describe(&self) -> String {
        let on = ALL.iter().zip(&self.rates).filter(|(_, rate)| **rate > 0);
        let words: Vec<_> = on.map(|((fault, _), rate)| format!("{fault:?} {rate}")).collect();
        format!("faults in per mille of their occasions: {}", words.join(", "))
    }
}

/// The faults, where the disk can ask for them too.
#[derive(Debug, Clone)]
pub(crate) struct Dice(Arc<Mutex<Faults>>);

impl Dice {
    pub(crate) fn new(faults: Faults) -> Self {
        Self(Arc::new(Mutex::new(faults)))
    }

    pub(crate) fn get(&self) -> MutexGuard<'_, Faults> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn strikes(&self, fault: Fault) -> bool {
        self.get().strikes(fault)
    }
}
