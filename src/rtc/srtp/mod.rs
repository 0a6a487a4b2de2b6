//! SRTP and SRTCP (RFC 3711, RFC 7714), in place, on kept keys.
//!
//! Owns the session keys of one transport and its packet indices: [`SealContext`] for what is sent, [`OpenContext`] for
//! what is received. Driven by the transport per packet; allocates only when a new SSRC appears. Never sees a mid, a
//! payload type or a socket.

mod cm;
mod gcm;
mod kdf;
mod replay;

#[cfg(test)]
pub(super) mod tests;

use aws_lc_rs::error::Unspecified;

use crate::types::{DropReason, DtlsRole, SrtpProfile};
use cm::Cm;
use gcm::Gcm;
use replay::{ReplayWindow, SsrcTable};

/// The most bytes that sealing adds: the tag of GCM and the index of SRTCP.
pub const SEAL_OVERHEAD: usize = gcm::TAG + SRTCP_INDEX;

/// E flag and index behind an SRTCP packet, RFC 3711 §3.4.
const SRTCP_INDEX: usize = 4;
const SRTCP_ENCRYPTED: u32 = 1 << 31;
/// RFC 3711 §3.4: header and sender SSRC stay in the clear.
const RTCP_CLEAR: usize = 8;
const RTP_FIXED_HEADER: usize = 12;

/// Receiving contexts per transport, RTP and RTCP each: 80 tracks of three layers with retransmission would fit half
/// of them. 160 bytes each, made only for authenticated packets; the least recently used makes room.
const MAX_RECEIVED_SSRCS: usize = 512;
/// Sending SSRCs whose highest index is remembered; ours to choose, so the bound only stops a leak. 32 bytes each.
const MAX_SENT_SSRCS: usize = 4096;
/// A resent packet is at most this far behind the newest of its SSRC: half the sequence space, past which a sequence
/// number would mean another rollover.
const MAX_RESEND_DISTANCE: u64 = 0x8000;

/// The master keys of both directions, as DTLS exports them (RFC 5764 §4.2).
pub struct SrtpKeys {
    profile: SrtpProfile,
    client: Master,
    server: Master,
}

struct Master {
    key: Vec<u8>,
    salt: Vec<u8>,
}

impl SrtpKeys {
    /// `material` = client key, server key, client salt, server salt. None when its length does not fit the profile.
    pub fn new(profile: SrtpProfile, material: &[u8]) -> Option<Self> {
        let (key, salt) = match profile {
            SrtpProfile::AeadAes128Gcm => (16, gcm::SALT),
            SrtpProfile::AeadAes256Gcm => (32, gcm::SALT),
            SrtpProfile::Aes128CmHmacSha1_80 => (16, cm::SALT),
        };
        if material.len() != 2 * (key + salt) {
            return None;
        }
        let (client_key, rest) = material.split_at_checked(key)?;
        let (server_key, rest) = rest.split_at_checked(key)?;
        let (client_salt, server_salt) = rest.split_at_checked(salt)?;
        let master = |key: &[u8], salt: &[u8]| Master {
            key: key.to_vec(),
            salt: salt.to_vec(),
        };
        Some(Self {
            profile,
            client: master(client_key, client_salt),
            server: master(server_key, server_salt),
        })
    }

    pub fn profile(&self) -> SrtpProfile {
        self.profile
    }

    /// What we send with and receive with, as the given DTLS role. Errors when the provider refuses a key.
    pub fn contexts(&self, role: DtlsRole) -> Result<(SealContext, OpenContext), Unspecified> {
        let (ours, theirs) = match role {
            DtlsRole::Active => (&self.client, &self.server),
            DtlsRole::Passive => (&self.server, &self.client),
        };
        Ok((
            SealContext::new(Suite::pair(self.profile, ours)?),
            OpenContext::new(Suite::pair(self.profile, theirs)?),
        ))
    }
}

/// One session key with the transform that uses it.
enum Suite {
    Gcm(Box<Gcm>),
    Cm(Box<Cm>),
}

impl Suite {
    /// For RTP and for RTCP.
    fn pair(profile: SrtpProfile, master: &Master) -> Result<(Self, Self), Unspecified> {
        Ok((
            Self::new(profile, master, 0)?,
            Self::new(profile, master, kdf::SRTCP_LABELS)?,
        ))
    }

    fn new(profile: SrtpProfile, master: &Master, labels: u8) -> Result<Self, Unspecified> {
        let derive = |label: u8, out: &mut [u8]| kdf::derive(&master.key, &master.salt, labels + label, out);
        let mut key = [0u8; 32];
        let key = key.get_mut(..master.key.len()).ok_or(Unspecified)?;
        derive(kdf::LABEL_ENCRYPTION, key)?;
        match profile {
            SrtpProfile::AeadAes128Gcm | SrtpProfile::AeadAes256Gcm => {
                let mut salt = [0u8; gcm::SALT];
                derive(kdf::LABEL_SALT, &mut salt)?;
                Ok(Self::Gcm(Box::new(Gcm::new(key, salt)?)))
            }
            SrtpProfile::Aes128CmHmacSha1_80 => {
                let mut salt = [0u8; cm::SALT];
                derive(kdf::LABEL_SALT, &mut salt)?;
                let mut authentication = [0u8; cm::AUTHENTICATION_KEY];
                derive(kdf::LABEL_AUTHENTICATION, &mut authentication)?;
                Ok(Self::Cm(Box::new(Cm::new(key, salt, &authentication)?)))
            }
        }
    }

    fn tag(&self) -> usize {
        match self {
            Self::Gcm(_) => gcm::TAG,
            Self::Cm(_) => cm::TAG,
        }
    }
}

/// Seals what we send.
pub struct SealContext {
    rtp: Suite,
    rtcp: Suite,
    /// The index of the next SRTCP packet. One counter for all our SSRCs: each sees it rise, which is all RFC 3711
    /// §3.2.1 needs.
    rtcp_index: u32,
    /// The highest index sealed, by SSRC.
    highest: SsrcTable<u64>,
}

impl SealContext {
    fn new((rtp, rtcp): (Suite, Suite)) -> Self {
        Self {
            rtp,
            rtcp,
            rtcp_index: 0,
            highest: SsrcTable::new(MAX_SENT_SSRCS),
        }
    }

    /// See `Transport::seal_rtp`.
    pub fn seal_rtp(&mut self, buf: &mut [u8], header_len: usize, len: usize, roc: u32) -> Result<usize, DropReason> {
        let sequence = u16_at(buf, 2).ok_or(DropReason::Malformed)?;
        let ssrc = u32_at(buf, 8).ok_or(DropReason::Malformed)?;
        let index = (u64::from(roc) << 16) | u64::from(sequence);
        if header_len < RTP_FIXED_HEADER || header_len > len {
            return Err(DropReason::Malformed);
        }
        let sealed = len + self.rtp.tag();
        let packet = buf.get_mut(..sealed).ok_or(DropReason::TooLarge)?;
        match self.highest.find(ssrc) {
            // Half the sequence space back is no resend: it is a second sender, or one that started again.
            Some(highest) if index + MAX_RESEND_DISTANCE <= *highest => return Err(DropReason::TooOld),
            Some(highest) => *highest = index.max(*highest),
            None => self.highest.insert(ssrc, index),
        }
        match &self.rtp {
            Suite::Gcm(gcm) => {
                let (header, rest) = split(packet, header_len)?;
                let (payload, tag) = split(rest, len - header_len)?;
                gcm.seal(gcm.rtp_nonce(ssrc, index), header, payload, tag)?;
            }
            Suite::Cm(cm) => {
                let (portion, tag) = split(packet, len)?;
                cm.crypt(ssrc, index, portion.get_mut(header_len..).ok_or(DropReason::Malformed)?)?;
                tag.copy_from_slice(&cm.tag(portion, &roc.to_be_bytes()));
            }
        }
        Ok(sealed)
    }

    /// See `Transport::seal_rtcp`.
    pub fn seal_rtcp(&mut self, buf: &mut [u8], len: usize) -> Result<usize, DropReason> {
        let ssrc = u32_at(buf, 4).ok_or(DropReason::Malformed)?;
        if len < RTCP_CLEAR {
            return Err(DropReason::Malformed);
        }
        // RFC 3711 §9.2: after 2^31 packets the key is spent. At 100 a second that is eight months.
        let index = self.rtcp_index;
        if index >= SRTCP_ENCRYPTED {
            return Err(DropReason::NoKeys);
        }
        let sealed = len + self.rtcp.tag() + SRTCP_INDEX;
        let packet = buf.get_mut(..sealed).ok_or(DropReason::TooLarge)?;
        self.rtcp_index = index + 1;
        let word = (index | SRTCP_ENCRYPTED).to_be_bytes();
        match &self.rtcp {
            // RFC 7714 §9.2: header, ciphertext, tag, index.
            Suite::Gcm(gcm) => {
                let (header, rest) = split(packet, RTCP_CLEAR)?;
                let (payload, rest) = split(rest, len - RTCP_CLEAR)?;
                let (tag, trailer) = split(rest, gcm::TAG)?;
                let aad = rtcp_aad(header, word)?;
                gcm.seal(gcm.rtcp_nonce(ssrc, index), &aad, payload, tag)?;
                trailer.copy_from_slice(&word);
            }
            // RFC 3711 §3.4: header, ciphertext, index, tag.
            Suite::Cm(cm) => {
                let (portion, tag) = split(packet, len + SRTCP_INDEX)?;
                let (body, trailer) = split(portion, len)?;
                cm.crypt(
                    ssrc,
                    index.into(),
                    body.get_mut(RTCP_CLEAR..).ok_or(DropReason::Malformed)?,
                )?;
                trailer.copy_from_slice(&word);
                tag.copy_from_slice(&cm.tag(portion, &[]));
            }
        }
        Ok(sealed)
    }
}

/// Opens what we receive.
pub struct OpenContext {
    rtp: Suite,
    rtcp: Suite,
    rtp_windows: SsrcTable<ReplayWindow>,
    rtcp_windows: SsrcTable<ReplayWindow>,
}

impl OpenContext {
    fn new((rtp, rtcp): (Suite, Suite)) -> Self {
        Self {
            rtp,
            rtcp,
            rtp_windows: SsrcTable::new(MAX_RECEIVED_SSRCS),
            rtcp_windows: SsrcTable::new(MAX_RECEIVED_SSRCS),
        }
    }

    /// Opens in place; the length of the cleartext packet, which starts where the sealed one did. After an error the
    /// content of `packet` is worthless, but no state has changed.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<usize, DropReason> {
        let header_len = rtp_header_len(packet)?;
        let sequence = u16_at(packet, 2).ok_or(DropReason::Truncated)?;
        let ssrc = u32_at(packet, 8).ok_or(DropReason::Truncated)?;
        let len = packet.len().checked_sub(self.rtp.tag()).ok_or(DropReason::Truncated)?;
        if len < header_len {
            return Err(DropReason::Truncated);
        }

        // Estimate, verify, commit (RFC 3711 §3.3): a packet that fails leaves the rollover counter alone.
        let window = self.rtp_windows.find(ssrc);
        let index = match &window {
            Some(window) => {
                let index = window.estimate(sequence)?;
                window.check(index)?;
                index
            }
            None => u64::from(sequence),
        };
        match &self.rtp {
            Suite::Gcm(gcm) => {
                let (header, sealed) = split(packet, header_len)?;
                gcm.open(gcm.rtp_nonce(ssrc, index), header, sealed)?;
            }
            Suite::Cm(cm) => {
                let (portion, tag) = split(packet, len)?;
                cm.verify(portion, &((index >> 16) as u32).to_be_bytes(), tag)?;
                cm.crypt(ssrc, index, portion.get_mut(header_len..).ok_or(DropReason::Truncated)?)?;
            }
        }
        match window {
            Some(window) => window.commit(index),
            None => self.rtp_windows.insert(ssrc, ReplayWindow::new(index)),
        }
        Ok(len)
    }

    /// As `open_rtp`, for a compound packet. Refuses packets that are authenticated but not encrypted.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, DropReason> {
        let ssrc = u32_at(packet, 4).ok_or(DropReason::Truncated)?;
        let len = packet
            .len()
            .checked_sub(self.rtcp.tag() + SRTCP_INDEX)
            .ok_or(DropReason::Truncated)?;
        if len < RTCP_CLEAR {
            return Err(DropReason::Truncated);
        }
        let word = match &self.rtcp {
            Suite::Gcm(_) => u32_at(packet, packet.len() - SRTCP_INDEX),
            Suite::Cm(_) => u32_at(packet, len),
        };
        let word = word.ok_or(DropReason::Truncated)?;
        if word & SRTCP_ENCRYPTED == 0 {
            return Err(DropReason::Malformed);
        }
        let index = u64::from(word & !SRTCP_ENCRYPTED);

        let window = self.rtcp_windows.find(ssrc);
        if let Some(window) = &window {
            window.check(index)?;
        }
        match &self.rtcp {
            Suite::Gcm(gcm) => {
                let (header, rest) = split(packet, RTCP_CLEAR)?;
                let (sealed, _) = split(rest, len - RTCP_CLEAR + gcm::TAG)?;
                let aad = rtcp_aad(header, word.to_be_bytes())?;
                gcm.open(gcm.rtcp_nonce(ssrc, index as u32), &aad, sealed)?;
            }
            Suite::Cm(cm) => {
                let (portion, tag) = split(packet, len + SRTCP_INDEX)?;
                cm.verify(portion, &[], tag)?;
                cm.crypt(
                    ssrc,
                    index,
                    portion.get_mut(RTCP_CLEAR..len).ok_or(DropReason::Truncated)?,
                )?;
            }
        }
        match window {
            Some(window) => window.commit(index),
            None => self.rtcp_windows.insert(ssrc, ReplayWindow::new(index)),
        }
        Ok(len)
    }
}

/// RFC 7714 §9.2: header and SSRC, then E flag and index.
fn rtcp_aad(header: &[u8], word: [u8; SRTCP_INDEX]) -> Result<[u8; RTCP_CLEAR + SRTCP_INDEX], DropReason> {
    let mut aad = [0u8; RTCP_CLEAR + SRTCP_INDEX];
    let (head, tail) = aad.split_at_mut_checked(RTCP_CLEAR).ok_or(DropReason::Malformed)?;
    if header.len() != RTCP_CLEAR {
        return Err(DropReason::Malformed);
    }
    head.copy_from_slice(header);
    tail.copy_from_slice(&word);
    Ok(aad)
}

/// What stays in the clear: fixed header, CSRCs and the extension block (RFC 3550 §5.1, §5.3.1).
fn rtp_header_len(packet: &[u8]) -> Result<usize, DropReason> {
    let first = *packet.first().ok_or(DropReason::Truncated)?;
    let mut len = RTP_FIXED_HEADER + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let words = u16_at(packet, len + 2).ok_or(DropReason::Truncated)?;
        len += 4 + 4 * usize::from(words);
    }
    Ok(len)
}

fn split(bytes: &mut [u8], at: usize) -> Result<(&mut [u8], &mut [u8]), DropReason> {
    bytes.split_at_mut_checked(at).ok_or(DropReason::Truncated)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
