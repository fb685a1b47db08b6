//! A port that nobody else has. Each port has a lease file in one directory per user and machine;
//! who holds its lock has the port, for as long as the process lives: two shims never choose the
//! same. A test bind right before each start finds ports taken by strangers.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::settings::Limits;

/// A port and the lock on its lease.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) port: u16,
    _lock: File,
}

/// Keeps `held` if its port is still free, else leases another one: `preferred` if it can be had,
/// else the first free one from a place that depends on `name`.
pub(crate) fn lease(
    held: Option<Lease>,
    preferred: Option<u16>,
    name: &str,
    limits: &Limits,
) -> io::Result<Lease> {
    if let Some(held) = held.filter(|held| is_free(held.port)) {
        return Ok(held);
    }
    let directory = limits.lease_directory();
    open_directory(&directory)?;
    let range = limits.ports();
    let preferred = preferred.filter(|port| range.contains(port));
    for port in preferred.into_iter().chain(candidates(range, ephemeral().as_ref(), name)) {
        if let Some(lease) = try_lease(&directory, port)?
            && is_free(port)
        {
            return Ok(lease);
        }
    }
    let (first, last) = (limits.port_first, limits.port_last);
    let text = format!("no port from {first} to {last} is free");
    Err(io::Error::new(io::ErrorKind::AddrInUse, text))
}

/// The ports to try, in order: the range from a place that depends on the name, so that instances
/// seldom try the same port first, without the ports that the kernel gives to clients.
fn candidates(
    range: RangeInclusive<u16>,
    ephemeral: Option<&RangeInclusive<u16>>,
    name: &str,
) -> impl Iterator<Item = u16> {
    let own = |port: &u16| !ephemeral.is_some_and(|taken| taken.contains(port));
    let mut ports: Vec<u16> = range.clone().filter(own).collect();
    if ports.is_empty() {
        // The kernel was given everything: then a client may have a port, as a stranger may.
        ports.extend(range);
    }
    // FNV-1a: the same place for the same name in every build.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let start = usize::try_from(hash % ports.len().max(1) as u64).unwrap_or_default();
    let count = ports.len();
    (0..count).map(move |index| ports[(start + index) % count])
}

/// The kernel's ports for outgoing connections.
fn ephemeral() -> Option<RangeInclusive<u16>> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut bounds = text.split_ascii_whitespace().map(str::parse);
    Some(bounds.next()?.ok()?..=bounds.next()?.ok()?)
}

/// Makes the directory for this user alone, or checks that it is: in a directory that everybody
/// may write to, somebody else may have been first.
fn open_directory(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let metadata = fs::symlink_metadata(directory)?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    if !metadata.is_dir() || !own {
        let text = format!("{} is not a directory of this user", directory.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// The lease of a port, unless another shim has it. Lease files are never removed: a name that
/// can vanish under a waiting lock guards nothing.
fn try_lease(directory: &Path, port: u16) -> io::Result<Option<Lease>> {
    let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let path = directory.join(port.to_string());
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(no_follow);
    let lock = options.open(path)?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(Lease { port, _lock: lock })),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Whether the port can be bound, on any address: the instance decides which one it takes.
/// Connections of the last process that still linger do not count, as they do not for servers.
fn is_free(port: u16) -> bool {
    let bind = || -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())
    };
    bind().is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn every_port_is_tried_once_and_none_of_the_kernels() {
        let mut found: Vec<u16> = candidates(100..=199, Some(&(150..=300)), "a").collect();
        assert_ne!(found, candidates(100..=199, Some(&(150..=300)), "b").collect::<Vec<_>>());
        found.sort_unstable();
        assert_eq!(found, (100..150).collect::<Vec<u16>>());
        assert_eq!(candidates(100..=199, Some(&(0..=u16::MAX)), "a").count(), 100);
    }

    #[test]
    fn a_port_taken_by_a_stranger_is_left_for_another_and_a_free_one_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let port_directory = Some(directory.path().join("leases"));
        let limits = Limits { port_directory, ..Limits::default() };
        let first = lease(None, None, "x", &limits).unwrap();
        let port = first.port;
        let second = lease(None, Some(port), "x", &limits).unwrap();
        assert_ne!(second.port, port);
        let first = lease(Some(first), None, "x", &limits).unwrap();
        assert_eq!(first.port, port);
        let _stranger = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let moved = lease(Some(first), None, "x", &limits).unwrap();
        assert!(moved.port != port && moved.port != second.port);
    }

    #[test]
    fn a_lease_directory_that_is_a_link_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).unwrap();
        let limits = Limits { port_directory: Some(link), ..Limits::default() };
        assert!(lease(None, None, "x", &limits).is_err());
    }
}
