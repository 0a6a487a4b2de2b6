//! What an address means: whether it is of the Internet, which IPv4 address an IPv6 one hides, which network it is in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Reachable from anywhere: not this machine, not its network, nothing reserved, however it is written. Whoever can name an
/// address must not be able to make the server speak to what only the server can reach.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    // IANA's special-purpose registry (RFC 6890).
    !(address.is_unspecified()
        || a == 0
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        // Multicast, reserved, broadcast.
        || a >= 224)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    let segments = address.segments();
    match segments {
        // Translated IPv4, by NAT64 and by 6to4.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x2002, ..] => embedded_v4(address).into_iter().all(is_public_v4),
        // Teredo, benchmarks, ORCHID, documentation.
        [0x2001, 0, ..] | [0x2001, 2, 0, ..] | [0x2001, 0x10..0x30, ..] | [0x2001, 0xdb8, ..] => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        // Global unicast; the rest is loopback, unspecified, unique local, link local, multicast or not assigned.
        [first, ..] => first & 0xe000 == 0x2000 && embedded_v4(address).into_iter().all(is_public_v4),
    }
}

/// Where clouds and container hosts tell a machine its credentials, by whatever way of writing.
pub fn is_metadata_service(address: IpAddr) -> bool {
    match address {
        // AWS, Azure, Google and most others; tasks and pods of AWS; Alibaba; Oracle.
        IpAddr::V4(address) => matches!(
            address.octets(),
            [169, 254, 169, 254] | [169, 254, 170, 2 | 23] | [100, 100, 100, 200] | [192, 0, 0, 192]
        ),
        IpAddr::V6(address) => {
            let translated = embedded_v4(address)
                .into_iter()
                .any(|v4| is_metadata_service(v4.into()));
            // AWS (fd00:ec2::254, fd00:ec2::23), Google (fd20:ce::254), OpenStack (fe80::a9fe:a9fe).
            translated
                || matches!(
                    address.segments(),
                    [0xfd00, 0xec2, ..] | [0xfd20, 0xce, ..] | [0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe]
                )
        }
    }
}

/// Of one cable, RFC 3927 and RFC 4291 §2.5.6.
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_unicast_link_local() || embedded_v4(address).into_iter().any(|v4| v4.is_link_local())
        }
    }
}

/// The IPv4 addresses that packets to this one may end at, by whatever translator or tunnel stands in the way: mapped and
/// compatible (RFC 4291 §2.5.5), NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056), Teredo's server and client (RFC 4380), ISATAP
/// (RFC 5214).
pub fn embedded_v4(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => vec![v4(high, low)],
        [0x64, 0xff9b, 0 | 1, .., high, low] => vec![v4(high, low)],
        [0x2002, high, low, ..] => vec![v4(high, low)],
        [0x2001, 0, high, low, .., mapped, port] => vec![v4(high, low), v4(!mapped, !port)],
        [.., 0 | 0x200, 0x5efe, high, low] => vec![v4(high, low)],
        _ => Vec::new(),
    }
}

/// A CIDR, or an address by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither an address nor a network such as 192.0.2.0/24")]
pub struct NotANetwork;

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (address, prefix) = match text.trim().split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| NotANetwork)?)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(longest);
        if prefix > longest {
            return Err(NotANetwork);
        }
        Ok(Self { address, prefix })
    }
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differs = network.to_bits() ^ address.to_bits();
                differs.checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differs = network.to_bits() ^ address.to_bits();
                differs.checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        for public in [
            "8.8.8.8",
            "203.0.114.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.8",
            "192.88.99.1",
            "198.18.0.1",
            "203.0.113.5",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12:3456::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::808:808",
            "2002:a00:1::",
            "2001:db8::1",
            "2001::1",
            "2001:2::1",
            "2001:20::1",
            "3fff:1::1",
            "::127.0.0.1",
            "2606:4700::5efe:a00:1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn disguises_are_seen_through() {
        for (disguise, inner) in [
            ("::ffff:10.0.0.1", vec!["10.0.0.1"]),
            ("::10.0.0.1", vec!["10.0.0.1"]),
            ("64:ff9b::a00:1", vec!["10.0.0.1"]),
            ("64:ff9b:1::a00:1", vec!["10.0.0.1"]),
            ("2002:a00:1::5", vec!["10.0.0.1"]),
            (
                "2001:0:4136:e378:8000:63bf:3fff:fdd2",
                vec!["65.54.227.120", "192.0.2.45"],
            ),
            ("2001:4860:0:1:200:5efe:a00:1", vec!["10.0.0.1"]),
            ("2001:4860::8888", vec![]),
        ] {
            let inner: Vec<Ipv4Addr> = inner.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(embedded_v4(disguise.parse().unwrap()), inner, "{disguise}");
        }
    }

    #[test]
    fn a_network_contains_what_begins_like_it() {
        let contains = |network: &str, address: &str| {
            let network: Network = network.parse().unwrap();
            network.contains(address.parse().unwrap())
        };
        assert!(contains("192.0.2.0/24", "192.0.2.255") && !contains("192.0.2.0/24", "192.0.3.0"));
        assert!(contains("0.0.0.0/0", "255.1.2.3") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("192.0.2.1", "192.0.2.1") && !contains("192.0.2.1", "192.0.2.2"));
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1") && !contains("2001:db8::/32", "2001:db9::"));
        assert!(contains("::/0", "ff02::1"));
        for nonsense in [
            "",
            "192.0.2.0/33",
            "2001:db8::/129",
            "example.com",
            "192.0.2.0/-1",
            "192.0.2.0/",
        ] {
            assert_eq!(nonsense.parse::<Network>(), Err(NotANetwork), "{nonsense}");
        }
    }
}
