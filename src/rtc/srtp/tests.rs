//! Golden vectors, and the life of a packet index.

use super::*;

/// Bytes of hexadecimal text, spaces ignored.
pub(in super::super) fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// RFC 7714 §16 and §17 give session keys; they go in below the key derivation.
fn gcm_from_session_key(key: &[u8]) -> (Suite, Suite) {
    let salt: [u8; gcm::SALT] = *b"Quid pro quo";
    let suite = || Suite::Gcm(Box::new(Gcm::new(key, salt).expect("a key")));
    (suite(), suite())
}

const GCM_RTP: &str = "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 \
                       696e2070 61727465 73207472 6573";
const GCM_128_RTP: &str = "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f \
                           42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce";
const GCM_256_RTP: &str = "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 \
                           b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13";
const GCM_RTCP: &str = "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef \
                        deadbeef deadbeef deadbeef deadbeef";
const GCM_128_RTCP: &str = "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 \
                            730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4";
const GCM_256_RTCP: &str = "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50 a2eaa5c1 \
                            110555be 8415f658 c61de047 6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4";

#[test]
fn gcm_vectors_of_rfc7714() {
    let key: Vec<u8> = (0..32).collect();
    for (key, rtp, rtcp) in [
        (&key[..16], GCM_128_RTP, GCM_128_RTCP),
        (&key[..], GCM_256_RTP, GCM_256_RTCP),
    ] {
        let mut seal = SealContext::new(gcm_from_session_key(key));
        let mut open = OpenContext::new(gcm_from_session_key(key));

        let clear = bytes(GCM_RTP);
        let mut packet = clear.clone();
        packet.resize(clear.len() + SEAL_OVERHEAD, 0);
        let sealed = seal.seal_rtp(&mut packet, 12, clear.len(), 0).expect("sealed");
        assert_eq!(packet[..sealed], bytes(rtp));
        let opened = open.open_rtp(&mut packet[..sealed]).expect("opened");
        assert_eq!(packet[..opened], clear);

        let clear = bytes(GCM_RTCP);
        let mut packet = clear.clone();
        packet.resize(clear.len() + SEAL_OVERHEAD, 0);
        seal.rtcp_index = 0x5d4;
        let sealed = seal.seal_rtcp(&mut packet, clear.len()).expect("sealed");
        assert_eq!(packet[..sealed], bytes(rtcp));
        let opened = open.open_rtcp(&mut packet[..sealed]).expect("opened");
        assert_eq!(packet[..opened], clear);
    }
}

/// RFC 7714 §17.3 is authenticated but not encrypted: refused, WebRTC has no use for it.
#[test]
fn rtcp_without_encryption_is_refused() {
    let key: Vec<u8> = (0..16).collect();
    let mut open = OpenContext::new(gcm_from_session_key(&key));
    let mut packet = bytes(GCM_RTCP);
    packet.extend(bytes("841dd968 3dd78ec9 2ae58790 125f62b3 000005d4"));
    assert_eq!(open.open_rtcp(&mut packet), Err(DropReason::Malformed));
}

const PROFILES: [(SrtpProfile, usize); 3] = [
    (SrtpProfile::AeadAes128Gcm, 56),
    (SrtpProfile::AeadAes256Gcm, 88),
    (SrtpProfile::Aes128CmHmacSha1_80, 60),
];

fn pair(profile: SrtpProfile, material: usize) -> (SealContext, OpenContext) {
    let material: Vec<u8> = (0..material as u8).collect();
    let keys = SrtpKeys::new(profile, &material).expect("material of the right length");
    let (seal, _) = keys.contexts(DtlsRole::Active).expect("keys");
    let (_, open) = keys.contexts(DtlsRole::Passive).expect("keys");
    (seal, open)
}

/// An RTP packet with one CSRC and an extension block; 28 bytes of header.
const HEADER: usize = 12 + 4 + 4 + 8;
fn rtp(ssrc: u32, sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x91, 96];
    packet.extend(sequence.to_be_bytes());
    packet.extend(7u32.to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0xbe, 0xde, 0, 2, 0x31, 1, 2, 0, 0, 0, 0, 0]);
    packet.extend((0..200u8).map(|byte| byte ^ sequence as u8));
    packet
}

fn sealed(seal: &mut SealContext, ssrc: u32, sequence: u16, roc: u32) -> Vec<u8> {
    let mut packet = rtp(ssrc, sequence);
    let len = packet.len();
    packet.resize(len + SEAL_OVERHEAD, 0);
    let sealed = seal.seal_rtp(&mut packet, HEADER, len, roc).expect("sealed");
    packet.truncate(sealed);
    packet
}

fn open(open: &mut OpenContext, mut packet: Vec<u8>) -> Result<Vec<u8>, DropReason> {
    let len = open.open_rtp(&mut packet)?;
    packet.truncate(len);
    Ok(packet)
}

#[test]
fn every_profile_opens_what_it_seals() {
    for (profile, material) in PROFILES {
        let (mut seal, mut context) = pair(profile, material);
        let packet = sealed(&mut seal, 1, 10, 0);
        assert_eq!(packet[..HEADER], rtp(1, 10)[..HEADER], "the header stays readable");
        assert_ne!(packet[HEADER..HEADER + 200], rtp(1, 10)[HEADER..]);
        assert_eq!(open(&mut context, packet), Ok(rtp(1, 10)), "{profile:?}");

        let clear = bytes("80c90001 00000007 aabbccdd");
        for round in 0..3 {
            let mut packet = clear.clone();
            packet.resize(clear.len() + SEAL_OVERHEAD, 0);
            let len = seal.seal_rtcp(&mut packet, clear.len()).expect("sealed");
            let mut again = packet[..len].to_vec();
            let opened = context.open_rtcp(&mut packet[..len]).expect("opened");
            assert_eq!(packet[..opened], clear, "{profile:?} round {round}");
            assert_eq!(context.open_rtcp(&mut again), Err(DropReason::Replayed));
        }
    }
}

#[test]
fn the_rollover_counter_follows_the_sequence() {
    for (profile, material) in PROFILES {
        let (mut seal, mut context) = pair(profile, material);
        let mut index: u64 = 65_000;
        while index < 3 * 65_536 + 100 {
            let (sequence, roc) = (index as u16, (index >> 16) as u32);
            let packet = sealed(&mut seal, 9, sequence, roc);
            assert_eq!(
                open(&mut context, packet),
                Ok(rtp(9, sequence)),
                "{profile:?} index {index}"
            );
            index += 511;
        }
        // 65535 is late, from before the wrap.
        let (mut seal, mut context) = pair(profile, material);
        let late = sealed(&mut seal, 9, 65_535, 0);
        for (sequence, roc) in [(65_534, 0), (0, 1), (1, 1)] {
            let packet = sealed(&mut seal, 9, sequence, roc);
            assert_eq!(open(&mut context, packet), Ok(rtp(9, sequence)));
        }
        assert_eq!(open(&mut context, late), Ok(rtp(9, 65_535)));
    }
}

#[test]
fn a_packet_is_opened_once() {
    for (profile, material) in PROFILES {
        let (mut seal, mut context) = pair(profile, material);
        let packets: Vec<_> = (0..2000u16).map(|sequence| sealed(&mut seal, 1, sequence, 0)).collect();
        // In reverse pairs: mild reordering.
        for two in packets.chunks(2) {
            assert!(open(&mut context, two[1].clone()).is_ok());
            assert!(open(&mut context, two[0].clone()).is_ok());
        }
        assert_eq!(open(&mut context, packets[1999].clone()), Err(DropReason::Replayed));
        assert_eq!(open(&mut context, packets[1000].clone()), Err(DropReason::Replayed));
        assert_eq!(open(&mut context, packets[900].clone()), Err(DropReason::TooOld));
    }
}

#[test]
fn a_bad_tag_leaves_the_rollover_counter_alone() {
    for (profile, material) in PROFILES {
        let (mut seal, mut context) = pair(profile, material);
        let first = sealed(&mut seal, 1, 65_000, 0);
        assert!(open(&mut context, first).is_ok());
        // A forged packet with a sequence number past the wrap, and one for an unknown SSRC.
        for ssrc in [1, 2] {
            let mut forged = sealed(&mut seal, ssrc, 100, 1);
            let last = forged.len() - 1;
            forged[last] ^= 1;
            assert_eq!(open(&mut context, forged), Err(DropReason::BadTag), "{profile:?}");
        }
        assert_eq!(context.rtp_windows.len(), 1, "no context for what was not authentic");
        let next = sealed(&mut seal, 1, 65_001, 0);
        assert_eq!(open(&mut context, next), Ok(rtp(1, 65_001)), "{profile:?}");
        // Any changed bit of the header fails too: it is authenticated.
        let mut forged = sealed(&mut seal, 1, 65_002, 0);
        forged[1] ^= 0x80;
        assert_eq!(open(&mut context, forged), Err(DropReason::BadTag), "{profile:?}");
    }
}

#[test]
fn sealing_far_back_is_refused() {
    let (mut seal, _) = pair(SrtpProfile::AeadAes256Gcm, 88);
    let first = sealed(&mut seal, 1, 40_000, 5);
    assert_eq!(sealed(&mut seal, 1, 40_000, 5), first, "a resend is the same datagram");
    sealed(&mut seal, 1, 20_000, 5);
    for roc in [4, 0] {
        let mut packet = rtp(1, 1);
        let len = packet.len();
        packet.resize(len + SEAL_OVERHEAD, 0);
        assert_eq!(seal.seal_rtp(&mut packet, HEADER, len, roc), Err(DropReason::TooOld));
    }
    sealed(&mut seal, 2, 1, 0);
}

#[test]
fn short_and_broken_packets_are_refused() {
    for (profile, material) in PROFILES {
        let (mut seal, mut context) = pair(profile, material);
        let packet = sealed(&mut seal, 1, 1, 0);
        for cut in 0..packet.len() {
            assert!(
                open(&mut context, packet[..cut].to_vec()).is_err(),
                "{profile:?} {cut} bytes"
            );
            assert!(context.open_rtcp(&mut packet[..cut].to_vec()).is_err());
        }
        // An extension block that claims to be longer than the packet.
        let mut long = packet.clone();
        long[18] = 0xff;
        assert_eq!(open(&mut context, long), Err(DropReason::Truncated));

        let mut clear = rtp(1, 2);
        let len = clear.len();
        assert_eq!(
            seal.seal_rtp(&mut clear, HEADER, len, 0),
            Err(DropReason::TooLarge),
            "no room for the tag"
        );
        assert_eq!(seal.seal_rtp(&mut clear, len + 1, len, 0), Err(DropReason::Malformed));
        assert_eq!(seal.seal_rtp(&mut [0x80, 96], 12, 2, 0), Err(DropReason::Malformed));
        assert_eq!(seal.seal_rtcp(&mut [0x80; 40], 7), Err(DropReason::Malformed));
    }
}

#[test]
fn received_contexts_are_bounded() {
    let (mut seal, mut context) = pair(SrtpProfile::AeadAes128Gcm, 56);
    for ssrc in 0..MAX_RECEIVED_SSRCS as u32 + 50 {
        let packet = sealed(&mut seal, ssrc, 1, 0);
        assert!(open(&mut context, packet).is_ok());
    }
    assert_eq!(context.rtp_windows.len(), MAX_RECEIVED_SSRCS);
}

#[test]
fn material_of_the_wrong_length_gives_no_keys() {
    for (profile, material) in PROFILES {
        assert!(SrtpKeys::new(profile, &vec![0; material - 1]).is_none());
        assert!(SrtpKeys::new(profile, &vec![0; material + 1]).is_none());
    }
}
