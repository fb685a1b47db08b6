//! After a 101: bytes in both directions until both sides have ended, and which of them did first.

use std::cell::Cell;
use std::io::{self, ErrorKind};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy};

use crate::compiled::Visit;
use crate::counters::Ticket;
use crate::worker::Worker;

/// One end of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Instance,
}

/// Passes bytes on until both sides have ended, or one has vanished; says which was first.
pub(crate) async fn join(
    client: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    instance: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
) -> Side {
    let first = Cell::new(None);
    let up = pass(client.0, instance.1, Side::Client, Side::Instance, &first);
    let down = pass(instance.0, client.1, Side::Instance, Side::Client, &first);
    // How a tunnel ends is between the two sides.
    let _ = tokio::try_join!(up, down);
    first.get().unwrap_or(Side::Client)
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    reads: Side,
    writes: Side,
    first: &Cell<Option<Side>>,
) -> io::Result<()> {
    let copied = copy(&mut from, &mut to).await;
    // Only the one who is written to breaks a pipe.
    let broken = copied.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe);
    let ended = if broken { writes } else { reads };
    first.set(first.get().or(Some(ended)));
    copied?;
    to.shutdown().await
}

/// Counts the end of a tunnel: one that its instance ended after it was taken out of the table was
/// cut, for nothing but our stop makes it end then.
pub(crate) fn ended(worker: &Worker, mut ticket: Ticket, visit: &Visit, first: Side) {
    let cut = first == Side::Instance && !worker.serves(visit.endpoint().id);
    if !cut {
        ticket.end_tunnel();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex, split};

    use super::*;

    async fn ended_by(side: Side) -> Side {
        let ((mut client, one), (mut instance, other)) = (duplex(64), duplex(64));
        let ends = async {
            client.write_all(b"ping").await.unwrap();
            instance.read_exact(&mut [0; 4]).await.unwrap();
            match side {
                Side::Client => instance,
                Side::Instance => client,
            }
        };
        let joined = join(split(one), split(other));
        let lasting = async {
            // The other side hears of the end before it ends in its turn.
            ends.await.read_to_end(&mut Vec::new()).await.unwrap();
            std::future::pending::<Side>().await
        };
        tokio::select! {
            first = joined => first,
            never = lasting => never,
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_side_that_ends_first_is_told() {
        for side in [Side::Instance, Side::Client] {
            let told = tokio::time::timeout(std::time::Duration::from_secs(20), ended_by(side));
            assert_eq!(told.await.unwrap(), side);
        }
    }
}
