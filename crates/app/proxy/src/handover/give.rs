//! The old process's side up to the moment from which the new one serves: nothing is given away
//! before, so whatever goes wrong, this one goes on.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use switchback_ports::crash_point;
use switchback_ports::data_plane::Cursor;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::elders::{attend, speak};
use super::retire::Successor;
use super::wire::{DESCRIPTORS_MAX, Reader, Writer, ends};
use super::{First, FromNew, FromOld, PROTOCOL};
use crate::limits::{ACCEPT_PAUSE, HANDOVER_COMMIT_MAX, HANDOVER_STEP_MAX};
use crate::log;
use crate::plane::Plane;

/// What a process needs to hand over.
#[derive(Debug)]
pub(crate) struct Giver {
    plane: Rc<Plane>,
    /// The state directory's; gone once it was handed over.
    lock: RefCell<Option<File>>,
    /// Told when it was.
    handed: RefCell<Option<oneshot::Sender<Successor>>>,
}

/// Answers whoever wants to take over, or was replaced and has lost its successor.
pub(crate) fn serve(
    plane: &Rc<Plane>,
    lock: File,
    listener: UnixListener,
) -> (oneshot::Receiver<Successor>, Rc<Giver>) {
    let (handed, successor) = oneshot::channel();
    let (lock, handed) = (RefCell::new(Some(lock)), RefCell::new(Some(handed)));
    let giver = Rc::new(Giver { plane: Rc::clone(plane), lock, handed });
    tokio::task::spawn_local(accept(Rc::clone(&giver), listener));
    (successor, giver)
}

async fn accept(giver: Rc<Giver>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::task::spawn_local(greet(Rc::clone(&giver), stream));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn greet(giver: Rc<Giver>, stream: UnixStream) {
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
    let (mut reader, writer) = ends(stream);
    let Ok(first) = step(reader.receive()).await else { return };
    match first.0 {
        First::Hello { protocol, version, takes_links } => {
            let refused = match giver.hand_over((protocol, takes_links), pid, reader, &writer).await
            {
                Ok(()) => return,
                Err(reason) => reason,
            };
            log::note(&format!("goes on, did not hand over to version {version}: {refused}"));
            // It may be gone.
            let _ = step(writer.send(&FromOld::Refused { reason: refused }, &[])).await;
        }
        First::Elder { protocol, past } => {
            // One that was replaced itself is not whom it looks for.
            if protocol == PROTOCOL && !giver.plane.is_retired() {
                let (plane, id) = (Rc::clone(&giver.plane), past.id.clone());
                let says = plane.elders.join(*past, pid, switchback_domain::Generation::default());
                plane.remind();
                tokio::task::spawn_local(async move {
                    // It is lost then, and whoever listens to it notices.
                    if step(writer.send(&FromNew::Welcome, &[])).await.is_ok() {
                        speak(writer, says).await;
                    }
                });
                attend(plane, id, reader).await;
            }
        }
    }
}

impl Giver {
    /// Hands over, or goes on as if nobody had asked. The error is a sentence for people.
    async fn hand_over(
        &self,
        (protocol, takes_links): (u32, bool),
        pid: Option<i32>,
        mut reader: Reader,
        writer: &Writer,
    ) -> Result<(), String> {
        if protocol != PROTOCOL {
            return Err(format!("it speaks protocol {protocol}, this process {PROTOCOL}"));
        }
        // A process that cannot be told apart from a later one with its number is not signalled.
        let other = pid.and_then(Pid::from_raw);
        let other = other.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // No table is taken until this has succeeded or failed, nor is one written.
        let _quiet = self.plane.quiet().await;
        if self.plane.is_ending() {
            return Err("this process is ending".to_owned());
        }
        let told = self.offer(&mut reader, writer).await?;
        self.plane.acceptor.pause().await;
        let (past, gathered) = self.plane.freeze(&told);
        let commit = async {
            writer.send(&FromOld::Commit { past, gathered }, &[]).await?;
            reader.receive::<FromNew>().await
        };
        match timeout(HANDOVER_COMMIT_MAX, commit).await {
            Ok(Ok((FromNew::Serving, _))) => {}
            unconfirmed => {
                end(other).await;
                self.plane.thaw();
                self.plane.acceptor.resume();
                return Err(match unconfirmed {
                    Ok(Err(error)) => format!("it went away in the last step: {error}"),
                    Ok(Ok(_)) | Err(_) => "it did not confirm the last step".to_owned(),
                });
            }
        }
        self.plane.retired();
        drop(self.lock.borrow_mut().take());
        crash_point("replaced before its connections");
        if let Some(handed) = self.handed.borrow_mut().take() {
            let _ = handed.send(Successor { reader, writer: writer.clone(), takes_links });
        }
        Ok(())
    }

    /// Returns how far it has told what it gathered.
    async fn offer(&self, reader: &mut Reader, writer: &Writer) -> Result<Cursor, String> {
        let lost = |error: io::Error| format!("it went away: {error}");
        let (offer, listeners) = self.plane.offer().await?;
        let lock = self.lock.borrow().as_ref().map(File::try_clone);
        let lock = lock.ok_or("this process was replaced already")?;
        let lock = lock.map_err(|error| format!("no descriptor is left: {error}"))?;
        let told = offer.gathered.next().clone();
        let offer = FromOld::Offer(Box::new(offer));
        step(writer.send(&offer, &[lock.as_fd()])).await.map_err(lost)?;
        for some in listeners.chunks(DESCRIPTORS_MAX) {
            let descriptors: Vec<_> = some.iter().map(AsFd::as_fd).collect();
            step(writer.send(&FromOld::Listeners, &descriptors)).await.map_err(lost)?;
        }
        match step(reader.receive()).await.map_err(lost)?.0 {
            FromNew::Ready => Ok(told),
            FromNew::Refused { reason } => Err(reason),
            FromNew::Welcome
            | FromNew::Serving
            | FromNew::Follow { .. }
            | FromNew::Stop
            | FromNew::Farewell => Err("it does not keep to the protocol".to_owned()),
        }
    }
}

/// Makes sure that a process which may or may not have heard the last word does nothing about it.
async fn end(process: Option<OwnedFd>) {
    let Some(process) = process else { return };
    // It may be gone already.
    let _ = pidfd_send_signal(&process, Signal::KILL);
    let deadline = Instant::now() + HANDOVER_COMMIT_MAX;
    let is_gone = || {
        let mut asked = [PollFd::new(&process, PollFlags::IN)];
        matches!(poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
    };
    while !is_gone() && Instant::now() < deadline {
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// One step, done in time.
pub(super) async fn step<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(HANDOVER_STEP_MAX, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
