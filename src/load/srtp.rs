//! As much of SRTP (RFC 3711, RFC 7714) as a counting subscriber needs: sealing its RTCP, opening the server's, and opening
//! a sampled RTP packet. The primitives are str0m's, so that this end shares no SRTP code with the server.

use str0m::crypto::dtls::SrtpProfile;
use str0m::crypto::{
    AeadAes128Gcm, AeadAes128GcmCipher, AeadAes256GcmCipher, Aes128CmSha1_80, Aes128CmSha1_80Cipher, CryptoProvider,
    Sha1HmacProvider,
};

use super::keys::Exported;

/// Labels of the key derivation (RFC 3711 §4.3.2).
const RTP: u8 = 0;
const RTCP: u8 = 3;

const GCM_TAG: usize = 16;
/// E bit and index behind an SRTCP packet.
const INDEX: usize = 4;
/// str0m's counter mode wants this much room behind what it writes.
const COUNTER_MODE_ROOM: usize = 15;

/// One direction of one kind of packet.
enum Cipher {
    Counter {
        cipher: Box<dyn Aes128CmSha1_80Cipher>,
        salt: [u8; 14],
        authentication: [u8; 20],
        hmac: &'static dyn Sha1HmacProvider,
    },
    Gcm128(Box<dyn AeadAes128GcmCipher>, [u8; 12]),
    Gcm256(Box<dyn AeadAes256GcmCipher>, [u8; 12]),
}

pub struct Session {
    rtp_in: Cipher,
    rtcp_in: Cipher,
    rtcp_out: Cipher,
    index: u32,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl Session {
    /// None for a profile that is not one of WebRTC's three, or too little material.
    pub fn new(crypto: &CryptoProvider, exported: &Exported) -> Option<Self> {
        let (key_len, salt_len) = match exported.profile {
            SrtpProfile::AES128_CM_SHA1_80 => (16, 14),
            SrtpProfile::AEAD_AES_128_GCM => (16, 12),
            SrtpProfile::AEAD_AES_256_GCM => (32, 12),
            _ => return None,
        };
        let (keys, salts) = exported.material.split_at_checked(2 * key_len)?;
        let master = |client: bool| {
            let at = usize::from(!client);
            let key = keys.get(at * key_len..(at + 1) * key_len)?;
            let salt = salts.get(at * salt_len..(at + 1) * salt_len)?;
            Some((key, salt))
        };
        let (own, peer) = (master(exported.active)?, master(!exported.active)?);
        let cipher =
            |(key, salt): (&[u8], &[u8]), label, seals| Cipher::new(crypto, exported.profile, key, salt, label, seals);
        Some(Self {
            rtp_in: cipher(peer, RTP, false)?,
            rtcp_in: cipher(peer, RTCP, false)?,
            rtcp_out: cipher(own, RTCP, true)?,
            index: 0,
            plain: Vec::new(),
            sealed: Vec::new(),
        })
    }

    /// The payload of an RTP packet, padding included; `extended` counts from cycle 0. In counter mode the tag is not
    /// checked: this is a sample, not a defence.
    pub fn open_rtp(&mut self, packet: &[u8], header_len: usize, ssrc: u32, extended: u64) -> Option<&[u8]> {
        let (header, body) = packet.split_at_checked(header_len)?;
        let (roc, sequence) = ((extended >> 16) as u32, extended as u16);
        match &mut self.rtp_in {
            Cipher::Counter { cipher, salt, .. } => {
                let body = body.get(..body.len().checked_sub(Aes128CmSha1_80::HMAC_TAG_LEN)?)?;
                self.plain.resize(body.len() + COUNTER_MODE_ROOM, 0);
                let iv = Aes128CmSha1_80::rtp_iv(*salt, ssrc, extended);
                cipher.decrypt(&iv, body, &mut self.plain).ok()?;
                self.plain.get(..body.len())
            }
            Cipher::Gcm128(cipher, salt) => {
                self.plain.resize(body.len().checked_sub(GCM_TAG)?, 0);
                let iv = AeadAes128Gcm::rtp_iv(*salt, ssrc, roc, sequence);
                let len = cipher.decrypt(&iv, &[header], body, &mut self.plain).ok()?;
                self.plain.get(..len)
            }
            Cipher::Gcm256(cipher, salt) => {
                self.plain.resize(body.len().checked_sub(GCM_TAG)?, 0);
                let iv = AeadAes128Gcm::rtp_iv(*salt, ssrc, roc, sequence);
                let len = cipher.decrypt(&iv, &[header], body, &mut self.plain).ok()?;
                self.plain.get(..len)
            }
        }
    }

    /// A compound RTCP packet as it goes out: `clear` begins with the header and the sender's SSRC.
    pub fn seal_rtcp(&mut self, clear: &[u8]) -> Option<&[u8]> {
        let (header, body) = clear.split_at_checked(8)?;
        let ssrc = u32::from_be_bytes(header.get(4..)?.try_into().ok()?);
        self.index += 1;
        // RFC 3711 §3.4: the first bit says that it is encrypted.
        let word = (self.index | 1 << 31).to_be_bytes();
        // RFC 7714 §9.2: the header and the index word are authenticated, and the word goes last.
        let mut aad = [0; 12];
        aad.get_mut(..8)?.copy_from_slice(header);
        aad.get_mut(8..)?.copy_from_slice(&word);
        let out = &mut self.sealed;
        out.clear();
        out.extend_from_slice(header);
        match &mut self.rtcp_out {
            Cipher::Counter {
                cipher,
                salt,
                authentication,
                hmac,
            } => {
                out.resize(clear.len() + COUNTER_MODE_ROOM, 0);
                let iv = Aes128CmSha1_80::rtp_iv(*salt, ssrc, u64::from(self.index));
                cipher.encrypt(&iv, body, out.get_mut(8..)?).ok()?;
                out.truncate(clear.len());
                out.extend_from_slice(&word);
                let tag = hmac.sha1_hmac(authentication, &[out]);
                out.extend_from_slice(tag.get(..Aes128CmSha1_80::HMAC_TAG_LEN)?);
            }
            Cipher::Gcm128(cipher, salt) => {
                let iv = AeadAes128Gcm::rtcp_iv(*salt, ssrc, self.index);
                out.resize(clear.len() + GCM_TAG, 0);
                cipher.encrypt(&iv, &aad, body, out.get_mut(8..)?).ok()?;
                out.extend_from_slice(&word);
            }
            Cipher::Gcm256(cipher, salt) => {
                let iv = AeadAes128Gcm::rtcp_iv(*salt, ssrc, self.index);
                out.resize(clear.len() + GCM_TAG, 0);
                cipher.encrypt(&iv, &aad, body, out.get_mut(8..)?).ok()?;
                out.extend_from_slice(&word);
            }
        }
        Some(out)
    }

    /// The compound in an SRTCP packet; None when it does not open, or came unencrypted.
    pub fn open_rtcp(&mut self, packet: &[u8]) -> Option<&[u8]> {
        let header = packet.get(..8)?;
        let ssrc = u32::from_be_bytes(header.get(4..)?.try_into().ok()?);
        let tag = match self.rtcp_in {
            Cipher::Counter { .. } => Aes128CmSha1_80::HMAC_TAG_LEN,
            _ => 0,
        };
        let word_at = packet.len().checked_sub(INDEX + tag)?;
        let word: [u8; 4] = packet.get(word_at..word_at + INDEX)?.try_into().ok()?;
        let index = u32::from_be_bytes(word);
        if index >> 31 == 0 {
            return None;
        }
        let index = index & 0x7fff_ffff;
        let body = packet.get(8..word_at)?;
        self.plain.clear();
        self.plain.extend_from_slice(header);
        match &mut self.rtcp_in {
            Cipher::Counter {
                cipher,
                salt,
                authentication,
                hmac,
            } => {
                let expected = hmac.sha1_hmac(authentication, &[packet.get(..word_at + INDEX)?]);
                if expected.get(..tag)? != packet.get(word_at + INDEX..)? {
                    return None;
                }
                self.plain.resize(8 + body.len() + COUNTER_MODE_ROOM, 0);
                let iv = Aes128CmSha1_80::rtp_iv(*salt, ssrc, u64::from(index));
                cipher.decrypt(&iv, body, self.plain.get_mut(8..)?).ok()?;
                self.plain.truncate(8 + body.len());
            }
            Cipher::Gcm128(cipher, salt) => {
                self.plain.resize(8 + body.len().checked_sub(GCM_TAG)?, 0);
                let iv = AeadAes128Gcm::rtcp_iv(*salt, ssrc, index);
                cipher
                    .decrypt(&iv, &[header, &word], body, self.plain.get_mut(8..)?)
                    .ok()?;
            }
            Cipher::Gcm256(cipher, salt) => {
                self.plain.resize(8 + body.len().checked_sub(GCM_TAG)?, 0);
                let iv = AeadAes128Gcm::rtcp_iv(*salt, ssrc, index);
                cipher
                    .decrypt(&iv, &[header, &word], body, self.plain.get_mut(8..)?)
                    .ok()?;
            }
        }
        Some(&self.plain)
    }
}

impl Cipher {
    fn new(
        crypto: &CryptoProvider,
        profile: SrtpProfile,
        master: &[u8],
        master_salt: &[u8],
        label: u8,
        seals: bool,
    ) -> Option<Self> {
        let srtp = crypto.srtp_provider;
        let derive = |offset: u8, out: &mut [u8]| derive(crypto, master, master_salt, label + offset, out);
        match profile {
            SrtpProfile::AES128_CM_SHA1_80 => {
                let (mut key, mut authentication, mut salt) = ([0; 16], [0; 20], [0; 14]);
                derive(0, &mut key);
                derive(1, &mut authentication);
                derive(2, &mut salt);
                Some(Self::Counter {
                    cipher: srtp.aes_128_cm_sha1_80().create_cipher(key, seals),
                    salt,
                    authentication,
                    hmac: crypto.sha1_hmac_provider,
                })
            }
            SrtpProfile::AEAD_AES_128_GCM => {
                let (mut key, mut salt) = ([0; 16], [0; 12]);
                derive(0, &mut key);
                derive(2, &mut salt);
                Some(Self::Gcm128(srtp.aead_aes_128_gcm().create_cipher(key, seals), salt))
            }
            SrtpProfile::AEAD_AES_256_GCM => {
                let (mut key, mut salt) = ([0; 32], [0; 12]);
                derive(0, &mut key);
                derive(2, &mut salt);
                Some(Self::Gcm256(srtp.aead_aes_256_gcm().create_cipher(key, seals), salt))
            }
            _ => None,
        }
    }
}

/// RFC 3711 §4.3.3: AES in counter mode over the salt with the label in it. A salt of 12 bytes stands as if it ended in two
/// zero bytes (RFC 7714 §11).
fn derive(crypto: &CryptoProvider, master: &[u8], master_salt: &[u8], label: u8, out: &mut [u8]) {
    let mut block = [0; 16];
    for (to, from) in block.iter_mut().zip(master_salt) {
        *to = *from;
    }
    block[7] ^= label;
    for (counter, chunk) in (0u8..).zip(out.chunks_mut(16)) {
        block[15] = counter;
        // str0m's provider pads, so its output is one block longer.
        let mut round = [0; 32];
        match master.len() {
            32 => crypto.srtp_provider.srtp_aes_256_ecb_round(master, &block, &mut round),
            _ => crypto.srtp_provider.srtp_aes_128_ecb_round(master, &block, &mut round),
        }
        for (to, from) in chunk.iter_mut().zip(round) {
            *to = from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exported(profile: SrtpProfile, active: bool) -> Exported {
        Exported {
            material: (0..88).collect(),
            profile,
            active,
        }
    }

    /// RFC 3711 appendix B.3.
    #[test]
    fn keys_are_derived_as_the_standard_does() {
        let crypto = str0m::crypto::from_feature_flags();
        let master = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
        let salt = hex("0EC675AD498AFEEBB6960B3AABE6");
        let mut key = [0; 16];
        derive(&crypto, &master, &salt, 0, &mut key);
        assert_eq!(key.as_slice(), hex("C61E7A93744F39EE10734AFE3FF7A087"));
        let mut session_salt = [0; 14];
        derive(&crypto, &master, &salt, 2, &mut session_salt);
        assert_eq!(session_salt.as_slice(), hex("30CBBC08863D8C85D49DB34A9AE1"));
        let mut authentication = [0; 20];
        derive(&crypto, &master, &salt, 1, &mut authentication);
        assert_eq!(authentication[..16], hex("CEBE321F6FF7716B6FD4AB49AF256A15"));
    }

    #[test]
    fn what_one_end_seals_the_other_opens_in_every_profile() {
        let crypto = str0m::crypto::from_feature_flags();
        for profile in [
            SrtpProfile::AES128_CM_SHA1_80,
            SrtpProfile::AEAD_AES_128_GCM,
            SrtpProfile::AEAD_AES_256_GCM,
        ] {
            let mut one = Session::new(&crypto, &exported(profile, true)).expect("keys");
            let mut other = Session::new(&crypto, &exported(profile, false)).expect("keys");
            let clear: Vec<u8> = [0x80, 201, 0, 7, 0, 0, 0, 9].into_iter().chain(1..=24).collect();
            for _ in 0..2 {
                let mut sealed = one.seal_rtcp(&clear).expect("sealed").to_vec();
                assert_eq!(other.open_rtcp(&sealed), Some(clear.as_slice()), "{profile:?}");
                assert_ne!(sealed[8..24], clear[8..24]);
                sealed[12] ^= 1;
                assert_eq!(other.open_rtcp(&sealed), None, "{profile:?}");
            }
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        text.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("hex"))
            .collect()
    }
}
