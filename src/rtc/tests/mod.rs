//! Transports against other WebRTC stacks, in virtual time.
//!
//! `str0m` shares `is`, `dimpl` and `sctp-proto` with us and is independent above SRTP only; `webrtc-rs` shares none of
//! the engines. Both are offerers here, the transport answers, as in a LiveKit publisher connection.

mod attacks;
mod fragments;
mod hostile;
mod ice;
mod raw;
mod sped;
mod str0m;
mod webrtc_rs;

pub(super) use raw::binding_request;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{
    ChannelId, DtlsIdentity, DtlsVersions, Received, SEAL_OVERHEAD, Transport, TransportConfig, TransportEvent,
};
use crate::types::{DropReason, DtlsRole, IceCredentials, NetPath, NetProtocol, RemoteParameters, SctpInit};

pub(super) const SERVER: &str = "10.0.0.1:7882";
pub(super) const CLIENT: &str = "10.0.0.2:5000";
/// What we send passes every path that carries media.
pub(super) const LARGEST: usize = 1200;
/// One way.
const LATENCY: Duration = Duration::from_millis(5);

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub(super) fn path(local: &str, remote: &str) -> NetPath {
    NetPath {
        local: address(local),
        remote: address(remote),
        protocol: NetProtocol::Udp,
    }
}

pub(super) fn credentials(name: &str) -> IceCredentials {
    IceCredentials {
        ufrag: format!("ufrag{name}"),
        pwd: format!("0123456789abcdef0123{name}"),
    }
}

pub(super) fn config(lite: bool, server: &str) -> TransportConfig {
    TransportConfig {
        local: credentials("one"),
        ice_lite: lite,
        ice_controlling: false,
        local_addresses: vec![address(server)],
        open_channels: Vec::new(),
    }
}

/// A WebRTC stack that offers and is driven in virtual time.
pub(super) trait Peer {
    fn accept(&mut self, now: Instant, answer: &str);
    fn handle(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, datagram: &[u8]);
    fn handle_timeout(&mut self, now: Instant);
    /// Pushes (from, to, datagram); when it wants to be called again.
    fn poll(&mut self, now: Instant, out: &mut Vec<(SocketAddr, SocketAddr, Vec<u8>)>) -> Option<Instant>;
}

#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) at: Instant,
    pub(super) to_server: bool,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) datagram: Vec<u8>,
}

/// One transport, one peer, and the network between them.
pub(super) struct World<P> {
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) transport: Transport,
    pub(super) fingerprint: [u8; 32],
    pub(super) peer: P,
    pub(super) wire: VecDeque<Packet>,
    pub(super) events: Vec<TransportEvent>,
    pub(super) rtp: Vec<Vec<u8>>,
    pub(super) rtcp: Vec<Vec<u8>>,
    pub(super) drops: Vec<DropReason>,
    /// False loses the packet. Changes it at will.
    pub(super) link: Box<dyn FnMut(&mut Packet) -> bool>,
    steps: usize,
}

impl<P: Peer> World<P> {
    /// Answers `offer` and lets both know each other's description.
    pub(super) fn new(now: Instant, peer: P, offer: &str, config: TransportConfig, role: DtlsRole) -> Self {
        Self::speaking(now, peer, offer, config, role, DtlsVersions::default())
    }

    pub(super) fn speaking(
        now: Instant,
        peer: P,
        offer: &str,
        config: TransportConfig,
        role: DtlsRole,
        versions: DtlsVersions,
    ) -> Self {
        let identity = DtlsIdentity::with_versions(versions).expect("an identity");
        let answer = answer(offer, &config, identity.fingerprint(), role);
        let mut transport = Transport::new(config, &identity, now);
        transport.set_remote(now, &remote_parameters(offer, role));
        let mut world = Self {
            now,
            start: now,
            transport,
            fingerprint: identity.fingerprint(),
            peer,
            wire: VecDeque::new(),
            events: Vec::new(),
            rtp: Vec::new(),
            rtcp: Vec::new(),
            drops: Vec::new(),
            link: Box::new(|_| true),
            steps: 0,
        };
        world.peer.accept(now, &answer);
        world
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(super) fn step(&mut self) {
        self.steps += 1;
        assert!(self.steps < 200_000, "spinning at {:?}", self.elapsed());
        let mut sent = Vec::new();
        let peer_timeout = self.peer.poll(self.now, &mut sent);
        for (from, to, datagram) in sent {
            self.send(true, from, to, datagram);
        }
        while let Some((path, datagram)) = self.transport.poll_transmit() {
            self.send(false, path.local, path.remote, datagram);
        }
        while let Some(event) = self.transport.poll_event() {
            self.events.push(event);
        }
        let ours = self.transport.poll_timeout();
        let arrival = self.wire.front().map(|packet| packet.at);
        let Some(next) = [peer_timeout, ours, arrival].into_iter().flatten().min() else {
            self.now += Duration::from_millis(10);
            return;
        };
        self.now = self.now.max(next);
        if arrival.is_some_and(|at| at <= self.now) {
            let Some(mut packet) = self.wire.pop_front() else {
                return;
            };
            if !packet.to_server {
                self.peer.handle(self.now, packet.from, packet.to, &packet.datagram);
                return;
            }
            let path = NetPath {
                local: packet.to,
                remote: packet.from,
                protocol: NetProtocol::Udp,
            };
            match self.transport.handle_datagram(self.now, path, &mut packet.datagram) {
                Ok(Received::Consumed) => {}
                Ok(Received::Rtp(rtp)) => self.rtp.push(rtp.to_vec()),
                Ok(Received::Rtcp(rtcp)) => self.rtcp.push(rtcp.to_vec()),
                Err(reason) => self.drops.push(reason),
            }
            return;
        }
        if peer_timeout.is_some_and(|at| at <= self.now) {
            self.peer.handle_timeout(self.now);
        }
        if ours.is_some_and(|at| at <= self.now) {
            self.transport.handle_timeout(self.now);
        }
        // Two timers at one instant take turns; let time creep so that neither can hold it.
        self.now += Duration::from_micros(10);
    }

    pub(super) fn send(&mut self, to_server: bool, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        assert!(to_server || datagram.len() <= LARGEST, "{} bytes", datagram.len());
        let mut packet = Packet {
            at: self.now + LATENCY,
            to_server,
            from,
            to,
            datagram,
        };
        if (self.link)(&mut packet) {
            self.wire.push_back(packet);
        }
    }

    pub(super) fn until(&mut self, what: &str, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.now + limit;
        self.steps = 0;
        while !done(self) {
            assert!(
                self.now < end,
                "{what}: not within {limit:?}; events {:?}, drops {:?}",
                self.events,
                self.drops
            );
            self.step();
        }
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.steps = 0;
        while self.now < end {
            self.step();
        }
    }

    pub(super) fn connected(&mut self) {
        self.until("connected", Duration::from_secs(5), |world| {
            world
                .events
                .iter()
                .any(|event| matches!(event, TransportEvent::Connected { .. }))
        });
    }

    pub(super) fn open_channel(&mut self) -> ChannelId {
        let mut found = None;
        self.until("a channel", Duration::from_secs(5), |world| {
            found = world.events.iter().find_map(|event| match event {
                TransportEvent::ChannelOpen { channel, .. } => Some(*channel),
                _ => None,
            });
            found.is_some()
        });
        found.expect("found above")
    }

    pub(super) fn messages(&self) -> Vec<(bool, Vec<u8>)> {
        let message = |event: &TransportEvent| match event {
            TransportEvent::ChannelData { binary, data, .. } => Some((*binary, data.to_vec())),
            _ => None,
        };
        self.events.iter().filter_map(message).collect()
    }

    pub(super) fn closed(&self) -> Option<crate::types::CloseReason> {
        self.events.iter().find_map(|event| match event {
            TransportEvent::Closed(reason) => Some(*reason),
            _ => None,
        })
    }

    /// Seals an RTP packet of the server's and puts it on the wire.
    pub(super) fn send_rtp(&mut self, ssrc: u32, pt: u8, index: u64, payload: &[u8]) {
        let mut packet = vec![0x80, pt];
        packet.extend((index as u16).to_be_bytes());
        packet.extend((index as u32 * 960).to_be_bytes());
        packet.extend(ssrc.to_be_bytes());
        packet.extend(payload);
        let len = packet.len();
        packet.resize(len + SEAL_OVERHEAD, 0);
        let sealed = self
            .transport
            .seal_rtp(&mut packet, 12, len, (index >> 16) as u32)
            .expect("sealed");
        packet.truncate(sealed);
        let path = self.transport.path().expect("a path");
        self.send(false, path.local, path.remote, packet);
    }
}

/// What an offer says, for `set_remote`.
pub(super) fn remote_parameters(offer: &str, role: DtlsRole) -> RemoteParameters {
    let value = |name: &str| {
        let line = offer.lines().find_map(|line| line.trim().strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} in {offer}")).trim().to_owned()
    };
    let fingerprint = super::srtp::tests::bytes(&value("a=fingerprint:sha-256"));
    RemoteParameters {
        ice: IceCredentials {
            ufrag: value("a=ice-ufrag:"),
            pwd: value("a=ice-pwd:"),
        },
        fingerprint: fingerprint.try_into().expect("32 bytes"),
        dtls_role: role,
        sctp_max_message_size: offer.contains("m=application").then_some(262_144),
        sped: false,
        sctp_init: offer
            .lines()
            .find_map(|line| line.trim().strip_prefix("a=sctp-init:"))
            .and_then(sctp_init),
    }
}

/// Of an offer's `a=sctp-init`.
fn sctp_init(text: &str) -> Option<SctpInit> {
    use base64::Engine;
    let offered = base64::engine::general_purpose::STANDARD.decode(text).expect("base64");
    SctpInit::answering(&offered, "secret")
}

/// Mirrors an offer: everything accepted, our credentials, one host candidate.
pub(super) fn answer(offer: &str, config: &TransportConfig, fingerprint: [u8; 32], role: DtlsRole) -> String {
    let fingerprint: Vec<String> = fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
    let setup = match role {
        DtlsRole::Active => "active",
        DtlsRole::Passive => "passive",
    };
    let server = config.local_addresses[0];
    let mut lines: Vec<String> = Vec::new();
    let mut sections = 0;
    for line in offer.lines() {
        let gone = [
            "a=candidate",
            "a=end-of-candidates",
            "a=ssrc",
            "a=msid:",
            "a=ice-options",
            "a=max-message-size",
        ];
        if gone.iter().any(|gone| line.starts_with(gone)) || line.is_empty() {
            continue;
        }
        if line.starts_with("m=") {
            if sections == 0 && config.ice_lite {
                lines.push("a=ice-lite".to_owned());
            }
            sections += 1;
        }
        let line = match line.split_once(':').map_or(line, |(name, _)| name) {
            "a=sctp-init" => {
                use base64::Engine;
                let text = line.split_once(':').map_or("", |(_, value)| value);
                let init = sctp_init(text).expect("an INIT chunk");
                format!(
                    "a=sctp-init:{}",
                    base64::engine::general_purpose::STANDARD.encode(init.local)
                )
            }
            "a=ice-ufrag" => format!("a=ice-ufrag:{}", config.local.ufrag),
            "a=ice-pwd" => format!("a=ice-pwd:{}", config.local.pwd),
            "a=fingerprint" => format!("a=fingerprint:sha-256 {}", fingerprint.join(":")),
            "a=setup" => format!("a=setup:{setup}"),
            "a=sendonly" => "a=recvonly".to_owned(),
            _ => line.to_owned(),
        };
        let mid = line.starts_with("a=mid:");
        let sctp = line.starts_with("a=sctp-port:");
        lines.push(line);
        if mid {
            lines.push(format!(
                "a=candidate:1 1 udp 2130706431 {} {} typ host",
                server.ip(),
                server.port()
            ));
        }
        if sctp {
            lines.push(format!("a=max-message-size:{}", super::MAX_RECEIVE_MESSAGE_SIZE));
        }
    }
    lines.join("\r\n") + "\r\n"
}
