//! Which addresses clients are told: a configured one, or what the machine has.

use std::net::IpAddr;

use super::config::{Filter, RtcConfig};
use crate::io::LocalAddress;
use crate::types::Network;

/// The addresses to offer as host candidates, best first. What `rtc.node_ip` names, or what the outside sees
/// (`external`, with `rtc.use_external_ip`), stands for all that the machine has. Loopback is offered when asked for, in
/// development, and when there is nothing else.
pub(super) fn advertised(
    rtc: &RtcConfig,
    development: bool,
    local: &[LocalAddress],
    external: Option<IpAddr>,
) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = rtc.node_ip.iter().collect();
    if ips.is_empty() {
        ips.extend(external);
    }
    if ips.is_empty() || (external.is_some() && rtc.advertise_internal_ip) {
        let own = local
            .iter()
            .filter(|address| passes(&rtc.interfaces, |pattern| *pattern == address.interface))
            .filter(|address| passes(&rtc.ips, |pattern| contains(pattern, address.ip)))
            .map(|address| address.ip);
        ips.extend(own);
        let wanted = rtc.enable_loopback_candidate || development;
        if !wanted && ips.iter().any(|ip| !ip.is_loopback()) {
            ips.retain(|ip| !ip.is_loopback());
        }
    }
    let mut seen = Vec::new();
    ips.retain(|ip| {
        let new = !seen.contains(ip);
        seen.push(*ip);
        new
    });
    ips
}

fn passes(filter: &Filter, matches: impl Fn(&String) -> bool) -> bool {
    (filter.includes.is_empty() || filter.includes.iter().any(&matches)) && !filter.excludes.iter().any(&matches)
}

/// `10.0.0.0/8`, or a single address. What is neither contains nothing.
fn contains(network: &str, ip: IpAddr) -> bool {
    network.parse::<Network>().is_ok_and(|network| network.contains(ip))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::config::NodeIp;

    fn machine() -> Vec<LocalAddress> {
        [
            ("eth0", "10.1.2.3"),
            ("eth1", "192.168.7.8"),
            ("eth0", "2001:db8::5"),
            ("lo", "127.0.0.1"),
            ("lo", "::1"),
        ]
        .map(|(interface, ip)| LocalAddress {
            interface: interface.into(),
            ip: ip.parse().unwrap(),
        })
        .to_vec()
    }

    fn offered(rtc: &RtcConfig, development: bool) -> Vec<String> {
        advertised(rtc, development, &machine(), None)
            .iter()
            .map(IpAddr::to_string)
            .collect()
    }

    #[test]
    fn the_outside_is_offered_and_loopback_only_when_it_helps() {
        let rtc = RtcConfig::default();
        assert_eq!(offered(&rtc, false), ["10.1.2.3", "192.168.7.8", "2001:db8::5"]);
        assert_eq!(offered(&rtc, true).last().unwrap(), "::1");
        let asked = RtcConfig {
            enable_loopback_candidate: true,
            ..RtcConfig::default()
        };
        assert_eq!(offered(&asked, false).len(), 5);
        let alone: Vec<LocalAddress> = machine().split_off(3);
        assert_eq!(advertised(&rtc, false, &alone, None).len(), 2, "better than nothing");
    }

    #[test]
    fn a_configured_address_stands_for_all() {
        let rtc = RtcConfig {
            node_ip: NodeIp {
                v4: Some("203.0.113.9".parse().unwrap()),
                v6: None,
            },
            ..RtcConfig::default()
        };
        assert_eq!(offered(&rtc, true), ["203.0.113.9"]);
    }

    #[test]
    fn the_outside_view_replaces_the_machines_own_unless_both_are_wanted() {
        let address: IpAddr = "203.0.113.9".parse().unwrap();
        let external = Some(address);
        let mut rtc = RtcConfig::default();
        assert_eq!(advertised(&rtc, false, &machine(), external), [address]);
        rtc.advertise_internal_ip = true;
        let both = advertised(&rtc, false, &machine(), external);
        assert_eq!((both[0], both.len()), (address, 4));
    }

    #[test]
    fn filters_by_interface_and_network() {
        let filter = |includes: &[&str], excludes: &[&str]| Filter {
            includes: includes.iter().map(|text| (*text).to_owned()).collect(),
            excludes: excludes.iter().map(|text| (*text).to_owned()).collect(),
        };
        let only = RtcConfig {
            interfaces: filter(&["eth0"], &[]),
            ..RtcConfig::default()
        };
        assert_eq!(offered(&only, false), ["10.1.2.3", "2001:db8::5"]);
        let without = RtcConfig {
            ips: filter(
                &["10.0.0.0/8", "192.168.7.8", "x/y", "0.0.0.0/0"],
                &["10.1.2.3/32", "::/0"],
            ),
            ..RtcConfig::default()
        };
        assert_eq!(offered(&without, false), ["192.168.7.8"]);
    }
}
