//! Writes responses: no SOFTWARE, no reason phrases, so that an answer is hardly longer than its question.

use std::net::{IpAddr, SocketAddr};

use stun_types::attribute::{AttributeType, RawAttribute, XorSocketAddr};
use stun_types::message::{
    IntegrityAlgorithm, IntegrityKey, Message, MessageClass, MessageType, MessageWrite, MessageWriteExt,
    MessageWriteMutSlice, TransactionId,
};

use super::attributes::{
    ADDRESS_ERROR_CODE, ERROR_CODE, LIFETIME, NONCE, REALM, UNKNOWN_ATTRIBUTES, XOR_MAPPED_ADDRESS, XOR_RELAYED_ADDRESS,
};

/// Longer than any response: two relayed IPv6 addresses, a mapped one, realm, nonce, integrity.
const MAX_REPLY: usize = 512;

/// The value of ERROR-CODE that a request is answered with, and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Code(u16),
    /// 420, with the attributes that were not understood.
    UnknownAttributes(Vec<u16>),
}

/// The success of one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Success {
    pub(super) mapped: Option<SocketAddr>,
    pub(super) relayed: Vec<SocketAddr>,
    /// Seconds.
    pub(super) lifetime: Option<u32>,
    /// ADDITIONAL-ADDRESS-FAMILY could not be had.
    pub(super) without_ipv6: bool,
}

/// A challenge: what a client needs to sign its next request.
pub(super) struct Challenge<'a> {
    pub(super) realm: &'a str,
    pub(super) nonce: &'a str,
}

pub(super) fn success(request: &Message<'_>, success: &Success, key: Option<&IntegrityKey>) -> Vec<u8> {
    build(request, MessageClass::Success, key, |write| {
        let transaction = request.transaction_id();
        for relayed in &success.relayed {
            put_address(write, XOR_RELAYED_ADDRESS, *relayed, transaction);
        }
        if success.without_ipv6 {
            put(write, ADDRESS_ERROR_CODE, &[2, 0, 4, 40]); // IPv6: 440
        }
        if let Some(lifetime) = success.lifetime {
            put(write, LIFETIME, &lifetime.to_be_bytes());
        }
        if let Some(mapped) = success.mapped {
            put_address(write, XOR_MAPPED_ADDRESS, mapped, transaction);
        }
    })
}

pub(super) fn failure(
    request: &Message<'_>,
    failure: &Failure,
    challenge: Option<Challenge<'_>>,
    key: Option<&IntegrityKey>,
) -> Vec<u8> {
    let (code, unknown) = match failure {
        Failure::Code(code) => (*code, &[][..]),
        Failure::UnknownAttributes(unknown) => (420, unknown.as_slice()),
    };
    build(request, MessageClass::Error, key, |write| {
        put(write, ERROR_CODE, &[0, 0, (code / 100) as u8, (code % 100) as u8]);
        if !unknown.is_empty() {
            let kinds: Vec<u8> = unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
            put(write, UNKNOWN_ATTRIBUTES, &kinds);
        }
        if let Some(challenge) = challenge {
            put(write, REALM, challenge.realm.as_bytes());
            put(write, NONCE, challenge.nonce.as_bytes());
        }
    })
}

fn build(
    request: &Message<'_>,
    class: MessageClass,
    key: Option<&IntegrityKey>,
    fill: impl FnOnce(&mut MessageWriteMutSlice<'_>),
) -> Vec<u8> {
    let mut buffer = [0; MAX_REPLY];
    let kind = MessageType::from_class_method(class, request.method());
    let mut write = Message::builder(kind, request.transaction_id(), MessageWriteMutSlice::new(&mut buffer));
    fill(&mut write);
    if let Some(key) = key {
        // Fails only for want of room, of which there is plenty.
        let _ = write.add_message_integrity_with_key(key, IntegrityAlgorithm::Sha1);
    }
    let length = write.finish();
    buffer.get(..length).unwrap_or_default().to_vec()
}

fn put(write: &mut MessageWriteMutSlice<'_>, kind: u16, value: &[u8]) {
    // Fails only for want of room.
    let _ = write.add_attribute(&RawAttribute::new(AttributeType::new(kind), value));
}

fn put_address(write: &mut MessageWriteMutSlice<'_>, kind: u16, address: SocketAddr, transaction: TransactionId) {
    let value = XorSocketAddr::new(address, transaction);
    let _ = write.add_attribute(&value.to_raw(AttributeType::new(kind)));
}

/// RFC 8656 §18.8: what REQUESTED-ADDRESS-FAMILY calls an address of this kind.
pub(super) fn is_of_family(ip: IpAddr, family: u8) -> bool {
    match family {
        1 => ip.is_ipv4(),
        2 => ip.is_ipv6(),
        _ => false,
    }
}
