//! The envelope of a `livekit.DataPacket`: what forwarding must know, read from the encoded bytes in place.
//!
//! Owns one scan over the top level (and over `user`, whose fields address receivers) without allocation or decoding of
//! payloads, and the writer that puts the sender's true name on a packet. Driven by `media::data` on the packet path;
//! decides nothing about rights or receivers.

use std::ops::ControlFlow;

/// The largest packet that is read, in bytes: what a data channel of ours carries. It bounds every scan too.
pub const MAX_PACKET: usize = 65_535;

/// `UserPacket.nonce` of this length is a duplicate check; any other length is ignored.
pub const NONCE_LEN: usize = 16;

/// Field numbers of `DataPacket`.
mod packet {
    pub(super) const KIND: u32 = 1;
    pub(super) const PARTICIPANT_IDENTITY: u32 = 4;
    pub(super) const DESTINATION_IDENTITIES: u32 = 5;
    pub(super) const SEQUENCE: u32 = 16;
    pub(super) const PARTICIPANT_SID: u32 = 17;
}

/// Field numbers of `UserPacket`.
mod user {
    pub(super) const PARTICIPANT_SID: u32 = 1;
    pub(super) const PAYLOAD: u32 = 2;
    pub(super) const DESTINATION_SIDS: u32 = 3;
    pub(super) const PARTICIPANT_IDENTITY: u32 = 5;
    pub(super) const DESTINATION_IDENTITIES: u32 = 6;
    pub(super) const NONCE: u32 = 11;
}

/// `ChatMessage.generated`, `DataStream.Header.text_header` and `DataStream.TextHeader.generated`.
const CHAT_GENERATED: u32 = 6;
const STREAM_TEXT_HEADER: u32 = 9;
const STREAM_BYTE_HEADER: u32 = 10;
const TEXT_GENERATED: u32 = 5;
/// `DataStream.Header.total_length`.
const STREAM_LENGTH: u32 = 5;

/// What the header of a data stream says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHeader {
    pub is_text: bool,
    /// Bytes; None: the sender does not know yet.
    pub length: Option<u64>,
}

/// Which member of the `value` oneof a packet carries, with its field number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ValueKind {
    User = 2,
    Speaker = 3,
    SipDtmf = 6,
    Transcription = 7,
    Metrics = 8,
    ChatMessage = 9,
    RpcRequest = 10,
    RpcAck = 11,
    RpcResponse = 12,
    StreamHeader = 13,
    StreamChunk = 14,
    StreamTrailer = 15,
    EncryptedPacket = 18,
}

impl ValueKind {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            2 => Self::User,
            3 => Self::Speaker,
            6 => Self::SipDtmf,
            7 => Self::Transcription,
            8 => Self::Metrics,
            9 => Self::ChatMessage,
            10 => Self::RpcRequest,
            11 => Self::RpcAck,
            12 => Self::RpcResponse,
            13 => Self::StreamHeader,
            14 => Self::StreamChunk,
            15 => Self::StreamTrailer,
            18 => Self::EncryptedPacket,
            _ => return None,
        })
    }
}

/// Not a DataPacket that any receiver could read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("larger than a data packet may be")]
    TooLarge,
    #[error("not a protobuf encoding")]
    Malformed,
    /// More than one member of the oneof: readers disagree about which one counts.
    #[error("more than one value")]
    SeveralValues,
}

/// One scanned packet; borrows the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    packet: &'a [u8],
    value: Option<(ValueKind, &'a [u8])>,
    lossy: bool,
    sequence: u32,
    participant_identity: &'a str,
    nonce: Option<[u8; NONCE_LEN]>,
    packet_destinations: bool,
}

/// Who a packet says it is from, after stamping.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// `PA_…` of the sender's session.
    pub participant_sid: &'a str,
    /// Empty for a hidden sender. None keeps the identity in the packet and marks its content as generated (see
    /// `Envelope::on_behalf_of`).
    pub participant_identity: Option<&'a str>,
    /// By the channel it arrived on, whatever the packet says.
    pub lossy: bool,
    /// The sender is not shown: `user` names nobody either.
    pub hidden: bool,
}

impl<'a> Envelope<'a> {
    pub fn parse(packet: &'a [u8]) -> Result<Self, EnvelopeError> {
        if packet.len() > MAX_PACKET {
            return Err(EnvelopeError::TooLarge);
        }
        let mut envelope = Self {
            packet,
            value: None,
            lossy: false,
            sequence: 0,
            participant_identity: "",
            nonce: None,
            packet_destinations: false,
        };
        for field in Fields(packet) {
            let field = field?;
            match (field.number, field.value) {
                (packet::KIND, FieldValue::Varint(kind)) => envelope.lossy = kind == 1,
                (packet::SEQUENCE, FieldValue::Varint(sequence)) => envelope.sequence = sequence as u32,
                (packet::PARTICIPANT_IDENTITY, FieldValue::Bytes(text)) => envelope.participant_identity = utf8(text)?,
                (packet::PARTICIPANT_SID, FieldValue::Bytes(_)) => {}
                (packet::DESTINATION_IDENTITIES, FieldValue::Bytes(text)) => {
                    utf8(text)?;
                    envelope.packet_destinations = true;
                }
                (number, value) => {
                    let Some(kind) = ValueKind::from_number(number) else {
                        // Unknown to this version: copied as it is. A known number with another wire type is not ours.
                        if [1, 4, 5, 16, 17].contains(&number) {
                            return Err(EnvelopeError::Malformed);
                        }
                        continue;
                    };
                    let FieldValue::Bytes(bytes) = value else {
                        return Err(EnvelopeError::Malformed);
                    };
                    if envelope.value.replace((kind, bytes)).is_some() {
                        return Err(EnvelopeError::SeveralValues);
                    }
                }
            }
        }
        if let Some((ValueKind::User, bytes)) = envelope.value {
            envelope.nonce = scan_user(bytes)?;
        }
        Ok(envelope)
    }

    /// None when the oneof is empty or newer than this version.
    pub fn value(&self) -> Option<ValueKind> {
        self.value.map(|(kind, _)| kind)
    }

    /// What the packet says of itself; the channel it arrived on decides.
    pub fn lossy(&self) -> bool {
        self.lossy
    }

    /// Reliable packets of one sender count up from 1; 0 = not numbered.
    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    /// What the packet says of its sender; not to be believed.
    pub fn participant_identity(&self) -> &'a str {
        self.participant_identity
    }

    pub fn nonce(&self) -> Option<[u8; NONCE_LEN]> {
        self.nonce
    }

    /// Whether it names receivers at all; if not it is for everybody else in the room.
    pub fn is_addressed(&self) -> bool {
        self.destination_identities().next().is_some() || self.destination_sids().next().is_some()
    }

    /// `DataPacket.destination_identities`, or those of `user` where the packet has none (older clients).
    pub fn destination_identities(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let (fields, number) = if self.packet_destinations {
            (Fields(self.packet), packet::DESTINATION_IDENTITIES)
        } else {
            (Fields(self.user_bytes()), user::DESTINATION_IDENTITIES)
        };
        texts(fields, number)
    }

    /// `UserPacket.destination_sids`.
    pub fn destination_sids(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        texts(Fields(self.user_bytes()), user::DESTINATION_SIDS)
    }

    /// Of a packet that begins a data stream.
    pub fn stream(&self) -> Option<StreamHeader> {
        let Some((ValueKind::StreamHeader, header)) = self.value else {
            return None;
        };
        let lengths = Fields(header)
            .flatten()
            .filter_map(|field| match (field.number, field.value) {
                (STREAM_LENGTH, FieldValue::Varint(length)) => Some(length),
                _ => None,
            });
        Some(StreamHeader {
            is_text: is_text_stream(header),
            // The last of several counts.
            length: lengths.last(),
        })
    }

    /// The other identity that a chat message or the header of a text stream claims to come from. LiveKit lets an agent
    /// do that, and marks the content as generated.
    pub fn on_behalf_of(&self, sender_identity: &str) -> Option<&'a str> {
        let claimed = self.participant_identity;
        let content = match self.value? {
            (ValueKind::ChatMessage, _) => true,
            (ValueKind::StreamHeader, header) => is_text_stream(header),
            _ => false,
        };
        (content && !claimed.is_empty() && claimed != sender_identity).then_some(claimed)
    }

    /// Appends the packet with the sender's true name to `out`: `kind`, `participant_sid` and `participant_identity`
    /// replaced (inside `user` too), receivers copied between packet and `user`, everything else as it came.
    pub fn write_stamped(&self, stamp: Stamp<'_>, out: &mut Vec<u8>) {
        out.reserve(
            self.packet.len() + 2 * (stamp.participant_sid.len() + stamp.participant_identity.map_or(0, str::len)) + 64,
        );
        let identity = stamp.participant_identity.unwrap_or(self.participant_identity);
        if stamp.lossy {
            put_varint_field(out, packet::KIND, 1);
        }
        put_text(out, packet::PARTICIPANT_IDENTITY, identity);
        put_text(out, packet::PARTICIPANT_SID, stamp.participant_sid);
        if !self.packet_destinations {
            for destination in self.destination_identities() {
                put_bytes(out, packet::DESTINATION_IDENTITIES, destination.as_bytes());
            }
        }
        for field in Fields(self.packet).flatten() {
            match (field.number, self.value) {
                (packet::KIND | packet::PARTICIPANT_IDENTITY | packet::PARTICIPANT_SID, _) => {}
                (number, Some((kind, bytes))) if number == kind as u32 => {
                    self.write_value(kind, bytes, stamp, identity, out);
                }
                _ => out.extend_from_slice(field.raw),
            }
        }
    }

    fn write_value(&self, kind: ValueKind, bytes: &[u8], stamp: Stamp<'_>, identity: &str, out: &mut Vec<u8>) {
        let generated = stamp.participant_identity.is_none();
        match kind {
            ValueKind::User => put_nested(out, kind as u32, |out| {
                if !stamp.hidden {
                    put_text(out, user::PARTICIPANT_SID, stamp.participant_sid);
                    put_text(out, user::PARTICIPANT_IDENTITY, identity);
                }
                if self.packet_destinations {
                    for destination in self.destination_identities() {
                        put_bytes(out, user::DESTINATION_IDENTITIES, destination.as_bytes());
                    }
                }
                for field in Fields(bytes).flatten() {
                    let replaced = match field.number {
                        user::PARTICIPANT_SID | user::PARTICIPANT_IDENTITY => true,
                        user::DESTINATION_IDENTITIES => self.packet_destinations,
                        _ => false,
                    };
                    if !replaced {
                        out.extend_from_slice(field.raw);
                    }
                }
            }),
            ValueKind::ChatMessage if generated => put_nested(out, kind as u32, |out| {
                out.extend_from_slice(bytes);
                put_varint_field(out, CHAT_GENERATED, 1); // the last of several counts
            }),
            ValueKind::StreamHeader if generated => put_nested(out, kind as u32, |out| {
                let mut text_headers = [0_u8; 0].as_slice();
                let mut several = Vec::new();
                for field in Fields(bytes).flatten() {
                    match (field.number, field.value) {
                        (STREAM_TEXT_HEADER, FieldValue::Bytes(text)) => {
                            // Several are one message in pieces: protobuf joins them by concatenation.
                            several.extend_from_slice(text);
                            text_headers = &several;
                        }
                        _ => out.extend_from_slice(field.raw),
                    }
                }
                put_nested(out, STREAM_TEXT_HEADER, |out| {
                    out.extend_from_slice(text_headers);
                    put_varint_field(out, TEXT_GENERATED, 1);
                });
            }),
            _ => put_bytes(out, kind as u32, bytes),
        }
    }

    fn user_bytes(&self) -> &'a [u8] {
        match self.value {
            Some((ValueKind::User, bytes)) => bytes,
            _ => &[],
        }
    }
}

/// Appends `DataPacket { user { payload } }` from this sender to `out`: what a message on a channel of the client's own
/// becomes for receivers that know only LiveKit's channels.
pub fn write_user(payload: &[u8], stamp: Stamp<'_>, out: &mut Vec<u8>) {
    let identity = stamp.participant_identity.unwrap_or_default();
    out.reserve(payload.len() + 2 * (stamp.participant_sid.len() + identity.len()) + 64);
    if stamp.lossy {
        put_varint_field(out, packet::KIND, 1);
    }
    put_nested(out, ValueKind::User as u32, |out| {
        if !stamp.hidden {
            put_text(out, user::PARTICIPANT_SID, stamp.participant_sid);
            put_text(out, user::PARTICIPANT_IDENTITY, identity);
        }
        put_bytes(out, user::PAYLOAD, payload);
    });
    put_text(out, packet::PARTICIPANT_IDENTITY, identity);
    put_text(out, packet::PARTICIPANT_SID, stamp.participant_sid);
}

/// Checks every field of `user` that is read later, and returns the nonce.
fn scan_user(bytes: &[u8]) -> Result<Option<[u8; NONCE_LEN]>, EnvelopeError> {
    let mut nonce = None;
    for field in Fields(bytes) {
        let field = field?;
        match (field.number, field.value) {
            (user::DESTINATION_SIDS | user::DESTINATION_IDENTITIES, FieldValue::Bytes(text)) => {
                utf8(text)?;
            }
            (user::NONCE, FieldValue::Bytes(bytes)) => nonce = bytes.try_into().ok(),
            (1..=6, FieldValue::Bytes(_)) => {}
            (1..=6 | user::NONCE, _) => return Err(EnvelopeError::Malformed),
            _ => {}
        }
    }
    Ok(nonce)
}

/// Whether the `content_header` of a stream header is a text header; of several the last counts.
fn is_text_stream(header: &[u8]) -> bool {
    let mut text = false;
    let scan = Fields(header).try_for_each(|field| match field {
        Ok(Field {
            number: STREAM_TEXT_HEADER,
            value: FieldValue::Bytes(_),
            ..
        }) => {
            text = true;
            ControlFlow::Continue(())
        }
        // Both kinds in one header: readers disagree, so nobody speaks for others in it.
        Ok(Field {
            number: STREAM_BYTE_HEADER,
            ..
        })
        | Err(_) => ControlFlow::Break(()),
        Ok(_) => ControlFlow::Continue(()),
    });
    text && scan.is_continue()
}

fn texts(fields: Fields<'_>, number: u32) -> impl Iterator<Item = &str> {
    fields.flatten().filter_map(move |field| match field.value {
        FieldValue::Bytes(bytes) if field.number == number => std::str::from_utf8(bytes).ok(),
        _ => None,
    })
}

fn utf8(bytes: &[u8]) -> Result<&str, EnvelopeError> {
    std::str::from_utf8(bytes).map_err(|_| EnvelopeError::Malformed)
}

#[derive(Clone, Copy, Debug)]
struct Field<'a> {
    number: u32,
    value: FieldValue<'a>,
    /// Tag included: what is copied when the field is passed on.
    raw: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
enum FieldValue<'a> {
    Varint(u64),
    Fixed,
    Bytes(&'a [u8]),
}

/// The fields of one encoded message, without going deeper. Ends after the first error.
#[derive(Clone, Copy, Debug)]
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, EnvelopeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = read_field(self.0);
        self.0 = match field {
            Some((_, rest)) => rest,
            None => &[],
        };
        Some(field.map(|(field, _)| field).ok_or(EnvelopeError::Malformed))
    }
}

fn read_field(bytes: &[u8]) -> Option<(Field<'_>, &[u8])> {
    let (tag, rest) = read_varint(bytes)?;
    let number = u32::try_from(tag >> 3)
        .ok()
        .filter(|number| (1..1 << 29).contains(number))?;
    let (value, rest) = match tag & 7 {
        0 => read_varint(rest).map(|(value, rest)| (FieldValue::Varint(value), rest))?,
        1 => (FieldValue::Fixed, rest.get(8..)?),
        2 => {
            let (len, rest) = read_varint(rest)?;
            let (value, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
            (FieldValue::Bytes(value), rest)
        }
        5 => (FieldValue::Fixed, rest.get(4..)?),
        _ => return None, // groups: never used here, and they would need a depth limit
    };
    let raw = bytes.get(..bytes.len() - rest.len())?;
    Some((Field { number, value, raw }, rest))
}

/// At most ten bytes (protobuf encoding, base-128 varints).
fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32)?;
        if byte & 0x80 == 0 {
            // The tenth byte holds one bit.
            return (index < 9 || *byte <= 1).then_some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A default value is left out, as encoders do.
fn put_text(out: &mut Vec<u8>, number: u32, text: &str) {
    if !text.is_empty() {
        put_bytes(out, number, text.as_bytes());
    }
}

/// A message field whose length is known only once it is written: three bytes are kept for it, as a varint may be
/// longer than it needs to be. Three bytes hold 2 MiB, `MAX_PACKET` many times over.
fn put_nested(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    put_varint(out, u64::from(number) << 3 | 2);
    let start = out.len();
    out.extend_from_slice(&[0; 3]);
    write(out);
    let len = out.len() - start - 3;
    if let Some([low, middle, high]) = out.get_mut(start..start + 3) {
        *low = len as u8 | 0x80;
        *middle = (len >> 7) as u8 | 0x80;
        *high = (len >> 14) as u8 & 0x7f;
    }
}

#[cfg(test)]
mod tests;
