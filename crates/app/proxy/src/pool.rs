//! Connections to instances: one pool per worker and codec, so no lock and no wake across threads.
//!
//! A resting connection is used again only if it is young enough and neither the event loop nor,
//! where it matters, the kernel has anything to say about it. What still slips through, because
//! the instance closes in the very moment of sending, is the exchange's to repeat. Who waits for a
//! new connection hears of each that comes to rest meanwhile, and may take it instead.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::limits::{
    UPSTREAM_IDLE_COUNT_MAX, UPSTREAM_IDLE_MAX, UPSTREAM_IDLE_MAX_UNREPEATABLE,
    UPSTREAM_IDLE_UNASKED_MAX,
};

/// One connection to an instance.
pub(crate) trait Link: std::fmt::Debug {
    /// Whether the event loop has heard of its end. Costs no system call while it is silent.
    fn is_over(&self) -> bool;

    /// Whether the peer neither closed it nor sent something nobody asked for. Asks the kernel, so
    /// it also sees what the event loop has not got to yet.
    fn is_quiet(&self) -> bool;

    /// The same connection once more, if it carries several requests at once.
    fn shared(&self) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
}

/// A connection that waits for its next request.
#[derive(Debug)]
pub(crate) struct Resting<L> {
    pub(crate) link: L,
    pub(crate) since: Instant,
    pub(crate) rest_max: Duration,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum NoLink {
    /// The instance refused it, or did not take it in time.
    Refused,
    /// This process has no file descriptor, port or memory left for it.
    Exhausted,
}

/// Endpoints are numbered by us: there is nothing to protect by a hash that costs more.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ByNumber;

/// See [`ByNumber`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NumberHasher(u64);

impl BuildHasher for ByNumber {
    type Hasher = NumberHasher;

    fn build_hasher(&self) -> NumberHasher {
        NumberHasher::default()
    }
}

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        // The map looks at the uppermost bits too: spread small numbers over all of them.
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// One worker's resting connections, the newest of each instance last.
#[derive(Debug)]
pub(crate) struct Pool<L> {
    resting: RefCell<HashMap<u64, Vec<Resting<L>>, ByNumber>>,
    /// Where requests wait that have no connection; see [`Pool::freed`].
    awaited: RefCell<HashMap<u64, Rc<Notify>, ByNumber>>,
}

impl<L> Default for Pool<L> {
    fn default() -> Self {
        Self { resting: RefCell::default(), awaited: RefCell::default() }
    }
}

impl<L: Link> Pool<L> {
    /// Takes a connection that can be expected to work. `repeatable` says whether the request
    /// could be sent again if it does not, `now` is a moment just ago.
    pub(crate) fn take(&self, endpoint: u64, repeatable: bool, now: Instant) -> Option<L> {
        let limit = if repeatable { UPSTREAM_IDLE_MAX } else { UPSTREAM_IDLE_MAX_UNREPEATABLE };
        let mut resting = self.resting.borrow_mut();
        let stack = resting.get_mut(&endpoint)?;
        while let Some(top) = stack.last_mut() {
            let rested = now.saturating_duration_since(top.since);
            // Everything below the top has rested longer.
            if rested > limit {
                return None;
            }
            if let Some(shared) = top.link.shared().filter(|link| !link.is_over()) {
                top.since = now;
                return Some(shared);
            }
            let top = stack.pop()?;
            let unasked = repeatable && rested <= UPSTREAM_IDLE_UNASKED_MAX;
            if rested <= top.rest_max && !top.link.is_over() && (unasked || top.link.is_quiet()) {
                return Some(top.link);
            }
        }
        None
    }

    /// Keeps a connection for the next request to its instance. `announced` is the server's own
    /// limit for resting connections, if it has told one; it rests since a moment just ago, `now`.
    pub(crate) fn put(&self, endpoint: u64, link: L, announced: Option<Duration>, now: Instant) {
        // A server that announces n seconds may count from before we do.
        let announced = announced.map(|limit| limit.saturating_sub(Duration::from_secs(1)));
        let rest_max = announced.unwrap_or(UPSTREAM_IDLE_MAX).min(UPSTREAM_IDLE_MAX);
        self.keep(endpoint, Resting { link, since: now, rest_max });
    }

    /// Keeps a connection that may have rested elsewhere, in its place among the others.
    pub(crate) fn keep(&self, endpoint: u64, resting: Resting<L>) {
        let mut pool = self.resting.borrow_mut();
        let stack = pool.entry(endpoint).or_default();
        if stack.len() >= UPSTREAM_IDLE_COUNT_MAX {
            return;
        }
        let newer = stack.iter().rev().take_while(|other| other.since > resting.since).count();
        stack.insert(stack.len() - newer, resting);
        drop(pool);
        let awaited = self.awaited.borrow();
        if !awaited.is_empty()
            && let Some(bell) = awaited.get(&endpoint)
        {
            bell.notify_one();
        }
    }

    /// The next connection to an instance that comes to rest and can be expected to work.
    pub(crate) async fn freed(&self, endpoint: u64, repeatable: bool) -> L {
        let bell = self.awaited.borrow_mut().entry(endpoint).or_default().clone();
        let waiting = Waiting { pool: self, endpoint, bell };
        loop {
            let told = waiting.bell.notified();
            if let Some(link) = self.take(endpoint, repeatable, Instant::now()) {
                return link;
            }
            told.await;
        }
    }

    /// Takes all out that belong to an instance.
    pub(crate) fn remove(&self, endpoint: u64) -> Vec<Resting<L>> {
        self.resting.borrow_mut().remove(&endpoint).unwrap_or_default()
    }

    /// Drops what is too old, closed, or belongs to an instance that `keep` does not want.
    pub(crate) fn sweep(&self, keep: impl Fn(u64) -> bool) {
        self.resting.borrow_mut().retain(|endpoint, stack| {
            stack.retain(|resting| {
                resting.since.elapsed() <= resting.rest_max && !resting.link.is_over()
            });
            !stack.is_empty() && keep(*endpoint)
        });
    }
}

/// A request that waits for a connection to come free.
struct Waiting<'p, L> {
    pool: &'p Pool<L>,
    endpoint: u64,
    bell: Rc<Notify>,
}

impl<L> Drop for Waiting<'_, L> {
    fn drop(&mut self) {
        // The pool's and this one: nobody else waits.
        if Rc::strong_count(&self.bell) <= 2 {
            self.pool.awaited.borrow_mut().remove(&self.endpoint);
        }
    }
}

/// Opens a connection, within `limit`.
pub(crate) async fn connect(address: SocketAddr, limit: Duration) -> Result<TcpStream, NoLink> {
    let stream = match tokio::time::timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if is_exhausted(&error) => return Err(NoLink::Exhausted),
        Ok(Err(_)) | Err(_) => return Err(NoLink::Refused),
    };
    if is_self_connected(&stream) {
        return Err(NoLink::Refused);
    }
    Ok(stream)
}

/// Whether nobody listened and the kernel drew the very port we asked for as our own: then TCP
/// connects a socket to itself. Happens on loopback, where instances have ports from that range.
fn is_self_connected(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(own), Ok(peer)) if own == peer)
}

fn is_exhausted(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| ours.iter().any(|own| own.raw_os_error() == code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_socket_connected_to_itself_is_no_instance() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let own = socket.local_addr().unwrap();
        let stream = socket.connect(own).await.unwrap();
        assert!(is_self_connected(&stream));
        drop(stream);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        assert!(!is_self_connected(&stream));
    }

    #[test]
    fn only_our_own_shortages_are_exhaustion() {
        let of = |errno: rustix::io::Errno| std::io::Error::from_raw_os_error(errno.raw_os_error());
        assert!(is_exhausted(&of(rustix::io::Errno::MFILE)));
        assert!(is_exhausted(&of(rustix::io::Errno::ADDRNOTAVAIL)));
        assert!(!is_exhausted(&of(rustix::io::Errno::CONNREFUSED)));
        assert!(!is_exhausted(&of(rustix::io::Errno::HOSTUNREACH)));
    }
}
