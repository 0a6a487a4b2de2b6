//! Which addresses clients are told: a configured one, or what the machine has.

use std::net::IpAddr;

use super::config::{Filter, RtcConfig};
use super::external::Outside;
use crate::io::LocalAddress;
use crate::types::{Network, is_public};

/// The addresses to offer as host candidates, best first. What `rtc.node_ip` names stands for all that the machine has, what
/// the outside sees (`outside`, with `rtc.use_external_ip`) for all of IPv4: addresses of IPv6 are not translated. Loopback is
/// offered when asked for, in development, and when there is nothing else.
pub(super) fn advertised(
    rtc: &RtcConfig,
    development: bool,
    local: &[LocalAddress],
    outside: Option<Outside>,
) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = rtc.node_ip.iter().collect();
    let is_named = !ips.is_empty();
    ips.extend(outside.filter(|_| !is_named).map(|outside| outside.address));
    let is_offered = |ip: IpAddr| match outside {
        _ if is_named => false,
        None => true,
        // LiveKit: of the internal ones with `external_ip_only` that which is translated; IPv6 stays as it is.
        Some(outside) if rtc.advertise_internal_ip => ip.is_ipv6() || !rtc.external_ip_only || ip == outside.local,
        Some(_) => ip.is_ipv6() && is_public(ip),
    };
    let own = local
        .iter()
        .filter(|address| passes(&rtc.interfaces, |pattern| *pattern == address.interface))
        .filter(|address| passes(&rtc.ips, |pattern| contains(pattern, address.ip)))
        .map(|address| address.ip)
        .filter(|ip| is_offered(*ip));
    ips.extend(own);
    let wanted = is_named || rtc.enable_loopback_candidate || development;
    if !wanted && ips.iter().any(|ip| !ip.is_loopback()) {
        ips.retain(|ip| !ip.is_loopback());
    }
    // Whoever names them has made them lead here; no filter is meant for them.
    ips.extend(&rtc.additional_host_ips);
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
        let [address, local] = ["203.0.113.9", "10.1.2.3"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let outside = Some(Outside { address, local });
        let mut machine = machine();
        let told = |rtc: &RtcConfig, machine: &[LocalAddress]| -> Vec<String> {
            let ips = advertised(rtc, false, machine, outside);
            ips.iter().map(IpAddr::to_string).collect()
        };
        let mut rtc = RtcConfig::default();
        assert_eq!(
            told(&rtc, &machine),
            ["203.0.113.9"],
            "2001:db8:: is not of the Internet"
        );
        machine[2].ip = "2a00:1450::5".parse().unwrap();
        assert_eq!(
            told(&rtc, &machine),
            ["203.0.113.9", "2a00:1450::5"],
            "nobody translates it"
        );
        rtc.advertise_internal_ip = true;
        let all = ["203.0.113.9", "10.1.2.3", "192.168.7.8", "2a00:1450::5"];
        assert_eq!(told(&rtc, &machine), all);
        rtc.external_ip_only = true;
        assert_eq!(told(&rtc, &machine), ["203.0.113.9", "10.1.2.3", "2a00:1450::5"]);
    }

    #[test]
    fn whoever_leads_here_from_elsewhere_is_offered_too() {
        let named: IpAddr = "198.51.100.4".parse().unwrap();
        let mut rtc = RtcConfig {
            additional_host_ips: vec![named, "10.1.2.3".parse().unwrap()],
            ..RtcConfig::default()
        };
        assert_eq!(
            offered(&rtc, false),
            ["10.1.2.3", "192.168.7.8", "2001:db8::5", "198.51.100.4"]
        );
        rtc.ips.excludes = vec!["198.51.100.0/24".into()];
        rtc.node_ip.v4 = Some("203.0.113.9".parse().unwrap());
        assert_eq!(offered(&rtc, false), ["203.0.113.9", "198.51.100.4", "10.1.2.3"]);
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
