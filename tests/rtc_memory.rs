//! What a transport costs: nothing allocated per media packet, and a bounded amount of memory when idle (DESIGN §6).
//!
//! One test only: the counters are the process's.

#![allow(unsafe_code)] // a counting allocator is an `unsafe impl`; it only adds up and calls the system's

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use patchbay::rtc::{DtlsIdentity, Received, SEAL_OVERHEAD, SrtpKeys, Transport, TransportConfig, TransportEvent};
use patchbay::types::{ChannelLabel, DtlsRole, IceCredentials, NetPath, NetProtocol, RemoteParameters, SrtpProfile};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        LIVE.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's contract is ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn path(local: SocketAddr, remote: SocketAddr) -> NetPath {
    NetPath {
        local,
        remote,
        protocol: NetProtocol::Udp,
    }
}

fn config(name: &str, lite: bool, address: SocketAddr) -> TransportConfig {
    TransportConfig {
        local: IceCredentials {
            ufrag: format!("ufrag{name}"),
            pwd: format!("0123456789abcdef0123{name}"),
        },
        ice_lite: lite,
        ice_controlling: !lite,
        local_addresses: vec![address],
        open_channels: if lite {
            vec![ChannelLabel::Reliable, ChannelLabel::Lossy]
        } else {
            Vec::new()
        },
    }
}

/// A server and a client of ours, through ICE, DTLS, SCTP and DCEP.
fn connect(now: &mut Instant, identity: &DtlsIdentity, client_identity: &DtlsIdentity) -> (Transport, Transport) {
    let (here, there): (SocketAddr, SocketAddr) = (([10, 0, 0, 1], 7882).into(), ([10, 0, 0, 2], 5000).into());
    let (ours, theirs) = (config("a", true, here), config("b", false, there));
    let remote = |config: &TransportConfig, identity: &DtlsIdentity, dtls_role| RemoteParameters {
        ice: config.local.clone(),
        fingerprint: identity.fingerprint(),
        dtls_role,
        sctp_max_message_size: Some(65_536),
        sctp_init: None,
        sped: false,
    };
    let (to_server, to_client) = (
        remote(&theirs, client_identity, DtlsRole::Passive),
        remote(&ours, identity, DtlsRole::Active),
    );
    let mut server = Transport::new(ours, identity, *now);
    let mut client = Transport::new(theirs, client_identity, *now);
    server.set_remote(*now, &to_server);
    client.set_remote(*now, &to_client);
    client.add_remote_candidate(*now, "candidate:1 1 udp 2130706431 10.0.0.1 7882 typ host");
    let mut open = 0;
    for _ in 0..2000 {
        let mut quiet = true;
        while let Some((sent, mut datagram)) = client.poll_transmit() {
            quiet = false;
            let _ = server.handle_datagram(*now, path(sent.remote, sent.local), &mut datagram);
        }
        while let Some((sent, mut datagram)) = server.poll_transmit() {
            quiet = false;
            let _ = client.handle_datagram(*now, path(sent.remote, sent.local), &mut datagram);
        }
        while let Some(event) = server.poll_event() {
            open += usize::from(matches!(event, TransportEvent::ChannelOpen { .. }));
        }
        while client.poll_event().is_some() {}
        if quiet && open == 2 {
            return (server, client);
        }
        *now += Duration::from_millis(1);
        server.handle_timeout(*now);
        client.handle_timeout(*now);
    }
    panic!("never connected");
}

#[test]
fn memory() {
    // Per packet: nothing.
    let now = Instant::now();
    let identity = DtlsIdentity::generate().expect("an identity");
    let (here, there): (SocketAddr, SocketAddr) = (([10, 0, 0, 1], 7882).into(), ([10, 0, 0, 2], 5000).into());
    for (profile, material) in [
        (SrtpProfile::AeadAes256Gcm, 88),
        (SrtpProfile::AeadAes128Gcm, 56),
        (SrtpProfile::Aes128CmHmacSha1_80, 60),
    ] {
        let material: Vec<u8> = (0..material).collect();
        let keys = SrtpKeys::new(profile, &material).expect("keys");
        let end = |local, remote, role| {
            Transport::connected(
                config("a", true, local),
                &identity,
                now,
                path(local, remote),
                &keys,
                role,
            )
        };
        let mut server = end(here, there, DtlsRole::Passive);
        let mut client = end(there, here, DtlsRole::Active);
        let mut before = 0;
        for index in 0..3000u32 {
            if index == 1000 {
                before = ALLOCATIONS.load(Relaxed);
            }
            let mut packet = [0u8; 1200 + SEAL_OVERHEAD];
            packet[0] = 0x80;
            packet[1] = 96;
            packet[2..4].copy_from_slice(&(index as u16).to_be_bytes());
            packet[8..12].copy_from_slice(&(index % 8).to_be_bytes());
            let len = server.seal_rtp(&mut packet, 12, 1200, index >> 16).expect("sealed");
            let received = client.handle_datagram(now, path(there, here), &mut packet[..len]);
            assert!(matches!(received, Ok(Received::Rtp(rtp)) if rtp.len() == 1200));

            let mut packet = [0u8; 100];
            packet[0] = 0x80;
            packet[1] = 201;
            let len = client.seal_rtcp(&mut packet, 32).expect("sealed");
            let received = server.handle_datagram(now, path(here, there), &mut packet[..len]);
            assert!(matches!(received, Ok(Received::Rtcp(rtcp)) if rtcp.len() == 32));
        }
        let allocated = ALLOCATIONS.load(Relaxed) - before;
        assert_eq!(allocated, 0, "{profile:?}: allocations in 4000 packets");
    }

    // Per idle transport, after a whole handshake with data channels open. The budget of DESIGN §6 is 128 KiB for all
    // of a participant; a fifth of it is what its transport may take. Keys live in the C library's heap, some 3 KiB.
    let client_identity = DtlsIdentity::generate().expect("an identity");
    let mut now = Instant::now();
    let mut kept = vec![connect(&mut now, &identity, &client_identity).0];
    kept.reserve(50);
    let before = LIVE.load(Relaxed);
    for _ in 0..50 {
        let (server, client) = connect(&mut now, &identity, &client_identity);
        drop(client);
        kept.push(server);
    }
    let each = (LIVE.load(Relaxed) - before) / 50 + size_of::<Transport>();
    println!(
        "an idle transport: {each} bytes, {} of them inline",
        size_of::<Transport>()
    );
    assert!(each < 26 * 1024, "{each} bytes");
}
