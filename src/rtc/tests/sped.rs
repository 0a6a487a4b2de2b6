//! A handshake that rides on connectivity checks (SPED) beside one that waits for them, over a link of 100 ms there and back.

use std::collections::VecDeque;

use is::stun::StunMessage;

use super::super::sped::{self, Sped};
use super::raw::{Client, binding_request};
use super::*;

const ONE_WAY: Duration = Duration::from_millis(50);
/// As libwebrtc checks a connection that is not up yet.
const CHECK_INTERVAL: Duration = Duration::from_millis(48);

/// A client: checks, the client's half of DTLS, and how it sends the one with the other.
struct Browser {
    now: Instant,
    dtls: Client,
    /// None: it does not offer it.
    sped: Option<Sped>,
    next_check: Instant,
    /// An answer to a check has come: from here on anything may be sent.
    may_send: bool,
    waiting: Vec<Vec<u8>>,
}

impl Browser {
    fn send(&mut self) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for packet in self.dtls.poll(self.now) {
            let rides = self
                .sped
                .as_mut()
                .is_some_and(|sped| sped.capture(path(CLIENT, SERVER), &packet));
            if !rides {
                self.waiting.push(packet);
            }
        }
        if self.next_check <= self.now {
            self.next_check = self.now + CHECK_INTERVAL;
            let mut check = binding_request(&credentials("one"), &credentials("peer").ufrag, true);
            if let Some(sped) = &mut self.sped {
                sped.embed(&mut check, &credentials("one").pwd);
            }
            out.push(check);
        }
        if self.may_send {
            out.append(&mut self.waiting);
            while let Some((_, packet)) = self.sped.as_mut().and_then(Sped::poll_alone) {
                out.push(packet);
            }
        }
        out
    }

    fn handle(&mut self, datagram: &[u8]) {
        if let Some(sped) = &mut self.sped {
            sped.begin();
        }
        if datagram[0] >= 20 {
            if let Some(sped) = &mut self.sped {
                sped.note(datagram);
            }
            self.dtls.handle(self.now, datagram);
            return;
        }
        let message = StunMessage::parse(datagram).expect("STUN");
        assert!(message.is_successful_binding_response());
        self.may_send = true;
        let embedded = sped::read(datagram).expect("an answer");
        let Some(sped) = &mut self.sped else {
            assert_eq!(embedded, sped::Embedded::default());
            return;
        };
        match sped.handle(embedded) {
            Ok(Some(record)) => self.dtls.handle(self.now, record),
            Ok(None) => {}
            Err(sped::Unsupported) => {
                while let Some((_, packet)) = self.sped.as_mut().and_then(Sped::poll_alone) {
                    self.waiting.push(packet);
                }
                self.sped = None;
            }
        }
    }
}

/// Until the server and the client have keys. `offers`, `agrees`: what the client's offer and the server's answer say.
/// `lost`: the numbers of datagrams that never arrive, of those that each side sends.
fn connect(offers: bool, agrees: bool, lost: [&[usize]; 2]) -> (Duration, Duration) {
    let start = Instant::now();
    let [client, server] = [(); 2].map(|()| DtlsIdentity::generate().expect("an identity"));
    let mut transport = Transport::new(config(true, SERVER), &server, start);
    let remote = RemoteParameters {
        ice: credentials("peer"),
        fingerprint: client.fingerprint(),
        dtls_role: DtlsRole::Passive,
        sctp_max_message_size: None,
        sctp_init: None,
        sped: agrees,
    };
    transport.set_remote(start, &remote);
    let mut browser = Browser {
        now: start,
        dtls: Client::new(start, &client, &server),
        sped: offers.then(Sped::default),
        next_check: start,
        may_send: false,
        waiting: Vec::new(),
    };
    let mut wire: VecDeque<(Instant, bool, Vec<u8>)> = VecDeque::new();
    let mut sent = [0, 0];
    let (mut by_server, mut by_client) = (None, None);
    let mut now = start;
    while by_server.is_none() || by_client.is_none() {
        assert!(now < start + Duration::from_secs(5), "it never ends");
        browser.now = now;
        let from_browser = browser.send().into_iter().map(|datagram| (true, datagram));
        let from_server = std::iter::from_fn(|| transport.poll_transmit()).map(|(_, datagram)| (false, datagram));
        for (to_server, datagram) in from_browser.chain(from_server) {
            assert!(datagram.len() <= 1200, "{} bytes", datagram.len());
            let number = &mut sent[usize::from(!to_server)];
            if !lost[usize::from(!to_server)].contains(number) {
                wire.push_back((now + ONE_WAY, to_server, datagram));
            }
            *number += 1;
        }
        while let Some(event) = transport.poll_event() {
            match event {
                TransportEvent::Connected { .. } => by_server = Some(now - start),
                other => panic!("{other:?}"),
            }
        }
        if browser.dtls.has_keys() {
            by_client = by_client.or(Some(now - start));
        }
        now += Duration::from_millis(1);
        if transport.poll_timeout().is_some_and(|due| due <= now) {
            transport.handle_timeout(now);
        }
        browser.now = now;
        while wire.front().is_some_and(|(at, ..)| *at <= now) {
            let (_, to_server, mut datagram) = wire.pop_front().unwrap();
            match to_server {
                true => drop(transport.handle_datagram(now, path(SERVER, CLIENT), &mut datagram)),
                false => browser.handle(&datagram),
            }
        }
    }
    (by_server.unwrap(), by_client.unwrap())
}

#[test]
fn it_saves_a_round_trip() {
    let around = |time: Duration, ms: u64| (ms..ms + 10).contains(&(time.as_millis() as u64));
    let (server, client) = connect(true, true, [&[], &[]]);
    println!("with: {server:?}, {client:?}");
    assert!(around(server, 150) && around(client, 200), "{server:?} {client:?}");
    let (server, client) = connect(false, false, [&[], &[]]);
    println!("without: {server:?}, {client:?}");
    assert!(around(server, 250) && around(client, 300), "{server:?} {client:?}");
}

#[test]
fn whoever_does_it_alone_is_not_harmed() {
    for (offers, agrees) in [(true, false), (false, true)] {
        let (server, client) = connect(offers, agrees, [&[], &[]]);
        assert!(
            server < Duration::from_millis(420) && client < Duration::from_millis(470),
            "{server:?} {client:?}"
        );
    }
}

/// Each of the first datagrams of either side.
#[test]
fn what_is_lost_comes_with_the_next_check() {
    for number in 0..6 {
        for lost in [[&[number][..], &[]], [&[], &[number]]] {
            let (server, client) = connect(true, true, lost);
            // A check is 48 ms behind the one before; the last flight by itself is repeated after 150 ms or a few more.
            assert!(
                server <= Duration::from_millis(310) && client <= Duration::from_millis(460),
                "{lost:?}: {server:?} {client:?}"
            );
        }
    }
}
