//! After a 101: bytes in both directions until either side ends. The request counts as answered
//! from the start of the tunnel, and as in flight until its end.

use http::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::flow::Flow;
use super::link::Lease;
use crate::counters::Ticket;

/// Joins the two sides as soon as both codecs have let go of them.
pub(crate) fn start(
    client: OnUpgrade,
    response: &mut Response<Flow>,
    ticket: Ticket,
    lease: Lease,
) {
    let instance = hyper::upgrade::on(response);
    let open = lease.worker.shared.connection_opened(lease.worker.index, None);
    tokio::task::spawn_local(async move {
        let _held = (ticket, lease.visit, open);
        // The connection's task ends with the upgrade; a waiting sender would keep it.
        drop(lease.link);
        let Ok((client, instance)) = tokio::try_join!(client, instance) else { return };
        let (mut client, mut instance) = (TokioIo::new(client), TokioIo::new(instance));
        // How a tunnel ends is between the two sides.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut instance).await;
    });
}
