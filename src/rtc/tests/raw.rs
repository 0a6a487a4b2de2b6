//! What the transport does with single datagrams: STUN made by hand, and a bare DTLS client behind it.

use std::time::{Duration, Instant};

use is::stun::{StunMessage, TransId};

use super::*;
use crate::types::CloseReason;

const OTHER: &str = "10.9.9.9:9999";

pub(super) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
    let mut context = aws_lc_rs::hmac::Context::with_key(&key);
    parts.iter().for_each(|part| context.update(part));
    context.sign().as_ref().try_into().expect("20 bytes")
}

pub(in crate::rtc) fn binding_request(local: &IceCredentials, remote: &str, nominate: bool) -> Vec<u8> {
    claiming(local, remote, (true, 1), nominate)
}

/// A check whose sender says that it is the controlling one, or not, with that tie-breaker.
fn claiming(local: &IceCredentials, remote: &str, (controlling, tie): (bool, u64), nominate: bool) -> Vec<u8> {
    let username = format!("{}:{remote}", local.ufrag);
    let message = StunMessage::binding_request(&username, TransId::new(), controlling, tie, 100, nominate);
    let mut bytes = vec![0; 200];
    let len = message
        .to_bytes(Some(local.pwd.as_bytes()), &mut bytes, hmac)
        .expect("written");
    bytes.truncate(len);
    bytes
}

pub(super) fn transport(now: Instant, client: &DtlsIdentity) -> (Transport, DtlsIdentity) {
    let identity = DtlsIdentity::generate().expect("an identity");
    let mut transport = Transport::new(config(true, SERVER), &identity, now);
    transport.set_remote(
        now,
        &RemoteParameters {
            ice: credentials("peer"),
            fingerprint: client.fingerprint(),
            dtls_role: DtlsRole::Passive,
            sctp_max_message_size: Some(65_536),
            sctp_init: None,
            sped: false,
        },
    );
    (transport, identity)
}

/// The peer's half of DTLS is a second session of ours, as client.
pub(super) struct Client {
    session: super::super::dtls::DtlsSession,
    keys: Option<super::super::srtp::SrtpKeys>,
}

impl Client {
    pub(super) fn new(now: Instant, identity: &DtlsIdentity, server: &DtlsIdentity) -> Self {
        let session = super::super::dtls::DtlsSession::new(identity, DtlsRole::Active, server.fingerprint(), now);
        Self { session, keys: None }
    }

    pub(super) fn handle(&mut self, now: Instant, datagram: &[u8]) {
        self.session.handle(now, datagram).expect("taken");
    }

    pub(super) fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

    pub(super) fn poll(&mut self, now: Instant) -> Vec<Vec<u8>> {
        use super::super::dtls::DtlsOutput;
        self.session.handle_timeout(now).expect("alive");
        let mut packets = Vec::new();
        let keys = &mut self.keys;
        self.session.poll(|output| match output {
            DtlsOutput::Packet(packet) => packets.push(packet.to_vec()),
            DtlsOutput::Keys(new) => *keys = Some(new),
            _ => {}
        });
        packets
    }
}

/// A ClientHello, as anybody can send it.
pub(super) fn first_flight(now: Instant) -> Vec<Vec<u8>> {
    let [own, other] = [(); 2].map(|()| DtlsIdentity::generate().expect("an identity"));
    Client::new(now, &own, &other).poll(now)
}

/// Exchanges DTLS between both until neither has more to say; what came from the transport, by path.
fn handshake(now: Instant, transport: &mut Transport, client: &mut Client, from: NetPath) -> Vec<NetPath> {
    let mut paths = Vec::new();
    loop {
        let packets = client.poll(now);
        if packets.is_empty() {
            return paths;
        }
        for mut packet in packets {
            assert_eq!(
                transport.handle_datagram(now, from, &mut packet),
                Ok(Received::Consumed)
            );
        }
        while let Some((path, packet)) = transport.poll_transmit() {
            paths.push(path);
            if packet[0] >= 20 {
                client.session.handle(now, &packet).expect("taken");
            }
        }
    }
}

#[test]
fn nothing_but_stun_before_a_check() {
    let now = Instant::now();
    let client_identity = DtlsIdentity::generate().expect("an identity");
    let (mut transport, identity) = transport(now, &client_identity);
    let mut client = Client::new(now, &client_identity, &identity);
    let hello = client.poll(now);
    let from = path(SERVER, CLIENT);
    for mut packet in hello.clone() {
        assert_eq!(
            transport.handle_datagram(now, from, &mut packet),
            Err(DropReason::IceUnverified)
        );
    }
    let mut rtp = [0x80; 40];
    assert_eq!(
        transport.handle_datagram(now, from, &mut rtp),
        Err(DropReason::IceUnverified)
    );
    assert!(transport.poll_transmit().is_none());
    assert_eq!(transport.path(), None);

    // A check with the wrong password proves nothing.
    let mut wrong = credentials("one");
    wrong.pwd = "somebody else's password".to_owned();
    let mut request = binding_request(&wrong, "ufragpeer", true);
    assert_eq!(
        transport.handle_datagram(now, from, &mut request),
        Err(DropReason::BadStun)
    );
    assert!(transport.poll_transmit().is_none());
    // Nor does one for another transport, or from somebody else's peer.
    let mut request = binding_request(&credentials("two"), "ufragpeer", true);
    assert_eq!(
        transport.handle_datagram(now, from, &mut request),
        Err(DropReason::BadStun)
    );
    let mut request = binding_request(&credentials("one"), "stranger", true);
    assert_eq!(
        transport.handle_datagram(now, from, &mut request),
        Err(DropReason::BadStun)
    );
    assert_eq!(transport.path(), None);

    // A good one verifies its own 5-tuple only.
    let mut request = binding_request(&credentials("one"), "ufragpeer", true);
    assert_eq!(
        transport.handle_datagram(now, from, &mut request),
        Ok(Received::Consumed)
    );
    assert_eq!(transport.poll_transmit().map(|(path, _)| path), Some(from));
    for other in [path(SERVER, OTHER), path("10.0.0.7:7882", CLIENT)] {
        for mut packet in hello.clone() {
            assert_eq!(
                transport.handle_datagram(now, other, &mut packet),
                Err(DropReason::IceUnverified)
            );
        }
    }
    assert_eq!(transport.handle_datagram(now, from, &mut rtp), Err(DropReason::NoKeys));
}

#[test]
fn dtls_before_nomination_answers_its_source() {
    let now = Instant::now();
    let client_identity = DtlsIdentity::generate().expect("an identity");
    let (mut transport, identity) = transport(now, &client_identity);
    let from = path(SERVER, CLIENT);
    let mut request = binding_request(&credentials("one"), "ufragpeer", false);
    assert_eq!(
        transport.handle_datagram(now, from, &mut request),
        Ok(Received::Consumed)
    );
    let mut client = Client::new(now, &client_identity, &identity);
    // Every datagram of the handshake at one instant: no timer is needed.
    let paths = handshake(now, &mut transport, &mut client, from);
    assert!(!paths.is_empty() && paths.iter().all(|path| *path == from));
    assert!(matches!(transport.poll_event(), Some(TransportEvent::Connected { .. })));
    assert!(transport.is_connected());
    assert_eq!(transport.path(), Some(from));

    // Later the client nominates another path: media goes there at once, and back again.
    for other in [path(SERVER, OTHER), from] {
        let mut request = binding_request(&credentials("one"), "ufragpeer", true);
        assert_eq!(
            transport.handle_datagram(now, other, &mut request),
            Ok(Received::Consumed)
        );
        assert_eq!(transport.path(), Some(other));
    }
}

#[test]
fn a_path_expires_without_checks() {
    let mut now = Instant::now();
    let client_identity = DtlsIdentity::generate().expect("an identity");
    let (mut transport, identity) = transport(now, &client_identity);
    let (first, second) = (path(SERVER, CLIENT), path(SERVER, OTHER));
    for from in [first, second] {
        let mut request = binding_request(&credentials("one"), "ufragpeer", false);
        assert_eq!(
            transport.handle_datagram(now, from, &mut request),
            Ok(Received::Consumed)
        );
    }
    let mut client = Client::new(now, &client_identity, &identity);
    handshake(now, &mut transport, &mut client, first);
    let keys = client.keys.expect("keys");
    let (mut seal, _) = keys.contexts(DtlsRole::Active).expect("contexts");
    let mut packet = |sequence: u8| {
        let mut packet = [0x80; 60];
        packet[1] = 96;
        packet[3] = sequence;
        let len = seal.seal_rtp(&mut packet, 12, 30, 0).expect("sealed");
        packet[..len].to_vec()
    };
    assert!(matches!(
        transport.handle_datagram(now, first, &mut packet(1)),
        Ok(Received::Rtp(_))
    ));
    for _ in 0..4 {
        now += Duration::from_secs(10);
        let mut request = binding_request(&credentials("one"), "ufragpeer", true);
        assert_eq!(
            transport.handle_datagram(now, second, &mut request),
            Ok(Received::Consumed)
        );
        transport.handle_timeout(now);
    }
    assert_eq!(
        transport.handle_datagram(now, first, &mut packet(2)),
        Err(DropReason::IceUnverified)
    );
    assert!(matches!(
        transport.handle_datagram(now, second, &mut packet(3)),
        Ok(Received::Rtp(_))
    ));
}

/// Checks that arrive before the description are answered the moment it is known.
#[test]
fn early_checks_are_answered_with_the_description() {
    let now = Instant::now();
    let identity = DtlsIdentity::generate().expect("an identity");
    let mut transport = Transport::new(config(true, SERVER), &identity, now);
    let from = path(SERVER, CLIENT);
    for _ in 0..5 {
        let mut request = binding_request(&credentials("one"), "ufragpeer", true);
        assert_eq!(
            transport.handle_datagram(now, from, &mut request),
            Ok(Received::Consumed)
        );
    }
    assert_eq!(transport.poll_transmit(), None);
    assert_eq!(
        transport.poll_timeout(),
        None,
        "nothing to wait for but the description"
    );
    transport.set_remote(
        now,
        &RemoteParameters {
            ice: credentials("peer"),
            fingerprint: [0; 32],
            dtls_role: DtlsRole::Active,
            sctp_max_message_size: None,
            sctp_init: None,
            sped: false,
        },
    );
    let sent: Vec<_> = std::iter::from_fn(|| transport.poll_transmit()).collect();
    let stun = sent.iter().filter(|(_, datagram)| datagram[0] < 4).count();
    assert_eq!(stun, 5);
    assert!(
        sent.iter().any(|(_, datagram)| datagram[0] == 22),
        "and our ClientHello left with them"
    );
}

/// A client that shows up from ever new ports (a NAT, or malice) costs bounded memory and still gets its answers.
#[test]
fn many_sources_are_answered() {
    let now = Instant::now();
    let client = DtlsIdentity::generate().expect("an identity");
    let (mut transport, _) = transport(now, &client);
    for port in 1..2000u16 {
        let from = NetPath {
            remote: (std::net::Ipv4Addr::new(10, 0, 0, 9), port).into(),
            ..path(SERVER, CLIENT)
        };
        let mut request = binding_request(&credentials("one"), "ufragpeer", true);
        assert_eq!(
            transport.handle_datagram(now, from, &mut request),
            Ok(Received::Consumed)
        );
        assert_eq!(
            transport.poll_transmit().map(|(path, _)| path),
            Some(from),
            "port {port}"
        );
        assert_eq!(transport.path(), Some(from));
    }
}

#[test]
fn after_the_end_nothing_is_taken() {
    let now = Instant::now();
    let client = DtlsIdentity::generate().expect("an identity");
    let (mut transport, _) = transport(now, &client);
    transport.close(now);
    assert_eq!(
        transport.poll_event(),
        Some(TransportEvent::Closed(CloseReason::Requested))
    );
    let mut request = binding_request(&credentials("one"), "ufragpeer", true);
    let from = path(SERVER, CLIENT);
    assert_eq!(
        transport.handle_datagram(now, from, &mut request),
        Err(DropReason::UnknownPath)
    );
    transport.handle_timeout(now + Duration::from_secs(100));
    assert_eq!(transport.poll_event(), None);
}

/// Two full agents of ours, which think of themselves what `controlling` says; until both are connected.
fn full_agents(controlling: [bool; 2]) -> [Transport; 2] {
    let mut now = Instant::now();
    let identity = DtlsIdentity::generate().expect("an identity");
    let ends = [
        (SERVER, CLIENT, controlling[0], ["s", "c"], DtlsRole::Passive),
        (CLIENT, SERVER, controlling[1], ["c", "s"], DtlsRole::Active),
    ];
    let mut transports = ends.map(|(local, remote, controlling, [own, other], dtls_role)| {
        let mut config = config(false, local);
        config.ice_controlling = controlling;
        config.local = credentials(own);
        let mut transport = Transport::new(config, &identity, now);
        transport.set_remote(
            now,
            &RemoteParameters {
                ice: credentials(other),
                fingerprint: identity.fingerprint(),
                dtls_role,
                sctp_max_message_size: None,
                sctp_init: None,
                sped: false,
            },
        );
        let remote = address(remote);
        let candidate = format!("1 1 udp 2130706431 {} {} typ host", remote.ip(), remote.port());
        transport.add_remote_candidate(now, &candidate);
        transport
    });
    let start = now;
    while !transports.iter().all(Transport::is_connected) {
        assert!(now - start < Duration::from_secs(2), "not connected");
        for (from, to) in [(0, 1), (1, 0)] {
            while let Some((sent, mut datagram)) = transports[from].poll_transmit() {
                let arrived = NetPath {
                    local: sent.remote,
                    remote: sent.local,
                    protocol: sent.protocol,
                };
                assert_eq!(
                    transports[to].handle_datagram(now, arrived, &mut datagram),
                    Ok(Received::Consumed)
                );
            }
        }
        now += Duration::from_millis(5);
        for transport in &mut transports {
            if transport.poll_timeout().is_some_and(|at| at <= now) {
                transport.handle_timeout(now);
            }
        }
    }
    transports
}

/// As in a subscriber connection, where the server offers.
#[test]
fn a_controlling_full_agent_nominates() {
    let transports = full_agents([true, false]);
    assert_eq!(transports[0].path(), Some(path(SERVER, CLIENT)));
    assert_eq!(transports[1].path(), Some(path(CLIENT, SERVER)));
}

/// RFC 8445 §7.3.1.1: one of them gives way.
#[test]
fn a_conflict_of_roles_is_settled() {
    for both in [true, false] {
        let transports = full_agents([both, both]);
        assert_eq!(transports[0].path(), Some(path(SERVER, CLIENT)), "both {both}");
    }
}

/// What a check says of its sender: that it is in control, or not; None: it is no check.
fn claimed(datagram: &[u8]) -> Option<bool> {
    // ICE-CONTROLLING and ICE-CONTROLLED (RFC 8445 §16.1), of 8 bytes.
    let has = |kind| datagram.windows(4).any(|part| part == [0x80, kind, 0, 8]);
    let is_check = datagram.starts_with(&[0x00, 0x01]);
    is_check.then(|| has(0x2a) && !has(0x29))
}

/// Two full agents for so long; what each said of itself last. `apart`: nothing of what they send arrives.
fn drive(transports: &mut [Transport; 2], now: &mut Instant, time: Duration, apart: bool) -> [Option<bool>; 2] {
    let mut says = [None; 2];
    let end = *now + time;
    while *now < end {
        for (from, to) in [(0, 1), (1, 0)] {
            while let Some((sent, mut datagram)) = transports[from].poll_transmit() {
                says[from] = claimed(&datagram).or(says[from]);
                let arrived = NetPath {
                    local: sent.remote,
                    remote: sent.local,
                    protocol: sent.protocol,
                };
                if !apart {
                    // The answer to a check that the other did not send is refused, and no harm.
                    let _ = transports[to].handle_datagram(*now, arrived, &mut datagram);
                }
            }
        }
        *now += Duration::from_millis(5);
        for transport in transports.iter_mut() {
            if transport.poll_timeout().is_some_and(|at| at <= *now) {
                transport.handle_timeout(*now);
            }
        }
    }
    says
}

/// RFC 8445 §7.3.1.1, again and again in one session: whoever wins each time, afterwards one is in control and the other is not,
/// and what was connected stays so.
#[test]
fn roles_that_change_again_and_again_cost_nothing() {
    let mut transports = full_agents([true, false]);
    let mut now = Instant::now() + Duration::from_secs(3);
    // What a check claims, with which tie-breaker. Ours are random, and with them who wins.
    for claim in [
        (true, u64::MAX),
        (false, 0),
        (true, u64::MAX),
        (true, 0),
        (false, u64::MAX),
        (false, 0),
    ] {
        drive(&mut transports, &mut now, Duration::from_secs(10), false);
        let mut check = claiming(&credentials("s"), "ufragc", claim, false);
        let taken = transports[0].handle_datagram(now, path(SERVER, CLIENT), &mut check);
        assert_eq!(taken, Ok(Received::Consumed));
        drive(&mut transports, &mut now, Duration::from_secs(8), true);

        let says = drive(&mut transports, &mut now, Duration::from_secs(20), false);
        let [Some(one), Some(other)] = says else {
            panic!("{says:?} after {claim:?}")
        };
        assert_ne!(one, other, "after {claim:?}");
        assert_eq!(transports[0].path(), Some(path(SERVER, CLIENT)));
        assert_eq!(transports[1].path(), Some(path(CLIENT, SERVER)));
        for transport in &mut transports {
            assert!(transport.is_connected());
            let mut events = std::iter::from_fn(|| transport.poll_event());
            assert!(
                events.all(|event| matches!(event, TransportEvent::Connected { .. })),
                "after {claim:?}"
            );
        }
    }
}

/// A TCP connection is a path of its own; its check proves nothing about UDP between the same addresses.
#[test]
fn tcp_paths_are_apart() {
    let now = Instant::now();
    let client = DtlsIdentity::generate().expect("an identity");
    let (mut transport, _) = transport(now, &client);
    let from = NetPath {
        protocol: NetProtocol::Tcp,
        ..path(SERVER, CLIENT)
    };
    let mut request = binding_request(&credentials("one"), "ufragpeer", true);
    assert_eq!(
        transport.handle_datagram(now, from, &mut request),
        Ok(Received::Consumed)
    );
    assert_eq!(transport.poll_transmit().map(|(path, _)| path), Some(from));
    assert_eq!(transport.path(), Some(from));
    let mut rtp = [0x80; 40];
    assert_eq!(transport.handle_datagram(now, from, &mut rtp), Err(DropReason::NoKeys));
    assert_eq!(
        transport.handle_datagram(now, path(SERVER, CLIENT), &mut rtp),
        Err(DropReason::IceUnverified)
    );
}

/// The client's selected path falls silent and it checks another one without naming it.
#[test]
fn a_silent_nomination_is_left() {
    let mut now = Instant::now();
    let client = DtlsIdentity::generate().expect("an identity");
    let (mut transport, _) = transport(now, &client);
    let (first, second) = (path(SERVER, CLIENT), path(SERVER, OTHER));
    let mut request = binding_request(&credentials("one"), "ufragpeer", true);
    assert_eq!(
        transport.handle_datagram(now, first, &mut request),
        Ok(Received::Consumed)
    );
    for seconds in 1..=4 {
        now += Duration::from_secs(1);
        let mut request = binding_request(&credentials("one"), "ufragpeer", false);
        assert_eq!(
            transport.handle_datagram(now, second, &mut request),
            Ok(Received::Consumed)
        );
        let expected = if seconds < 3 { first } else { second };
        assert_eq!(transport.path(), Some(expected), "after {seconds} s");
    }
}

#[test]
fn injected_keys_carry_media() {
    let now = Instant::now();
    let identity = DtlsIdentity::generate().expect("an identity");
    let material: Vec<u8> = (0..88).collect();
    let keys = super::super::SrtpKeys::new(crate::types::SrtpProfile::AeadAes256Gcm, &material).expect("keys");
    let ends = [(SERVER, CLIENT, DtlsRole::Passive), (CLIENT, SERVER, DtlsRole::Active)];
    let [mut server, mut client] = ends.map(|(local, remote, role)| {
        Transport::connected(config(true, local), &identity, now, path(local, remote), &keys, role)
    });
    assert!(server.is_connected() && client.is_connected());
    let mut packet = [0x80; 80];
    packet[1] = 111;
    let len = server.seal_rtp(&mut packet, 12, 40, 0).expect("sealed");
    let received = client.handle_datagram(now, path(CLIENT, SERVER), &mut packet[..len]);
    assert!(matches!(received, Ok(Received::Rtp(rtp)) if rtp.len() == 40));
    let mut packet = [0x80; 80];
    packet[1] = 201;
    let len = client.seal_rtcp(&mut packet, 8).expect("sealed");
    let later = now + Duration::from_secs(24 * 60 * 60);
    server.handle_timeout(later);
    let received = server.handle_datagram(later, path(SERVER, CLIENT), &mut packet[..len]);
    assert!(matches!(received, Ok(Received::Rtcp(rtcp)) if rtcp.len() == 8));
}
