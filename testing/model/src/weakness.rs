//! What swap and drain rely on, taken away one at a time: the model is to notice each.

use std::cell::Cell;

use loom::sync::atomic::Ordering;

/// One thing that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakness {
    /// The table is stored without order: a worker may see the pointer and not what it points to.
    SwapUnordered,
    /// In-flight counts fall and are read without order: 0 may be seen before the outcomes.
    CountsUnordered,
    /// An answer tells nothing of what its worker did before.
    AnswersUnordered,
    /// Workers are asked first, and the table is swapped in after.
    AskedBeforeSwap,
    /// The first worker's answer is taken for everybody's, and the others are asked later.
    OneAnswerEnough,
    /// Workers are asked when all is said already.
    NobodyAsked,
    /// A worker looks its version up, answers a question, and only then raises the count.
    TornAssignment,
    /// What was counted is read before what is in flight.
    CountsReadFirst,
    /// Two workers write one shard.
    SharedShard,
    /// Counters are put to rest before every worker has answered.
    RestedEarly,
}

thread_local! {
    // loom runs the threads of a model on one thread of the system.
    static ON: Cell<Option<Weakness>> = const { Cell::new(None) };
}

impl Weakness {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::SwapUnordered,
        Self::CountsUnordered,
        Self::AnswersUnordered,
        Self::AskedBeforeSwap,
        Self::OneAnswerEnough,
        Self::NobodyAsked,
        Self::TornAssignment,
        Self::CountsReadFirst,
        Self::SharedShard,
        Self::RestedEarly,
    ];

    pub(crate) fn is_on(self) -> bool {
        ON.get() == Some(self)
    }

    /// No order if this is what is wrong.
    pub(crate) fn or(self, order: Ordering) -> Ordering {
        if self.is_on() { Ordering::Relaxed } else { order }
    }

    /// Switches it on in models that this thread runs, and everything else off.
    pub fn switch_on(weakness: Option<Self>) {
        ON.set(weakness);
    }
}
