//! A client without manners: connects like any other, then sends whatever RTCP a story wants.
//!
//! It runs the server's own transport as a client; its link takes 10 ms and loses nothing.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use patchbay::{
    rtc::{DtlsIdentity, Received, Transport, TransportConfig, TransportEvent},
    rtp::rtcp,
    types::{DropReason, IceCredentials, MAX_DATAGRAM, NetPath, NetProtocol, ParticipantHandle, TransportHandle},
};

const DELAY: Duration = Duration::from_millis(10);

pub struct RawPeer {
    pub address: SocketAddr,
    pub participant: ParticipantHandle,
    pub transport: TransportHandle,
    pub connected: bool,
    /// Sequence numbers of RTP that arrived, by SSRC order of arrival.
    pub received: Vec<(u32, u16)>,
    rtc: Transport,
    identity: DtlsIdentity,
    credentials: IceCredentials,
    to_server: VecDeque<(Instant, Vec<u8>)>,
    from_server: VecDeque<(Instant, SocketAddr, Vec<u8>)>,
}

impl RawPeer {
    pub fn new(address: SocketAddr, participant: ParticipantHandle, transport: TransportHandle, now: Instant) -> Self {
        let identity = DtlsIdentity::generate().expect("a certificate");
        let credentials = IceCredentials {
            ufrag: format!("raw{:07}", transport.0),
            pwd: format!("raw-password-{:012}", transport.0),
        };
        let config = TransportConfig {
            local: credentials.clone(),
            ice_lite: false,
            ice_controlling: true,
            local_addresses: vec![address],
            open_channels: Vec::new(),
        };
        Self {
            address,
            participant,
            transport,
            connected: false,
            received: Vec::new(),
            rtc: Transport::new(config, &identity, now),
            identity,
            credentials,
            to_server: VecDeque::new(),
            from_server: VecDeque::new(),
        }
    }

    pub fn credentials(&self) -> IceCredentials {
        self.credentials.clone()
    }

    pub fn fingerprint(&self) -> [u8; 32] {
        self.identity.fingerprint()
    }

    pub fn connect(&mut self, now: Instant, server: SocketAddr, ice: &IceCredentials, fingerprint: [u8; 32]) {
        self.rtc.set_remote(
            now,
            &patchbay::types::RemoteParameters {
                ice: ice.clone(),
                fingerprint,
                dtls_role: patchbay::types::DtlsRole::Active,
                sctp_max_message_size: None,
                sctp_init: None,
                sped: false,
            },
        );
        let (ip, port) = (server.ip(), server.port());
        self.rtc
            .add_remote_candidate(now, &format!("candidate:1 1 udp 2130706431 {ip} {port} typ host"));
    }

    pub fn send_rtcp(&mut self, now: Instant, write: impl FnOnce(&mut rtcp::Writer<'_>) -> Result<(), DropReason>) {
        let mut datagram = [0; MAX_DATAGRAM];
        let mut writer = rtcp::Writer::new(&mut datagram[..1200]);
        write(&mut writer).expect("room for it");
        let len = writer.len();
        let len = self.rtc.seal_rtcp(&mut datagram, len).expect("keys");
        self.to_server.push_back((now + DELAY, datagram[..len].to_vec()));
    }

    /// From the server.
    pub fn deliver(&mut self, now: Instant, source: SocketAddr, datagram: Vec<u8>) {
        self.from_server.push_back((now + DELAY, source, datagram));
    }

    /// For the server.
    pub fn take(&mut self, now: Instant) -> Option<Vec<u8>> {
        let due = self.to_server.front().is_some_and(|(at, _)| *at <= now);
        due.then(|| self.to_server.pop_front())
            .flatten()
            .map(|(_, datagram)| datagram)
    }

    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let queues = [
            self.to_server.front().map(|(at, _)| *at),
            self.from_server.front().map(|(at, ..)| *at),
            self.rtc.poll_timeout(),
        ];
        queues.into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, source, mut datagram)) = self.from_server.pop_front_if(|(at, ..)| *at <= now) {
            let path = NetPath {
                local: self.address,
                remote: source,
                protocol: NetProtocol::Udp,
            };
            if let Ok(Received::Rtp(packet)) = self.rtc.handle_datagram(now, path, &mut datagram) {
                let ssrc = u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]);
                self.received.push((ssrc, u16::from_be_bytes([packet[2], packet[3]])));
            }
        }
        self.rtc.handle_timeout(now);
        while let Some(event) = self.rtc.poll_event() {
            self.connected |= matches!(event, TransportEvent::Connected { .. });
        }
        while let Some((_, datagram)) = self.rtc.poll_transmit() {
            self.to_server.push_back((now + DELAY, datagram));
        }
    }
}
