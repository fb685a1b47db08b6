//! After a 101: what was read of the new protocol already goes first. The request counts as
//! answered from the start of the tunnel, and as in flight until its end.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::compiled::Visit;
use crate::counters::Ticket;
use crate::tunnel::{Side, ended, join};
use crate::worker::Worker;

/// What one is made of.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) ticket: Ticket,
    pub(super) visit: Visit,
    pub(super) instance: TcpStream,
    /// What was read of the new protocol before it was known to be one.
    pub(super) to_client: Vec<u8>,
    pub(super) to_instance: Vec<u8>,
}

impl Tunnel {
    pub(super) async fn run(self, worker: &Worker, mut client: TcpStream) {
        let Self { ticket, visit, mut instance, to_client, to_instance } = self;
        let begun =
            tokio::try_join!(client.write_all(&to_client), instance.write_all(&to_instance));
        let first = if begun.is_ok() {
            drop((to_client, to_instance));
            join(client.split(), instance.split()).await
        } else {
            Side::Client
        };
        ended(worker, ticket, &visit, first);
    }
}
