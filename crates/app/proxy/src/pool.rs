//! Connections to instances: one pool per worker, so no lock and no wake across threads.
//!
//! A resting connection is used again only if it is young enough, its task has not ended and the
//! kernel has nothing to say about it. What still slips through, because the instance closes in
//! the very moment of sending, is the exchange's to repeat.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::body::RequestBody;
use crate::compiled::Visit;
use crate::limits::{
    BUFFER_BYTES_MAX, CONNECT_MAX, UPSTREAM_IDLE_COUNT_MAX, UPSTREAM_IDLE_MAX,
    UPSTREAM_IDLE_MAX_UNREPEATABLE,
};
use crate::socket::{Socket, Watch};
use crate::worker::Worker;

/// A connection that waits for its next request.
#[derive(Debug)]
struct Resting {
    link: Link,
    since: Instant,
    rest_max: Duration,
}

/// One connection to an instance.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) sender: SendRequest<RequestBody>,
    pub(crate) watch: Watch,
    /// Whether it has carried a request before.
    pub(crate) reused: bool,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum NoLink {
    /// The instance refused it, or did not take it in time.
    Refused,
    /// This process has no file descriptor, port or memory left for it.
    Exhausted,
}

/// One worker's resting connections, the newest of each instance last.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    resting: RefCell<HashMap<u64, Vec<Resting>>>,
}

impl Pool {
    /// Takes a connection that can be expected to work. `repeatable` says whether the request
    /// could be sent again if it does not.
    pub(crate) fn take(&self, endpoint: u64, repeatable: bool) -> Option<Link> {
        let limit = if repeatable { UPSTREAM_IDLE_MAX } else { UPSTREAM_IDLE_MAX_UNREPEATABLE };
        let mut resting = self.resting.borrow_mut();
        let stack = resting.get_mut(&endpoint)?;
        while let Some(top) = stack.last() {
            // Everything below the top has rested longer.
            if top.since.elapsed() > limit {
                return None;
            }
            let top = stack.pop()?;
            let young = top.since.elapsed() <= top.rest_max;
            if young && top.link.sender.is_ready() && top.link.watch.is_quiet() {
                return Some(top.link);
            }
        }
        None
    }

    fn put(&self, endpoint: u64, resting: Resting) {
        let mut pool = self.resting.borrow_mut();
        let stack = pool.entry(endpoint).or_default();
        if stack.len() < UPSTREAM_IDLE_COUNT_MAX {
            stack.push(resting);
        }
    }

    /// Drops what is too old, closed, or belongs to an instance that `keep` does not want.
    pub(crate) fn sweep(&self, keep: impl Fn(u64) -> bool) {
        self.resting.borrow_mut().retain(|endpoint, stack| {
            stack.retain(|resting| {
                resting.since.elapsed() <= resting.rest_max && !resting.link.sender.is_closed()
            });
            !stack.is_empty() && keep(*endpoint)
        });
    }
}

/// Opens a connection to the instance of a visit and starts the task that drives it.
pub(crate) async fn connect(visit: &Visit) -> Result<Link, NoLink> {
    let opening = TcpStream::connect(visit.endpoint.address);
    let stream = match tokio::time::timeout(CONNECT_MAX, opening).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if is_exhausted(&error) => return Err(NoLink::Exhausted),
        Ok(Err(_)) | Err(_) => return Err(NoLink::Refused),
    };
    if is_self_connected(&stream) {
        return Err(NoLink::Refused);
    }
    let (socket, watch) = Socket::new(stream);
    let handshake =
        http1::Builder::new().max_buf_size(BUFFER_BYTES_MAX).handshake(TokioIo::new(socket)).await;
    let Ok((sender, connection)) = handshake else { return Err(NoLink::Refused) };
    tokio::task::spawn_local(async move {
        // Its errors reach whoever waits for a response; a resting connection has nobody to tell.
        let _ = connection.with_upgrades().await;
    });
    Ok(Link { sender, watch, reused: false })
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

/// A connection that carries a response. Dropped, it is closed; given back, it rests.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) link: Link,
    pub(crate) visit: Visit,
    pub(crate) worker: Rc<Worker>,
    /// The server's own limit for resting connections, if it announced one.
    pub(crate) keep_alive: Option<Duration>,
}

impl Lease {
    /// The response has ended: the connection may carry another request.
    pub(crate) fn give_back(self) {
        let Self { mut link, visit, worker, keep_alive } = self;
        let endpoint = visit.endpoint.id;
        // A server that announces n seconds may count from before we do.
        let announced = keep_alive.map(|limit| limit.saturating_sub(Duration::from_secs(1)));
        let rest_max = announced.unwrap_or(UPSTREAM_IDLE_MAX).min(UPSTREAM_IDLE_MAX);
        if link.sender.is_closed() || !worker.serves(endpoint) {
            return;
        }
        link.reused = true;
        if link.sender.is_ready() {
            worker.pool.put(endpoint, Resting { link, since: Instant::now(), rest_max });
            return;
        }
        tokio::task::spawn_local(async move {
            // The connection's task has still to notice the end of the message.
            let ready = tokio::time::timeout(CONNECT_MAX, link.sender.ready()).await;
            if matches!(ready, Ok(Ok(()))) && worker.serves(endpoint) {
                worker.pool.put(endpoint, Resting { link, since: Instant::now(), rest_max });
            }
        });
    }
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
