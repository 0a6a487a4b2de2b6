//! Whom a client may speak to through the relay: this server's media, and in the optional mode whoever is on the Internet
//! and not named by the operator's lists.
//!
//! Pure. Asked for each permission, channel and indication; media itself is found by its exact address.

use std::net::{IpAddr, SocketAddr};

use crate::types::{Network, embedded_v4, is_public};

/// Who may be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerPolicy {
    /// This process's media addresses, all forms in which a client may know them.
    pub media: Vec<SocketAddr>,
    /// None: nobody else.
    pub others: Option<OtherPeers>,
}

/// Peers elsewhere: LiveKit's lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherPeers {
    /// Addresses of this machine: nothing of it but media is reached, the relay's own addresses least of all.
    pub own: Vec<IpAddr>,
    /// Networks that are reached though they are not of the Internet.
    pub allow: Vec<Network>,
    /// Networks that are not reached, whatever else is said of them.
    pub deny: Vec<Network>,
}

/// Nobody but media.
impl From<Vec<SocketAddr>> for PeerPolicy {
    fn from(media: Vec<SocketAddr>) -> Self {
        Self { media, others: None }
    }
}

impl PeerPolicy {
    /// A permission is for an address, whatever the port: what is sent to which port is looked at when it is sent.
    pub fn permits(&self, peer: IpAddr) -> bool {
        self.media.iter().any(|media| media.ip() == peer)
            || self.others.as_ref().is_some_and(|others| others.permit(peer))
    }

    pub fn reaches(&self, peer: SocketAddr) -> bool {
        self.is_media(peer) || (peer.port() != 0 && self.others.as_ref().is_some_and(|others| others.permit(peer.ip())))
    }

    /// None of our media's, where others may be reached.
    pub(super) fn is_elsewhere(&self, peer: SocketAddr) -> bool {
        self.others.is_some() && !self.is_media(peer)
    }

    pub fn is_media(&self, peer: SocketAddr) -> bool {
        self.media.contains(&peer)
    }
}

impl OtherPeers {
    fn permit(&self, peer: IpAddr) -> bool {
        // An IPv4 address in disguise is judged as itself; and where it would come out as itself, at an address of IPv4's
        // own, nobody asks for it honestly.
        let inner = match peer {
            IpAddr::V4(_) => Vec::new(),
            IpAddr::V6(v6) if v6.to_ipv4().is_some() => return false,
            IpAddr::V6(v6) => embedded_v4(v6),
        };
        let all = || std::iter::once(peer).chain(inner.iter().copied().map(IpAddr::V4));
        let is_in = |networks: &[Network]| all().any(|ip| networks.iter().any(|network| network.contains(ip)));
        if is_in(&self.deny) || all().any(|ip| self.own.contains(&ip) || is_nobody(ip)) {
            return false;
        }
        // Allowed as it is written: a list of IPv4 networks opens no way around IPv6.
        self.allow.iter().any(|network| network.contains(peer)) || all().all(is_public)
    }
}

/// No list makes a peer of these: everybody, nobody, this machine.
fn is_nobody(ip: IpAddr) -> bool {
    let is_this_network = matches!(ip, IpAddr::V4(v4) if matches!(v4.octets(), [0 | 240.., ..]));
    ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_this_network
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> OtherPeers {
        OtherPeers {
            own: vec!["8.8.4.4".parse().unwrap()],
            allow: vec![
                "10.5.0.0/16".parse().unwrap(),
                "fd05::/16".parse().unwrap(),
                "127.0.0.0/8".parse().unwrap(),
            ],
            deny: vec![
                "9.9.9.0/24".parse().unwrap(),
                "2620:fe::/48".parse().unwrap(),
                "10.5.5.0/24".parse().unwrap(),
            ],
        }
    }

    #[test]
    fn the_lists_and_what_no_list_opens() {
        let permits = |ip: &str| policy().permit(ip.parse().unwrap());
        for peer in [
            "8.8.8.8",
            "10.5.1.1",
            "fd05::1",
            "2001:4860:4860::8888",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(permits(peer), "{peer}");
        }
        for peer in [
            "8.8.4.4",          // this machine
            "64:ff9b::808:404", // and in disguise
            "9.9.9.9",          // denied
            "2002:909:909::",   // and in disguise
            "64:ff9b::909:909",
            "2620:fe::fe",
            "10.5.5.5",         // denied within what is allowed
            "64:ff9b::a05:101", // what is allowed is so as it is written
            "10.6.0.1",
            "127.0.0.1", // no list opens it
            "::ffff:8.8.8.8",
            "::8.8.8.8",
            "::1",
            "224.0.0.1",
            "ff0e::1",
            "0.0.0.0",
            "255.255.255.255",
            "fe80::1",
            "2001:0:4136:e378:8000:63bf:f7f7:f7f7", // Teredo
        ] {
            assert!(!permits(peer), "{peer}");
        }
    }

    #[test]
    fn without_the_mode_only_media() {
        let media: SocketAddr = "203.0.113.5:7882".parse().unwrap();
        let policy = PeerPolicy {
            media: vec![media],
            others: None,
        };
        assert!(policy.permits(media.ip()) && policy.reaches(media));
        assert!(!policy.reaches(SocketAddr::new(media.ip(), 22)));
        assert!(!policy.permits("8.8.8.8".parse().unwrap()));
    }
}
