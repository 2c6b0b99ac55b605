//! Addresses and link names.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The guests' subnet. The first usable address is the host's, on the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    network: Ipv4Addr,
    prefix_len: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    #[error("{0:?} is not a subnet; write 172.16.0.0/24")]
    Syntax(String),
    #[error("subnet prefix /{0} is outside /8 to /29")]
    Prefix(u8),
}

impl Subnet {
    /// Any address of the subnet names it: `172.16.0.1/24` is `172.16.0.0/24`.
    pub fn new(address: Ipv4Addr, prefix_len: u8) -> Result<Self, SubnetError> {
        if !(8..=29).contains(&prefix_len) {
            return Err(SubnetError::Prefix(prefix_len));
        }
        let mask = u32::MAX << (32 - u32::from(prefix_len));
        Ok(Self { network: Ipv4Addr::from(u32::from(address) & mask), prefix_len })
    }

    #[must_use]
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    #[must_use]
    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// The host's address on the bridge, the guests' gateway.
    #[must_use]
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + 1)
    }

    /// Addresses that guests may have, lowest first.
    pub fn guests(self) -> impl Iterator<Item = Ipv4Addr> {
        let size = 1_u32 << (32 - u32::from(self.prefix_len));
        let base = u32::from(self.network);
        (2..size - 1).map(move |host| Ipv4Addr::from(base + host))
    }

    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX << (32 - u32::from(self.prefix_len));
        u32::from(address) & mask == u32::from(self.network)
    }

    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let syntax = || SubnetError::Syntax(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(syntax)?;
        let address = address.parse().map_err(|_| syntax())?;
        Self::new(address, prefix.parse().map_err(|_| syntax())?)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

/// A guest's hardware address, derived from its IP address, so that it is as stable and unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `02` marks it as locally administered (IEEE 802, second bit of the first octet).
    #[must_use]
    pub fn for_address(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0xba, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A tap's link name: the bridge it belongs to, then a slot number. At most 15 bytes (IFNAMSIZ).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TapName(pub String);

impl TapName {
    /// `prefix` is the configured tap prefix, unique to one daemon.
    #[must_use]
    pub fn new(prefix: &str, slot: u16) -> Self {
        Self(format!("{prefix}{slot}"))
    }

    #[must_use]
    pub fn slot(&self, prefix: &str) -> Option<u16> {
        self.0.strip_prefix(prefix)?.parse().ok()
    }
}

impl fmt::Display for TapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnet_knows_its_addresses() {
        let subnet: Subnet = "172.16.0.1/24".parse().unwrap();
        assert_eq!(subnet.to_string(), "172.16.0.0/24");
        assert_eq!(subnet.gateway(), Ipv4Addr::new(172, 16, 0, 1));
        let guests: Vec<_> = subnet.guests().collect();
        assert_eq!(guests.first(), Some(&Ipv4Addr::new(172, 16, 0, 2)));
        assert_eq!(guests.last(), Some(&Ipv4Addr::new(172, 16, 0, 254)));
        assert!(subnet.overlaps("172.16.0.128/25".parse().unwrap()));
        assert!(!subnet.overlaps("172.16.1.0/24".parse().unwrap()));
    }

    #[test]
    fn bad_subnets_are_refused() {
        for bad in ["", "1.2.3.4", "1.2.3/24", "1.2.3.4/33", "1.2.3.4/30", "0.0.0.0/0", "a/24"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }
}
