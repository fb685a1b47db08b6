//! Listening addresses: one socket each, accepted on one thread, connections given to the worker
//! that has the fewest.
//!
//! One socket without `SO_REUSEPORT`, on purpose: the kernel then refuses an address that anybody
//! else has, also another Switchback, and no accept queue is lost when workers come and go.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Type};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use crate::Error;
use crate::limits::{ACCEPT_PAUSE, ACCEPT_QUEUE};
use crate::peers::{Admitted, Peers};
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
    Share(oneshot::Sender<Vec<(SocketAddr, TcpListener)>>),
    Pause(oneshot::Sender<()>),
    Resume,
    LetGo,
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
    desk: Arc<Desk>,
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
        let peers = Mutex::new(Peers::new(limits.per_address));
        let desk = Arc::new(Desk { shared, workers, connections_max: limits.connections, peers });
        let at_work = Arc::clone(&desk);
        let work = move || LocalSet::new().block_on(&runtime, accept(at_work, inbox));
        let thread = std::thread::Builder::new().name("accept".to_owned());
        // It ends when the commands do.
        thread.spawn(work).map_err(Error::Runtime)?;
        Ok(Self { commands, desk })
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

impl Acceptor {
    /// Every open listener once more, in the order of their addresses: the same sockets, with the
    /// same queues.
    pub(crate) async fn share(&self) -> Vec<(SocketAddr, TcpListener)> {
        let (give, given) = oneshot::channel();
        let _ = self.commands.send(Command::Share(give));
        given.await.unwrap_or_default()
    }

    /// Accepts nothing more, and leaves what waits in the queues; returns when all that was
    /// accepted is in the workers' hands.
    pub(crate) async fn pause(&self) {
        let (done, paused) = oneshot::channel();
        let _ = self.commands.send(Command::Pause(done));
        let _ = paused.await;
    }

    /// Takes in a connection that was accepted before: it counts, but is not refused.
    pub(crate) fn take_in(&self, stream: std::net::TcpStream, entry: Entry) {
        let admitted = self.desk.peers().count(entry.client.ip());
        self.desk.give(stream, entry, admitted);
    }

    /// Accepts again after a pause.
    pub(crate) fn resume(&self) {
        let _ = self.commands.send(Command::Resume);
    }

    /// Lets go of every listener after a pause, and of what waits in its queue: another process
    /// has the same sockets and serves it.
    pub(crate) fn let_go(&self) {
        let _ = self.commands.send(Command::LetGo);
    }
}

/// Hands connections out.
#[derive(Debug)]
struct Desk {
    shared: Arc<Shared>,
    workers: Vec<mpsc::UnboundedSender<WorkerCommand>>,
    connections_max: usize,
    peers: Mutex<Peers>,
}

impl Desk {
    /// Waits until another connection may be opened.
    async fn room(&self) {
        while self.shared.idlest().1 >= self.connections_max {
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_over(&self, stream: std::net::TcpStream, entry: Entry) {
        let Ok(admitted) = self.peers().admit(entry.client.ip()) else {
            // Whoever holds that many knows why; an answer would cost what the limit is to save.
            return self.shared.refused(self.shared.idlest().0);
        };
        self.give(stream, entry, admitted);
    }

    fn give(&self, stream: std::net::TcpStream, entry: Entry, admitted: Option<Admitted>) {
        let (worker, _) = self.shared.idlest();
        let open = self.shared.connection_opened(worker, admitted);
        // A worker only ends after this thread.
        let _ = self.workers[worker].send(WorkerCommand::Connection(stream, entry, open));
    }
}

/// An address that is listened on.
struct Open {
    /// The socket once more: it stays while the task that accepts comes and goes.
    queue: TcpListener,
    /// Tells the task to end. `None` while there is none.
    task: Option<(oneshot::Sender<()>, tokio::task::JoinHandle<()>)>,
}

async fn accept(desk: Arc<Desk>, mut inbox: mpsc::UnboundedReceiver<Command>) {
    let mut open = BTreeMap::new();
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Open(address, queue) => {
                open.insert(address, Open { queue, task: None });
                start(&desk, &mut open);
            }
            Command::Close(address) => {
                if let Some(listener) = open.remove(&address) {
                    close(&desk, address, listener).await;
                }
            }
            Command::CloseAll(done) => {
                for (address, listener) in std::mem::take(&mut open) {
                    close(&desk, address, listener).await;
                }
                // Nobody waits any more: the process ends.
                let _ = done.send(());
            }
            Command::Share(give) => {
                let share = |(address, open): (&SocketAddr, &Open)| {
                    Some((*address, open.queue.try_clone().ok()?))
                };
                let _ = give.send(open.iter().filter_map(share).collect());
            }
            Command::Pause(done) => {
                for listener in open.values_mut() {
                    stop(listener.task.take()).await;
                }
                let _ = done.send(());
            }
            Command::Resume => start(&desk, &mut open),
            Command::LetGo => open.clear(),
        }
    }
}

/// Starts a task for every listener without one.
fn start(desk: &Arc<Desk>, open: &mut BTreeMap<SocketAddr, Open>) {
    for (address, listener) in open.iter_mut().filter(|(_, listener)| listener.task.is_none()) {
        // Only fails when the process is out of memory or descriptors.
        let Ok(queue) = listener.queue.try_clone() else { continue };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::task::spawn_local(accept_at(Arc::clone(desk), *address, queue, stopped));
        listener.task = Some((stop, task));
    }
}

async fn stop(task: Option<(oneshot::Sender<()>, tokio::task::JoinHandle<()>)>) {
    let Some((stop, task)) = task else { return };
    drop(stop);
    let _ = task.await;
}

/// Whoever is connected already is served; their requests find no route here any more.
async fn close(desk: &Desk, listen: SocketAddr, listener: Open) {
    stop(listener.task).await;
    while let Ok((stream, client)) = listener.queue.accept() {
        if stream.set_nonblocking(true).is_ok() {
            desk.hand_over(stream, Entry { listen, client, secure: false });
        }
    }
}

async fn accept_at(
    desk: Arc<Desk>,
    listen: SocketAddr,
    listener: TcpListener,
    mut stopped: oneshot::Receiver<()>,
) {
    // Only fails when the process is out of memory or descriptors.
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let next = async {
            desk.room().await;
            let (stream, client) = listener.accept().await?;
            Ok::<_, io::Error>((stream.into_std()?, client))
        };
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            accepted = next => match accepted {
                Ok((stream, client)) => desk.hand_over(stream, Entry { listen, client, secure: false }),
                // Reset in the queue, or out of descriptors: the next one may do better.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
        }
    }
}

/// How long to wait before an address that was taken at the start is tried again.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_secs(1);
