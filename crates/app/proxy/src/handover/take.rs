//! The new process's side up to the moment from which it serves.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use switchback_ports::crash_point;
use tokio::net::{UnixListener, UnixStream};

use super::doors::{self, Doors, Until};
use super::elders::{attend, speak};
use super::give::step;
use super::wire::{Reader, ends};
use super::{First, FromNew, FromOld, Offer, PROTOCOL, Past};
use crate::batches::Gathered;
use crate::plane::Plane;

/// What a process has that has taken over, beside its table and its connections.
#[derive(Debug)]
pub(crate) struct Estate {
    /// The state directory's, held already.
    pub(crate) lock: File,
    pub(crate) admin: UnixListener,
    pub(crate) handover: UnixListener,
}

/// Takes over from the process that runs; returns when this one serves. The error is a sentence
/// for people; then the other one goes on as before.
pub(crate) async fn take(
    plane: &Rc<Plane>,
    admin: &Path,
    state_dir: &Path,
) -> Result<Estate, String> {
    let path = doors::socket(state_dir);
    let stream = UnixStream::connect(&path).await;
    let stream = stream.map_err(|error| format!("nobody is there to take over from: {error}"))?;
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
    let lost = |error: io::Error| format!("the process that runs went away: {error}");
    let (mut reader, writer) = ends(stream);
    let (protocol, version) = (PROTOCOL, plane.version().to_owned());
    crash_point("successor before hello");
    let hello = First::Hello { protocol, version, takes_links: true };
    step(writer.send(&hello, &[])).await.map_err(lost)?;
    let (offer, lock) = offer(&mut reader).await?;
    let listeners = listeners(&mut reader, &offer).await.map_err(lost)?;
    crash_point("successor after descriptors");
    let acknowledged = offer.acknowledged;
    let ready = plane.inherit(offer, listeners).and_then(|()| {
        let doors = Doors::bind(admin, state_dir, Until::Committed);
        doors.map_err(|(path, error)| format!("cannot listen on {}: {error}", path.display()))
    });
    let doors = match ready {
        Ok(doors) => doors,
        Err(reason) => {
            let refused = FromNew::Refused { reason: reason.clone() };
            // It finds out by itself.
            let _ = step(writer.send(&refused, &[])).await;
            return Err(reason);
        }
    };
    crash_point("successor before ready");
    step(writer.send(&FromNew::Ready, &[])).await.map_err(lost)?;
    crash_point("successor after ready");
    let (past, gathered) = commit(&mut reader).await?;
    let elder = past.first().cloned().ok_or("the process that runs has counted nothing")?;
    plane.elders.inherit(past);
    plane.go_on_gathering(gathered);
    crash_point("successor before serving");
    step(writer.send(&FromNew::Serving, &[])).await.map_err(lost)?;
    plane.open_inherited();
    doors.open().map_err(|(path, error)| format!("cannot use {}: {error}", path.display()))?;
    let id = elder.id.clone();
    let says = plane.elders.join(elder, pid, acknowledged);
    tokio::task::spawn_local(speak(writer, says));
    tokio::task::spawn_local(attend(Rc::clone(plane), id, reader));
    Ok(Estate { lock, admin: doors.admin, handover: doors.handover })
}

async fn receive(reader: &mut Reader) -> Result<(FromOld, Vec<OwnedFd>), String> {
    let received = step(reader.receive()).await;
    received.map_err(|error| format!("the process that runs is not understood: {error}"))
}

async fn offer(reader: &mut Reader) -> Result<(Offer, File), String> {
    match receive(reader).await? {
        (FromOld::Offer(offer), mut descriptors) => {
            let lock = descriptors.pop().ok_or("the process that runs gave no lock")?;
            Ok((*offer, File::from(lock)))
        }
        (FromOld::Refused { reason }, _) => Err(reason),
        (other, _) => Err(unexpected(&other)),
    }
}

async fn listeners(reader: &mut Reader, offer: &Offer) -> io::Result<Vec<TcpListener>> {
    let open = offer.listeners.iter().filter(|listener| listener.error.is_none()).count();
    let mut listeners = Vec::new();
    while listeners.len() < open {
        match step(reader.receive()).await? {
            (FromOld::Listeners, some) if !some.is_empty() => {
                listeners.extend(some.into_iter().map(TcpListener::from));
            }
            (other, _) => return Err(io::Error::other(unexpected(&other))),
        }
    }
    Ok(listeners)
}

async fn commit(reader: &mut Reader) -> Result<(Vec<Past>, Gathered), String> {
    match receive(reader).await? {
        (FromOld::Commit { past, gathered }, _) => Ok((past, gathered)),
        (FromOld::Refused { reason }, _) => Err(reason),
        (other, _) => Err(unexpected(&other)),
    }
}

fn unexpected(word: &FromOld) -> String {
    let name = match word {
        FromOld::Refused { .. } => "Refused",
        FromOld::Offer(_) => "Offer",
        FromOld::Listeners => "Listeners",
        FromOld::Commit { .. } => "Commit",
        FromOld::Links { .. } => "Links",
        FromOld::Connections { .. } => "Connections",
        FromOld::Counted { .. } => "Counted",
        FromOld::Followed { .. } => "Followed",
        FromOld::Done => "Done",
    };
    format!("the process that runs said {name} out of turn")
}
