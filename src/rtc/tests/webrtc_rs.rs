//! Against webrtc-rs (`rtc`), which shares no engine with us: handshake in both DTLS roles and all SRTP profiles, ICE
//! restart, SCTP and DCEP.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc::data_channel::{RTCDataChannelId, RTCDataChannelInit};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::event::{RTCDataChannelEvent, RTCPeerConnectionEvent};
use rtc::peer_connection::message::RTCMessage;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};

use super::*;
use crate::types::{ChannelLabel, CloseReason, SrtpProfile};

struct WebrtcRs {
    connection: RTCPeerConnection,
    address: SocketAddr,
    channel: RTCDataChannelId,
    connected: bool,
    closed: bool,
    /// Ids of the channels that have opened, with their labels.
    open: Vec<(RTCDataChannelId, String)>,
    messages: Vec<(bool, Vec<u8>)>,
}

impl WebrtcRs {
    fn new(now: Instant, profiles: Vec<SrtpProtectionProfile>) -> (Self, String) {
        let settings = SettingEngineBuilder::new()
            .with_srtp_protection_profiles(profiles)
            .build();
        let mut connection = RTCPeerConnectionBuilder::new()
            .with_configuration(RTCConfigurationBuilder::new().build())
            .with_setting_engine(settings)
            .build(now)
            .expect("a connection");
        let init = RTCDataChannelInit {
            ordered: false,
            max_retransmits: Some(0),
            ..Default::default()
        };
        let channel = connection
            .create_data_channel("_lossy", Some(init))
            .expect("a channel")
            .id();
        let mut peer = Self {
            connection,
            address: address(CLIENT),
            channel,
            connected: false,
            closed: false,
            open: Vec::new(),
            messages: Vec::new(),
        };
        let offer = peer.offer(now);
        (peer, offer)
    }

    fn offer(&mut self, now: Instant) -> String {
        let offer = self.connection.create_offer(None).expect("an offer");
        self.connection.set_local_description(now, offer).expect("set");
        let candidate = CandidateHostConfig {
            base_config: CandidateConfig {
                network: "udp".to_owned(),
                address: self.address.ip().to_string(),
                port: self.address.port(),
                component: 1,
                ..Default::default()
            },
            ..Default::default()
        };
        let candidate = RTCIceCandidate::from(&candidate.new_candidate_host().expect("a candidate"));
        self.connection
            .add_local_candidate(candidate.to_json().expect("json"))
            .expect("added");
        self.connection.local_description().expect("a description").sdp
    }

    fn send(&mut self, now: Instant, data: &[u8]) {
        let mut channel = self.connection.data_channel(self.channel).expect("a channel");
        channel.send(now, BytesMut::from(data)).expect("sent");
    }
}

impl Peer for WebrtcRs {
    fn accept(&mut self, now: Instant, answer: &str) {
        let answer = RTCSessionDescription::answer(answer.to_owned()).expect("an answer");
        self.connection.set_remote_description(now, answer).expect("accepted");
    }

    fn handle(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let _ = self.connection.handle_read(TaggedBytesMut {
            now,
            transport: TransportContext {
                local_addr: to,
                peer_addr: from,
                ecn: None,
                transport_protocol: TransportProtocol::UDP,
            },
            message: BytesMut::from(datagram),
        });
    }

    fn handle_timeout(&mut self, now: Instant) {
        let _ = self.connection.handle_timeout(now);
    }

    fn poll(&mut self, _now: Instant, out: &mut Vec<(SocketAddr, SocketAddr, Vec<u8>)>) -> Option<Instant> {
        while let Some(sent) = self.connection.poll_write() {
            out.push((self.address, sent.transport.peer_addr, sent.message.to_vec()));
        }
        while let Some(event) = self.connection.poll_event() {
            match event {
                RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) => {
                    self.connected |= state == RTCPeerConnectionState::Connected;
                    self.closed |= matches!(state, RTCPeerConnectionState::Closed | RTCPeerConnectionState::Failed);
                }
                RTCPeerConnectionEvent::OnDataChannel(RTCDataChannelEvent::OnOpen(id)) => {
                    let label = self
                        .connection
                        .data_channel(id)
                        .map(|channel| channel.label().to_owned());
                    self.open.push((id, label.unwrap_or_default()));
                }
                _ => {}
            }
        }
        while let Some(message) = self.connection.poll_read() {
            if let RTCMessage::DataChannelMessage(_, message) = message.message {
                self.messages.push((!message.is_string, message.data.to_vec()));
            }
        }
        self.connection.poll_timeout()
    }
}

const ALL: [SrtpProtectionProfile; 3] = [
    SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
    SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
    SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
];

fn world(profiles: &[SrtpProtectionProfile], config: TransportConfig, role: DtlsRole) -> World<WebrtcRs> {
    let now = Instant::now();
    let (peer, offer) = WebrtcRs::new(now, profiles.to_vec());
    World::new(now, peer, &offer, config, role)
}

fn exchange(world: &mut World<WebrtcRs>) {
    let channel = world.open_channel();
    world.until("open at the peer", Duration::from_secs(5), |world| {
        !world.peer.open.is_empty()
    });
    let large: Vec<u8> = (0..60_000u32).map(|byte| byte as u8).collect();
    let (ours, theirs) = (world.messages().len(), world.peer.messages.len());
    for data in [&b"one"[..], &large] {
        let now = world.now;
        world.peer.send(now, data);
        world.transport.send_data(world.now, channel, true, data).expect("sent");
    }
    world.until("both messages at both ends", Duration::from_secs(20), |world| {
        world.messages().len() >= ours + 2 && world.peer.messages.len() >= theirs + 2
    });
    let expected = [(true, b"one".to_vec()), (true, large)];
    assert_eq!(world.messages()[ours..], expected);
    assert_eq!(world.peer.messages[theirs..], expected);
}

#[test]
fn lite_as_dtls_server() {
    let mut world = world(&ALL, config(true, SERVER), DtlsRole::Passive);
    world.connected();
    let profile = SrtpProfile::AeadAes256Gcm;
    assert_eq!(world.events[0], TransportEvent::Connected { profile });
    exchange(&mut world);
    assert!(
        world.events.contains(&TransportEvent::ChannelOpen {
            channel: ChannelId(0),
            label: Some(ChannelLabel::Lossy)
        }) || world.events.contains(&TransportEvent::ChannelOpen {
            channel: ChannelId(1),
            label: Some(ChannelLabel::Lossy)
        })
    );
    assert_eq!(world.drops, []);
}

/// It has DTLS 1.2 only, and its own way to write a ClientHello.
#[test]
fn the_older_dtls_is_still_understood_beside_1_3() {
    for role in [DtlsRole::Passive, DtlsRole::Active] {
        let now = Instant::now();
        let (peer, offer) = WebrtcRs::new(now, ALL.to_vec());
        let mut world = World::speaking(now, peer, &offer, config(true, SERVER), role, DtlsVersions::Either);
        world.connected();
        exchange(&mut world);
    }
}

#[test]
fn lite_as_dtls_client() {
    let mut world = world(&ALL, config(true, SERVER), DtlsRole::Active);
    world.connected();
    exchange(&mut world);
}

#[test]
fn full_ice() {
    let mut world = world(&ALL, config(false, SERVER), DtlsRole::Passive);
    world.connected();
    exchange(&mut world);
}

#[test]
fn each_profile() {
    for (theirs, profile) in [
        (ALL[0], SrtpProfile::Aes128CmHmacSha1_80),
        (ALL[1], SrtpProfile::AeadAes256Gcm),
        (ALL[2], SrtpProfile::AeadAes128Gcm),
    ] {
        for role in [DtlsRole::Passive, DtlsRole::Active] {
            let mut world = world(&[theirs], config(true, SERVER), role);
            world.connected();
            assert_eq!(world.events[0], TransportEvent::Connected { profile }, "{role:?}");
        }
    }
}

#[test]
fn the_server_opens_channels() {
    let mut config = config(true, SERVER);
    config.open_channels = vec![ChannelLabel::Reliable, ChannelLabel::Lossy];
    let mut world = world(&ALL, config, DtlsRole::Passive);
    world.until("three channels at the peer", Duration::from_secs(5), |world| {
        world.peer.open.len() == 3
    });
    let mut labels: Vec<_> = world.peer.open.iter().map(|(_, label)| label.as_str()).collect();
    labels.sort_unstable();
    assert_eq!(labels, ["_lossy", "_lossy", "_reliable"]);
    let open = |event: &&TransportEvent| matches!(event, TransportEvent::ChannelOpen { .. });
    world.until("three here", Duration::from_secs(5), |world| {
        world.events.iter().filter(open).count() == 3
    });
}

#[test]
fn an_ice_restart_keeps_the_association() {
    let mut world = world(&ALL, config(true, SERVER), DtlsRole::Passive);
    world.connected();
    exchange(&mut world);
    let now = world.now;
    world.peer.connection.restart_ice();
    let offer = world.peer.offer(now);
    let mut config = config(true, SERVER);
    config.local = credentials("two");
    let remote = remote_parameters(&offer, DtlsRole::Passive);
    assert_ne!(remote.ice.ufrag, "");
    // In LiveKit's order: the restart when the offer is read, then its whole description.
    world.transport.restart_ice(now, config.local.clone(), None);
    world.transport.set_remote(now, &remote);
    let fingerprint = world.fingerprint;
    world
        .peer
        .accept(now, &answer(&offer, &config, fingerprint, DtlsRole::Passive));
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.closed(), None, "consent under the new credentials");
    exchange(&mut world);
    let connected = |event: &&TransportEvent| matches!(event, TransportEvent::Connected { .. });
    assert_eq!(world.events.iter().filter(connected).count(), 1);
}

#[test]
fn goodbyes_are_understood() {
    let mut leaving = world(&ALL, config(true, SERVER), DtlsRole::Passive);
    leaving.connected();
    exchange(&mut leaving);
    leaving.peer.connection.close().expect("closing");
    leaving.until("closed", Duration::from_secs(5), |world| world.closed().is_some());
    assert_eq!(leaving.closed(), Some(CloseReason::ClosedByPeer));
}
