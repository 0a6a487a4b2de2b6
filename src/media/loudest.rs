//! Which voices of a large room are forwarded: the loudest few (`room.audio_last_n`).
//!
//! Owns a place per forwarded track, told of every audio packet's level (RFC 6464) by the fanout, which forwards or drops
//! accordingly and sends what led up to a voice's first loud packet from the ring. Never applied to a screen's sound, nor
//! to packets without a level: who cannot be compared is not silenced.

use std::time::{Duration, Instant};

use super::encoding::Arrived;
use super::fanout::Fanout;
use super::outside::Outside;
use super::relay::Way;
use super::room_report;
use super::slots::Slot;
use crate::rtp::extension::AudioLevel;
use crate::types::{DropReason, MediaKind};

/// Who has not been active for this long gives way to who is.
const QUIET: Duration = Duration::from_millis(1000);
/// Who was let in stays this long, so that a cough does not cut a sentence.
const HOLD: Duration = Duration::from_millis(2000);
/// After that a voice louder by this much takes the place, in dB of the smoothed level.
const LOUDER: f32 = 10.0;
/// Weight of a packet in the smoothed level: about ten packets of 20 ms.
const SMOOTHING: f32 = 0.1;
/// Sent before the packet with which a voice is let in: consonants that begin a word are quieter than its vowels.
const PRE_ROLL: Duration = Duration::from_millis(250);

/// Packets of 10 ms in that time.
const MAX_PRE_ROLL: u64 = 25;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Forward,
    /// Forward, and what came before it too. The other track gives way.
    Begin {
        instead_of: Option<Slot>,
    },
    Drop,
}

#[derive(Clone, Copy, Debug)]
struct Seat {
    track: Slot,
    since: Instant,
    active: Instant,
    /// -dBov: smaller is louder.
    level: f32,
}

#[derive(Debug)]
pub struct Loudest {
    limit: usize,
    /// At most `limit`.
    places: Vec<Seat>,
}

impl Loudest {
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            places: Vec::new(),
        }
    }

    /// A packet of `track` with this level in -dBov. `active_level`: as loud or louder counts as speech.
    /// Costs one look at every place.
    pub fn handle_packet(&mut self, track: Slot, level: u8, active_level: u8, now: Instant) -> Verdict {
        let is_active = level <= active_level;
        let level = f32::from(level);
        if let Some(place) = self.places.iter_mut().find(|place| place.track == track) {
            place.level += (level - place.level) * SMOOTHING;
            if is_active {
                place.active = now;
            }
            return Verdict::Forward;
        }
        let newcomer = Seat {
            track,
            since: now,
            active: now,
            level,
        };
        if self.places.len() < self.limit {
            self.places.push(newcomer);
            return Verdict::Begin { instead_of: None };
        }
        if !is_active {
            return Verdict::Drop;
        }
        let gives_way = |place: &&mut Seat| {
            let quiet = now.saturating_duration_since(place.active) >= QUIET;
            let held = now.saturating_duration_since(place.since) >= HOLD;
            quiet || held && place.level - level >= LOUDER
        };
        let places = self.places.iter_mut().filter(gives_way);
        // The longest silent one; of those that are not silent the quietest.
        let weakest = places.max_by(|a, b| b.active.cmp(&a.active).then(a.level.total_cmp(&b.level)));
        match weakest {
            Some(place) => {
                let instead_of = Some(place.track);
                *place = newcomer;
                Verdict::Begin { instead_of }
            }
            None => Verdict::Drop,
        }
    }

    /// The track is muted or gone.
    pub fn forget(&mut self, track: Slot) {
        self.places.retain(|place| place.track != track);
    }
}

impl Fanout {
    /// Whether a voice's packet is to be forwarded. Sends what came before the first of a voice that is let in.
    pub fn admit_voice(&mut self, outside: &mut Outside<'_>, slot: Slot, packet: &Arrived) -> Result<(), DropReason> {
        let active_level = self.speakers.settings().active_level;
        let (Some(loudest), Some(track)) = (&mut self.loudest, self.tracks.get_mut(slot)) else {
            return Ok(());
        };
        let level = packet.info.audio_level.as_ref().map(std::slice::from_ref);
        let level = level
            .and_then(AudioLevel::read)
            .filter(|_| track.kind == MediaKind::Audio && !track.is_screen);
        let Some(level) = level else { return Ok(()) };
        if self.decider.is_some_and(|decider| decider != outside.relays.me) {
            // The level has gone to the shard that decides.
            return if track.is_unheard {
                Err(DropReason::NotLoudest)
            } else {
                Ok(())
            };
        }
        let verdict = if packet.late && track.is_unheard {
            Verdict::Drop
        } else {
            loudest.handle_packet(slot, level.level, active_level, outside.now)
        };
        match verdict {
            Verdict::Forward => Ok(()),
            Verdict::Drop => {
                self.silence(outside, slot);
                Err(DropReason::NotLoudest)
            }
            Verdict::Begin { instead_of } => {
                let was_unheard = std::mem::take(&mut track.is_unheard);
                if let Some(other) = instead_of {
                    self.give_way(outside, other);
                }
                if was_unheard {
                    self.tell_voice(outside, slot, true);
                    self.pre_roll(outside, slot, packet);
                }
                Ok(())
            }
        }
    }

    /// Subscribers get no more of the track; its next packet begins anew where the last has ended.
    pub fn silence(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        self.forward_pending(outside);
        let Some(track) = self.tracks.get_mut(slot) else { return };
        if std::mem::replace(&mut track.is_unheard, true) {
            return;
        }
        for &subscriber in &track.subscribers {
            if let Some(subscription) = self.subscriptions.get_mut(subscriber) {
                subscription.rewriter.interrupt();
                room_report::note(outside, subscription, track);
            }
        }
        track.ways.iter_mut().for_each(Way::interrupt);
        self.tell_voice(outside, slot, false);
    }

    pub fn pre_roll(&mut self, outside: &mut Outside<'_>, slot: Slot, packet: &Arrived) {
        self.forward_pending(outside);
        let now = outside.now;
        let Some(track) = self.tracks.get(slot) else { return };
        // It is late, and would be thrown away as such: shown as if it came now, receivers catch up in the next pause.
        for &subscriber in &track.subscribers {
            if let Some(subscription) = self.subscriptions.get_mut(subscriber) {
                subscription.timeline.restart();
            }
        }
        let first = packet.sequence.saturating_sub(MAX_PRE_ROLL);
        for sequence in first..packet.sequence {
            let encoding = self
                .tracks
                .get(slot)
                .and_then(|track| track.encodings.get(usize::from(packet.source.encoding)));
            let Some(stored) = encoding.and_then(|encoding| encoding.stored(sequence, now)) else {
                continue;
            };
            let arrival = stored.info.arrival;
            let is_live = self.tracks.get(slot).is_some_and(|track| track.is_live_at(arrival));
            if !is_live || now.saturating_duration_since(arrival) > PRE_ROLL {
                continue;
            }
            let mut earlier = Arrived {
                sequence,
                info: *stored.info,
                ..*packet
            };
            earlier.info.arrival = now;
            self.forward(outside, slot, &earlier);
            self.relay(outside, slot, &earlier, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::slots::Slots;

    const ACTIVE: u8 = 35;

    struct Voices {
        loudest: Loudest,
        tracks: Vec<Slot>,
        now: Instant,
    }

    impl Voices {
        fn new(limit: usize, tracks: usize) -> Self {
            let mut slots = Slots::default();
            Self {
                loudest: Loudest::new(limit),
                tracks: (0..tracks).map(|_| slots.insert(())).collect(),
                now: Instant::now(),
            }
        }

        /// All send a packet every 20 ms for `ms` with these levels. Returns what became of the last of each.
        fn speak(&mut self, levels: &[u8], ms: u64) -> Vec<Verdict> {
            let mut last = Vec::new();
            for _ in 0..(ms / 20).max(1) {
                self.now += Duration::from_millis(20);
                let verdicts = levels.iter().zip(&self.tracks);
                last = verdicts
                    .map(|(level, track)| self.loudest.handle_packet(*track, *level, ACTIVE, self.now))
                    .collect();
            }
            last
        }
    }

    #[test]
    fn a_small_room_is_whole() {
        let mut voices = Voices::new(3, 3);
        assert_eq!(
            voices.speak(&[127, 127, 20], 20),
            [Verdict::Begin { instead_of: None }; 3]
        );
        assert_eq!(voices.speak(&[127, 20, 20], 2000), [Verdict::Forward; 3]);
    }

    #[test]
    fn who_speaks_takes_the_place_of_who_is_silent_at_once() {
        let mut voices = Voices::new(2, 4);
        voices.speak(&[20, 30, 127, 127], 100);
        assert_eq!(voices.speak(&[20, 127, 127, 127], 1500)[2..], [Verdict::Drop; 2]);
        let silent = voices.tracks[1];
        let verdicts = voices.speak(&[20, 127, 127, 30], 20);
        assert_eq!(
            verdicts[3],
            Verdict::Begin {
                instead_of: Some(silent)
            }
        );
        assert_eq!(voices.speak(&[20, 127, 127, 30], 20)[1], Verdict::Drop);
    }

    #[test]
    fn equal_voices_do_not_take_turns_and_a_much_louder_one_wins_after_a_while() {
        let mut voices = Voices::new(1, 2);
        let mut changes = 0;
        for at in 0..500u32 {
            let levels = [20 + (at % 7) as u8, 20 + (at % 5) as u8];
            let verdicts = voices.speak(&levels, 20);
            changes += verdicts.iter().filter(|v| matches!(v, Verdict::Begin { .. })).count();
        }
        assert_eq!(changes, 1, "the first one's beginning");
        assert_eq!(voices.speak(&[33, 15], 1000)[1], Verdict::Forward, "10 dB louder");
        assert_eq!(voices.speak(&[5, 15], 500)[0], Verdict::Drop, "held");
    }

    #[test]
    fn a_track_that_goes_leaves_its_place() {
        let mut voices = Voices::new(1, 2);
        voices.speak(&[20, 20], 100);
        voices.loudest.forget(voices.tracks[0]);
        let second = voices.tracks[1];
        let verdict = voices.loudest.handle_packet(second, 127, ACTIVE, voices.now);
        assert_eq!(verdict, Verdict::Begin { instead_of: None });
    }
}
