//! One shard on virtual time and clients of our own before it, without sockets: what the benchmarks of the core share.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use patchbay::media::Shard;
use patchbay::media::edge::{Command, OpenTransport, Reception};
use patchbay::rtc::{DtlsIdentity, Transport, TransportConfig};
use patchbay::types::{
    Batch, Codec, CodecParameters, DtlsRole, Extension, ExtensionMap, IceCredentials, MAX_DATAGRAM, NetPath,
    NetProtocol, ParticipantHandle, Pt, RemoteParameters, RoomHandle, TransportHandle,
};

pub const ROOM: RoomHandle = RoomHandle(1);
pub const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 7882);

pub struct Client {
    pub address: SocketAddr,
    pub rtc: Transport,
}

/// Counts datagrams, or keeps them for a handshake.
pub struct Sent {
    slot: Vec<u8>,
    kept: Option<Vec<(NetPath, Vec<u8>)>>,
    pub media: usize,
}

impl Sent {
    pub fn new(keeps: bool) -> Self {
        Self {
            slot: vec![0; MAX_DATAGRAM],
            kept: keeps.then(Vec::new),
            media: 0,
        }
    }
}

impl Batch for Sent {
    fn slot(&mut self) -> &mut [u8] {
        &mut self.slot
    }

    fn commit(&mut self, path: NetPath, len: usize) {
        // RTP, and not RTCP (RFC 5761 §4), to the subscriber: every one of them is numbered.
        let is_rtp = self.slot[0] >> 6 == 2 && !(64..96).contains(&(self.slot[1] & 0x7f));
        self.media += usize::from(is_rtp);
        if let Some(kept) = &mut self.kept {
            kept.push((path, self.slot[..len].to_vec()));
        }
    }
}

pub fn path(remote: SocketAddr) -> NetPath {
    NetPath {
        local: SERVER.into(),
        remote,
        protocol: NetProtocol::Udp,
    }
}

pub fn extensions(reports: bool) -> ExtensionMap {
    let mut map = ExtensionMap::default();
    map.insert(Extension::AbsSendTime, 2);
    map.insert(Extension::Mid, 4);
    if reports {
        map.insert(Extension::TransportCc, 3);
    }
    map
}

pub fn vp8() -> Vec<CodecParameters> {
    vec![CodecParameters {
        pt: Pt(96),
        codec: Codec::Vp8,
        rtx: Some(Pt(97)),
        nack: true,
        pli: true,
        fir: false,
        transport_cc: true,
        remb: false,
        fmtp: String::new(),
    }]
}

/// Opens a transport and drives it and a client of ours until both are connected.
pub fn join(shard: &mut Shard, identity: &DtlsIdentity, now: &mut Instant, number: u64) -> Client {
    let address = SocketAddr::from(([10, 0, 1 + (number >> 8) as u8, number as u8], 5000));
    let transport = TransportHandle(number);
    let credentials = |name: &str| IceCredentials {
        ufrag: format!("ufrag{name}{number}"),
        pwd: format!("0123456789abcdef0123{name}{number}"),
    };
    let (ours, theirs) = (credentials("s"), credentials("c"));
    let client_identity = DtlsIdentity::generate().expect("an identity");
    shard.handle_command(
        *now,
        Command::OpenTransport(Box::new(OpenTransport {
            room: ROOM,
            participant: ParticipantHandle(number),
            transport,
            local: ours.clone(),
            ice_lite: true,
            ice_controlling: false,
            open_channels: Vec::new(),
            reception: Reception::default(),
        })),
    );
    let remote = |ice, identity: &DtlsIdentity, dtls_role| RemoteParameters {
        ice,
        fingerprint: identity.fingerprint(),
        dtls_role,
        sctp_max_message_size: None,
        sctp_init: None,
        sped: false,
    };
    let to_server = remote(theirs.clone(), &client_identity, DtlsRole::Passive);
    shard.handle_command(
        *now,
        Command::SetRemote {
            transport,
            remote: Box::new(to_server),
        },
    );
    let config = TransportConfig {
        local: theirs,
        ice_lite: false,
        ice_controlling: true,
        local_addresses: vec![address],
        open_channels: Vec::new(),
    };
    let mut rtc = Transport::new(config, &client_identity, *now);
    rtc.set_remote(*now, &remote(ours, identity, DtlsRole::Active));
    rtc.add_remote_candidate(*now, "candidate:1 1 udp 2130706431 10.0.0.1 7882 typ host");
    for _ in 0..2000 {
        while let Some((_, mut datagram)) = rtc.poll_transmit() {
            shard.handle_datagram(*now, path(address), &mut datagram);
        }
        let mut sent = Sent::new(true);
        shard.poll_transmit(*now, &mut sent);
        for (path, mut datagram) in sent.kept.into_iter().flatten() {
            let back = NetPath {
                local: path.remote,
                remote: path.local,
                protocol: NetProtocol::Udp,
            };
            let _ = rtc.handle_datagram(*now, back, &mut datagram);
        }
        while rtc.poll_event().is_some() {}
        if rtc.is_connected() {
            return Client { address, rtc };
        }
        *now += Duration::from_millis(1);
        shard.handle_timeout(*now);
        rtc.handle_timeout(*now);
    }
    panic!("never connected");
}
