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
    let address = address.to_canonical();
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
        ] {
            assert!(is_local(local.parse().expect("an address")), "{local}");
        }
        for other in ["10.0.0.1", "192.168.1.1", "8.8.8.8", "100.64.0.1", "fd00::1", "2001:db8::1"]
        {
            assert!(!is_local(other.parse().expect("an address")), "{other}");
        }
    }
}
