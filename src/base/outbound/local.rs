//! Which addresses are this machine's own, and which DNS has no business to name for a provider.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Services of clouds for the machine itself, outside the link-local blocks: Alibaba Cloud, Azure, Oracle Cloud, AWS and
/// Google Cloud (IPv6).
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Whether no provider is there: this machine, its link, a cloud's metadata, many hosts at once. Private networks are
/// allowed: private endpoints of providers are there.
pub fn is_forbidden(address: IpAddr) -> bool {
    match embedded(address) {
        IpAddr::V4(v4) => {
            v4.octets()[0] == 0
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || METADATA.contains(&IpAddr::V4(v4))
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || METADATA.contains(&IpAddr::V6(v6))
        }
    }
}

/// The IPv4 address that an IPv6 one stands for (mapped, or behind NAT64), or the address itself.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else { return address.to_canonical() };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] if high != 0 => {
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        _ => IpAddr::V6(v6),
    }
}

/// Whether an address is one of this machine's: only those can be bound. Asked only where the port is one of ours.
pub fn is_local(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_unspecified() || address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn no_provider_is_on_this_machine_or_its_link() {
        for bad in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "::7f00:1",
        ] {
            assert!(is_forbidden(ip(bad)), "{bad}");
        }
    }

    #[test]
    fn providers_are_on_the_internet_and_in_private_networks() {
        for good in ["140.82.121.6", "10.0.0.7", "172.16.3.4", "192.168.1.1", "100.64.0.1", "2606:50c0::1", "fd12::1"] {
            assert!(!is_forbidden(ip(good)), "{good}");
        }
    }

    #[test]
    fn this_machine_knows_its_addresses() {
        assert!(is_local(ip("127.0.0.1")) && is_local(ip("127.0.0.9")) && is_local(ip("0.0.0.0")));
        assert!(is_local(ip("::ffff:127.0.0.1")));
        // TEST-NET-3 is nobody's.
        assert!(!is_local(ip("203.0.113.9")) && !is_local(ip("2001:db8::9")));
    }
}
