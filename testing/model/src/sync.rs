//! Stand-ins for what the proxy's `sync` names, on loom's atomics. Each gives the happens-before
//! relations that the real one promises, and no more: a lock would give too many.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use loom::sync::atomic::AtomicUsize;
pub(crate) use loom::sync::atomic::Ordering;

use crate::weakness::Weakness;

/// Counters.
#[derive(Debug, Default)]
pub(crate) struct AtomicU64(loom::sync::atomic::AtomicU64);

impl From<u64> for AtomicU64 {
    fn from(value: u64) -> Self {
        Self::new(value)
    }
}

fn of_counts(order: Ordering) -> Ordering {
    if Weakness::CountsUnordered.is_on() { Ordering::Relaxed } else { order }
}

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> Self {
        Self(loom::sync::atomic::AtomicU64::new(value))
    }

    pub(crate) fn load(&self, order: Ordering) -> u64 {
        self.0.load(of_counts(order))
    }

    pub(crate) fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, of_counts(order));
    }
}

/// arc-swap: one pointer. Here it is the place in a list that only grows, so that a reader may
/// still get any table that the memory model lets it see.
#[derive(Debug)]
pub(crate) struct ArcSwap<T> {
    place: AtomicUsize,
    tables: Mutex<Vec<Arc<T>>>,
}

impl<T> ArcSwap<T> {
    pub(crate) fn new(first: Arc<T>) -> Self {
        Self { place: AtomicUsize::new(0), tables: Mutex::new(vec![first]) }
    }

    pub(crate) fn store(&self, table: Arc<T>) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.push(table);
        let newest = tables.len() - 1;
        // Not held over a step of the model: the other threads run on this one.
        drop(tables);
        let order = Weakness::SwapUnordered.or(Ordering::Release);
        self.place.store(newest, order);
    }

    fn at(&self, place: usize) -> Arc<T> {
        Arc::clone(&self.tables.lock().unwrap_or_else(PoisonError::into_inner)[place])
    }
}

/// arc-swap's cache: a relaxed look whether the pointer is another one, and only then a load.
#[derive(Debug)]
pub(crate) struct Cache<S, V> {
    slot: S,
    place: usize,
    table: V,
}

impl<T> Cache<Arc<ArcSwap<T>>, Arc<T>> {
    pub(crate) fn new(slot: Arc<ArcSwap<T>>) -> Self {
        let place = slot.place.load(Ordering::Acquire);
        let table = slot.at(place);
        Self { slot, place, table }
    }

    pub(crate) fn load(&mut self) -> &Arc<T> {
        if self.slot.place.load(Ordering::Relaxed) != self.place {
            self.place = self.slot.place.load(Ordering::Acquire);
            self.table = self.slot.at(self.place);
        }
        &self.table
    }
}

/// A queue with one sender: whoever receives a message has seen what came before it was sent, and
/// learns nothing of what came after.
#[derive(Debug)]
struct Queue<T> {
    sent: AtomicUsize,
    messages: Mutex<VecDeque<T>>,
}

impl<T> Queue<T> {
    fn new() -> Arc<Self> {
        Arc::new(Self { sent: AtomicUsize::new(0), messages: Mutex::default() })
    }

    fn send(&self, message: T, count: usize, order: Ordering) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push_back(message);
        self.sent.store(count, order);
    }

    /// The `count`th message, when it comes.
    fn receive(&self, count: usize) -> Option<T> {
        while self.sent.load(Ordering::Acquire) < count {
            loom::thread::yield_now();
        }
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// tokio's unbounded channel, from one sender to one receiver.
pub(crate) mod mpsc {
    use std::cell::Cell;
    use std::sync::Arc;

    use super::{Ordering, Queue};

    #[derive(Debug)]
    pub(crate) struct UnboundedSender<T> {
        queue: Arc<Queue<T>>,
        sent: Cell<usize>,
    }

    #[derive(Debug)]
    pub(crate) struct UnboundedReceiver<T> {
        queue: Arc<Queue<T>>,
        received: usize,
    }

    pub(crate) fn unbounded_channel<T>() -> (UnboundedSender<T>, UnboundedReceiver<T>) {
        let queue = Queue::new();
        let sender = UnboundedSender { queue: Arc::clone(&queue), sent: Cell::new(0) };
        (sender, UnboundedReceiver { queue, received: 0 })
    }

    impl<T> UnboundedSender<T> {
        #[allow(clippy::unnecessary_wraps, reason = "tokio's signature")]
        pub(crate) fn send(&self, message: T) -> Result<(), T> {
            self.sent.set(self.sent.get() + 1);
            self.queue.send(message, self.sent.get(), Ordering::Release);
            Ok(())
        }
    }

    impl<T> UnboundedReceiver<T> {
        /// Waits in this call: a model's thread has nothing else to do meanwhile.
        pub(crate) fn wait(&mut self) -> Option<T> {
            self.received += 1;
            self.queue.receive(self.received)
        }
    }
}

/// tokio's channel for one message.
pub(crate) mod oneshot {
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use super::{Ordering, Queue};
    use crate::weakness::Weakness;

    #[derive(Debug)]
    pub(crate) struct Sender<T>(Arc<Queue<T>>);

    #[derive(Debug)]
    pub(crate) struct Receiver<T>(Arc<Queue<T>>);

    pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let queue = Queue::new();
        (Sender(Arc::clone(&queue)), Receiver(queue))
    }

    impl<T> Sender<T> {
        pub(crate) fn send(self, message: T) {
            self.0.send(message, 1, Weakness::AnswersUnordered.or(Ordering::Release));
        }
    }

    impl<T> Future for Receiver<T> {
        type Output = Result<T, ()>;

        /// Waits in this call, so it is ready when it returns.
        fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Self::Output> {
            Poll::Ready(self.0.receive(1).ok_or(()))
        }
    }
}
