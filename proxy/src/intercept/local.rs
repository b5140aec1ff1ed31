//! Addresses of this machine, and of what serves machines alone: nothing that an application means
//! to reach through a proxy, and much that nobody else may.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Metadata services outside link-local addresses: AWS by IPv6, Google by IPv6, Azure, Alibaba, Oracle
/// (each provider's page on instance metadata).
const METADATA: [IpAddr; 5] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// Whether nobody but this machine has business there.
pub(crate) fn is_local(address: IpAddr) -> bool {
    let is_hidden = |address: Ipv6Addr| carried(address).any(|v4| is_local(v4.into()));
    matches!(address, IpAddr::V6(v6) if is_hidden(v6)) || is_local_itself(address.to_canonical())
}

/// The IPv4 addresses that a network may take an IPv6 address for: behind a NAT64 (RFC 6052, section
/// 2.1; RFC 8215), a 6to4 relay (RFC 3056, section 2), or of old, compatible ones (RFC 4291, section
/// 2.5.5.1).
fn carried(address: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    let last = match [a, b, c, d, e, f] {
        [0x64, 0xff9b, 0, 0, 0, 0] | [0x64, 0xff9b, 1, ..] => Some(v4(g, h)),
        // `::` and `::1` are addresses of their own.
        [0, 0, 0, 0, 0, 0] if g != 0 => Some(v4(g, h)),
        _ => None,
    };
    let relayed = (a == 0x2002).then(|| v4(b, c));
    last.into_iter().chain(relayed)
}

fn is_local_itself(address: IpAddr) -> bool {
    let is_own = match address {
        IpAddr::V4(v4) => {
            v4.is_loopback() || v4.is_link_local() || v4.octets()[0] == 0 || v4.is_broadcast()
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified(),
    };
    is_own || address.is_multicast() || METADATA.contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_what_serves_machines_are_local() {
        for local in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.170.23",
            "168.63.129.16",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "ff02::1",
            // 169.254.169.254 and 127.0.0.1 for who looks no closer.
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::",
            "2002:7f00:1::1",
            "::169.254.169.254",
            "::127.0.0.1",
        ] {
            assert!(is_local(local.parse().expect("an address")), "{local}");
        }
        for other in [
            "10.0.0.1",
            "192.168.1.1",
            "8.8.8.8",
            "100.64.0.1",
            "fd00::1",
            "2001:db8::1",
            "2001:db8::7f00:1",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(!is_local(other.parse().expect("an address")), "{other}");
        }
    }
}
