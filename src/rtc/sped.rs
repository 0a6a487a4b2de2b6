//! SPED (draft-hancke-webrtc-sped-00): DTLS handshake records ride on connectivity checks and their answers, so that the
//! handshake need not wait for ICE: a round trip less.
//!
//! Owns the records of our flight that the peer has not acknowledged, and the checksums of those we have seen. Driven by the
//! transport, which knows which STUN message is authentic. Never looks into a record, keeps no time: what is lost comes again
//! with the next check, or by DTLS's own timer on the path that it would take anyway.

use aws_lc_rs::hmac;

use super::classify::{PacketKind, classify};
use crate::types::NetPath;

/// A record, and the checksums of records (CRC-32, 4 bytes each, network order) that the sender has seen.
const DATA: u16 = 0xc070;
const ACKS: u16 = 0xc071;
/// RFC 8489 §14.5 and §14.7.
const MESSAGE_INTEGRITY: u16 = 0x0008;
const FINGERPRINT: u16 = 0x8028;
const FINGERPRINT_MASK: u32 = 0x5354_554e;
/// RFC 8489 §5: header, and what an integrity or a fingerprint attribute takes.
const HEADER: usize = 20;
const INTEGRITY_LENGTH: usize = 24;
const FINGERPRINT_LENGTH: usize = 8;
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];

/// What libwebrtc says at most in one message; the oldest goes.
const MAX_SEEN: usize = 4;
/// Records of one flight: a server's is two, a client's with a certificate chain hardly more than four. Further ones go by
/// themselves.
const MAX_PENDING: usize = 8;
/// With a check of some 120 bytes around it a record stays below 1200 bytes. libwebrtc makes its own for 900.
const MAX_EMBEDDED: usize = 1000;
/// DTLS record types (RFC 6347 §4.1) that make a handshake.
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;

/// What a STUN message brings, as far as its integrity covers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Embedded<'a> {
    pub(super) data: Option<&'a [u8]>,
    pub(super) acks: Option<&'a [u8]>,
}

/// Which password a message of ours is proven with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// A request: the peer's.
    Theirs,
    /// A response: our own.
    Ours,
}

#[derive(Debug)]
struct Record {
    checksum: u32,
    bytes: Vec<u8>,
    path: NetPath,
    has_left: bool,
}

/// One side of the embedding, from the description that agrees to it until the peer has our last flight.
#[derive(Debug, Default)]
pub(super) struct Sped {
    seen: Vec<u32>,
    pending: Vec<Record>,
    /// Which of `pending` goes next.
    next: usize,
    /// The flight under way is still being written.
    is_writing: bool,
    /// The peer has shown that it does this too.
    confirmed: bool,
}

/// The peer does not do it, whatever its description says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsupported;

impl Sped {
    /// Takes in what an authentic message brought; the record in it goes to DTLS as if it had come by itself.
    ///
    /// # Errors
    /// A first message without either attribute: from then on handshakes go by themselves.
    pub(super) fn handle<'a>(&mut self, embedded: Embedded<'a>) -> Result<Option<&'a [u8]>, Unsupported> {
        if !self.confirmed && embedded == Embedded::default() {
            return Err(Unsupported);
        }
        self.confirmed = true;
        for ack in embedded.acks.unwrap_or_default().chunks_exact(4).take(MAX_SEEN) {
            let ack = u32::from_be_bytes(ack.try_into().unwrap_or_default());
            self.pending.retain(|record| record.checksum != ack);
        }
        let record = embedded.data.filter(|data| classify(data) == Ok(PacketKind::Dtls));
        if let Some(record) = record {
            self.note(record);
        }
        Ok(record)
    }

    /// A record that came, in whatever way.
    pub(super) fn note(&mut self, record: &[u8]) {
        let checksum = crc32(record);
        if !self.seen.contains(&checksum) {
            if self.seen.len() >= MAX_SEEN {
                self.seen.remove(0);
            }
            self.seen.push(checksum);
        }
    }

    /// Another input: what DTLS writes after it is a new flight.
    pub(super) fn begin(&mut self) {
        self.is_writing = false;
    }

    /// Takes a datagram that DTLS wants sent, if it is of a handshake and fits; it leaves by `embed` or `poll_alone`.
    pub(super) fn capture(&mut self, path: NetPath, datagram: &[u8]) -> bool {
        let is_handshake = matches!(datagram.first(), Some(&(CHANGE_CIPHER_SPEC | HANDSHAKE)));
        if !is_handshake {
            return false;
        }
        if !self.is_writing {
            self.is_writing = true;
            self.pending.clear();
            self.next = 0;
        }
        if datagram.len() > MAX_EMBEDDED || self.pending.len() >= MAX_PENDING {
            return false;
        }
        self.pending.push(Record {
            checksum: crc32(datagram),
            bytes: datagram.to_vec(),
            path,
            has_left: false,
        });
        true
    }

    /// The peer has everything that was captured.
    pub(super) fn is_drained(&self) -> bool {
        self.pending.is_empty()
    }

    /// Puts the next record, and what was seen, into a connectivity check or an answer to one. `password` is that which the
    /// message's integrity is made with.
    pub(super) fn embed(&mut self, message: &mut Vec<u8>, password: &str) {
        let Some(end) = integrity_at(message) else { return };
        message.truncate(end);
        self.is_writing = false;
        // Those that have not left at all first, then round and round.
        let fresh = self.pending.iter().position(|record| !record.has_left);
        let at = fresh.unwrap_or(self.next % self.pending.len().max(1));
        if let Some(record) = self.pending.get_mut(at) {
            record.has_left = true;
            push_attribute(message, DATA, &record.bytes);
            self.next = (at + 1) % self.pending.len();
        }
        let seen: Vec<u8> = self.seen.iter().flat_map(|checksum| checksum.to_be_bytes()).collect();
        push_attribute(message, ACKS, &seen);
        seal(message, password);
    }

    /// What has not found a message to ride on. To be asked when all messages have left.
    pub(super) fn poll_alone(&mut self) -> Option<(NetPath, Vec<u8>)> {
        let record = self.pending.iter_mut().find(|record| !record.has_left)?;
        record.has_left = true;
        Some((record.path, record.bytes.clone()))
    }
}

/// Which password proves a message that carries records; None = not one of those.
pub(super) fn proof(message: &[u8]) -> Option<Proof> {
    match message.first_chunk::<2>() {
        Some(&BINDING_REQUEST) => Some(Proof::Theirs),
        Some(&BINDING_SUCCESS) => Some(Proof::Ours),
        _ => None,
    }
}

/// What a binding request or response brings; None for any other message. Its integrity must have been checked: only what
/// stands before that attribute counts.
pub(super) fn read(message: &[u8]) -> Option<Embedded<'_>> {
    proof(message)?;
    let mut embedded = Embedded::default();
    for (_, kind, value) in attributes(message) {
        match kind {
            DATA => embedded.data = Some(value),
            ACKS => embedded.acks = Some(value),
            MESSAGE_INTEGRITY => return Some(embedded),
            _ => {}
        }
    }
    None
}

fn integrity_at(message: &[u8]) -> Option<usize> {
    let mut all = attributes(message);
    all.find(|(_, kind, _)| *kind == MESSAGE_INTEGRITY).map(|(at, ..)| at)
}

/// Where each attribute begins, its type and its value (RFC 8489 §14). Ends at the first that does not fit.
fn attributes(message: &[u8]) -> impl Iterator<Item = (usize, u16, &[u8])> {
    let mut at = HEADER;
    std::iter::from_fn(move || {
        let (head, rest) = message.get(at..)?.split_first_chunk::<4>()?;
        let [a, b, c, d] = *head;
        let length = usize::from(u16::from_be_bytes([c, d]));
        let value = rest.get(..length)?;
        let begins = at;
        at += 4 + length.next_multiple_of(4);
        Some((begins, u16::from_be_bytes([a, b]), value))
    })
}

fn push_attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(kind.to_be_bytes());
    message.extend(u16::try_from(value.len()).unwrap_or_default().to_be_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// Integrity and fingerprint behind everything else, each made with a length that ends with itself (RFC 8489 §14.5, §14.7).
fn seal(message: &mut Vec<u8>, password: &str) {
    set_length(message, INTEGRITY_LENGTH);
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let tag = hmac::sign(&key, message);
    push_attribute(message, MESSAGE_INTEGRITY, tag.as_ref());
    set_length(message, FINGERPRINT_LENGTH);
    let fingerprint = crc32(message) ^ FINGERPRINT_MASK;
    push_attribute(message, FINGERPRINT, &fingerprint.to_be_bytes());
}

/// As if `more` bytes were there already.
fn set_length(message: &mut [u8], more: usize) {
    let length = u16::try_from(message.len() - HEADER + more).unwrap_or_default();
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// CRC-32 (ISO 3309), as STUN's fingerprint and zip have it.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests;
