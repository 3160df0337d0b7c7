//! Who may connect.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Addresses and networks from which connections are taken; an empty list takes all.
///
/// ```
/// use ultramotion_igtlink::AllowList;
/// let list: AllowList = "192.168.1.0/24, ::1".parse()?;
/// assert!(list.allows("192.168.1.77".parse()?) && !list.allows("192.168.2.1".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowList {
    /// Network address and number of leading bits that count.
    networks: Vec<(IpAddr, u8)>,
}

/// An entry of an allow-list is neither an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "allow-list: `{entry}` is neither an IP address nor a network; write 192.168.1.7, 192.168.1.0/24 or fd00::/8"
)]
pub struct AllowListError {
    /// The entry.
    pub entry: String,
}

impl AllowList {
    /// Everyone.
    pub const fn any() -> Self {
        Self { networks: Vec::new() }
    }

    /// Adds a network: the first `prefix_bits` bits of `address` count.
    pub fn push(&mut self, address: IpAddr, prefix_bits: u8) {
        self.networks.push((address.to_canonical(), prefix_bits.min(bits(address.to_canonical()))));
    }

    /// Whether connections from this address are taken. IPv4 addresses in IPv6 form count as IPv4.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.is_empty()
            || self.networks.iter().any(|&(network, prefix)| contains(network, prefix, address))
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn contains(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
    let differing = match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return false,
    };
    differing >= prefix.into()
}

impl FromStr for AllowList {
    type Err = AllowListError;

    /// Addresses and networks, with commas between them.
    fn from_str(text: &str) -> Result<Self, AllowListError> {
        let mut list = Self::any();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let bad = || AllowListError { entry: entry.to_owned() };
            let (address, prefix) = match entry.split_once('/') {
                Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| bad())?)),
                None => (entry, None),
            };
            let address: IpAddr = address.parse().map_err(|_| bad())?;
            if prefix.is_some_and(|prefix| prefix > bits(address)) {
                return Err(bad());
            }
            list.push(address, prefix.unwrap_or(bits(address)));
        }
        Ok(list)
    }
}

impl fmt::Display for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (address, prefix)) in self.networks.iter().enumerate() {
            write!(f, "{}{address}/{prefix}", if position > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_told_apart() {
        let list: AllowList = "10.0.0.0/8, 192.168.1.7,fd00::/8".parse().expect("a valid list");
        for (address, allowed) in [
            ("10.255.3.4", true),
            ("11.0.0.1", false),
            ("192.168.1.7", true),
            ("192.168.1.6", false),
            ("::ffff:10.1.2.3", true),
            ("fd12::1", true),
            ("fe80::1", false),
        ] {
            assert_eq!(list.allows(address.parse().expect("an address")), allowed, "{address}");
        }
        assert!(AllowList::any().allows("8.8.8.8".parse().expect("an address")));
        assert!(
            "0.0.0.0/0"
                .parse::<AllowList>()
                .expect("a valid list")
                .allows("8.8.8.8".parse().expect("an address"))
        );
    }

    #[test]
    fn nonsense_is_named() {
        for entry in ["localhost", "10.0.0.0/33", "::/129", "10.0.0.0/x", "/8"] {
            assert_eq!(entry.parse::<AllowList>(), Err(AllowListError { entry: entry.to_owned() }));
        }
    }
}
