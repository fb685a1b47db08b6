//! After a 101, as soon as both codecs have let go. The request counts as answered from the start
//! of the tunnel, and as in flight until its end.

use http::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::split;

use super::flow::Flow;
use super::link::Lease;
use crate::counters::Ticket;
use crate::tunnel::{Side, ended, join};

/// Joins the two sides as soon as both codecs have let go of them.
pub(crate) fn start(
    client: OnUpgrade,
    response: &mut Response<Flow>,
    ticket: Ticket,
    lease: Lease,
) {
    let instance = hyper::upgrade::on(response);
    let Lease { link, visit, worker, keep_alive: _ } = lease;
    let open = worker.shared.connection_opened(worker.index, None);
    tokio::task::spawn_local(async move {
        let _open = open;
        // The connection's task ends with the upgrade; a waiting sender would keep it.
        drop(link);
        let first = match tokio::try_join!(client, instance) {
            Ok((client, instance)) => {
                join(split(TokioIo::new(client)), split(TokioIo::new(instance))).await
            }
            Err(_) => Side::Client,
        };
        ended(&worker, ticket, &visit, first);
    });
}
