//! What every connection of the data plane has set, and what the kernel knows about one.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::RecvFlags;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::limits::{HEADER_READ_MAX, TCP_KEEPALIVE, TCP_USER_TIMEOUT};

/// Sets a new connection up.
pub(crate) fn set_up(stream: &TcpStream) {
    let options = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(TCP_KEEPALIVE).with_interval(TCP_KEEPALIVE);
    // A connection without these still works; one that died will show when it is used.
    let _ = stream.set_nodelay(true);
    let _ = options.set_tcp_keepalive(&keepalive);
    let _ = options.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT));
}

/// How often a start that could still become either is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Waits for the first bytes of a connection: whether they are those of HTTP/2. No method of
/// HTTP/1.1 begins like them. Takes nothing out of the stream.
pub(crate) async fn begins_http2(stream: &TcpStream) -> bool {
    const START: &[u8] = b"PRI";
    let mut seen = [0; START.len()];
    // A start that does not go on is not waited for longer than for a head.
    let looks = HEADER_READ_MAX.as_millis() / LOOK_AGAIN.as_millis();
    for _ in 0..looks {
        match stream.peek(&mut seen).await {
            Ok(3..) => return seen == START,
            Ok(count @ 1..) if START.starts_with(&seen[..count]) => {}
            Ok(_) | Err(_) => return false,
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    false
}

/// Whether the peer neither closed the connection nor sent something nobody asked for. Asks the
/// kernel, so it also sees what the event loop has not got to yet.
pub(crate) fn is_quiet(stream: &impl AsFd) -> bool {
    let mut byte = [0_u8; 1];
    let seen = rustix::net::recv(stream, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    matches!(seen, Err(rustix::io::Errno::AGAIN))
}
