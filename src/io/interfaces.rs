//! The addresses of this machine, as candidates for clients to reach it by.

use std::io;
use std::net::IpAddr;

use super::sys;

/// Interfaces whose addresses reach only containers or virtual machines of this host.
const VIRTUAL_PREFIXES: [&str; 4] = ["docker", "br-", "veth", "virbr"];

/// One address of one interface that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    pub interface: String,
    pub ip: IpAddr,
}

/// Addresses that a client could use: those of the interfaces that are up, without link-local ones and those of
/// container bridges. The outside first, then loopback; IPv4 before IPv6; otherwise in the kernel's order.
///
/// # Errors
/// When the kernel will not list its interfaces.
pub fn local_addresses() -> io::Result<Vec<LocalAddress>> {
    let mut addresses = sys::interface_addresses()?;
    addresses.retain(|address| {
        let is_virtual = VIRTUAL_PREFIXES
            .iter()
            .any(|prefix| address.interface.starts_with(prefix));
        !is_virtual && is_usable(address.ip)
    });
    addresses.sort_by_key(|address| (address.ip.is_loopback(), address.ip.is_ipv6()));
    Ok(addresses)
}

fn is_usable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}
