//! Which addresses a URL that somebody else chose may lead to, and whose request it is behind proxies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

/// Blocks that are not the public Internet (IANA special-purpose registries, RFC 6890 and its updates; multicast and
/// reserved space). IPv6 blocks that carry an IPv4 address in them are here as a whole: nobody needs them to reach a
/// public server.
const SPECIAL: [&str; 31] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/9",
    "ff00::/8",
];

/// Whether an address belongs to the public Internet.
pub fn is_public(address: IpAddr) -> bool {
    let special = |block: &&str| block.parse::<IpNet>().expect("the table is read by a test").contains(&address);
    !SPECIAL.iter().any(special) && !is_isatap(address)
}

/// ISATAP (RFC 5214) carries an IPv4 address, which may be a private one, behind any prefix.
fn is_isatap(address: IpAddr) -> bool {
    let IpAddr::V6(address) = address else { return false };
    matches!(address.segments(), [_, _, _, _, 0 | 0x0200, 0x5efe, _, _])
}

/// A network in CIDR notation, as people write it in TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

/// What a network looks like, for messages.
pub const EXPECTED: &str = "a network such as \"10.0.0.0/8\" or \"fd00::/8\"";

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| EXPECTED.to_owned())
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Network {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Network".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "sidekey-network" })
    }
}

/// An address and a port, as people write them in TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressText(pub SocketAddr);

impl<'de> Deserialize<'de> for AddressText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for AddressText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AddressText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "sidekey-address" })
    }
}

/// Which destinations are allowed: the public Internet, and what the operator listed.
#[derive(Clone, Debug, Default)]
pub struct AllowedDestinations(pub Vec<IpNet>);

impl AllowedDestinations {
    /// Whether `address` may be connected to.
    pub fn allow(&self, address: IpAddr) -> bool {
        is_public(address) || self.0.iter().any(|network| network.contains(&address))
    }
}

/// The address that a request is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// The peer itself, or, where that is a trusted proxy, the last address in `X-Forwarded-For` that is none.
    pub fn of(peer: IpAddr, forwarded_for: &[&str], trusted: &[IpNet]) -> Self {
        let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
        let mut address = unmapped(peer);
        let hops: Vec<&str> = forwarded_for.iter().flat_map(|value| value.split(',')).map(str::trim).collect();
        for hop in hops.iter().rev() {
            if !is_trusted(address) {
                break;
            }
            let Ok(earlier) = hop.parse::<IpAddr>() else { break };
            address = unmapped(earlier);
        }
        Self(address)
    }

    /// What is counted as one: an IPv4 address, or the network that one IPv6 customer gets.
    pub fn bucket(self) -> IpAddr {
        match self.0 {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        }
    }
}

impl Default for ClientAddress {
    fn default() -> Self {
        Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
}

fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn only_the_public_internet_is_public() {
        for good in ["8.8.8.8", "1.1.1.1", "160.79.104.1", "2606:4700::1111", "2a00:1450::1"] {
            assert!(is_public(ip(good)), "{good}");
        }
        for special in [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.0.8",
            "203.0.113.9",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2606:4700::5efe:7f00:1",
            "2606:4700::200:5efe:a00:1",
        ] {
            assert!(!is_public(ip(special)), "{special}");
        }
    }

    #[test]
    fn an_operator_may_allow_networks_of_his_own() {
        let allowed = AllowedDestinations(vec!["10.0.0.0/8".parse().expect("a network")]);
        assert!(allowed.allow(ip("10.1.1.1")) && allowed.allow(ip("8.8.8.8")) && !allowed.allow(ip("127.0.0.1")));
    }

    #[test]
    fn forwarded_addresses_count_only_behind_trusted_proxies() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().expect("a network")];
        let of = |peer, forwarded: &[&str], trusted: &[IpNet]| ClientAddress::of(ip(peer), forwarded, trusted).0;
        assert_eq!(of("9.9.9.9", &["1.2.3.4"], &[]), ip("9.9.9.9"));
        assert_eq!(of("9.9.9.9", &["1.2.3.4"], &trusted), ip("9.9.9.9"));
        assert_eq!(of("10.0.0.1", &["6.6.6.6, 1.2.3.4"], &trusted), ip("1.2.3.4"), "what came before may be made up");
        assert_eq!(of("10.0.0.1", &["6.6.6.6", "1.2.3.4, 10.9.9.9"], &trusted), ip("1.2.3.4"));
        assert_eq!(of("10.0.0.1", &["junk"], &trusted), ip("10.0.0.1"));
        assert_eq!(of("::ffff:9.9.9.9", &[], &[]), ip("9.9.9.9"));
        assert_eq!(ClientAddress(ip("2606:4700:1:2:3:4:5:6")).bucket(), ip("2606:4700:1:2::"));
    }
}
