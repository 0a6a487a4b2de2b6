//! Against `str0m`: both DTLS roles, lite and full ICE, data and media both ways, restart, loss, and every way to end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ::str0m::change::{SdpAnswer, SdpPendingOffer};
use ::str0m::channel::ChannelId as TheirChannel;
use ::str0m::config::DtlsVersion;
use ::str0m::media::{Direction, MediaKind, Mid};
use ::str0m::net::{Protocol, Receive};
use ::str0m::rtp::RtpWrite;
use ::str0m::{Candidate, Event, Input, Output, Rtc};

use super::*;
use crate::rtc::SendDataError;
use crate::types::{ChannelLabel, CloseReason, SrtpProfile};

pub(super) struct Str0m {
    rtc: Rtc,
    pending: Option<SdpPendingOffer>,
    events: Vec<Event>,
    channel: TheirChannel,
    audio: Mid,
}

impl Str0m {
    fn new(now: Instant, client: &str, version: DtlsVersion) -> (Self, String) {
        Self::with(now, client, version, false)
    }

    /// `snap`: its offer carries the first chunk of SCTP.
    fn with(now: Instant, client: &str, version: DtlsVersion, snap: bool) -> (Self, String) {
        let mut rtc = Rtc::builder()
            .set_rtp_mode(true)
            .set_dtls_version(version)
            .set_snap_enabled(snap)
            .build(now);
        rtc.add_local_candidate(Candidate::host(address(client), "udp").expect("a candidate"));
        let mut change = rtc.sdp_api();
        let channel = change.add_channel("_reliable".to_owned());
        let audio = change.add_media(MediaKind::Audio, Direction::SendRecv, None, None, None);
        let (offer, pending) = change.apply().expect("an offer");
        let peer = Self {
            rtc,
            pending: Some(pending),
            events: Vec::new(),
            channel,
            audio,
        };
        (peer, offer.to_sdp_string())
    }

    fn messages(&self) -> Vec<(bool, Vec<u8>)> {
        let message = |event: &Event| match event {
            Event::ChannelData(data) => Some((data.binary, data.data.clone())),
            _ => None,
        };
        self.events.iter().filter_map(message).collect()
    }

    fn packets(&self) -> Vec<(u16, Vec<u8>)> {
        let packet = |event: &Event| match event {
            Event::RtpPacket(packet) => Some((packet.header.sequence_number, packet.payload.to_vec())),
            _ => None,
        };
        self.events.iter().filter_map(packet).collect()
    }

    fn write(&mut self, now: Instant, binary: bool, data: &[u8]) {
        let mut channel = self.rtc.channel(self.channel).expect("an open channel");
        assert!(channel.write(binary, data).expect("written"), "str0m's buffer is full");
        self.handle_timeout(now);
    }

    pub(super) fn write_rtp(&mut self, now: Instant, sequence: u64, payload: &[u8]) {
        let pt = self.opus();
        let mut direct = self.rtc.direct_api();
        let stream = direct.stream_tx_by_mid(self.audio, None).expect("a stream");
        stream.write_rtp(RtpWrite::new(
            pt.into(),
            sequence.into(),
            sequence as u32 * 960,
            now,
            payload,
        ));
        self.handle_timeout(now);
    }

    fn opus(&self) -> u8 {
        let params = self.rtc.codec_config().params().iter();
        let opus = params
            .into_iter()
            .find(|params| params.spec().codec == ::str0m::format::Codec::Opus);
        *opus.expect("opus").pt()
    }
}

impl Peer for Str0m {
    fn accept(&mut self, _now: Instant, answer: &str) {
        let answer = SdpAnswer::from_sdp_string(answer).expect("an answer");
        let pending = self.pending.take().expect("an offer");
        self.rtc.sdp_api().accept_answer(pending, answer).expect("accepted");
    }

    fn handle(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        if let Ok(receive) = Receive::new(Protocol::Udp, from, to, datagram) {
            let _ = self.rtc.handle_input(Input::Receive(now, receive));
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        let _ = self.rtc.handle_input(Input::Timeout(now));
    }

    fn poll(&mut self, _now: Instant, out: &mut Vec<(SocketAddr, SocketAddr, Vec<u8>)>) -> Option<Instant> {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => return self.rtc.is_alive().then_some(at),
                Ok(Output::Transmit(transmit)) => {
                    out.push((transmit.source, transmit.destination, transmit.contents.to_vec()));
                }
                Ok(Output::Event(event)) => self.events.push(event),
                Err(_) => return None,
            }
        }
    }
}

pub(super) fn world(config: TransportConfig, role: DtlsRole) -> World<Str0m> {
    let now = Instant::now();
    let client = if config.local_addresses[0].is_ipv4() {
        CLIENT
    } else {
        "[fd00::2]:5000"
    };
    let (peer, offer) = Str0m::new(now, client, DtlsVersion::Dtls12);
    World::new(now, peer, &offer, config, role)
}

/// The channel that the peer opens, once it is open at both ends.
pub(super) fn ready(world: &mut World<Str0m>) -> ChannelId {
    let channel = world.open_channel();
    world.until("open at the peer", Duration::from_secs(5), |world| {
        world
            .peer
            .events
            .iter()
            .any(|event| matches!(event, Event::ChannelOpen(..)))
    });
    channel
}

/// Media and data in both directions.
fn exchange(world: &mut World<Str0m>) {
    let channel = ready(world);
    let large: Vec<u8> = (0..100_000u32).map(|byte| byte as u8).collect();

    world.peer.write(world.now, false, "grüezi".as_bytes());
    world.peer.write(world.now, true, &[1, 2, 3]);
    world.peer.write(world.now, true, &large);
    world.until("messages from the peer", Duration::from_secs(10), |world| {
        world.messages().len() >= 3
    });
    let expected = [
        (false, "grüezi".as_bytes().to_vec()),
        (true, vec![1, 2, 3]),
        (true, large.clone()),
    ];
    assert_eq!(world.messages(), expected);

    for (binary, data) in [(false, &b"hello"[..]), (true, &[][..]), (true, &large)] {
        world
            .transport
            .send_data(world.now, channel, binary, data)
            .expect("sent");
    }
    world.until("messages to the peer", Duration::from_secs(10), |world| {
        world.peer.messages().len() >= 3
    });
    assert_eq!(
        world.peer.messages(),
        [(false, b"hello".to_vec()), (true, vec![]), (true, large)]
    );
    world.until("acknowledgements", Duration::from_secs(5), |world| {
        world.transport.buffered_amount(channel) == 0
    });

    let now = world.now;
    for sequence in 65_530..65_545u64 {
        world.peer.write_rtp(now, sequence, &[sequence as u8; 50]);
    }
    world.until("media from the peer", Duration::from_secs(5), |world| {
        world.rtp.len() >= 15
    });
    for (packet, sequence) in world.rtp.iter().zip(65_530..65_545u64) {
        assert_eq!(packet[2..4], (sequence as u16).to_be_bytes());
        assert!(packet.ends_with(&[sequence as u8; 50]), "cleartext of {sequence}");
    }

    let (pt, audio) = (world.peer.opus(), world.peer.audio);
    world
        .peer
        .rtc
        .direct_api()
        .expect_stream_rx(77.into(), None, audio, None);
    for index in 65_530..65_545u64 {
        world.send_rtp(77, pt, index, &[index as u8; 60]);
    }
    world.until("media to the peer", Duration::from_secs(5), |world| {
        world.peer.packets().len() >= 15
    });
    let expected: Vec<_> = (65_530..65_545u64)
        .map(|index| (index as u16, vec![index as u8; 60]))
        .collect();
    assert_eq!(world.peer.packets(), expected);
    // Receiver reports have come by now.
    world.until("reports", Duration::from_secs(10), |world| !world.rtcp.is_empty());
}

#[test]
fn data_leaves_as_far_as_there_is_room() {
    let mut world = world(config(true, SERVER), DtlsRole::Passive);
    world.connected();
    let channel = ready(&mut world);
    world.run_for(Duration::from_millis(200));
    assert_eq!(world.transport.release_data(world.now, Some(0)), 0);
    let message = vec![7; 20_000];
    world
        .transport
        .send_data(world.now, channel, true, &message)
        .expect("sent");
    // Longer than SCTP waits for an acknowledgement.
    world.run_for(Duration::from_secs(2));
    assert!(world.transport.has_data_waiting());
    assert!(world.peer.messages().is_empty());
    // 4 kB every 100 ms; what the peer sends is acknowledged meanwhile.
    world.peer.write(world.now, false, b"hello");
    let mut released = 0;
    let begun = world.now;
    while world.peer.messages().is_empty() {
        let sent = world.transport.release_data(world.now, Some(4_000));
        assert!(sent < 4_000 + 1_200, "{sent}");
        released += sent;
        world.run_for(Duration::from_millis(100));
    }
    let took = world.now - begun;
    assert!(took >= Duration::from_millis(400), "{took:?}");
    assert!((20_000..30_000).contains(&released), "{released}");
    assert_eq!(world.messages(), [(false, b"hello".to_vec())]);
    // Without a limit nothing waits.
    world.transport.release_data(world.now, None);
    let sent = world.transport.send_data(world.now, channel, true, &message);
    sent.expect("sent");
    world.until("another message", Duration::from_secs(2), |world| {
        world.peer.messages().len() == 2
    });
}

#[test]
fn lite_as_dtls_server() {
    let mut world = world(config(true, SERVER), DtlsRole::Passive);
    world.connected();
    assert!(world.elapsed() < Duration::from_millis(400), "{:?}", world.elapsed());
    assert_eq!(
        world.events[0],
        TransportEvent::Connected {
            profile: SrtpProfile::AeadAes256Gcm
        }
    );
    assert!(world.transport.is_connected());
    exchange(&mut world);
    assert_eq!(world.transport.path(), Some(path(SERVER, CLIENT)));
    assert_eq!(world.drops, []);
}

/// draft-hancke-tsvwg-snap: no INIT, no COOKIE, two round trips less. It is answered by DTLS servers only.
#[test]
fn sctp_without_a_handshake() {
    let [with, without] = [true, false].map(|snap| {
        let now = Instant::now();
        let (peer, offer) = Str0m::with(now, CLIENT, DtlsVersion::Dtls12, snap);
        assert_eq!(offer.contains("a=sctp-init:"), snap);
        let mut world = World::new(now, peer, &offer, config(true, SERVER), DtlsRole::Passive);
        world.connected();
        let connected = world.elapsed();
        world.open_channel();
        let open = world.elapsed() - connected;
        exchange(&mut world);
        assert_eq!(world.drops, []);
        open
    });
    // INIT and its answer at least; the cookie's trip carries data already.
    assert!(with + LATENCY < without, "{with:?} against {without:?}");
}

#[test]
fn lite_as_dtls_client() {
    let mut world = world(config(true, SERVER), DtlsRole::Active);
    world.connected();
    exchange(&mut world);
    assert_eq!(world.drops, []);
}

#[test]
fn full_ice_as_dtls_server() {
    let mut world = world(config(false, SERVER), DtlsRole::Passive);
    world.connected();
    exchange(&mut world);
    assert_eq!(world.transport.path(), Some(path(SERVER, CLIENT)));
}

#[test]
fn full_ice_as_dtls_client() {
    let mut world = world(config(false, SERVER), DtlsRole::Active);
    world.connected();
    exchange(&mut world);
}

#[test]
fn ipv6() {
    let mut world = world(config(true, "[fd00::1]:7882"), DtlsRole::Passive);
    world.connected();
    exchange(&mut world);
    assert_eq!(world.transport.path(), Some(path("[fd00::1]:7882", "[fd00::2]:5000")));
}

/// A transport that was told no address of its own learns it from the first request, as behind a wildcard socket.
#[test]
fn replies_leave_from_where_the_request_arrived() {
    let now = Instant::now();
    let (peer, offer) = Str0m::new(now, CLIENT, DtlsVersion::Dtls12);
    let mut world = World::new(now, peer, &offer, config(true, SERVER), DtlsRole::Passive);
    let identity = DtlsIdentity::generate().expect("an identity");
    let mut unaware = config(true, SERVER);
    unaware.local_addresses.clear();
    world.transport = Transport::new(unaware, &identity, now);
    let remote = remote_parameters(&offer, DtlsRole::Passive);
    world.transport.set_remote(now, &remote);
    world.until("a path", Duration::from_secs(5), |world| {
        world.transport.path().is_some()
    });
    assert_eq!(world.transport.path(), Some(path(SERVER, CLIENT)));
}

#[test]
fn the_server_opens_livekits_channels() {
    let mut config = config(true, SERVER);
    config.open_channels = vec![ChannelLabel::Reliable, ChannelLabel::Lossy, ChannelLabel::DataTrack];
    let mut world = world(config, DtlsRole::Passive);
    world.until("four channels", Duration::from_secs(5), |world| {
        let open = |event: &&TransportEvent| matches!(event, TransportEvent::ChannelOpen { .. });
        let theirs = world
            .peer
            .events
            .iter()
            .filter(|event| matches!(event, Event::ChannelOpen(..)));
        world.events.iter().filter(open).count() == 4 && theirs.count() == 4
    });
    // The peer's own is even, ours are odd.
    for (id, label) in [
        (1, ChannelLabel::Reliable),
        (3, ChannelLabel::Lossy),
        (5, ChannelLabel::DataTrack),
    ] {
        let (channel, label) = (ChannelId(id), Some(label));
        assert!(
            world.events.contains(&TransportEvent::ChannelOpen { channel, label }),
            "{id}"
        );
    }
    let labels = world.peer.events.iter().filter_map(|event| match event {
        Event::ChannelOpen(_, label) => Some(label.as_str()),
        _ => None,
    });
    let mut labels: Vec<_> = labels.collect();
    labels.sort_unstable();
    assert_eq!(labels, ["_data_track", "_lossy", "_reliable", "_reliable"]);
    world
        .transport
        .send_data(world.now, ChannelId(3), true, b"lossy")
        .expect("sent");
    world.until("lossy data", Duration::from_secs(5), |world| {
        world.peer.messages() == [(true, b"lossy".to_vec())]
    });
}

#[test]
fn an_ice_restart_keeps_the_keys() {
    for (lite, role) in [
        (true, DtlsRole::Passive),
        (false, DtlsRole::Passive),
        (true, DtlsRole::Active),
    ] {
        let mut world = world(config(lite, SERVER), role);
        world.connected();
        exchange(&mut world);

        // The client restarts from another address, behind the same description.
        let mut change = world.peer.rtc.sdp_api();
        change.ice_restart(true);
        let (offer, pending) = change.apply().expect("an offer");
        let offer = offer.to_sdp_string();
        world.peer.pending = Some(pending);
        let mut config = config(lite, SERVER);
        config.local = credentials("two");
        let remote = remote_parameters(&offer, role);
        world
            .transport
            .restart_ice(world.now, config.local.clone(), Some(remote.ice.clone()));
        // The server's fingerprint is the one of the first answer; str0m refuses another.
        let old = world
            .peer
            .rtc
            .direct_api()
            .remote_dtls_fingerprint()
            .expect("known")
            .bytes
            .clone();
        let answer = answer(&offer, &config, old.try_into().expect("32 bytes"), role);
        world.peer.accept(world.now, &answer);
        let moved = "10.0.0.3:6000";
        let (original, other) = (address(CLIENT), address(moved));
        world.link = Box::new(move |packet| {
            if packet.to_server {
                packet.from = other;
            } else if packet.to == original {
                return false;
            } else {
                packet.to = original;
            }
            true
        });
        world.until("the new path", Duration::from_secs(10), |world| {
            world.transport.path() == Some(path(SERVER, moved))
        });

        world.rtp.clear();
        let now = world.now;
        world.peer.write_rtp(now, 65_546, &[9; 50]);
        world.until("media after the restart", Duration::from_secs(5), |world| {
            !world.rtp.is_empty()
        });
        let count = world.peer.packets().len();
        let pt = world.peer.opus();
        world.send_rtp(77, pt, 65_546, &[8; 60]);
        world.until("media to the peer", Duration::from_secs(5), |world| {
            world.peer.packets().len() > count
        });
        let connected = |event: &&TransportEvent| matches!(event, TransportEvent::Connected { .. });
        assert_eq!(world.events.iter().filter(connected).count(), 1);
        world.run_for(Duration::from_secs(60));
        assert_eq!(world.closed(), None);
    }
}

#[test]
fn a_wrong_fingerprint_gives_no_keys() {
    for role in [DtlsRole::Passive, DtlsRole::Active] {
        let now = Instant::now();
        let (peer, offer) = Str0m::new(now, CLIENT, DtlsVersion::Dtls12);
        let (_, other) = Str0m::new(now, CLIENT, DtlsVersion::Dtls12);
        let line = |offer: &str| {
            offer
                .lines()
                .find(|line| line.starts_with("a=fingerprint"))
                .map(str::to_owned)
        };
        let forged = offer.replace(&line(&offer).expect("a line"), &line(&other).expect("a line"));
        let mut world = World::new(now, peer, &forged, config(true, SERVER), role);
        world.until("closed", Duration::from_secs(5), |world| world.closed().is_some());
        assert_eq!(world.closed(), Some(CloseReason::FingerprintMismatch));
        assert_eq!(world.events.len(), 1, "never connected: {:?}", world.events);
        assert!(!world.transport.is_connected());
        let mut packet = [0x80; 64];
        assert_eq!(
            world.transport.seal_rtp(&mut packet, 12, 20, 0),
            Err(DropReason::NoKeys)
        );
        world.run_for(Duration::from_secs(2));
        let connected = world.peer.events.iter().any(|event| matches!(event, Event::Connected));
        assert!(!connected || role == DtlsRole::Active, "the impostor saw no Finished");
    }
}

#[test]
fn a_lost_server_flight_is_soon_repeated() {
    for losses in [1, 2] {
        let mut world = world(config(true, SERVER), DtlsRole::Passive);
        let mut left = losses;
        world.link = Box::new(move |packet| {
            let flight = !packet.to_server && (20..=63).contains(&packet.datagram[0]);
            if flight && left > 0 {
                left -= 1;
                return false;
            }
            true
        });
        world.connected();
        assert!(
            world.elapsed() < Duration::from_millis(1500),
            "{losses} lost: {:?}",
            world.elapsed()
        );
        exchange(&mut world);
    }
}

#[test]
fn a_lossy_link_loses_no_reliable_data() {
    let mut world = world(config(true, SERVER), DtlsRole::Passive);
    let mut count = 0u32;
    world.link = Box::new(move |_| {
        count = count.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        !(count >> 16).is_multiple_of(10)
    });
    let channel = ready(&mut world);
    for number in 0..200u8 {
        world
            .transport
            .send_data(world.now, channel, true, &[number; 300])
            .expect("sent");
        let now = world.now;
        world.peer.write(now, true, &[number; 300]);
        world.run_for(Duration::from_millis(5));
    }
    world.until("all of it", Duration::from_secs(60), |world| {
        world.messages().len() >= 200 && world.peer.messages().len() >= 200
    });
    let expected: Vec<_> = (0..200u8).map(|number| (true, vec![number; 300])).collect();
    assert_eq!(world.messages(), expected);
    assert_eq!(world.peer.messages(), expected);
}

#[test]
fn a_full_buffer_says_so_and_then_writable() {
    let mut world = world(config(true, SERVER), DtlsRole::Passive);
    let channel = ready(&mut world);
    let message = vec![7; 60_000];
    let mut sent = 0;
    while world.transport.send_data(world.now, channel, true, &message).is_ok() {
        sent += 1;
        assert!(sent < 10, "bounded");
    }
    assert_eq!(sent, 2);
    assert_eq!(
        world.transport.send_data(world.now, channel, true, &message),
        Err(SendDataError::Full)
    );
    let writable = TransportEvent::ChannelWritable { channel };
    world.until("writable", Duration::from_secs(5), |world| {
        world.events.contains(&writable)
    });
    assert_eq!(world.transport.send_data(world.now, channel, true, &message), Ok(()));
    assert_eq!(
        world.transport.send_data(world.now, channel, true, &vec![0; 200_000]),
        Err(SendDataError::TooLarge)
    );
    assert_eq!(
        world.transport.send_data(world.now, ChannelId(99), true, &[1]),
        Err(SendDataError::Closed)
    );
    world.until("three messages", Duration::from_secs(5), |world| {
        world.peer.messages().len() == 3
    });
}

#[test]
fn a_channel_that_is_not_read_makes_the_peer_wait() {
    let mut world = world(config(true, SERVER), DtlsRole::Passive);
    let channel = ready(&mut world);
    world.transport.set_reading(channel, false);
    let mut accepted = 0;
    for _ in 0..40 {
        let now = world.now;
        let mut theirs = world.peer.rtc.channel(world.peer.channel).expect("open");
        if theirs.write(true, &[3; 20_000]).expect("written") {
            accepted += 1;
        }
        world.peer.handle_timeout(now);
        world.run_for(Duration::from_millis(200));
    }
    assert_eq!(world.messages().len(), 0);
    // Its send buffer and our window, not more.
    assert!(accepted < 20, "{accepted} of 40 taken");
    world.transport.set_reading(channel, true);
    world.until("all that was taken", Duration::from_secs(30), |world| {
        world.messages().len() == accepted
    });
    assert_eq!(world.closed(), None);
}

#[test]
fn a_closed_channel_is_reported() {
    let mut world = world(config(true, SERVER), DtlsRole::Passive);
    let channel = ready(&mut world);
    let theirs = world.peer.channel;
    world.peer.rtc.direct_api().close_data_channel(theirs);
    let now = world.now;
    world.peer.handle_timeout(now);
    let closed = TransportEvent::ChannelClosed { channel };
    world.until("closed", Duration::from_secs(5), |world| world.events.contains(&closed));
    assert_eq!(
        world.transport.send_data(world.now, channel, true, &[1]),
        Err(SendDataError::Closed)
    );
}

#[test]
fn the_peers_goodbye_ends_the_transport() {
    let mut world = world(config(true, SERVER), DtlsRole::Passive);
    ready(&mut world);
    world.peer.rtc.close().expect("closing");
    let now = world.now;
    world.peer.handle_timeout(now);
    world.until("closed", Duration::from_secs(5), |world| world.closed().is_some());
    assert_eq!(world.closed(), Some(CloseReason::ClosedByPeer));
}

#[test]
fn our_goodbye_reaches_the_peer() {
    let mut world = world(config(true, SERVER), DtlsRole::Passive);
    ready(&mut world);
    world.transport.close(world.now);
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.closed(), Some(CloseReason::Requested));
    assert!(
        world.peer.events.iter().any(|event| matches!(event, Event::Closed)),
        "close_notify"
    );
    assert_eq!(world.transport.poll_timeout(), None);
}

#[test]
fn silence_ends_the_transport() {
    for lite in [true, false] {
        let mut world = world(config(lite, SERVER), DtlsRole::Passive);
        ready(&mut world);
        world.run_for(Duration::from_secs(40));
        assert_eq!(world.closed(), None, "an idle peer keeps its consent");
        world.link = Box::new(|_| false);
        let silent_since = world.now;
        world.until("closed", Duration::from_secs(30), |world| world.closed().is_some());
        assert_eq!(world.closed(), Some(CloseReason::IceFailed));
        let silence = world.now - silent_since;
        assert!((10..=16).contains(&silence.as_secs()), "lite {lite}: after {silence:?}");
    }
}

/// With patience asked for, a network may be away for longer than consent lasts: nothing is sent, and everything goes on when
/// it is back.
#[test]
fn a_peer_whose_network_is_away_is_waited_for() {
    for comes_back in [true, false] {
        let mut world = world(config(true, SERVER), DtlsRole::Passive);
        world.transport.set_patience(Duration::from_secs(60));
        ready(&mut world);
        // Whoever has just connected has longer.
        world.run_for(Duration::from_secs(40));
        world.link = Box::new(|_| false);
        let silent_since = world.now;
        let has = |event: TransportEvent| move |world: &mut World<Str0m>| world.events.contains(&event);
        world.until("silent", Duration::from_secs(30), has(TransportEvent::Silent));
        assert!(world.now - silent_since < Duration::from_secs(17));
        if comes_back {
            world.link = Box::new(|_| true);
            world.until("heard", Duration::from_secs(10), has(TransportEvent::Heard));
            world.run_for(Duration::from_secs(40));
            assert_eq!(world.closed(), None);
            exchange(&mut world);
        } else {
            world.until("closed", Duration::from_secs(90), |world| world.closed().is_some());
            assert_eq!(world.closed(), Some(CloseReason::IceFailed));
            let silence = (world.now - silent_since).as_secs();
            assert!((55..=61).contains(&silence), "after {silence} s");
        }
    }
}

#[test]
fn never_connecting_ends_the_transport() {
    let mut world = world(config(true, SERVER), DtlsRole::Passive);
    world.link = Box::new(|packet| !packet.to_server);
    world.until("closed", Duration::from_secs(60), |world| world.closed().is_some());
    assert_eq!(world.closed(), Some(CloseReason::IceFailed));
    assert!(world.elapsed() <= Duration::from_secs(31));
}

/// A peer that speaks DTLS 1.3 too still gets 1.2, and with it the AEAD profile.
#[test]
fn a_peer_with_dtls_1_3_gets_1_2() {
    let now = Instant::now();
    let (peer, offer) = Str0m::new(now, CLIENT, DtlsVersion::Auto);
    let mut world = World::new(now, peer, &offer, config(true, SERVER), DtlsRole::Passive);
    world.connected();
    assert_eq!(
        world.events[0],
        TransportEvent::Connected {
            profile: SrtpProfile::AeadAes256Gcm
        }
    );
    exchange(&mut world);
}

/// Whether anything of a handshake and what follows it was of DTLS 1.3: it has record headers of its own (RFC 9147 §4).
fn watch_for_1_3(world: &mut World<Str0m>) -> std::rc::Rc<std::cell::Cell<bool>> {
    let seen = std::rc::Rc::new(std::cell::Cell::new(false));
    let told = seen.clone();
    world.link = Box::new(move |packet| {
        told.set(
            told.get()
                || packet
                    .datagram
                    .first()
                    .is_some_and(|first| (0x20..=0x3f).contains(first)),
        );
        true
    });
    seen
}

#[test]
fn dtls_1_3_where_it_is_asked_for() {
    use DtlsVersions::{Either, Only12, Only13};
    for (ours, theirs, is_1_3) in [
        (Only12, DtlsVersion::Auto, false),
        (Either, DtlsVersion::Dtls12, false),
        (Either, DtlsVersion::Auto, true),
        (Either, DtlsVersion::Dtls13, true),
        (Only13, DtlsVersion::Auto, true),
        (Only13, DtlsVersion::Dtls13, true),
    ] {
        for role in [DtlsRole::Passive, DtlsRole::Active] {
            let now = Instant::now();
            let (peer, offer) = Str0m::new(now, CLIENT, theirs);
            let mut world = World::speaking(now, peer, &offer, config(true, SERVER), role, ours);
            let seen = watch_for_1_3(&mut world);
            world.connected();
            println!(
                "{ours:?}, {theirs:?}, {role:?}: {:?} after {:?}",
                world.events[0],
                world.elapsed()
            );
            assert_eq!(seen.get(), is_1_3, "{ours:?}, {theirs:?}, {role:?}");
            assert!(world.elapsed() < Duration::from_millis(400), "{:?}", world.elapsed());
            exchange(&mut world);
            assert_eq!(world.drops, []);
            world.transport.close(world.now);
            world.until("their end", Duration::from_secs(5), |world| !world.peer.rtc.is_alive());
        }
    }
}

#[test]
fn dtls_1_3_with_losses() {
    let mut random = 7u32;
    for role in [DtlsRole::Passive, DtlsRole::Active] {
        let now = Instant::now();
        let (peer, offer) = Str0m::new(now, CLIENT, DtlsVersion::Auto);
        let mut world = World::speaking(now, peer, &offer, config(true, SERVER), role, DtlsVersions::Either);
        world.link = Box::new(move |packet| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            !(20..=63).contains(&packet.datagram[0]) || !(random >> 16).is_multiple_of(4)
        });
        world.connected();
        println!("{role:?}: {:?}", world.elapsed());
        // The last flights may be lost still; what SCTP does about its own is not of this story.
        world.run_for(Duration::from_millis(300));
        world.link = Box::new(|_| true);
        let channel = ready(&mut world);
        let message = vec![9; 50_000];
        let sent = world.transport.send_data(world.now, channel, true, &message);
        sent.expect("sent");
        world.until("the message", Duration::from_secs(60), |world| {
            !world.peer.messages().is_empty()
        });
        assert_eq!(world.peer.messages(), [(true, message)]);
    }
}

/// Whoever has 1.2 only gets none of it where only 1.3 is spoken.
#[test]
fn a_peer_without_dtls_1_3_is_refused_where_nothing_else_is_spoken() {
    for role in [DtlsRole::Passive, DtlsRole::Active] {
        let now = Instant::now();
        let (peer, offer) = Str0m::new(now, CLIENT, DtlsVersion::Dtls12);
        let mut world = World::speaking(now, peer, &offer, config(true, SERVER), role, DtlsVersions::Only13);
        world.until("closed", Duration::from_secs(60), |world| world.closed().is_some());
        assert_eq!(world.events.len(), 1, "{:?}", world.events);
    }
}
