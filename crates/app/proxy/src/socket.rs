//! What every connection of the data plane has set, and what the kernel knows about one.

use std::os::fd::AsFd;

use rustix::net::RecvFlags;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::limits::{TCP_KEEPALIVE, TCP_USER_TIMEOUT};

/// Sets a new connection up.
pub(crate) fn set_up(stream: &TcpStream) {
    let options = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(TCP_KEEPALIVE).with_interval(TCP_KEEPALIVE);
    // A connection without these still works; one that died will show when it is used.
    let _ = stream.set_nodelay(true);
    let _ = options.set_tcp_keepalive(&keepalive);
    let _ = options.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT));
}

/// Whether the peer neither closed the connection nor sent something nobody asked for. Asks the
/// kernel, so it also sees what the event loop has not got to yet.
pub(crate) fn is_quiet(stream: &impl AsFd) -> bool {
    let mut byte = [0_u8; 1];
    let seen = rustix::net::recv(stream, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    matches!(seen, Err(rustix::io::Errno::AGAIN))
}
