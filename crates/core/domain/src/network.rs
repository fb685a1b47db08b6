//! A network in CIDR notation. Which addresses of a request to believe is the data plane's to say.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 or IPv6 network, `10.0.0.0/8`; a single address is a network of one. An IPv4 address
/// written as IPv6 (`::ffff:10.0.0.1`) counts as IPv4, in networks and in addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    /// The first address: no bit beyond the prefix is set.
    first: IpAddr,
    prefix: u8,
}

/// Why a text is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither an address nor an address with a prefix length.
    #[error("is not a network")]
    Malformed,
    /// More bits than the address has.
    #[error("has a longer prefix than an address has bits, {0}")]
    Prefix(u8),
    /// The address lies inside the network instead of naming it.
    #[error("has bits set beyond its prefix; the network is {0}")]
    HostBits(Network),
}

/// The bits in front of an IPv4 address written as IPv6.
const MAPPED: u8 = 96;

impl Network {
    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(_), found @ IpAddr::V4(_)) | (IpAddr::V6(_), found @ IpAddr::V6(_)) => {
                masked(found, self.prefix) == self.first
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with everything beyond its first `prefix` bits taken away.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

impl FromStr for Network {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| Error::Malformed)?;
        let digits = |length: &str| length.bytes().all(|byte| byte.is_ascii_digit());
        let length = match length {
            None => bits(written),
            Some(length) if digits(length) => length.parse().map_err(|_| Error::Malformed)?,
            Some(_) => return Err(Error::Malformed),
        };
        if length > bits(written) {
            return Err(Error::Prefix(bits(written)));
        }
        let plain = written.to_canonical();
        let (address, prefix) = match length.checked_sub(MAPPED) {
            Some(rest) if plain != written => (plain, rest),
            Some(_) | None => (written, length),
        };
        let network = Self { first: masked(address, prefix), prefix };
        if network.first == address { Ok(network) } else { Err(Error::HostBits(network)) }
    }
}

impl TryFrom<String> for Network {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_their_networks_and_no_others() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("::/0", "127.0.0.1", false),
            ("2001:db8::/32", "2001:db8:1::", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("::1", "::1", true),
        ];
        for (network, address, inside) in cases {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(parsed.contains(address.parse().unwrap()), inside, "{network} {address}");
            assert_eq!(parsed.to_string().parse::<Network>().unwrap(), parsed);
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "x", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "10.0.0.0/8/8", "1.2.3.4/999"]
        {
            assert_eq!(text.parse::<Network>(), Err(Error::Malformed), "{text}");
        }
        assert_eq!("10.0.0.0/33".parse::<Network>(), Err(Error::Prefix(32)));
        let message = "10.1.0.0/8".parse::<Network>().unwrap_err().to_string();
        assert_eq!(message, "has bits set beyond its prefix; the network is 10.0.0.0/8");
    }
}
