//! ICE in its details: a client that changes its network, names what cannot be reached, or names far too much.

use std::time::{Duration, Instant};

use super::raw::{binding_request, transport};
use super::*;

const WIFI: &str = "10.0.0.2:5000";
const MOBILE: &str = "198.51.100.7:6000";

fn check(transport: &mut Transport, now: Instant, from: NetPath, nominate: bool) {
    let mut request = binding_request(&credentials("one"), "ufragpeer", nominate);
    let taken = transport.handle_datagram(now, from, &mut request);
    assert_eq!(taken, Ok(Received::Consumed));
    assert_eq!(transport.poll_transmit().map(|(path, _)| path), Some(from));
}

/// Make before break: the new way is checked while the old one carries media, then named, and media changes at that moment;
/// what was under way on the old one is still taken.
#[test]
fn a_client_changes_its_network_in_the_middle() {
    let mut now = Instant::now();
    let client = DtlsIdentity::generate().expect("an identity");
    let (mut transport, _) = transport(now, &client);
    let (wifi, mobile) = (path(SERVER, WIFI), path(SERVER, MOBILE));
    check(&mut transport, now, wifi, true);
    for _ in 0..5 {
        now += Duration::from_secs(1);
        check(&mut transport, now, mobile, false);
        check(&mut transport, now, wifi, true);
        assert_eq!(transport.path(), Some(wifi));
    }
    check(&mut transport, now, mobile, true);
    assert_eq!(transport.path(), Some(mobile));
    // Without keys yet, but heard: not refused as a stranger's.
    let mut rtp = [0x80; 40];
    for way in [wifi, mobile] {
        assert_eq!(transport.handle_datagram(now, way, &mut rtp), Err(DropReason::NoKeys));
    }
    // Back again, as often as it likes.
    check(&mut transport, now, wifi, true);
    assert_eq!(transport.path(), Some(wifi));
    // Silent for as long as consent lasts (RFC 7675 §5.1), the other way has to prove itself anew.
    for _ in 0..31 {
        now += Duration::from_secs(1);
        check(&mut transport, now, wifi, true);
    }
    let late = transport.handle_datagram(now, mobile, &mut rtp);
    assert_eq!(late, Err(DropReason::IceUnverified));
}

/// The network of before is gone: after an ICE restart the first check shows where media is to go, long before the client names
/// that path. While the old one is alive it goes on being used until then.
#[test]
fn a_restart_leaves_a_silent_path_at_the_first_check() {
    for (away, taken) in [(Duration::from_secs(4), MOBILE), (Duration::from_secs(1), WIFI)] {
        let mut now = Instant::now();
        let client = DtlsIdentity::generate().expect("an identity");
        let (mut transport, _) = transport(now, &client);
        check(&mut transport, now, path(SERVER, WIFI), true);
        now += away;
        transport.restart_ice(now, credentials("two"), Some(credentials("new")));
        let mobile = path(SERVER, MOBILE);
        for nominate in [false, true] {
            let mut request = binding_request(&credentials("two"), "ufragnew", nominate);
            let answered = transport.handle_datagram(now, mobile, &mut request);
            assert_eq!(answered, Ok(Received::Consumed));
            let expected = if nominate { MOBILE } else { taken };
            assert_eq!(
                transport.path(),
                Some(path(SERVER, expected)),
                "after {away:?}, named: {nominate}"
            );
        }
    }
}

/// A full agent towards a peer that names these candidates: whom it checks in fifteen seconds.
fn checked(candidates: impl IntoIterator<Item = String>) -> std::collections::HashSet<SocketAddr> {
    let now = Instant::now();
    let identity = DtlsIdentity::generate().expect("an identity");
    let mut transport = Transport::new(config(false, SERVER), &identity, now);
    let remote = RemoteParameters {
        ice: credentials("peer"),
        fingerprint: identity.fingerprint(),
        dtls_role: DtlsRole::Passive,
        sctp_max_message_size: None,
        sctp_init: None,
        sped: false,
    };
    transport.set_remote(now, &remote);
    for candidate in candidates {
        transport.add_remote_candidate(now, &candidate);
    }
    let mut checked = std::collections::HashSet::new();
    let mut later = now;
    for _ in 0..300 {
        later += Duration::from_millis(50);
        transport.handle_timeout(later);
        while let Some((path, _)) = transport.poll_transmit() {
            checked.insert(path.remote);
        }
    }
    checked
}

/// Browsers hide their addresses behind names of mDNS, which only their own network could resolve: nobody asks for them, and
/// what stands beside them is checked. So is nothing of other protocols, and of nonsense.
#[test]
fn names_of_mdns_are_nobody() {
    let nobody = [
        "candidate:1 1 udp 2122260223 3f1c2a44-0a5c-4f0e-9d5a-1b2c3d4e5f60.local 5000 typ host",
        "candidate:1 1 udp 2122260223",
        "",
        "candidate:1 1 sctp 1 10.0.0.9 5000 typ host",
    ];
    let own = "candidate:2 1 udp 1686052607 10.7.0.1 5000 typ srflx raddr 0.0.0.0 rport 0";
    let named = nobody.into_iter().chain([own]).map(str::to_owned);
    let checked: Vec<SocketAddr> = checked(named).into_iter().collect();
    assert_eq!(checked, [address("10.7.0.1:5000")]);
}

/// Ten thousand candidates are as good as the first few.
#[test]
fn candidates_are_bounded() {
    let checked = checked((0..10_000u32).map(|index| {
        let [_, _, a, b] = index.to_be_bytes();
        format!("candidate:{index} 1 udp 2122260223 10.7.{a}.{b} 5000 typ host")
    }));
    assert!(
        !checked.is_empty() && checked.len() <= 64,
        "{} addresses",
        checked.len()
    );
}
