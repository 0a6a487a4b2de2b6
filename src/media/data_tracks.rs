//! Data tracks: named streams of lossy packets, forwarded like media by their header.
//!
//! Owns which tracks a room has, who subscribes to them under which handle, and how much of them a slow subscriber gets.
//! Driven by the data plane; reads only the header, never the payload.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::data::DataLink;
use crate::rtc::ChannelId;
use crate::types::{DataTrackHandle, DropReason, ParticipantHandle, TransportHandle};

/// LiveKit: `datachannel_data_track_target_latency`. Older frames are worth less than a dropped one.
const TARGET_LATENCY: Duration = Duration::from_millis(100);
/// Below this many bytes in a subscriber's buffer nothing is dropped, whatever its rate: a frame of a few packets must
/// fit when a subscriber has been idle.
const MIN_BUFFER: usize = 32 * 1024;
/// The channel's rate is measured over this time, in so many steps (LiveKit: 2 s by 100 ms).
const RATE_STEPS: usize = 20;
const RATE_STEP: Duration = Duration::from_millis(100);
/// Tracks of one room, and subscribers of one track; control has its own limits below these. More are ignored.
const MAX_TRACKS: usize = 65_536;
const MAX_SUBSCRIBERS: usize = 65_536;

/// version:3 start:1 final:1 extensions:1 reserved:10 handle:16 sequence:16 frame:16 timestamp:32
const HEADER_LEN: usize = 12;
const START_OF_FRAME: u8 = 0x10;
const END_OF_FRAME: u8 = 0x08;
const HAS_EXTENSIONS: u8 = 0x04;

#[derive(Debug, Default)]
pub(super) struct DataTracks {
    tracks: HashMap<DataTrackHandle, DataTrack>,
    /// By what the publisher writes into its packets.
    published: HashMap<(ParticipantHandle, u16), DataTrackHandle>,
    rates: HashMap<ParticipantHandle, DrainRate>,
}

#[derive(Debug)]
struct DataTrack {
    publisher: ParticipantHandle,
    publisher_handle: u16,
    subscribers: BTreeMap<ParticipantHandle, Subscriber>,
}

#[derive(Debug)]
struct Subscriber {
    handle: u16,
    /// A packet of the current frame was dropped: the rest of it is of no use.
    skipping: bool,
}

impl DataTracks {
    pub(super) fn publish(&mut self, publisher: ParticipantHandle, track: DataTrackHandle, publisher_handle: u16) {
        if self.tracks.len() >= MAX_TRACKS && !self.tracks.contains_key(&track) {
            return;
        }
        self.unpublish(track);
        // The publisher has reused its handle: the earlier track can get no more packets.
        if let Some(earlier) = self.published.insert((publisher, publisher_handle), track) {
            self.tracks.remove(&earlier);
        }
        self.tracks.insert(
            track,
            DataTrack {
                publisher,
                publisher_handle,
                subscribers: BTreeMap::new(),
            },
        );
    }

    pub(super) fn contains(&self, track: DataTrackHandle) -> bool {
        self.tracks.contains_key(&track)
    }

    /// The track that a packet of this publisher is of.
    pub(super) fn of_packet(&self, publisher: ParticipantHandle, packet: &[u8]) -> Option<DataTrackHandle> {
        let header = Header::parse(packet).ok()?;
        self.published.get(&(publisher, header.handle)).copied()
    }

    pub(super) fn unpublish(&mut self, track: DataTrackHandle) -> bool {
        let Some(removed) = self.tracks.remove(&track) else {
            return false;
        };
        self.published.remove(&(removed.publisher, removed.publisher_handle));
        true
    }

    pub(super) fn subscribe(&mut self, track: DataTrackHandle, subscriber: ParticipantHandle, handle: u16) -> bool {
        let Some(track) = self.tracks.get_mut(&track) else {
            return false;
        };
        if track.subscribers.len() < MAX_SUBSCRIBERS || track.subscribers.contains_key(&subscriber) {
            // A frame that is under way cannot be completed for a new subscriber.
            track
                .subscribers
                .insert(subscriber, Subscriber { handle, skipping: true });
        }
        true
    }

    pub(super) fn unsubscribe(&mut self, track: DataTrackHandle, subscriber: ParticipantHandle) -> bool {
        let track = self.tracks.get_mut(&track);
        track.is_some_and(|track| track.subscribers.remove(&subscriber).is_some())
    }

    pub(super) fn remove_participant(&mut self, participant: ParticipantHandle) {
        self.tracks.retain(|_, track| track.publisher != participant);
        self.published.retain(|(publisher, _), _| *publisher != participant);
        for track in self.tracks.values_mut() {
            track.subscribers.remove(&participant);
        }
        self.rates.remove(&participant);
    }

    /// Sends one packet to every subscriber that has a channel (`channel_of`), with the subscriber's handle in it.
    pub(super) fn forward(
        &mut self,
        now: Instant,
        link: &mut impl DataLink,
        publisher: ParticipantHandle,
        packet: &[u8],
        scratch: &mut Vec<u8>,
        channel_of: impl Fn(ParticipantHandle) -> Option<(TransportHandle, ChannelId)>,
    ) -> Result<(), DropReason> {
        let header = Header::parse(packet)?;
        let track = self
            .published
            .get(&(publisher, header.handle))
            .ok_or(DropReason::NotPublished)?;
        let track = self.tracks.get_mut(track).ok_or(DropReason::NotPublished)?;
        scratch.clear();
        scratch.extend_from_slice(packet);
        for (participant, subscriber) in &mut track.subscribers {
            let Some((transport, channel)) = channel_of(*participant) else {
                link.count_drop(DropReason::Disabled);
                continue;
            };
            if header.start {
                subscriber.skipping = false;
            }
            if subscriber.skipping {
                link.count_drop(DropReason::DataSlowReader);
                continue;
            }
            let rate = self.rates.entry(*participant).or_insert_with(|| DrainRate::new(now));
            let buffered = link.buffered_amount(transport, channel);
            rate.update(now, buffered);
            if let Some(place) = scratch.get_mut(2..4) {
                place.copy_from_slice(&subscriber.handle.to_be_bytes());
            }
            let room = buffered == 0 || buffered + scratch.len() <= rate.buffer_limit();
            if room && link.send_data(now, transport, channel, true, scratch).is_ok() {
                rate.sent += scratch.len() as u64;
            } else {
                subscriber.skipping = !header.end;
                link.count_drop(DropReason::DataSlowReader);
            }
        }
        Ok(())
    }
}

struct Header {
    start: bool,
    end: bool,
    handle: u16,
}

impl Header {
    fn parse(packet: &[u8]) -> Result<Self, DropReason> {
        let Some((&[flags, _, high, low], _)) = packet.split_first_chunk::<4>() else {
            return Err(DropReason::Truncated);
        };
        let mut len = HEADER_LEN;
        if flags & HAS_EXTENSIONS != 0 {
            // The size is in words after the first, and counts its own two bytes.
            let size = packet.get(12..14).and_then(|size| <[u8; 2]>::try_from(size).ok());
            len += (usize::from(size.map(u16::from_be_bytes).ok_or(DropReason::Truncated)?) + 1) * 4;
        }
        if packet.len() < len {
            return Err(DropReason::Truncated);
        }
        Ok(Self {
            start: flags & START_OF_FRAME != 0,
            end: flags & END_OF_FRAME != 0,
            handle: u16::from_be_bytes([high, low]),
        })
    }
}

/// How fast a subscriber's channel takes data: what was sent less what is still buffered, in steps of 100 ms.
#[derive(Debug)]
struct DrainRate {
    /// Bytes since the start.
    sent: u64,
    drained: u64,
    /// Bytes per step.
    steps: [u64; RATE_STEPS],
    current: usize,
    step_ends: Instant,
    updated: Instant,
}

impl DrainRate {
    fn new(now: Instant) -> Self {
        Self {
            sent: 0,
            drained: 0,
            steps: [0; RATE_STEPS],
            current: 0,
            step_ends: now + RATE_STEP,
            updated: now,
        }
    }

    fn update(&mut self, now: Instant, buffered: usize) {
        let elapsed = now.saturating_duration_since(self.updated);
        self.updated = now;
        for _ in 0..RATE_STEPS {
            if self.step_ends > now {
                break;
            }
            self.step_ends += RATE_STEP;
            self.current = (self.current + 1) % RATE_STEPS;
            if let Some(step) = self.steps.get_mut(self.current) {
                *step = 0;
            }
        }
        self.step_ends = self.step_ends.max(now);
        let drained = self.sent.saturating_sub(buffered as u64).max(self.drained);
        // What drained during a long pause did not drain in one step.
        let steps = (elapsed.as_millis() / RATE_STEP.as_millis()).max(1) as u64;
        if let Some(step) = self.steps.get_mut(self.current) {
            *step += (drained - self.drained) / steps;
        }
        self.drained = drained;
    }

    /// What drains in the target latency, by the busiest step: an average would count pauses between frames as
    /// slowness.
    fn buffer_limit(&self) -> usize {
        let busiest = self.steps.iter().max().copied().unwrap_or(0) as f64;
        let limit = busiest * TARGET_LATENCY.as_secs_f64() / RATE_STEP.as_secs_f64();
        (limit as usize).max(MIN_BUFFER)
    }
}
