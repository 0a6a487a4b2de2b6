//! Data Channel Establishment Protocol messages (RFC 8832 §5): read with checks, written whole.

use crate::types::ChannelLabel;

const OPEN: u8 = 0x03;
const ACK: u8 = 0x02;
const OPEN_HEADER: usize = 12;
const UNORDERED: u8 = 0x80;

/// How a channel delivers (RFC 8832 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reliability {
    Reliable,
    /// Sent again at most so often.
    MaxRetransmits(u32),
    /// Sent again for at most so many milliseconds.
    MaxLifetime(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DcepMessage<'a> {
    Open {
        ordered: bool,
        reliability: Reliability,
        label: &'a [u8],
    },
    Ack,
}

impl<'a> DcepMessage<'a> {
    /// None when malformed or of a type that RFC 8832 does not know.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        match *bytes.first()? {
            ACK => Some(Self::Ack),
            OPEN => {
                let (header, rest) = bytes.split_at_checked(OPEN_HEADER)?;
                let channel_type = *header.get(1)?;
                let parameter = u32::from_be_bytes(header.get(4..8)?.try_into().ok()?);
                let label_len = usize::from(u16::from_be_bytes(header.get(8..10)?.try_into().ok()?));
                let protocol_len = usize::from(u16::from_be_bytes(header.get(10..12)?.try_into().ok()?));
                if rest.len() != label_len + protocol_len {
                    return None;
                }
                Some(Self::Open {
                    ordered: channel_type & UNORDERED == 0,
                    reliability: match channel_type & !UNORDERED {
                        0 => Reliability::Reliable,
                        1 => Reliability::MaxRetransmits(parameter),
                        2 => Reliability::MaxLifetime(parameter),
                        _ => return None,
                    },
                    label: rest.get(..label_len)?,
                })
            }
            _ => None,
        }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let Self::Open {
            ordered,
            reliability,
            label,
        } = self
        else {
            return vec![ACK];
        };
        let (channel_type, parameter) = match reliability {
            Reliability::Reliable => (0, 0),
            Reliability::MaxRetransmits(times) => (1, times),
            Reliability::MaxLifetime(milliseconds) => (2, milliseconds),
        };
        let mut bytes = Vec::with_capacity(OPEN_HEADER + label.len());
        bytes.push(OPEN);
        bytes.push(channel_type | if ordered { 0 } else { UNORDERED });
        // Priority: "normal" of RFC 8831 §6.4. Nobody reads it.
        bytes.extend_from_slice(&256u16.to_be_bytes());
        bytes.extend_from_slice(&parameter.to_be_bytes());
        bytes.extend_from_slice(&(label.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&0u16.to_be_bytes());
        bytes.extend_from_slice(label);
        bytes
    }
}

/// How LiveKit's channels are opened: `_reliable` ordered, the lossy two unordered and sent once.
pub(super) fn open_message(label: ChannelLabel) -> DcepMessage<'static> {
    let (ordered, reliability) = match label {
        ChannelLabel::Reliable => (true, Reliability::Reliable),
        ChannelLabel::Lossy | ChannelLabel::DataTrack => (false, Reliability::MaxRetransmits(0)),
    };
    DcepMessage::Open {
        ordered,
        reliability,
        label: label.as_str().as_bytes(),
    }
}

/// The label of a channel as LiveKit's protocol knows it.
pub(super) fn known_label(label: &[u8]) -> Option<ChannelLabel> {
    [ChannelLabel::Reliable, ChannelLabel::Lossy, ChannelLabel::DataTrack]
        .into_iter()
        .find(|known| known.as_str().as_bytes() == label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_survive_the_round_trip() {
        for label in [ChannelLabel::Reliable, ChannelLabel::Lossy, ChannelLabel::DataTrack] {
            let message = open_message(label);
            assert_eq!(DcepMessage::parse(&message.to_bytes()), Some(message));
            assert_eq!(known_label(label.as_str().as_bytes()), Some(label));
        }
        assert_eq!(DcepMessage::parse(&DcepMessage::Ack.to_bytes()), Some(DcepMessage::Ack));
        assert_eq!(known_label(b"chat"), None);
    }

    #[test]
    fn lossy_is_unordered_and_sent_once() {
        let bytes = open_message(ChannelLabel::Lossy).to_bytes();
        assert_eq!(bytes[..12], [3, 0x81, 1, 0, 0, 0, 0, 0, 0, 6, 0, 0]);
        assert_eq!(&bytes[12..], b"_lossy");
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let bytes = open_message(ChannelLabel::Reliable).to_bytes();
        for cut in 0..bytes.len() {
            assert_eq!(DcepMessage::parse(&bytes[..cut]), None, "{cut} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = DcepMessage::parse(&bytes);
        }
    }
}
