//! Every connection of a worker by what its clock is: one pass a second instead of a timer each.
//!
//! A slot is 32 bytes; a timer would be several times that, and cost two queue operations per
//! request. Limits of connections are kept to the second, those of answers to the millisecond: only
//! the earliest of all has a timer, which is seldom moved because most answers are not late.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::limits::{HEADER_READ_MAX, KEEP_ALIVE_IDLE_MAX, LAST_REST_MAX};
use crate::service::Entry;
use crate::shared::Open;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// There is none.
    Nothing,
    /// It waits for the first byte of a request.
    Resting,
    /// It waits for the rest of a head.
    Reading,
    /// A request is in flight.
    Busy,
}

const NEVER: u64 = u64::MAX;
/// A connection on its way to another process: between two requests, with nothing read.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) entry: Entry,
    /// Counted here until it is there.
    #[expect(dead_code, reason = "it counts until it is dropped")]
    pub(crate) open: Open,
}

/// Why a connection rests no longer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rested {
    /// There is something to read.
    Heard,
    /// It has rested too long.
    Over,
    /// Another process takes it over.
    Leaves,
}

#[derive(Debug)]
struct Slot {
    doing: Doing,
    /// In ticks.
    since: u32,
    /// Its time is over.
    told: bool,
    /// When the answer is late: milliseconds since the roster began, or [`NEVER`].
    until: u64,
    waker: Option<Waker>,
}

/// One worker's connections.
#[derive(Debug)]
pub(crate) struct Roster {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    ticks: Cell<u32>,
    stopping: Cell<bool>,
    /// Where resting connections go.
    outbox: RefCell<Option<mpsc::UnboundedSender<Leaving>>>,
    leaving: Cell<bool>,
    began: Instant,
    /// No answer is late before this.
    next_due: Cell<u64>,
    /// That was moved forward.
    sooner: Notify,
}

impl Default for Roster {
    fn default() -> Self {
        Self {
            slots: RefCell::default(),
            free: RefCell::default(),
            ticks: Cell::default(),
            stopping: Cell::default(),
            outbox: RefCell::default(),
            leaving: Cell::default(),
            began: Instant::now(),
            next_due: Cell::new(NEVER),
            sooner: Notify::new(),
        }
    }
}

impl Roster {
    /// To be called once a second: tells connections whose time is over.
    pub(crate) fn tick(&self) {
        let now = self.ticks.get().wrapping_add(1);
        self.ticks.set(now);
        self.tell(|slot| {
            let limit = match slot.doing {
                Doing::Nothing | Doing::Busy => return false,
                Doing::Resting if self.stopping.get() => LAST_REST_MAX,
                Doing::Resting => KEEP_ALIVE_IDLE_MAX,
                Doing::Reading => HEADER_READ_MAX,
            };
            Duration::from_secs(now.wrapping_sub(slot.since).into()) > limit
        });
    }

    /// Tells connections whose answer is late, for ever.
    pub(crate) async fn watch_answers(&self) {
        loop {
            let due = self.next_due.get();
            let sooner = self.sooner.notified();
            if due == NEVER {
                sooner.await;
            } else if timeout_at(self.began + Duration::from_millis(due), sooner).await.is_err() {
                self.tell_late(due);
            }
        }
    }

    fn tell_late(&self, now: u64) {
        let mut next = NEVER;
        for slot in self.slots.borrow_mut().iter_mut() {
            if slot.until > now {
                next = next.min(slot.until);
                continue;
            }
            (slot.until, slot.told) = (NEVER, true);
            if let Some(waker) = &slot.waker {
                waker.wake_by_ref();
            }
        }
        self.next_due.set(next);
    }

    /// From now on each connection's next answer is its last, and those that rest are closed only
    /// when their clients had the chance to hear of it.
    pub(crate) fn stop(&self) {
        self.stopping.set(true);
    }

    /// From now on every connection that rests goes there, what the client has sent meanwhile
    /// unread. `None` takes it back: they stay.
    pub(crate) fn set_outbox(&self, outbox: Option<mpsc::UnboundedSender<Leaving>>) {
        self.leaving.set(outbox.is_some());
        *self.outbox.borrow_mut() = outbox;
        if self.leaving.get() {
            self.tell(|slot| slot.doing == Doing::Resting);
        }
    }

    /// Hands a connection out that [`Rested::Leaves`].
    pub(super) fn hand_out(&self, client: TcpStream, entry: Entry, open: Open) {
        let Ok(stream) = client.into_std() else { return };
        if let Some(outbox) = &*self.outbox.borrow() {
            // Whoever takes them out ends after the last worker.
            let _ = outbox.send(Leaving { stream, entry, open });
        }
    }

    /// Whether the next response is a connection's last.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    fn tell(&self, is_over: impl Fn(&Slot) -> bool) {
        for slot in self.slots.borrow_mut().iter_mut().filter(|slot| is_over(slot)) {
            slot.told = true;
            if let Some(waker) = &slot.waker {
                waker.wake_by_ref();
            }
        }
    }
}

/// One connection's slot, free again when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    roster: Rc<Roster>,
    index: usize,
}

impl Seat {
    pub(super) fn take(roster: &Rc<Roster>) -> Self {
        let since = roster.ticks.get();
        let (doing, told, until) = (Doing::Resting, false, NEVER);
        let slot = Slot { doing, since, told, until, waker: None };
        let mut slots = roster.slots.borrow_mut();
        let index = if let Some(index) = roster.free.borrow_mut().pop() {
            slots[index] = slot;
            index
        } else {
            slots.push(slot);
            slots.len() - 1
        };
        drop(slots);
        Self { roster: Rc::clone(roster), index }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Slot) -> T) -> T {
        change(&mut self.roster.slots.borrow_mut()[self.index])
    }

    fn set(&self, doing: Doing) {
        let since = self.roster.ticks.get();
        self.with(|slot| {
            (slot.doing, slot.since) = (doing, since);
            (slot.told, slot.until) = (false, NEVER);
        });
    }

    /// The head of a request has begun.
    pub(super) fn reads(&self) {
        self.set(Doing::Reading);
    }

    /// A request is in flight.
    pub(super) fn is_busy(&self) {
        self.set(Doing::Busy);
    }

    /// From now until `deadline`, an answer is waited for.
    pub(super) fn awaits(&self, deadline: Instant) {
        let until = deadline.saturating_duration_since(self.roster.began);
        let millis = u64::from(until.subsec_nanos().div_ceil(1_000_000));
        let until = until.as_secs().saturating_mul(1_000).saturating_add(millis);
        self.with(|slot| (slot.told, slot.until) = (false, until));
        if until < self.roster.next_due.get() {
            self.roster.next_due.set(until);
            self.roster.sooner.notify_one();
        }
    }

    /// The answer is there.
    pub(super) fn awaits_nothing(&self) {
        self.with(|slot| (slot.told, slot.until) = (false, NEVER));
    }

    /// The request has ended.
    pub(super) fn rests(&self) {
        self.set(Doing::Resting);
    }

    /// Whether its time is over; if not, the task is woken when it is.
    pub(super) fn is_told(&self, context: &Context<'_>) -> bool {
        self.with(|slot| {
            match &slot.waker {
                Some(waker) if waker.will_wake(context.waker()) => {}
                Some(_) | None => slot.waker = Some(context.waker().clone()),
            }
            slot.told
        })
    }

    /// Waits for something to read, or for the end of the rest.
    pub(super) async fn rest(&self, stream: &TcpStream) -> Rested {
        poll_fn(|context| match stream.poll_read_ready(context) {
            // Whatever can be read is read where the connection goes.
            _ if self.roster.leaving.get() => Poll::Ready(Rested::Leaves),
            // A client that spoke in the last moment is heard.
            Poll::Ready(_) => Poll::Ready(Rested::Heard),
            Poll::Pending if self.is_told(context) => Poll::Ready(Rested::Over),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.with(|slot| {
            (slot.doing, slot.until) = (Doing::Nothing, NEVER);
            slot.waker = None;
        });
        self.roster.free.borrow_mut().push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    fn wait(seat: &Seat) -> bool {
        seat.is_told(&Context::from_waker(Waker::noop()))
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_connection_that_rests_too_long_ends_and_one_that_is_busy_does_not() {
        let (roster, (_client, stream)) = (Rc::new(Roster::default()), pair().await);
        let (resting, busy) = (Seat::take(&roster), Seat::take(&roster));
        busy.is_busy();
        // A new stream may be taken for readable until it was tried.
        assert!(stream.try_read(&mut [0]).is_err());
        let ticking = async {
            for _ in 0..=KEEP_ALIVE_IDLE_MAX.as_secs() {
                assert!(!wait(&resting));
                tokio::task::yield_now().await;
                roster.tick();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            rested = resting.rest(&stream) => assert_eq!(rested, Rested::Over),
            () = ticking => {}
        }
        assert!(!wait(&busy));
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn an_answer_is_late_at_its_own_time_whichever_was_asked_for_first() {
        let roster = Rc::new(Roster::default());
        let seats = [(); 3].map(|()| Seat::take(&roster));
        let start = Instant::now();
        let told = async |seat: &Seat, after: Duration| {
            seat.is_busy();
            seat.awaits(start + after);
            poll_fn(|context| if seat.is_told(context) { Poll::Ready(()) } else { Poll::Pending })
                .await;
            start.elapsed()
        };
        let [late, soon, gone] = [3_000, 20, 50].map(Duration::from_millis);
        seats[2].awaits(start + gone);
        seats[2].awaits_nothing();
        let waiting = async { tokio::join!(told(&seats[0], late), told(&seats[1], soon)) };
        let (late_told, soon_told) = tokio::select! {
            told = waiting => told,
            () = roster.watch_answers() => unreachable!("it never ends"),
        };
        let tick = Duration::from_millis(2);
        assert!(late <= late_told && late_told <= late + tick, "{late_told:?}");
        assert!(soon <= soon_told && soon_told <= soon + tick, "{soon_told:?}");
        assert!(!wait(&seats[2]));
    }

    #[test]
    fn a_head_has_its_own_time_and_a_stop_ends_what_rests() {
        let roster = Rc::new(Roster::default());
        let (reading, resting) = (Seat::take(&roster), Seat::take(&roster));
        reading.reads();
        for _ in 0..HEADER_READ_MAX.as_secs() {
            roster.tick();
        }
        assert!(!wait(&reading));
        roster.tick();
        assert!(wait(&reading) && !wait(&resting));
        reading.is_busy();
        roster.stop();
        reading.rests();
        assert!(!wait(&reading) && roster.is_stopping(), "its client may be asking just now");
        for _ in 0..=LAST_REST_MAX.as_secs() {
            assert!(!wait(&reading));
            roster.tick();
        }
        assert!(wait(&reading) && wait(&resting));
        drop((reading, resting));
        assert_eq!(roster.free.borrow().len(), 2);
        assert!(!wait(&Seat::take(&roster)), "a slot forgets who had it");
    }
}
