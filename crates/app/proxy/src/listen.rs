//! Listening addresses: one socket each, accepted on one thread, connections given to the worker
//! that has the fewest.
//!
//! One socket without `SO_REUSEPORT`, on purpose: the kernel then refuses an address that anybody
//! else has, also another Switchback, and no accept queue is lost when workers come and go.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Type};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use crate::Error;
use crate::limits::{ACCEPT_PAUSE, ACCEPT_QUEUE};
use crate::peers::Peers;
use crate::service::Entry;
use crate::shared::Shared;
use crate::worker::Command as WorkerCommand;

/// Takes an address. Connections queue up in the kernel until [`Acceptor::open`].
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = socket2::Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    // Connections of an earlier life in TIME_WAIT must not keep us out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]:80` and `0.0.0.0:80` are two addresses, whatever the system's default says.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(ACCEPT_QUEUE)?;
    Ok(socket.into())
}

enum Command {
    Open(SocketAddr, TcpListener),
    Close(SocketAddr),
    CloseAll(oneshot::Sender<()>),
}

/// How many connections are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// In all.
    pub(crate) connections: usize,
    /// From one address; `None` does not count them.
    pub(crate) per_address: Option<u32>,
}

/// The accepting thread; it ends, and lets every address go, when this is dropped.
#[derive(Debug)]
pub(crate) struct Acceptor {
    commands: mpsc::UnboundedSender<Command>,
}

impl Acceptor {
    /// Starts the thread. It keeps at most as many connections open as the limits say.
    pub(crate) fn start(
        shared: Arc<Shared>,
        workers: Vec<mpsc::UnboundedSender<WorkerCommand>>,
        limits: Limits,
    ) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Error::Runtime)?;
        let (commands, inbox) = mpsc::unbounded_channel();
        let work = move || {
            let peers = RefCell::new(Peers::new(limits.per_address));
            let connections_max = limits.connections;
            let desk = Rc::new(Desk { shared, workers, connections_max, peers });
            LocalSet::new().block_on(&runtime, accept(desk, inbox));
        };
        let thread = std::thread::Builder::new().name("accept".to_owned());
        // It ends when the commands do.
        thread.spawn(work).map_err(Error::Runtime)?;
        Ok(Self { commands })
    }

    /// Accepts on a bound address from now on.
    pub(crate) fn open(&self, address: SocketAddr, listener: TcpListener) {
        // The thread only ends with this handle.
        let _ = self.commands.send(Command::Open(address, listener));
    }

    /// Serves what is in the accept queue, then lets the address go.
    pub(crate) fn close(&self, address: SocketAddr) {
        let _ = self.commands.send(Command::Close(address));
    }

    /// The same for every address; returns when it is done.
    pub(crate) async fn close_all(&self) {
        let (done, closed) = oneshot::channel();
        let _ = self.commands.send(Command::CloseAll(done));
        // An error means that the thread is gone, and its listeners with it.
        let _ = closed.await;
    }
}

/// Hands connections out.
struct Desk {
    shared: Arc<Shared>,
    workers: Vec<mpsc::UnboundedSender<WorkerCommand>>,
    connections_max: usize,
    peers: RefCell<Peers>,
}

impl Desk {
    /// Waits until another connection may be opened.
    async fn room(&self) {
        while self.shared.idlest().1 >= self.connections_max {
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }

    fn hand_over(&self, stream: std::net::TcpStream, entry: Entry) {
        let (worker, _) = self.shared.idlest();
        let Ok(admitted) = self.peers.borrow_mut().admit(entry.client.ip()) else {
            // Whoever holds that many knows why; an answer would cost what the limit is to save.
            return self.shared.refused(worker);
        };
        let open = self.shared.connection_opened(worker, admitted);
        // A worker only ends after this thread.
        let _ = self.workers[worker].send(WorkerCommand::Connection(stream, entry, open));
    }
}

async fn accept(desk: Rc<Desk>, mut inbox: mpsc::UnboundedReceiver<Command>) {
    let mut open = HashMap::new();
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Open(address, listener) => {
                let (stop, stopped) = oneshot::channel();
                let task = accept_at(Rc::clone(&desk), address, listener, stopped);
                open.insert(address, (stop, tokio::task::spawn_local(task)));
            }
            Command::Close(address) => close(open.remove(&address)).await,
            Command::CloseAll(done) => {
                for (_, task) in open.drain() {
                    close(Some(task)).await;
                }
                // Nobody waits any more: the process ends.
                let _ = done.send(());
            }
        }
    }
}

async fn close(task: Option<(oneshot::Sender<()>, tokio::task::JoinHandle<()>)>) {
    let Some((stop, task)) = task else { return };
    drop(stop);
    let _ = task.await;
}

async fn accept_at(
    desk: Rc<Desk>,
    listen: SocketAddr,
    listener: TcpListener,
    mut stopped: oneshot::Receiver<()>,
) {
    // Both only fail when the process is out of memory or descriptors right at the start.
    let Ok(queue) = listener.try_clone() else { return };
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let next = async {
            desk.room().await;
            let (stream, client) = listener.accept().await?;
            Ok::<_, io::Error>((stream.into_std()?, client))
        };
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            accepted = next => match accepted {
                Ok((stream, client)) => desk.hand_over(stream, Entry { listen, client, secure: false }),
                // Reset in the queue, or out of descriptors: the next one may do better.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    // Whoever is connected already is served; their requests find no route here any more.
    while let Ok((stream, client)) = queue.accept() {
        if stream.set_nonblocking(true).is_ok() {
            desk.hand_over(stream, Entry { listen, client, secure: false });
        }
    }
}

/// How long to wait before an address that was taken at the start is tried again.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_secs(1);
