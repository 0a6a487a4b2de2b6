//! What TURN reads of a STUN message: its attributes up to the integrity check, each at most once.

use std::net::SocketAddr;

use stun_types::attribute::{AttributeType, RawAttribute, XorSocketAddr};
use stun_types::message::TransactionId;

pub(super) const HEADER: usize = 20;

pub(super) const USERNAME: u16 = 0x0006;
pub(super) const MESSAGE_INTEGRITY: u16 = 0x0008;
pub(super) const ERROR_CODE: u16 = 0x0009;
pub(super) const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
pub(super) const CHANNEL_NUMBER: u16 = 0x000c;
pub(super) const LIFETIME: u16 = 0x000d;
pub(super) const XOR_PEER_ADDRESS: u16 = 0x0012;
pub(super) const DATA: u16 = 0x0013;
pub(super) const REALM: u16 = 0x0014;
pub(super) const NONCE: u16 = 0x0015;
pub(super) const XOR_RELAYED_ADDRESS: u16 = 0x0016;
pub(super) const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
pub(super) const EVEN_PORT: u16 = 0x0018;
pub(super) const REQUESTED_TRANSPORT: u16 = 0x0019;
pub(super) const DONT_FRAGMENT: u16 = 0x001a;
pub(super) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
pub(super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
pub(super) const RESERVATION_TOKEN: u16 = 0x0022;
pub(super) const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
pub(super) const ADDRESS_ERROR_CODE: u16 = 0x8001;
/// ADDITIONAL-ADDRESS-FAMILY as the drafts of RFC 8656 numbered it, and coturn's client before 4.7 does.
const DRAFT_ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8032;

/// From here on an attribute that is not understood may be ignored (RFC 8489 §14).
const OPTIONAL: u16 = 0x8000;
/// Unknown attributes that a 420 names; further ones are known soon enough.
const MAX_UNKNOWN: usize = 8;
/// Peers that one CreatePermission may name: as many as an allocation may hold.
pub(super) const MAX_PEERS: usize = 16;

/// Values are as they came; the first of a kind counts.
#[derive(Default)]
pub(super) struct Attributes<'a> {
    pub(super) username: Option<&'a [u8]>,
    pub(super) realm: Option<&'a [u8]>,
    pub(super) nonce: Option<&'a [u8]>,
    pub(super) has_integrity: bool,
    pub(super) lifetime: Option<u32>,
    pub(super) requested_transport: Option<u8>,
    pub(super) requested_family: Option<u8>,
    pub(super) additional_family: Option<u8>,
    pub(super) even_port: Option<u8>,
    pub(super) reservation_token: bool,
    pub(super) channel: Option<u16>,
    pub(super) data: Option<&'a [u8]>,
    pub(super) peers: Vec<SocketAddr>,
    /// Of those that must be understood.
    pub(super) unknown: Vec<u16>,
    /// A value of the wrong length, or too many peers.
    pub(super) is_broken: bool,
}

impl<'a> Attributes<'a> {
    /// `message` has been parsed before. Nothing behind the integrity check is looked at: anyone on the way may have put it
    /// there (RFC 8489 §14.5).
    pub(super) fn read(message: &'a [u8], transaction: TransactionId) -> Self {
        let mut found = Self::default();
        for (kind, value) in iterate(message) {
            if matches!(kind, MESSAGE_INTEGRITY | MESSAGE_INTEGRITY_SHA256) {
                found.has_integrity = true;
                break;
            }
            found.take(kind, value, transaction);
        }
        found
    }

    fn take(&mut self, kind: u16, value: &'a [u8], transaction: TransactionId) {
        match kind {
            USERNAME => _ = self.username.get_or_insert(value),
            REALM => _ = self.realm.get_or_insert(value),
            NONCE => _ = self.nonce.get_or_insert(value),
            DATA => _ = self.data.get_or_insert(value),
            LIFETIME => match value.try_into() {
                Ok(bytes) => _ = self.lifetime.get_or_insert(u32::from_be_bytes(bytes)),
                Err(_) => self.is_broken = true,
            },
            CHANNEL_NUMBER => match value {
                [high, low, _, _] => _ = self.channel.get_or_insert(u16::from_be_bytes([*high, *low])),
                _ => self.is_broken = true,
            },
            REQUESTED_TRANSPORT
            | REQUESTED_ADDRESS_FAMILY
            | ADDITIONAL_ADDRESS_FAMILY
            | DRAFT_ADDITIONAL_ADDRESS_FAMILY => {
                let place = match kind {
                    REQUESTED_TRANSPORT => &mut self.requested_transport,
                    REQUESTED_ADDRESS_FAMILY => &mut self.requested_family,
                    _ => &mut self.additional_family,
                };
                match value {
                    [first, _, _, _] => _ = place.get_or_insert(*first),
                    _ => self.is_broken = true,
                }
            }
            EVEN_PORT => match value {
                [bits] => _ = self.even_port.get_or_insert(*bits),
                _ => self.is_broken = true,
            },
            RESERVATION_TOKEN => self.reservation_token = true,
            XOR_PEER_ADDRESS => {
                let raw = RawAttribute::new(AttributeType::new(XOR_PEER_ADDRESS), value);
                match XorSocketAddr::from_raw(&raw) {
                    Ok(peer) if self.peers.len() < MAX_PEERS => self.peers.push(peer.addr(transaction)),
                    _ => self.is_broken = true,
                }
            }
            DONT_FRAGMENT => {}
            kind if kind < OPTIONAL && self.unknown.len() < MAX_UNKNOWN => self.unknown.push(kind),
            _ => {}
        }
    }
}

/// RFC 8489 §14: type, length, value, padded to four bytes.
pub(super) fn iterate(message: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = message.get(HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (kind, behind) = rest.split_first_chunk::<2>()?;
        let (length, behind) = behind.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let value = behind.get(..length)?;
        rest = behind.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_be_bytes(*kind), value))
    })
}
