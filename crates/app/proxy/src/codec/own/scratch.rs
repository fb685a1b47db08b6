//! The buffers of a request in flight, lent by its worker: a resting connection has none.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use super::inbound::Inbound;
use super::outbound::Outbound;
use crate::worker::Worker;

/// A buffer holds a head and a small body: one read, one write.
pub(super) const SMALL: usize = 16 * 1024;
/// For bodies that fill a small one: fewer system calls.
const LARGE: usize = 64 * 1024;
/// Unused ones that are kept: 2 MiB of small and 1 MiB of large ones for each worker.
const SMALL_KEPT: usize = 64;
const LARGE_KEPT: usize = 16;

/// Both sides' input and output.
#[derive(Debug)]
pub(super) struct Scratch {
    /// What the client sends.
    pub(super) client: Inbound,
    /// What the instance sends.
    pub(super) instance: Inbound,
    /// What the instance gets.
    pub(super) request: Outbound,
    /// What the client gets.
    pub(super) response: Outbound,
}

impl Scratch {
    pub(super) fn new() -> Self {
        let (request, response) = (Outbound::default(), Outbound::default());
        Self { client: Inbound::new(), instance: Inbound::new(), request, response }
    }
}

/// One worker's buffers that nobody uses.
#[derive(Debug, Default)]
pub(crate) struct Scratches {
    #[allow(clippy::vec_box, reason = "it moves through connections, its kilobyte does not")]
    small: RefCell<Vec<Box<Scratch>>>,
    large: RefCell<Vec<Vec<u8>>>,
}

impl Scratches {
    pub(super) fn take_large(&self) -> Vec<u8> {
        self.large.borrow_mut().pop().unwrap_or_else(|| vec![0; LARGE])
    }

    pub(super) fn put_large(&self, buffer: Vec<u8>) {
        let mut large = self.large.borrow_mut();
        if large.len() < LARGE_KEPT {
            large.push(buffer);
        }
    }
}

/// A scratch that goes back when dropped.
#[derive(Debug)]
pub(super) struct Lent {
    worker: Rc<Worker>,
    scratch: Option<Box<Scratch>>,
}

impl Lent {
    pub(super) fn take(worker: &Rc<Worker>) -> Self {
        let kept = worker.scratches.small.borrow_mut().pop();
        let scratch = kept.unwrap_or_else(|| Box::new(Scratch::new()));
        Self { worker: Rc::clone(worker), scratch: Some(scratch) }
    }
}

impl Deref for Lent {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        self.scratch.as_deref().expect("it is there until the drop")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Scratch {
        self.scratch.as_deref_mut().expect("it is there until the drop")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut scratch) = self.scratch.take() else { return };
        let scratches = &self.worker.scratches;
        scratch.client.reset(scratches);
        scratch.instance.reset(scratches);
        scratch.request.reset();
        scratch.response.reset();
        let mut small = scratches.small.borrow_mut();
        if small.len() < SMALL_KEPT {
            small.push(scratch);
        }
    }
}
