//! ICE in its details: a client that changes its network, names what cannot be reached, or names far too much.

use std::time::{Duration, Instant};

use is::stun::StunMessage;

use super::raw::{binding_request, hmac, transport};
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

/// A transport and its peer with keys: media can be sent on any path that was checked.
struct Walker {
    now: Instant,
    transport: Transport,
    peer: Transport,
    sequence: u8,
}

impl Walker {
    /// Media flows on Wi-Fi, a packet every 20 ms for a second.
    fn on_wifi() -> Self {
        let now = Instant::now();
        let identity = DtlsIdentity::generate().expect("an identity");
        let material: Vec<u8> = (0..88).collect();
        let keys = super::super::SrtpKeys::new(crate::types::SrtpProfile::AeadAes256Gcm, &material).expect("keys");
        let ends = [
            (SERVER, "10.0.0.9:9", DtlsRole::Passive),
            (WIFI, SERVER, DtlsRole::Active),
        ];
        let [mut transport, peer] = ends.map(|(local, remote, role)| {
            Transport::connected(config(true, local), &identity, now, path(local, remote), &keys, role)
        });
        transport.set_remote(now, &described(&identity));
        let mut walker = Self {
            now,
            transport,
            peer,
            sequence: 0,
        };
        walker.check(WIFI, true);
        for _ in 0..50 {
            walker.wait(20);
            walker.media(WIFI);
        }
        walker
    }

    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn check(&mut self, from: &str, nominate: bool) {
        check(&mut self.transport, self.now, path(SERVER, from), nominate);
    }

    fn media(&mut self, from: &str) {
        let mut packet = [0x80; 60];
        packet[1] = 111;
        self.sequence += 1;
        packet[3] = self.sequence;
        let len = self.peer.seal_rtp(&mut packet, 12, 30, 0).expect("sealed");
        let taken = self
            .transport
            .handle_datagram(self.now, path(SERVER, from), &mut packet[..len]);
        assert!(matches!(taken, Ok(Received::Rtp(_))), "{taken:?}");
    }

    fn is_on(&self, remote: &str) {
        assert_eq!(self.transport.path(), Some(path(SERVER, remote)));
    }
}

/// The network of before is gone, and the client has neither named another path nor restarted ICE: its first check shows where
/// it is now. What is heard of the old one again leads back at once.
#[test]
fn the_first_check_from_elsewhere_shows_where_a_silent_client_is() {
    let mut walker = Walker::on_wifi();
    walker.wait(450);
    walker.is_on(WIFI);
    walker.check(MOBILE, false);
    walker.is_on(MOBILE);
    walker.wait(10);
    walker.media(WIFI);
    walker.is_on(WIFI);
    // And stays there, however often the other is checked.
    for _ in 0..50 {
        walker.check(MOBILE, false);
        walker.is_on(WIFI);
        walker.wait(100);
        walker.media(WIFI);
    }
}

/// A path in reserve is checked for a minute, and late packets come on it: as long as the one in use is heard as usual,
/// nothing moves.
#[test]
fn a_path_in_reserve_stays_one() {
    let mut walker = Walker::on_wifi();
    walker.check(MOBILE, false);
    for _ in 0..20 {
        walker.wait(300);
        walker.check(MOBILE, false);
        walker.media(MOBILE);
        walker.is_on(WIFI);
        walker.media(WIFI);
    }
    // Without media its own checks are all that is heard, every two and a half seconds.
    for second in 0..60 {
        walker.wait(500);
        walker.check(MOBILE, false);
        if second % 5 == 4 {
            walker.check(WIFI, true);
        }
    }
    walker.is_on(WIFI);
}

/// Two new ways at once (IPv4 and IPv6): media takes one of them, and goes where the client's own media comes from.
#[test]
fn of_two_new_paths_the_one_with_media_is_taken() {
    const OTHER: &str = "203.0.113.9:7000";
    let mut walker = Walker::on_wifi();
    walker.wait(450);
    for _ in 0..5 {
        walker.check(MOBILE, false);
        walker.is_on(MOBILE);
        walker.wait(50);
        walker.check(OTHER, false);
        walker.is_on(MOBILE);
    }
    walker.media(OTHER);
    walker.is_on(OTHER);
    walker.check(MOBILE, false);
    walker.is_on(OTHER);
    walker.check(MOBILE, true);
    walker.is_on(MOBILE);
}

/// Nobody without the password moves anything: neither by checks of his own nor by packets without a check.
#[test]
fn a_stranger_moves_nothing() {
    let mut walker = Walker::on_wifi();
    walker.wait(5_000);
    let mut forged = binding_request(&credentials("other"), "ufragpeer", true);
    let refused = walker
        .transport
        .handle_datagram(walker.now, path(SERVER, MOBILE), &mut forged);
    assert!(refused.is_err());
    let guessed = IceCredentials {
        pwd: credentials("other").pwd,
        ..credentials("one")
    };
    let mut forged = binding_request(&guessed, "ufragpeer", true);
    let refused = walker
        .transport
        .handle_datagram(walker.now, path(SERVER, MOBILE), &mut forged);
    assert_eq!(refused, Err(DropReason::BadStun));
    let mut unproven = [0x80; 60];
    let refused = walker
        .transport
        .handle_datagram(walker.now, path(SERVER, MOBILE), &mut unproven);
    assert_eq!(refused, Err(DropReason::IceUnverified));
    walker.is_on(WIFI);
}

/// Between a restart and the client's word of it, its checks come under the old credentials: they are answered under those,
/// and show where it is. Once a path is named under the new ones, the old ones are nobody's.
#[test]
fn checks_from_before_a_restart_count_until_its_end() {
    let mut walker = Walker::on_wifi();
    walker.wait(3_000);
    walker
        .transport
        .restart_ice(walker.now, credentials("two"), Some(credentials("new")));
    walker.is_on(WIFI);
    let mut request = binding_request(&credentials("one"), "ufragpeer", false);
    let taken = walker
        .transport
        .handle_datagram(walker.now, path(SERVER, MOBILE), &mut request);
    assert_eq!(taken, Ok(Received::Consumed));
    let (to, answer) = walker.transport.poll_transmit().expect("an answer");
    assert_eq!(to, path(SERVER, MOBILE));
    let answer = StunMessage::parse(&answer).expect("a message");
    let is_under = |name| answer.verify(credentials(name).pwd.as_bytes(), hmac);
    assert!(is_under("one") && !is_under("two"));
    walker.is_on(MOBILE);
    // Nobody has the one's name with the other's password.
    let mixed = IceCredentials {
        pwd: credentials("two").pwd,
        ..credentials("one")
    };
    for (local, remote, expected) in [
        (mixed, "ufragpeer", Err(DropReason::BadStun)),
        (credentials("two"), "ufragnew", Ok(Received::Consumed)),
        (credentials("one"), "ufragpeer", Err(DropReason::BadStun)),
    ] {
        let mut request = binding_request(&local, remote, true);
        let taken = walker
            .transport
            .handle_datagram(walker.now, path(SERVER, MOBILE), &mut request);
        assert_eq!(taken, expected, "{local:?}");
    }
}

/// What a peer's description says, without data channels.
fn described(identity: &DtlsIdentity) -> RemoteParameters {
    RemoteParameters {
        ice: credentials("peer"),
        fingerprint: identity.fingerprint(),
        dtls_role: DtlsRole::Passive,
        sctp_max_message_size: None,
        sctp_init: None,
        sped: false,
    }
}

/// A full agent towards a peer that names these candidates: whom it checks in fifteen seconds.
fn checked(candidates: impl IntoIterator<Item = String>) -> std::collections::HashSet<SocketAddr> {
    let now = Instant::now();
    let identity = DtlsIdentity::generate().expect("an identity");
    let mut transport = Transport::new(config(false, SERVER), &identity, now);
    transport.set_remote(now, &described(&identity));
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
