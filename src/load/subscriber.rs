//! Participants that receive: one that opens and checks everything, one that counts by headers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::Rtc;
use str0m::crypto::CryptoProvider;

use super::counter::{Frames, Order, Seen};
use super::feedback::Feedback;
use super::keys::Exported;
use super::payload::Stamp;
use super::srtp::Session;
use super::tally::Tally;
use crate::rtp::RtpPacket;

/// One packet in this many of each stream is opened by a counting subscriber.
pub const SAMPLE: u64 = 16;

/// Streams of one subscriber: SSRCs come from the server, so there is a limit.
const MAX_STREAMS: usize = 4096;

/// One received SSRC.
#[derive(Default)]
struct Received {
    order: Order,
    frames: Frames,
}

/// What a payload type stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Video,
    Audio,
}

/// Payload types as this end has offered them; retransmissions have their own and are in none.
#[derive(Debug)]
struct PayloadTypes([Option<Kind>; 128]);

impl PayloadTypes {
    fn of(rtc: &Rtc) -> Self {
        let mut types = [None; 128];
        let mut insert = |pt: u8, kind| {
            if let Some(entry) = types.get_mut(usize::from(pt)) {
                *entry = Some(kind);
            }
        };
        for params in rtc.codec_config().params() {
            let kind = if params.spec().codec.is_audio() {
                Kind::Audio
            } else {
                Kind::Video
            };
            insert(*params.pt(), kind);
            if let Some(red) = params.red() {
                insert(*red, Kind::Audio);
            }
        }
        Self(types)
    }
}

/// Streams and what is counted of them; both sorts of subscriber have it.
pub struct Streams {
    types: PayloadTypes,
    received: Vec<(u32, Received)>,
    places: HashMap<u32, usize>,
    /// Of the packet before: frames come in one piece.
    last: usize,
}

impl Streams {
    pub fn new(rtc: &Rtc) -> Self {
        Self {
            types: PayloadTypes::of(rtc),
            received: Vec::new(),
            places: HashMap::new(),
            last: 0,
        }
    }

    /// A packet by its header: the number of its stream from cycle 0, and whether it is the first time that it came. None
    /// when it is not media: a retransmission, a probe.
    fn see(&mut self, header: Header, bytes: usize, at: Duration, tally: &mut Tally) -> Option<(u64, bool)> {
        let Some(kind) = self.types.0.get(usize::from(header.pt)).copied().flatten() else {
            tally.other += u64::from(tally.measuring);
            return None;
        };
        self.last = self.place(header.ssrc, tally)?;
        let (_, stream) = self.received.get_mut(self.last)?;
        let (number, seen) = stream.order.see(header.sequence);
        let frozen = kind == Kind::Video && stream.frames.see(header.timestamp, at);
        tally.packet(seen, bytes, frozen);
        Some((number, seen != Seen::Repeated))
    }

    fn place(&mut self, ssrc: u32, tally: &mut Tally) -> Option<usize> {
        let is_last = |(last, _): &(u32, Received)| *last == ssrc;
        if self.received.get(self.last).is_some_and(is_last) {
            return Some(self.last);
        }
        if let Some(place) = self.places.get(&ssrc) {
            return Some(*place);
        }
        let place = self.received.len();
        if place >= MAX_STREAMS {
            return None;
        }
        tally.tracks += 1;
        self.received.push((ssrc, Received::default()));
        self.places.insert(ssrc, place);
        Some(place)
    }

    fn orders(&self) -> impl Iterator<Item = (u32, &Order)> {
        self.received.iter().map(|(ssrc, received)| (*ssrc, &received.order))
    }

    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }
}

struct Header {
    pt: u8,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
}

/// Opens every packet, by str0m.
pub fn verify(streams: &mut Streams, packet: &str0m::rtp::RtpPacket, at: Duration, tally: &mut Tally) {
    let header = Header {
        pt: *packet.header.payload_type,
        ssrc: *packet.header.ssrc,
        sequence: *packet.seq_no as u16,
        timestamp: packet.header.timestamp,
    };
    let bytes = packet.header.header_len + packet.payload.len();
    if streams.see(header, bytes, at, tally).is_none() || !tally.measuring {
        return;
    }
    // Silence and blank frames that a server makes carry no stamp and are no fault.
    if let Some(stamp) = Stamp::read(&packet.payload) {
        tally.verified += 1;
        if Stamp::is_whole(&packet.payload) {
            tally.took(stamp.sent, at);
        } else {
            tally.spoilt += 1;
        }
    }
}

/// Counts by headers.
pub struct Counting {
    session: Option<Session>,
    feedback: Feedback,
    crypto: Arc<CryptoProvider>,
    /// Id of the transport-wide sequence extension, as offered.
    wide: Option<u8>,
}

impl Counting {
    pub fn new(crypto: Arc<CryptoProvider>, own: u32, wide: Option<u8>, now: Instant, wall: Duration) -> Self {
        Self {
            session: None,
            feedback: Feedback::new(own, now, wall),
            crypto,
            wide,
        }
    }

    pub fn set_keys(&mut self, exported: &Exported) {
        self.session = Session::new(&self.crypto, exported);
    }

    /// RTP and RTCP are its own; true when the datagram was one of them.
    pub fn take(&mut self, streams: &mut Streams, datagram: &mut [u8], at: Duration, tally: &mut Tally) -> bool {
        // RFC 7983 §7, RFC 5761 §4.
        if !datagram.first().is_some_and(|byte| (128..192).contains(byte)) {
            return false;
        }
        if datagram.get(1).is_some_and(|byte| (192..224).contains(byte)) {
            if let Some(compound) = self.session.as_mut().and_then(|session| session.open_rtcp(datagram)) {
                self.feedback.handle_rtcp(compound, at);
            }
            return true;
        }
        let Some((header, header_len, wide)) = self.header(datagram) else {
            tally.spoilt += u64::from(tally.measuring);
            return true;
        };
        if let Some(number) = wide {
            self.feedback.see(number, at);
        }
        let ssrc = header.ssrc;
        let Some((number, true)) = streams.see(header, datagram.len(), at, tally) else {
            return true;
        };
        if number % SAMPLE == 0 && tally.measuring {
            self.sample(datagram, header_len, ssrc, number, at, tally);
        }
        true
    }

    /// The clear header, its length and the transport-wide number.
    fn header(&self, datagram: &mut [u8]) -> Option<(Header, usize, Option<u16>)> {
        // The count of padding bytes is not readable yet, so the bit has to be out of the parser's sight.
        let first = datagram.first_mut()?;
        let padded = *first & 0x20;
        *first &= !0x20;
        let packet = RtpPacket::parse(datagram).ok()?;
        let wide = self.wide.and_then(|id| packet.extension(id));
        let wide = wide.and_then(crate::rtp::extension::transport_cc);
        let header = Header {
            pt: packet.pt().0,
            ssrc: packet.ssrc().0,
            sequence: packet.sequence(),
            timestamp: packet.timestamp(),
        };
        let header_len = packet.header_len();
        *datagram.first_mut()? |= padded;
        Some((header, header_len, wide))
    }

    fn sample(&mut self, datagram: &[u8], header: usize, ssrc: u32, number: u64, at: Duration, tally: &mut Tally) {
        let Some(session) = &mut self.session else { return };
        let Some(payload) = session.open_rtp(datagram, header, ssrc, number) else {
            tally.spoilt += 1;
            return;
        };
        let padding = match datagram.first() {
            Some(first) if first & 0x20 != 0 => payload.last().copied().map_or(0, usize::from),
            _ => 0,
        };
        let payload = payload.get(..payload.len().saturating_sub(padding)).unwrap_or_default();
        if let Some(stamp) = Stamp::read(payload) {
            tally.took(stamp.sent, at);
        }
    }

    /// The next sealed RTCP packet that is due; none before there are keys.
    pub fn poll(&mut self, streams: &Streams, now: Instant, wall: Duration) -> Option<&[u8]> {
        let session = self.session.as_mut()?;
        let clear = self.feedback.poll(now, wall, streams.orders())?;
        session.seal_rtcp(clear)
    }
}
