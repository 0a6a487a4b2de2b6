//! The packets of one encoding, kept once for all its subscribers: what is forwarded is read from here, and so is what
//! is sent again (DESIGN D6).
//!
//! Owned by an `Encoding`, written by `Encoding::on_rtp`, read at release. It is the only packet store: pacers and
//! subscriptions hold sequence numbers. Bounded in packets, bytes and age (`RingLimits`); the oldest packet goes first.
//! It grows by doubling while a lap is shorter than the age limit, so after warm-up it allocates nothing.

use std::time::{Duration, Instant};

use super::layers::LayerMarks;
use crate::types::{DropReason, MAX_DATAGRAM};

/// The most that a ring keeps. `packets` and `bytes` are powers of two.
#[derive(Clone, Copy, Debug)]
pub struct RingLimits {
    pub packets: usize,
    pub bytes: usize,
    /// Older packets are not given out: a receiver's jitter buffer has moved on.
    pub age: Duration,
}

impl RingLimits {
    /// One second of 16 Mbit/s; a key frame of a 4K screen share fits.
    pub const VIDEO: Self = Self {
        packets: 2048,
        bytes: 2 << 20,
        age: Duration::from_millis(1000),
    };
    /// One second of 510 kbit/s stereo Opus with redundancy, in packets of 10 ms.
    pub const AUDIO: Self = Self {
        packets: 128,
        bytes: 128 << 10,
        age: Duration::from_millis(1000),
    };
}

const INITIAL_PACKETS: usize = 32;
const INITIAL_BYTES: usize = 8 << 10;

const _: () = assert!(size_of::<PacketInfo>() <= 64);

/// `Entry::position` of bytes that are no longer there.
const GONE: u64 = u64::MAX;

/// The three numbers of a VP8 payload descriptor that must be continuous for a receiver (RFC 7741 §4.2); zero where
/// the descriptor has none. Also the differences between two such numberings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PictureNumbers {
    /// 15 bits.
    pub picture_id: u16,
    pub tl0_picidx: u8,
    /// 5 bits.
    pub keyidx: u8,
}

/// What is known of a stored packet beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PacketInfo {
    /// The publisher's, in ticks of the codec's clock.
    pub timestamp: u32,
    pub arrival: Instant,
    /// Index into `Track::codecs`.
    pub codec: u8,
    pub marker: bool,
    /// A key frame's packet.
    pub keyframe: bool,
    /// First packet of its (layer) frame. Several packets of an H.264 or H.265 key frame say so.
    pub start: bool,
    /// Last packet of its (layer) frame.
    pub end: bool,
    /// Ids inside the stream, as it says them; 0 where it has no such layers. The encoding of a simulcast track is another
    /// matter (livekit#4594).
    pub spatial: u8,
    pub temporal: u8,
    /// What the frame is to each layer of its stream.
    pub layers: LayerMarks,
    /// Of the dependency descriptor; 0 without one.
    pub frame_number: u16,
    pub picture: PictureNumbers,
    /// RFC 6464, the byte as received.
    pub audio_level: Option<u8>,
    pub video_orientation: Option<u8>,
    pub playout_delay: Option<[u8; 3]>,
}

/// A stored packet. `payload` excludes header and padding.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    pub info: &'a PacketInfo,
    /// Empty when the packet had none.
    pub dependency_descriptor: &'a [u8],
    pub abs_capture_time: &'a [u8],
    pub payload: &'a [u8],
}

#[derive(Clone, Debug)]
struct Entry {
    sequence: u64,
    /// Of its first byte in the stream of all bytes ever stored; the place in `bytes` is this modulo its length.
    position: u64,
    descriptor_len: u8,
    capture_len: u8,
    payload_len: u16,
    info: PacketInfo,
}

#[derive(Debug)]
pub struct Ring {
    limits: RingLimits,
    /// Indexed by sequence number modulo its length, a power of two; empty until the first packet.
    entries: Vec<Option<Entry>>,
    bytes: Vec<u8>,
    /// Where the next packet goes, as `Entry::position`.
    head: u64,
    lap_started: Option<Instant>,
    /// Sequence numbers below are refused: they may have been forwarded already.
    floor: u64,
    highest: u64,
}

impl Ring {
    pub fn new(limits: RingLimits) -> Self {
        Self {
            limits,
            entries: Vec::new(),
            bytes: Vec::new(),
            head: 0,
            lap_started: None,
            floor: 0,
            highest: 0,
        }
    }

    /// Stores one packet. `sequence` is the publisher's, extended to 64 bits.
    ///
    /// # Errors
    /// `Duplicate` when it is there already, `Late` when its place belongs to a newer packet, `TooLarge` for more
    /// bytes than one datagram has.
    pub fn insert(
        &mut self,
        sequence: u64,
        info: PacketInfo,
        dependency_descriptor: &[u8],
        abs_capture_time: &[u8],
        payload: &[u8],
    ) -> Result<(), DropReason> {
        let len = dependency_descriptor.len() + abs_capture_time.len() + payload.len();
        let descriptor_len = u8::try_from(dependency_descriptor.len()).map_err(|_| DropReason::TooLarge)?;
        let capture_len = u8::try_from(abs_capture_time.len()).map_err(|_| DropReason::TooLarge)?;
        if len > MAX_DATAGRAM {
            return Err(DropReason::TooLarge);
        }
        self.admit(sequence)?;
        self.make_room_for_entry(sequence, info.arrival);
        self.admit(sequence)?; // again: a table that grew remembers less
        let position = self.make_room_for_bytes(len, info.arrival);
        let capacity = self.bytes.len() as u64;
        let start = (position % capacity) as usize;
        let mut rest = self.bytes.get_mut(start..start + len).ok_or(DropReason::TooLarge)?;
        for part in [dependency_descriptor, abs_capture_time, payload] {
            let (target, behind) = rest.split_at_mut_checked(part.len()).ok_or(DropReason::TooLarge)?;
            target.copy_from_slice(part);
            rest = behind;
        }
        self.head = position + len as u64;
        self.highest = self.highest.max(sequence);
        let index = self.index(sequence);
        if let Some(place) = self.entries.get_mut(index) {
            *place = Some(Entry {
                sequence,
                position,
                descriptor_len,
                capture_len,
                payload_len: payload.len() as u16,
                info,
            });
        }
        Ok(())
    }

    /// Whether `insert` would take this number.
    pub fn admit(&self, sequence: u64) -> Result<(), DropReason> {
        if sequence < self.floor {
            return Err(DropReason::Late);
        }
        // Behind the ring's reach: whether it was forwarded already is not known any more.
        if sequence + self.limits.packets as u64 <= self.highest {
            return Err(DropReason::Late);
        }
        match self.entries.get(self.index(sequence)) {
            Some(Some(entry)) if entry.sequence == sequence => Err(DropReason::Duplicate),
            Some(Some(entry)) if entry.sequence > sequence => Err(DropReason::Late),
            _ => Ok(()),
        }
    }

    /// None when it never came, was overwritten, or is older than the limit.
    pub fn get(&self, sequence: u64, now: Instant) -> Option<Stored<'_>> {
        let entry = self.entries.get(self.index(sequence))?.as_ref()?;
        if entry.sequence != sequence
            || entry.position == GONE
            || self.head > entry.position + self.bytes.len() as u64
            || now.saturating_duration_since(entry.info.arrival) > self.limits.age
        {
            return None;
        }
        let start = (entry.position % self.bytes.len() as u64) as usize;
        let rest = self.bytes.get(start..)?;
        let (dependency_descriptor, rest) = rest.split_at_checked(usize::from(entry.descriptor_len))?;
        let (abs_capture_time, rest) = rest.split_at_checked(usize::from(entry.capture_len))?;
        Some(Stored {
            info: &entry.info,
            dependency_descriptor,
            abs_capture_time,
            payload: rest.get(..usize::from(entry.payload_len))?,
        })
    }

    /// What is known of a packet whose bytes may be gone. None when it never came, or its place is another's.
    pub fn info(&self, sequence: u64) -> Option<&PacketInfo> {
        let entry = self.entries.get(self.index(sequence))?.as_ref()?;
        (entry.sequence == sequence).then_some(&entry.info)
    }

    /// Forgets every packet; their numbers are not taken again.
    pub fn clear(&mut self) {
        self.floor = self.highest + 1;
        self.entries.fill(None);
    }

    /// Bytes of memory held.
    #[cfg(test)]
    pub fn capacity_bytes(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Option<Entry>>()
    }

    fn index(&self, sequence: u64) -> usize {
        sequence as usize & self.entries.len().wrapping_sub(1)
    }

    /// Doubles the table while the place is held by a packet that is still wanted.
    fn make_room_for_entry(&mut self, sequence: u64, now: Instant) {
        if self.entries.is_empty() {
            self.entries.resize(INITIAL_PACKETS, None);
        }
        while self.entries.len() < self.limits.packets {
            let index = self.index(sequence);
            let young = |entry: &Entry| now.saturating_duration_since(entry.info.arrival) < self.limits.age;
            if !self
                .entries
                .get(index)
                .is_some_and(|place| place.as_ref().is_some_and(young))
            {
                return;
            }
            // What the smaller table has overwritten looks absent in the larger one, and must not be taken again.
            self.floor = self
                .floor
                .max((self.highest + 1).saturating_sub(self.entries.len() as u64));
            let len = self.entries.len() * 2;
            let old = std::mem::replace(&mut self.entries, vec![None; len]);
            for entry in old.into_iter().flatten() {
                let index = self.index(entry.sequence);
                if let Some(place) = self.entries.get_mut(index) {
                    *place = Some(entry);
                }
            }
        }
    }

    /// The position of `len` contiguous bytes.
    fn make_room_for_bytes(&mut self, len: usize, now: Instant) -> u64 {
        if self.bytes.is_empty() {
            self.bytes.resize(INITIAL_BYTES, 0);
        }
        let capacity = self.bytes.len() as u64;
        let offset = self.head % capacity;
        let lap_started = *self.lap_started.get_or_insert(now);
        if offset + (len as u64) <= capacity && (offset != 0 || self.head == 0) {
            return self.head;
        }
        // A lap is over: what follows overwrites the oldest packets.
        let lap_end = self.head.next_multiple_of(capacity);
        self.lap_started = Some(now);
        if now.saturating_duration_since(lap_started) >= self.limits.age || self.bytes.len() >= self.limits.bytes {
            return lap_end;
        }
        // Too short a lap. Its packets stay where they are, in the first half of the doubled buffer.
        let lap_start = lap_end - capacity;
        for place in &mut self.entries {
            match place {
                Some(entry) if entry.position >= lap_start => entry.position -= lap_start,
                // Its bytes are overwritten; the entry stays to tell a duplicate.
                Some(entry) => entry.position = GONE,
                None => {}
            }
        }
        self.bytes.resize(self.bytes.len() * 2, 0);
        capacity
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn info(arrival: Instant) -> PacketInfo {
        PacketInfo {
            timestamp: 0,
            arrival,
            codec: 0,
            marker: false,
            keyframe: false,
            start: true,
            end: true,
            spatial: 0,
            temporal: 0,
            layers: LayerMarks::ALL,
            frame_number: 0,
            picture: PictureNumbers::default(),
            audio_level: None,
            video_orientation: None,
            playout_delay: None,
        }
    }

    fn payload(sequence: u64, len: usize) -> Vec<u8> {
        (0..len).map(|i| (sequence as usize * 7 + i) as u8).collect()
    }

    #[test]
    fn gives_back_what_was_stored_until_it_is_too_old() {
        let now = Instant::now();
        let mut ring = Ring::new(RingLimits::VIDEO);
        ring.insert(70_000, info(now), b"dd", b"capture!", b"payload").unwrap();
        let stored = ring.get(70_000, now).unwrap();
        assert_eq!(
            (stored.dependency_descriptor, stored.abs_capture_time, stored.payload),
            (&b"dd"[..], &b"capture!"[..], &b"payload"[..])
        );
        assert_eq!(
            ring.insert(70_000, info(now), b"", b"", b"x"),
            Err(DropReason::Duplicate)
        );
        assert!(ring.get(70_001, now).is_none());
        assert!(ring.get(70_000, now + RingLimits::VIDEO.age * 2).is_none());
    }

    #[test]
    fn a_cleared_ring_takes_no_number_twice() {
        let now = Instant::now();
        let mut ring = Ring::new(RingLimits::VIDEO);
        ring.insert(70_000, info(now), b"", b"", b"x").unwrap();
        ring.clear();
        assert!(ring.get(70_000, now).is_none());
        assert_eq!(ring.insert(70_000, info(now), b"", b"", b"x"), Err(DropReason::Late));
        assert_eq!(ring.insert(70_001, info(now), b"", b"", b"x"), Ok(()));
    }

    #[test]
    fn keeps_a_whole_age_of_a_fast_stream_and_stays_within_its_bounds() {
        let start = Instant::now();
        let mut ring = Ring::new(RingLimits::VIDEO);
        // 1000 packets a second of 1200 bytes for ten seconds.
        for i in 0..10_000u64 {
            let now = start + Duration::from_millis(i);
            ring.insert(65_536 + i, info(now), b"", b"", &payload(i, 1200)).unwrap();
            if i > 2000 {
                let old = i - 990;
                assert_eq!(ring.get(65_536 + old, now).unwrap().payload, payload(old, 1200), "{i}");
            }
        }
        assert!(ring.bytes.len() <= RingLimits::VIDEO.bytes);
        assert!(ring.entries.len() <= RingLimits::VIDEO.packets);
    }

    #[test]
    fn a_slow_stream_stays_small() {
        let start = Instant::now();
        let mut ring = Ring::new(RingLimits::AUDIO);
        for i in 0..5_000u64 {
            let now = start + Duration::from_millis(20 * i);
            ring.insert(65_536 + i, info(now), b"", b"", &payload(i, 90)).unwrap();
        }
        assert!(ring.capacity_bytes() < 32 << 10, "{}", ring.capacity_bytes());
    }

    proptest! {
        /// Whatever the sizes, the order and the pace: a packet that is given out has the bytes it came with.
        #[test]
        fn never_gives_out_other_bytes(
            steps in proptest::collection::vec((0u64..40, 1usize..1400, 0u64..30), 1..600),
        ) {
            let mut now = Instant::now();
            let limits = RingLimits { packets: 128, bytes: 32 << 10, age: Duration::from_millis(300) };
            let mut ring = Ring::new(limits);
            let mut newest = 65_600;
            let mut taken = std::collections::HashMap::new();
            for (back, len, wait) in steps {
                now += Duration::from_millis(wait);
                let sequence = newest + 3 - back.min(3 + 60);
                let result = ring.insert(sequence, info(now), b"", b"", &payload(sequence, len));
                if result == Err(DropReason::Duplicate) {
                    prop_assert!(taken.contains_key(&sequence));
                }
                if result.is_ok() {
                    prop_assert!(taken.insert(sequence, len).is_none(), "taken twice");
                    newest = newest.max(sequence);
                    prop_assert!(ring.get(sequence, now).is_some());
                }
                for sequence in newest.saturating_sub(150)..=newest {
                    if let Some(stored) = ring.get(sequence, now) {
                        prop_assert_eq!(stored.payload, &payload(sequence, taken[&sequence])[..]);
                    }
                }
            }
            prop_assert!(ring.bytes.len() <= limits.bytes && ring.entries.len() <= limits.packets);
        }
    }
}
