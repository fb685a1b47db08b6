//! How many connections each client address holds, so that one cannot take them all. Counted where
//! connections come in; a connection that ends takes itself back with one atomic operation.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Addresses that are kept before those without a connection are first looked for.
const SWEPT_ABOVE: usize = 1_024;

/// Everybody's counts.
#[derive(Debug)]
pub(crate) struct Peers {
    /// For one address; `None` counts nobody.
    limit: Option<u32>,
    counts: HashMap<IpAddr, Arc<AtomicU32>>,
    sweep_above: usize,
}

/// One connection's place in its address's count, free again when dropped.
#[derive(Debug)]
pub(crate) struct Admitted(Arc<AtomicU32>);

/// The address holds as many as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Peers {
    /// Lets each address have `limit` connections.
    pub(crate) fn new(limit: Option<u32>) -> Self {
        Self { limit, counts: HashMap::new(), sweep_above: SWEPT_ABOVE }
    }

    /// Counts one more connection. `None` for an address that is not counted: one of this
    /// machine's own, behind which a proxy may speak for everybody.
    pub(crate) fn admit(&mut self, client: IpAddr) -> Result<Option<Admitted>, TooMany> {
        let Some((count, limit)) = self.count_of(client) else { return Ok(None) };
        // Only the owner of all this raises it.
        if count.load(Ordering::Relaxed) >= limit {
            return Err(TooMany);
        }
        Ok(Some(Admitted::begin(count)))
    }

    /// The same for a connection that was admitted by another process: it is not refused.
    pub(crate) fn count(&mut self, client: IpAddr) -> Option<Admitted> {
        self.count_of(client).map(|(count, _)| Admitted::begin(count))
    }

    fn count_of(&mut self, client: IpAddr) -> Option<(&Arc<AtomicU32>, u32)> {
        let limit = self.limit.filter(|_| !client.to_canonical().is_loopback())?;
        if self.counts.len() > self.sweep_above {
            self.sweep();
        }
        Some((self.counts.entry(network_of(client)).or_default(), limit))
    }

    /// Forgets who holds nothing. Rare enough to cost little for each connection.
    fn sweep(&mut self) {
        self.counts.retain(|_, count| count.load(Ordering::Relaxed) > 0);
        self.sweep_above = (2 * self.counts.len()).max(SWEPT_ABOVE);
    }
}

impl Admitted {
    fn begin(count: &Arc<AtomicU32>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whom an address stands for: a customer of an IPv6 network has at least a whole /64.
fn network_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_holds_its_number_and_no_more_until_one_ends() {
        let mut peers = Peers::new(Some(2));
        let first = peers.admit(address("10.0.0.1")).unwrap();
        let _second = peers.admit(address("::ffff:10.0.0.1")).unwrap();
        assert_eq!(peers.admit(address("10.0.0.1")).err(), Some(TooMany));
        assert!(peers.admit(address("10.0.0.2")).is_ok(), "another one is not concerned");
        drop(first);
        assert!(peers.admit(address("10.0.0.1")).is_ok());
    }

    #[test]
    fn a_network_of_addresses_is_one_and_this_machine_is_none() {
        let mut peers = Peers::new(Some(1));
        let _held = peers.admit(address("2001:db8::1")).unwrap();
        assert_eq!(peers.admit(address("2001:db8::2:1")).err(), Some(TooMany));
        assert!(peers.admit(address("2001:db8:0:1::1")).is_ok());
        for own in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let held = [(); 3].map(|()| peers.admit(address(own)));
            assert!(held.iter().all(|held| matches!(held, Ok(None))), "{own}");
        }
        let held = [(); 3].map(|()| Peers::new(None).admit(address("10.0.0.1")));
        assert!(held.iter().all(|held| matches!(held, Ok(None))));
    }

    #[test]
    fn who_holds_nothing_is_forgotten() {
        let mut peers = Peers::new(Some(1));
        let _held = peers.admit(address("10.1.0.0")).unwrap();
        for n in 0..10 * u32::try_from(SWEPT_ABOVE).unwrap() {
            drop(peers.admit(IpAddr::V4((0x0a00_0000 + n).into())).unwrap());
        }
        assert!(peers.counts.len() <= SWEPT_ABOVE + 1);
        assert_eq!(peers.admit(address("10.1.0.0")).err(), Some(TooMany));
    }
}
