//! Which of the machine's addresses are worth offering as host candidates.

use std::io;
use std::net::IpAddr;

use super::sys;

/// Interfaces whose addresses reach only containers or virtual machines of this host.
const VIRTUAL_PREFIXES: [&str; 4] = ["docker", "br-", "veth", "virbr"];

/// The addresses of the interfaces that are up, in the kernel's order, IPv4 first. Loopback only with
/// `include_loopback`; link-local addresses, and those of container bridges, never.
///
/// # Errors
/// When the kernel will not list its interfaces.
pub fn local_addresses(include_loopback: bool) -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = sys::interface_addresses()?
        .into_iter()
        .filter(|interface| !VIRTUAL_PREFIXES.iter().any(|prefix| interface.name.starts_with(prefix)))
        .map(|interface| interface.ip)
        .filter(|ip| is_usable(*ip) && (include_loopback || !ip.is_loopback()))
        .collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.dedup();
    Ok(addresses)
}

fn is_usable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}
