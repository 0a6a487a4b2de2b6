//! The home of a track: what crosses to the shards that mirror it, and what they ask for.

use std::time::{Duration, Instant};

use super::SUBSCRIBED;
use super::frame::{Frame, Media, Report};
use super::outbox::Worth;
use crate::media::encoding::{Arrived, Encoding};
use crate::media::fanout::Fanout;
use crate::media::outside::Outside;
use crate::media::slots::Slot;
use crate::media::track::{MAX_ENCODINGS, Track};
use crate::media::transport::Stream;
use crate::rtp::{RtpHeader, RtpPacket};
use crate::types::{DropReason, Extension, ExtensionMap, MediaKind, RoomHandle, ShardIndex};

/// What a track can give is told this often while somebody there is sent it: as fast as rates are measured.
const STATE_INTERVAL: Duration = Duration::from_millis(250);
/// Of sound only its presence is of interest.
const SOUND_STATE_INTERVAL: Duration = Duration::from_millis(1000);

/// A mirror that wants an encoding again shortly after it did not, is sent what it has missed: up to so many packets.
const CATCH_UP: u64 = 64;

/// Fixed header and every element that is stored, the longest possible: two of up to 255 bytes and three small ones.
const MAX_HEADER: usize = 640;

/// What one shard is sent of a track.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub to: ShardIndex,
    /// The encodings that somebody there is to be sent, a bit each, and `SUBSCRIBED`.
    pub demand: u8,
    encodings: [Crossing; MAX_ENCODINGS],
}

/// One encoding on its way to one shard.
#[derive(Clone, Copy, Debug, Default)]
struct Crossing {
    /// The newest number that went, and its epoch. None: the other shard has nothing that could go on.
    sent: Option<(u64, u8)>,
    /// The way was full: nothing until a key frame.
    is_cut: bool,
}

impl Way {
    fn new(to: ShardIndex) -> Self {
        Self {
            to,
            demand: 0,
            encodings: [Crossing::default(); _],
        }
    }

    /// What goes next begins anew: numbers may have gone round meanwhile.
    pub fn interrupt(&mut self) {
        self.encodings.iter_mut().for_each(|crossing| crossing.sent = None);
    }

    fn wants(&self, encoding: u8) -> bool {
        wants(self.demand, encoding)
    }

    fn crossing(&mut self, encoding: u8) -> Option<&mut Crossing> {
        self.encodings.get_mut(usize::from(encoding))
    }

    fn is_cut(&self) -> bool {
        self.encodings.iter().any(|crossing| crossing.is_cut)
    }
}

fn wants(demand: u8, encoding: u8) -> bool {
    demand.checked_shr(encoding.into()).unwrap_or(0) & 1 == 1
}

impl Fanout {
    /// One packet to each shard where somebody is to be sent its encoding. Allocates nothing once buffers have grown.
    pub fn relay(&mut self, outside: &mut Outside<'_>, slot: Slot, packet: &Arrived, recovered: bool) {
        let room = self.handle;
        let Some(track) = self.tracks.get_mut(slot).filter(|track| !track.ways.is_empty()) else {
            return;
        };
        let source = packet.source;
        let worth = worth(track, source.encoding);
        let mut ways = std::mem::take(&mut track.ways);
        let mut is_cut = false;
        for way in ways.iter_mut().filter(|way| way.wants(source.encoding)) {
            let (to, has_room) = (way.to, outside.relays.has_room(way.to, worth));
            let Some(crossing) = way.crossing(source.encoding) else {
                continue;
            };
            let begins = packet.info.keyframe && packet.new_frame;
            if !crossing.admit(track.kind, has_room, begins, packet.new_frame) {
                outside.stats.count_drop(DropReason::RelayFull);
                is_cut |= crossing.is_cut && has_room;
                continue;
            }
            if crossing.sent.is_none_or(|(_, epoch)| epoch != source.epoch) {
                begin(outside, room, track, to, source.encoding);
            }
            let newest = crossing.sent.filter(|(_, epoch)| *epoch == source.epoch);
            let newest = newest.map_or(packet.sequence, |(sent, _)| sent.max(packet.sequence));
            crossing.sent = Some((newest, source.epoch));
            let as_it_came = Crossed {
                recovered,
                ..Crossed::LIVE
            };
            send(
                outside,
                room,
                track,
                (to, source.encoding),
                packet.sequence,
                packet.info.arrival,
                as_it_came,
            );
        }
        if let Some(track) = self.tracks.get_mut(slot) {
            track.ways = ways;
        }
        if is_cut {
            self.request_keyframe(outside, slot, source.encoding);
        }
    }

    /// A number that nobody is given a packet of: mirrors close up too.
    pub fn relay_gap(&mut self, outside: &mut Outside<'_>, stream: Stream, packet: &RtpPacket<'_>) {
        let Some(track) = self.tracks.get_mut(stream.track) else {
            return;
        };
        let Some(encoding) = track.encodings.get(usize::from(stream.encoding)) else {
            return;
        };
        let (Some(highest), epoch) = (encoding.highest(), encoding.source().epoch) else {
            return;
        };
        if highest as u16 != packet.sequence() || track.muted {
            return;
        }
        let header = RtpHeader {
            marker: false,
            pt: packet.pt(),
            sequence: packet.sequence(),
            timestamp: packet.timestamp(),
            ssrc: packet.ssrc(),
        };
        let mut bytes = [0; MAX_HEADER];
        let Ok(written) = header.write(&mut bytes, &ExtensionMap::default(), &[]) else {
            return;
        };
        for way in track.ways.iter_mut().filter(|way| way.wants(stream.encoding)) {
            let to = way.to;
            let Some(crossing) = way.crossing(stream.encoding) else {
                continue;
            };
            // What has not begun there has no gap.
            if crossing.is_cut || crossing.sent.is_none_or(|(_, sent)| sent != epoch) {
                continue;
            }
            crossing.sent = Some((highest, epoch));
            let media = Media {
                track: track.handle,
                encoding: stream.encoding,
                recovered: false,
                stored: false,
                last_stored: false,
                arrival: outside.relays.unix(outside.now),
                rtp: bytes.get(..written.len).unwrap_or_default(),
            };
            outside.relay(to, self.handle, &Frame::Media(media));
        }
    }

    /// What a mirror wants of a track from now on.
    pub fn on_demand(&mut self, outside: &mut Outside<'_>, from: ShardIndex, slot: Slot, wanted: u8, present: bool) {
        let Some(track) = self.tracks.get_mut(slot) else { return };
        if !present {
            return track.ways.retain(|way| way.to != from);
        }
        outside.relays.reach(from);
        let at = track.ways.iter().position(|way| way.to == from);
        let at = at.unwrap_or_else(|| {
            track.ways.push(Way::new(from));
            track.ways.len() - 1
        });
        let Some(way) = track.ways.get_mut(at) else { return };
        let before = std::mem::replace(&mut way.demand, wanted);
        if before == 0 {
            track.next_state = None;
        }
        let is_unheard = track.is_unheard;
        self.tell_state(outside, slot);
        if before == 0 && is_unheard {
            self.tell_voice(outside, slot, false);
        }
        for encoding in 0..MAX_ENCODINGS as u8 {
            if wants(wanted & !before, encoding) {
                self.begin_crossing(outside, slot, at, encoding, before & !SUBSCRIBED != 0);
            }
        }
        self.arm_track(outside, slot);
    }

    /// An encoding is wanted on a way: what it begins with there. `has_others`: the shard has something of the track.
    fn begin_crossing(&mut self, outside: &mut Outside<'_>, slot: Slot, at: usize, wanted: u8, has_others: bool) {
        let (now, room) = (outside.now, self.handle);
        let Some(track) = self.tracks.get_mut(slot) else { return };
        let mut ways = std::mem::take(&mut track.ways);
        let mut needs_keyframe = track.kind == MediaKind::Video;
        if let Some(way) = ways.get_mut(at) {
            let may_replay = track.kind == MediaKind::Video && !track.muted;
            let replayable = |encoding: u8| track.replayable(encoding, now).filter(|_| may_replay);
            if go_on(outside, room, track, way, wanted) {
                needs_keyframe = false; // whoever waits there finds one in the ring, or asks
            } else {
                let replayed = replayable(wanted);
                needs_keyframe &= replayed.is_none();
                // Something to see until it comes.
                let lower = || (0..wanted).rev().find_map(replayable);
                let shown = replayed.or_else(|| lower().filter(|_| !has_others));
                if shown.is_none_or(|shown| shown.source.encoding != wanted) {
                    start(outside, room, track, way, wanted);
                }
                if let Some(first) = shown {
                    replay(outside, room, track, way, &first);
                }
            }
        }
        if let Some(track) = self.tracks.get_mut(slot) {
            track.ways = ways;
        }
        if needs_keyframe {
            self.request_keyframe(outside, slot, wanted);
        }
    }

    /// What the track can give, to everybody who mirrors it.
    pub fn tell_state(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let now = outside.now;
        let Some(track) = self.tracks.get_mut(slot).filter(|track| !track.ways.is_empty()) else {
            return;
        };
        let interval = match track.kind {
            MediaKind::Video => STATE_INTERVAL,
            MediaKind::Audio => SOUND_STATE_INTERVAL,
        };
        track.next_state = track.ways.iter().any(|way| way.demand != 0).then_some(now + interval);
        let frame = Frame::State {
            track: track.handle,
            flowing: track.flowing,
            offered: track.offered(now),
        };
        for way in &track.ways {
            outside.relay(way.to, self.handle, &frame);
        }
    }

    /// The timer of a track that crosses.
    pub fn ways_timeout(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let now = outside.now;
        let Some(track) = self.tracks.get(slot) else { return };
        let Some(due) = track.next_state else { return };
        if due > now {
            return;
        }
        let is_cut = track.ways.iter().any(Way::is_cut);
        self.tell_state(outside, slot);
        if is_cut {
            self.revive(outside, slot);
        }
    }

    /// Asks for the key frames that ways with room again wait for.
    fn revive(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let Some(track) = self.tracks.get(slot) else { return };
        let mut waiting = 0u8;
        for encoding in 0..MAX_ENCODINGS as u8 {
            let worth = worth(track, encoding);
            let waits = |way: &&Way| {
                let crossing = way.encodings.get(usize::from(encoding));
                crossing.is_some_and(|crossing| crossing.is_cut)
                    && way.wants(encoding)
                    && outside.relays.has_room(way.to, worth)
            };
            waiting |= u8::from(track.ways.iter().find(waits).is_some()) << encoding;
        }
        for encoding in (0..MAX_ENCODINGS as u8).filter(|encoding| wants(waiting, *encoding)) {
            self.request_keyframe(outside, slot, encoding);
        }
    }

    /// Whether a voice is among the loudest, to everybody who mirrors it.
    pub fn tell_voice(&self, outside: &mut Outside<'_>, slot: Slot, heard: bool) {
        let Some(track) = self.tracks.get(slot) else { return };
        let track_handle = track.handle;
        for way in &track.ways {
            let frame = Frame::Voice {
                track: track_handle,
                heard,
            };
            outside.relay(way.to, self.handle, &frame);
        }
    }

    /// The publisher's sender report, to everybody who is sent something of the track.
    pub fn relay_report(&self, outside: &mut Outside<'_>, slot: Slot, encoding: u8) {
        let Some(track) = self.tracks.get(slot) else { return };
        for way in track.ways.iter().filter(|way| way.demand != 0) {
            tell_report(outside, self.handle, track, way.to, encoding);
        }
    }

    /// The room's home has decided about a voice that is published here.
    pub fn on_heard(&mut self, outside: &mut Outside<'_>, slot: Slot, heard: bool) {
        if !heard {
            return self.silence(outside, slot);
        }
        let Some(track) = self.tracks.get_mut(slot) else { return };
        if !std::mem::take(&mut track.is_unheard) {
            return;
        }
        let newest = track.encodings.first().and_then(|encoding| {
            let highest = encoding.highest()?;
            let stored = encoding.stored(highest, outside.now)?;
            Some(Arrived {
                source: encoding.source(),
                // Behind the packet that was decided by, which is sent too.
                sequence: highest + 1,
                late: false,
                new_frame: true,
                info: *stored.info,
            })
        });
        self.tell_voice(outside, slot, true);
        if let Some(newest) = newest.filter(|_| self.tracks.get(slot).is_some_and(|track| !track.muted)) {
            self.pre_roll(outside, slot, &newest);
        }
    }
}

impl Crossing {
    /// Whether a packet crosses; frames are left out whole.
    fn admit(&mut self, kind: MediaKind, has_room: bool, begins: bool, new_frame: bool) -> bool {
        if kind == MediaKind::Audio {
            return has_room;
        }
        if self.is_cut {
            if begins && has_room {
                *self = Self::default(); // begun anew there: no number of what was left out is missed
                return true;
            }
            return false;
        }
        if new_frame && !has_room {
            self.is_cut = true;
            return false;
        }
        true
    }
}

/// The flags of a media frame.
#[derive(Clone, Copy)]
struct Crossed {
    recovered: bool,
    stored: bool,
    last_stored: bool,
}

impl Crossed {
    const LIVE: Self = Self {
        recovered: false,
        stored: false,
        last_stored: false,
    };
}

fn worth(track: &Track, encoding: u8) -> Worth {
    match track.kind {
        MediaKind::Audio => Worth::Voice,
        // Without simulcast all of the picture is in one stream: it goes as its lowest layer does.
        MediaKind::Video => Worth::Picture(encoding),
    }
}

/// Tells that packets of an encoding begin anew, and the times that they are shown at.
fn begin(outside: &mut Outside<'_>, room: RoomHandle, track: &Track, to: ShardIndex, encoding: u8) {
    let its = track.encodings.get(usize::from(encoding));
    let Some((its, ssrc)) = its.and_then(|its| Some((its, its.ssrc?))) else {
        return;
    };
    let frame = Frame::Begin {
        track: track.handle,
        encoding,
        ssrc: ssrc.0,
        layers: its.meter().map_or(0, |meter| meter.known()),
    };
    outside.relay(to, room, &frame);
    for encoding in 0..track.encodings.len() as u8 {
        tell_report(outside, room, track, to, encoding);
    }
}

fn tell_report(outside: &mut Outside<'_>, room: RoomHandle, track: &Track, to: ShardIndex, encoding: u8) {
    let its = track.encodings.get(usize::from(encoding));
    let Some(anchor) = its.and_then(|its| its.sender_report) else {
        return;
    };
    let report = Report {
        track: track.handle,
        encoding,
        ntp: anchor.ntp,
        timestamp: anchor.timestamp,
        arrival: outside.relays.unix(anchor.arrival),
    };
    outside.relay(to, room, &Frame::Report(report));
}

/// Begins with the next packet.
fn start(outside: &mut Outside<'_>, room: RoomHandle, track: &Track, way: &mut Way, encoding: u8) {
    let to = way.to;
    let its = track.encodings.get(usize::from(encoding));
    let newest = its.and_then(|its| Some((its.highest()?, its.source().epoch)));
    let Some(crossing) = way.crossing(encoding) else { return };
    *crossing = Crossing {
        sent: newest,
        is_cut: false,
    };
    if newest.is_some() {
        begin(outside, room, track, to, encoding);
    }
}

/// Sends what was missed since the encoding was last wanted, where that is all still here and is little.
fn go_on(outside: &mut Outside<'_>, room: RoomHandle, track: &Track, way: &mut Way, encoding: u8) -> bool {
    let to = way.to;
    let Some((crossing, its)) = way.crossing(encoding).zip(track.encodings.get(usize::from(encoding))) else {
        return false;
    };
    let (Some((sent, epoch)), false, Some(highest)) = (crossing.sent, crossing.is_cut, its.highest()) else {
        return false;
    };
    let is_here = highest - sent.min(highest) <= CATCH_UP && its.stored(sent, outside.now).is_some();
    if epoch != its.source().epoch || !is_here {
        return false;
    }
    crossing.sent = Some((highest, epoch));
    for sequence in sent + 1..=highest {
        if let Some(arrival) = arrival(its, sequence, outside.now) {
            send(outside, room, track, (to, encoding), sequence, arrival, Crossed::LIVE);
        }
    }
    true
}

/// Sends a stored key frame and what followed it, for whoever waits there.
fn replay(outside: &mut Outside<'_>, room: RoomHandle, track: &Track, way: &mut Way, first: &Arrived) {
    let encoding = first.source.encoding;
    start(outside, room, track, way, encoding);
    let Some(its) = track.encodings.get(usize::from(encoding)) else {
        return;
    };
    let highest = its.highest().unwrap_or(first.sequence);
    // What was lost on the way here is not there.
    let last = (first.sequence..=highest)
        .rev()
        .find(|sequence| its.stored(*sequence, outside.now).is_some());
    for sequence in first.sequence..=highest {
        let Some(arrival) = arrival(its, sequence, outside.now) else {
            continue;
        };
        let crossed = Crossed {
            recovered: false,
            stored: true,
            last_stored: Some(sequence) == last,
        };
        send(outside, room, track, (way.to, encoding), sequence, arrival, crossed);
    }
}

fn arrival(encoding: &Encoding, sequence: u64, now: Instant) -> Option<Instant> {
    Some(encoding.stored(sequence, now)?.info.arrival)
}

/// Writes one packet of the ring as the publisher sent it.
fn send(
    outside: &mut Outside<'_>,
    room: RoomHandle,
    track: &Track,
    (to, index): (ShardIndex, u8),
    sequence: u64,
    arrival: Instant,
    crossed: Crossed,
) {
    let Some(encoding) = track.encodings.get(usize::from(index)) else {
        return;
    };
    let Some((stored, ssrc)) = encoding.stored(sequence, outside.now).zip(encoding.ssrc) else {
        return;
    };
    let info = stored.info;
    let Some(codec) = track.codecs.get(usize::from(info.codec)) else {
        return;
    };
    let header = RtpHeader {
        marker: info.marker,
        pt: codec.pt,
        sequence: sequence as u16,
        timestamp: info.timestamp,
        ssrc,
    };
    let small = [
        (
            Extension::AudioLevel,
            info.audio_level.as_ref().map(std::slice::from_ref),
        ),
        (
            Extension::VideoOrientation,
            info.video_orientation.as_ref().map(std::slice::from_ref),
        ),
        (
            Extension::PlayoutDelay,
            info.playout_delay.as_ref().map(|value| value.as_slice()),
        ),
        (Extension::DependencyDescriptor, Some(stored.dependency_descriptor)),
        (Extension::AbsCaptureTime, Some(stored.abs_capture_time)),
    ];
    let mut elements = [(Extension::Mid, [].as_slice()); 5];
    let mut count = 0;
    for (extension, value) in small {
        if let (Some(value), Some(place)) = (value.filter(|value| !value.is_empty()), elements.get_mut(count)) {
            *place = (extension, value);
            count += 1;
        }
    }
    let mut bytes = [0; MAX_HEADER];
    let elements = elements.get(..count).unwrap_or_default();
    let written = match header.write(&mut bytes, &track.extensions, elements) {
        Ok(written) => written,
        Err(reason) => return outside.stats.count_drop(reason),
    };
    let media = Media {
        track: track.handle,
        encoding: index,
        recovered: crossed.recovered,
        stored: crossed.stored,
        last_stored: crossed.last_stored,
        arrival: outside.relays.unix(arrival),
        rtp: bytes.get(..written.len).unwrap_or_default(),
    };
    match outside.relays.put_media(to, room, &media, stored.payload) {
        Ok(()) => outside.stats.relayed_out += 1,
        Err(reason) => outside.stats.count_drop(reason),
    }
}
