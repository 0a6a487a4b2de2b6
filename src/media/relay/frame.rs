//! What crosses between two shards of a room, byte by byte.
//!
//! A batch is frames one after another: length (32 bits, of all that follows), version, kind, room (64 bits), body;
//! numbers are big-endian, times are nanoseconds since 1970. Read with checked access like anything from a wire, so that the
//! other shard may be in another process. An unknown version or a broken length ends the batch, an unknown kind only its
//! frame.

use std::time::Duration;

use crate::media::layers::{Offered, SPATIAL, TEMPORAL};
use crate::types::{Bitrate, DropReason, ParticipantHandle, RoomHandle, TrackHandle};

/// Of this layout. Shards of one process are of one build; nodes must refuse each other's other versions.
const VERSION: u8 = 1;

/// Version, kind, room.
const HEAD: usize = 10;

/// The largest frame: a data packet as large as a channel carries, with room for a stamp.
pub const MAX_FRAME: usize = 80 << 10;

/// One frame's meaning. `home` is where a track is published, `mirror` where it is only subscribed to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Frame<'a> {
    /// From the home: packets of this encoding begin anew; no number of earlier ones holds. `layers`: those inside it that
    /// have been seen, a bit each.
    Begin {
        track: TrackHandle,
        encoding: u8,
        ssrc: u32,
        layers: u16,
    },
    /// From the home: one packet.
    Media(Media<'a>),
    /// From the home: the publisher's sender report.
    Report(Report),
    /// From the home: what the track can give.
    State {
        track: TrackHandle,
        flowing: u8,
        offered: Offered,
    },
    /// From the home: whether the voice is among the loudest.
    Voice { track: TrackHandle, heard: bool },
    /// From a mirror: the encodings that somebody there is to be sent, a bit each, and 0x80 where somebody is subscribed;
    /// `present`: it has the track at all.
    Demand {
        track: TrackHandle,
        encodings: u8,
        present: bool,
    },
    /// From a mirror: a key frame is needed.
    Keyframe { track: TrackHandle, encoding: u8 },
    /// To the room's home: one packet's audio level.
    Level(Level),
    /// From the room's home to the track's: whether it is among the loudest.
    Heard { track: TrackHandle, heard: bool },
    /// A stamped data packet for whoever is meant there.
    Data {
        sender: ParticipantHandle,
        lossy: bool,
        packet: &'a [u8],
    },
    /// A packet of a data track.
    DataTrack {
        publisher: ParticipantHandle,
        packet: &'a [u8],
    },
    /// To the sender's shard: reliable data waits for this reader, or does not any more.
    Hold {
        sender: ParticipantHandle,
        reader: ParticipantHandle,
        held: bool,
    },
}

/// A packet as the publisher first sent it. `rtp` has the track's own header-extension ids and payload types.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Media<'a> {
    pub track: TrackHandle,
    pub encoding: u8,
    /// It came as a retransmission.
    pub recovered: bool,
    /// From the ring: kept for whoever begins, forwarded to nobody by itself.
    pub stored: bool,
    /// The last of those.
    pub last_stored: bool,
    /// Since 1970.
    pub arrival: Duration,
    pub rtp: &'a [u8],
}

impl Media<'_> {
    /// As `Frame::write`, with `payload` behind what `rtp` holds.
    ///
    /// # Errors
    /// `TooLarge`; nothing is appended then.
    pub fn write(&self, room: RoomHandle, payload: &[u8], out: &mut Vec<u8>) -> Result<(), DropReason> {
        Frame::Media(*self).write_with(room, payload, out)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    pub track: TrackHandle,
    pub encoding: u8,
    pub ntp: u64,
    pub timestamp: u32,
    /// Since 1970.
    pub arrival: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    pub track: TrackHandle,
    /// -dBov.
    pub level: u8,
    pub timestamp: u32,
    /// Its packet was overtaken.
    pub late: bool,
}

mod kind {
    pub(super) const BEGIN: u8 = 1;
    pub(super) const MEDIA: u8 = 2;
    pub(super) const REPORT: u8 = 3;
    pub(super) const STATE: u8 = 4;
    pub(super) const VOICE: u8 = 5;
    pub(super) const DEMAND: u8 = 6;
    pub(super) const KEYFRAME: u8 = 7;
    pub(super) const LEVEL: u8 = 8;
    pub(super) const HEARD: u8 = 9;
    pub(super) const DATA: u8 = 10;
    pub(super) const DATA_TRACK: u8 = 11;
    pub(super) const HOLD: u8 = 12;
}

const RECOVERED: u8 = 1;
const STORED: u8 = 2;
const LAST_STORED: u8 = 4;

impl Frame<'_> {
    /// Appends the frame. Allocates only while `out` grows.
    ///
    /// # Errors
    /// `TooLarge`; nothing is appended then.
    pub fn write(&self, room: RoomHandle, out: &mut Vec<u8>) -> Result<(), DropReason> {
        self.write_with(room, &[], out)
    }

    fn write_with(&self, room: RoomHandle, tail: &[u8], out: &mut Vec<u8>) -> Result<(), DropReason> {
        let start = out.len();
        out.extend_from_slice(&[0, 0, 0, 0, VERSION, self.kind()]);
        put_u64(out, room.0);
        self.write_body(out);
        out.extend_from_slice(tail);
        let len = out.len() - start - 4;
        if len > MAX_FRAME {
            out.truncate(start);
            return Err(DropReason::TooLarge);
        }
        if let Some(place) = out.get_mut(start..start + 4) {
            place.copy_from_slice(&(len as u32).to_be_bytes());
        }
        Ok(())
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Begin { .. } => kind::BEGIN,
            Self::Media(_) => kind::MEDIA,
            Self::Report(_) => kind::REPORT,
            Self::State { .. } => kind::STATE,
            Self::Voice { .. } => kind::VOICE,
            Self::Demand { .. } => kind::DEMAND,
            Self::Keyframe { .. } => kind::KEYFRAME,
            Self::Level(_) => kind::LEVEL,
            Self::Heard { .. } => kind::HEARD,
            Self::Data { .. } => kind::DATA,
            Self::DataTrack { .. } => kind::DATA_TRACK,
            Self::Hold { .. } => kind::HOLD,
        }
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Begin {
                track,
                encoding,
                ssrc,
                layers,
            } => {
                put_u64(out, track.0);
                out.push(encoding);
                out.extend_from_slice(&ssrc.to_be_bytes());
                out.extend_from_slice(&layers.to_be_bytes());
            }
            Self::Media(media) => {
                let flags = flag(media.recovered, RECOVERED)
                    | flag(media.stored, STORED)
                    | flag(media.last_stored, LAST_STORED);
                put_u64(out, media.track.0);
                out.extend_from_slice(&[media.encoding, flags]);
                put_u64(out, nanos(media.arrival));
                out.extend_from_slice(media.rtp);
            }
            Self::Report(report) => {
                put_u64(out, report.track.0);
                out.push(report.encoding);
                put_u64(out, report.ntp);
                out.extend_from_slice(&report.timestamp.to_be_bytes());
                put_u64(out, nanos(report.arrival));
            }
            Self::State {
                track,
                flowing,
                offered,
            } => {
                put_u64(out, track.0);
                out.extend_from_slice(&[flowing, offered.spatial, offered.temporal]);
                for rate in offered.rate.as_flattened() {
                    put_u64(out, rate.0);
                }
                for (width, height) in offered.dimensions {
                    out.extend_from_slice(&width.to_be_bytes());
                    out.extend_from_slice(&height.to_be_bytes());
                }
            }
            Self::Voice { track, heard } | Self::Heard { track, heard } => {
                put_u64(out, track.0);
                out.push(heard.into());
            }
            Self::Demand {
                track,
                encodings,
                present,
            } => {
                put_u64(out, track.0);
                out.extend_from_slice(&[encodings, present.into()]);
            }
            Self::Keyframe { track, encoding } => {
                put_u64(out, track.0);
                out.push(encoding);
            }
            Self::Level(level) => {
                put_u64(out, level.track.0);
                out.extend_from_slice(&[level.level, level.late.into()]);
                out.extend_from_slice(&level.timestamp.to_be_bytes());
            }
            Self::Data { sender, lossy, packet } => {
                put_u64(out, sender.0);
                out.push(lossy.into());
                out.extend_from_slice(packet);
            }
            Self::DataTrack { publisher, packet } => {
                put_u64(out, publisher.0);
                out.extend_from_slice(packet);
            }
            Self::Hold { sender, reader, held } => {
                put_u64(out, sender.0);
                put_u64(out, reader.0);
                out.push(held.into());
            }
        }
    }
}

/// The frames of one batch, with their rooms, in order. Ends behind the last one that can be told apart; an `Err` is one frame
/// that cannot be read.
#[derive(Clone, Debug)]
pub struct Frames<'a>(pub &'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = Result<(RoomHandle, Frame<'a>), DropReason>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let mut reader = Reader(self.0);
        let len = reader.u32().map(|len| len as usize);
        let frame = len
            .filter(|len| (HEAD..=MAX_FRAME).contains(len))
            .and_then(|len| reader.bytes(len));
        let Some(frame) = frame.filter(|frame| frame.first() == Some(&VERSION)) else {
            self.0 = &[];
            return Some(Err(DropReason::Malformed));
        };
        self.0 = reader.0;
        Some(parse(frame).ok_or(DropReason::Malformed))
    }
}

fn parse(frame: &[u8]) -> Option<(RoomHandle, Frame<'_>)> {
    let mut reader = Reader(frame);
    let [_, kind] = reader.array()?;
    let room = RoomHandle(reader.u64()?);
    let parsed = match kind {
        kind::BEGIN => Frame::Begin {
            track: reader.track()?,
            encoding: reader.u8()?,
            ssrc: reader.u32()?,
            layers: reader.u16()?,
        },
        kind::MEDIA => {
            let track = reader.track()?;
            let [encoding, flags] = reader.array()?;
            Frame::Media(Media {
                track,
                encoding,
                recovered: flags & RECOVERED != 0,
                stored: flags & STORED != 0,
                last_stored: flags & LAST_STORED != 0,
                arrival: Duration::from_nanos(reader.u64()?),
                rtp: reader.rest(),
            })
        }
        kind::REPORT => Frame::Report(Report {
            track: reader.track()?,
            encoding: reader.u8()?,
            ntp: reader.u64()?,
            timestamp: reader.u32()?,
            arrival: Duration::from_nanos(reader.u64()?),
        }),
        kind::STATE => {
            let track = reader.track()?;
            let [flowing, spatial, temporal] = reader.array()?;
            let mut offered = Offered {
                // Counts of layers, which index tables.
                spatial: spatial.clamp(1, SPATIAL as u8),
                temporal: temporal.clamp(1, TEMPORAL as u8),
                ..Offered::default()
            };
            for rate in offered.rate.as_flattened_mut() {
                *rate = Bitrate(reader.u64()?);
            }
            for (width, height) in &mut offered.dimensions {
                (*width, *height) = (reader.u16()?, reader.u16()?);
            }
            Frame::State {
                track,
                flowing,
                offered,
            }
        }
        kind::VOICE => Frame::Voice {
            track: reader.track()?,
            heard: reader.bool()?,
        },
        kind::HEARD => Frame::Heard {
            track: reader.track()?,
            heard: reader.bool()?,
        },
        kind::DEMAND => Frame::Demand {
            track: reader.track()?,
            encodings: reader.u8()?,
            present: reader.bool()?,
        },
        kind::KEYFRAME => Frame::Keyframe {
            track: reader.track()?,
            encoding: reader.u8()?,
        },
        kind::LEVEL => Frame::Level(Level {
            track: reader.track()?,
            level: reader.u8()?,
            late: reader.bool()?,
            timestamp: reader.u32()?,
        }),
        kind::DATA => Frame::Data {
            sender: reader.participant()?,
            lossy: reader.bool()?,
            packet: reader.rest(),
        },
        kind::DATA_TRACK => Frame::DataTrack {
            publisher: reader.participant()?,
            packet: reader.rest(),
        },
        kind::HOLD => Frame::Hold {
            sender: reader.participant()?,
            reader: reader.participant()?,
            held: reader.bool()?,
        },
        _ => return None,
    };
    // Every kind has all of its bytes; none has more.
    reader.0.is_empty().then_some((room, parsed))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn bool(&mut self) -> Option<bool> {
        self.u8().map(|byte| byte != 0)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn track(&mut self) -> Option<TrackHandle> {
        self.u64().map(TrackHandle)
    }

    fn participant(&mut self) -> Option<ParticipantHandle> {
        self.u64().map(ParticipantHandle)
    }
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

/// Saturates in the year 2554.
fn nanos(since_1970: Duration) -> u64 {
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOM: RoomHandle = RoomHandle(7);
    const TRACK: TrackHandle = TrackHandle(0x0102_0304_0506_0708);
    const ALICE: ParticipantHandle = ParticipantHandle(9);

    fn every_kind() -> Vec<Frame<'static>> {
        let mut offered = Offered {
            spatial: 3,
            temporal: 2,
            ..Offered::default()
        };
        offered.rate[2][1] = Bitrate(1_700_000);
        offered.dimensions[1] = (640, 360);
        vec![
            Frame::Begin {
                track: TRACK,
                encoding: 2,
                ssrc: 0xdead_beef,
                layers: 0x0107,
            },
            Frame::Media(Media {
                track: TRACK,
                encoding: 1,
                recovered: true,
                stored: true,
                last_stored: true,
                arrival: Duration::new(1_790_000_000, 123_456_789),
                rtp: b"packet",
            }),
            Frame::Report(Report {
                track: TRACK,
                encoding: 0,
                ntp: u64::MAX - 5,
                timestamp: 77,
                arrival: Duration::from_secs(1_790_000_001),
            }),
            Frame::State {
                track: TRACK,
                flowing: 5,
                offered,
            },
            Frame::Voice {
                track: TRACK,
                heard: true,
            },
            Frame::Demand {
                track: TRACK,
                encodings: 6,
                present: true,
            },
            Frame::Keyframe {
                track: TRACK,
                encoding: 2,
            },
            Frame::Level(Level {
                track: TRACK,
                level: 31,
                timestamp: 960,
                late: true,
            }),
            Frame::Heard {
                track: TRACK,
                heard: false,
            },
            Frame::Data {
                sender: ALICE,
                lossy: true,
                packet: b"data",
            },
            Frame::DataTrack {
                publisher: ALICE,
                packet: b"track",
            },
            Frame::Hold {
                sender: ALICE,
                reader: ParticipantHandle(10),
                held: true,
            },
        ]
    }

    fn batch() -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in every_kind() {
            frame.write(ROOM, &mut bytes).unwrap();
        }
        bytes
    }

    #[test]
    fn every_frame_is_read_as_it_was_written() {
        let bytes = batch();
        let read: Vec<_> = Frames(&bytes).map(Result::unwrap).collect();
        let written: Vec<_> = every_kind().into_iter().map(|frame| (ROOM, frame)).collect();
        assert_eq!(read, written);
    }

    /// The layout is a contract between processes: these bytes may change only with the version.
    #[test]
    fn the_layout_is_this() {
        let mut bytes = Vec::new();
        let frame = Frame::Demand {
            track: TRACK,
            encodings: 6,
            present: true,
        };
        frame.write(ROOM, &mut bytes).unwrap();
        assert_eq!(
            bytes,
            [0, 0, 0, 20, 1, 6, 0, 0, 0, 0, 0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8, 6, 1]
        );
    }

    #[test]
    fn what_is_too_large_is_not_written() {
        let packet = vec![0; MAX_FRAME];
        let mut bytes = vec![1, 2, 3];
        let frame = Frame::DataTrack {
            publisher: ALICE,
            packet: &packet,
        };
        assert_eq!(frame.write(ROOM, &mut bytes), Err(DropReason::TooLarge));
        assert_eq!(bytes, [1, 2, 3]);
    }

    #[test]
    fn an_unknown_kind_costs_its_frame_and_a_broken_length_the_rest() {
        let mut bytes = batch();
        let first = 4 + u32::from_be_bytes(*bytes.first_chunk().unwrap()) as usize;
        bytes[5] = 200;
        let read: Vec<_> = Frames(&bytes).collect();
        assert_eq!(read[0], Err(DropReason::Malformed));
        assert_eq!(
            read.iter().filter(|frame| frame.is_ok()).count(),
            every_kind().len() - 1
        );
        // Of another version: nothing of it is understood.
        bytes[first + 4] = VERSION + 1;
        assert_eq!(Frames(&bytes).count(), 2);
        // A length beyond the end, and one that cannot hold a head.
        for len in [u32::MAX, 9] {
            bytes[..4].copy_from_slice(&len.to_be_bytes());
            assert_eq!(Frames(&bytes).collect::<Vec<_>>(), [Err(DropReason::Malformed)]);
        }
    }

    #[test]
    fn truncated_anywhere_it_gives_what_is_whole() {
        let bytes = batch();
        for len in 0..bytes.len() {
            let read: Vec<_> = Frames(&bytes[..len]).collect();
            assert!(read.iter().rev().skip(1).all(Result::is_ok), "{len}: {read:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let count = Frames(&bytes).count();
            prop_assert!(count <= bytes.len());
        }

        /// Bodies of every kind, of any length.
        #[test]
        fn any_body_is_read_without_panic(
            kind in 0u8..20,
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut bytes = ((HEAD + body.len()) as u32).to_be_bytes().to_vec();
            bytes.extend_from_slice(&[VERSION, kind, 0, 0, 0, 0, 0, 0, 0, 1]);
            bytes.extend_from_slice(&body);
            prop_assert_eq!(Frames(&bytes).count(), 1);
        }
    }
}
