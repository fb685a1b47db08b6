//! A worker's view of what is in force, and the question whether every worker has the newest.
//! Run as it stands by the model in `testing/model`.

use std::cell::RefCell;
use std::sync::Arc;

use crate::sync::{ArcSwap, Cache, mpsc, oneshot};

/// The newest table, as one worker sees it.
#[derive(Debug)]
pub(crate) struct View<T>(RefCell<Cache<Arc<ArcSwap<T>>, Arc<T>>>);

impl<T> View<T> {
    pub(crate) fn new(slot: &Arc<ArcSwap<T>>) -> Self {
        Self(RefCell::new(Cache::new(Arc::clone(slot))))
    }

    /// Looks into the newest table: one and the same throughout. `look` must not come back here.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(self.0.borrow_mut().load())
    }
}

/// Returns when every worker has answered a question put to all of them now: from then on, each of
/// them sees what was in force when this was called, or something newer.
pub(crate) async fn all_follow<C>(
    workers: &[mpsc::UnboundedSender<C>],
    question: fn(oneshot::Sender<()>) -> C,
) -> Result<(), String> {
    let ask = |worker: &mpsc::UnboundedSender<C>| {
        let (done, answer) = oneshot::channel();
        // A worker that is gone drops `done`, which the answer tells.
        let _ = worker.send(question(done));
        answer
    };
    let waiting: Vec<_> = workers.iter().map(ask).collect();
    let mut missing = Vec::new();
    for (worker, answer) in waiting.into_iter().enumerate() {
        if answer.await.is_err() {
            missing.push(worker);
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(format!("workers {missing:?} are gone")) }
}
