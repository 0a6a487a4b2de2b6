//! Who speaks in a room, from the audio levels that clients put on their packets (RFC 6464).
//!
//! [`TrackLevel`] belongs to one audio track and is fed with every packet's level; [`Speakers`] belongs to a room and
//! asks all of its tracks once per interval. Both are driven by the shard; neither reads payloads or says who may hear
//! whom.
//!
// LiveKit: the numbers, and what clients show as «speaking», follow its server: loudest level of a 400 ms window, weighted
// by how much of it was active, smoothed over two windows.

use std::time::{Duration, Instant};

use super::edge::SpeakerLevel;
use crate::types::ParticipantHandle;

/// Speakers in one list, loudest first; more than anybody can follow. The quietest are left out.
const MAX_SPEAKERS: usize = 64;

/// One packet stands for at most this much time: DTX sends one every 400 ms, and what is longer is a pause.
const MAX_OBSERVED_MS: u32 = 1000;

/// RFC 6464: -127 dBov is silence.
const SILENT: u8 = 127;

/// LiveKit's `audio:` settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpeakerSettings {
    /// -dBov, 0..=127: a packet this loud or louder is active.
    pub active_level: u8,
    /// Percent of the window that has to be active.
    pub min_percentile: u8,
    pub update_interval: Duration,
    /// Windows to smooth over; 0 = none.
    pub smooth_intervals: u32,
}

impl Default for SpeakerSettings {
    fn default() -> Self {
        Self {
            active_level: 35,
            min_percentile: 40,
            update_interval: Duration::from_millis(400),
            smooth_intervals: 2,
        }
    }
}

impl SpeakerSettings {
    fn interval_ms(&self) -> u32 {
        u32::try_from(self.update_interval.as_millis())
            .unwrap_or(u32::MAX)
            .max(1)
    }

    /// Weight of the newest window: an exponential average with the centre of a simple one over the windows.
    fn smoothing(&self) -> f32 {
        if self.smooth_intervals == 0 {
            1.0
        } else {
            2.0 / (self.smooth_intervals as f32 + 1.0)
        }
    }
}

/// Level of one audio track.
#[derive(Clone, Debug)]
pub struct TrackLevel {
    clock_rate: u32,
    /// Linear, 0.0..=1.0 and a little above.
    smoothed: f32,
    /// Of the active packets of this window.
    loudest: u8,
    active_ms: u32,
    observed_ms: u32,
    last_observed: Option<Instant>,
    highest_timestamp: Option<u32>,
}

impl TrackLevel {
    /// `clock_rate` in Hz.
    pub fn new(clock_rate: u32) -> Self {
        Self {
            clock_rate,
            smoothed: 0.0,
            loudest: SILENT,
            active_ms: 0,
            observed_ms: 0,
            last_observed: None,
            highest_timestamp: None,
        }
    }

    /// One packet's level in -dBov (0 is loudest). Its duration is the step from the timestamp before it.
    pub fn observe(&mut self, settings: &SpeakerSettings, level: u8, timestamp: u32, now: Instant) {
        let highest = *self.highest_timestamp.get_or_insert(timestamp);
        let step = timestamp.wrapping_sub(highest);
        if step >= 1 << 31 {
            return; // reordered
        }
        if self.is_stale(settings, now) {
            self.restart_window(0.0);
        }
        self.highest_timestamp = Some(timestamp);
        self.last_observed = Some(now);
        let step_ms = u64::from(step) * 1000 / u64::from(self.clock_rate.max(1));
        let step_ms = step_ms.min(u64::from(MAX_OBSERVED_MS)) as u32;
        self.observed_ms = self.observed_ms.saturating_add(step_ms);
        if level <= settings.active_level {
            self.active_ms = self.active_ms.saturating_add(step_ms);
            self.loudest = self.loudest.min(level);
        }
        if self.observed_ms >= settings.interval_ms() {
            let smoothed = self.window_level(settings);
            self.restart_window(smoothed);
        }
    }

    /// The smoothed level, linear, when the track counts as speaking.
    pub fn level(&self, settings: &SpeakerSettings, now: Instant) -> Option<f32> {
        let active = self.smoothed >= linear(f32::from(settings.active_level)) && !self.is_stale(settings, now);
        active.then_some(self.smoothed)
    }

    /// Silence at once: the track was muted.
    pub fn reset(&mut self) {
        self.restart_window(0.0);
        self.highest_timestamp = None;
    }

    fn window_level(&self, settings: &SpeakerSettings) -> f32 {
        let interval = settings.interval_ms();
        let needed = u64::from(interval) * u64::from(settings.min_percentile) / 100;
        // Without any active packet there is nothing to weigh, even when no percentile is asked for.
        if self.active_ms == 0 || u64::from(self.active_ms) < needed {
            return 0.0;
        }
        let weight = 20.0 * (self.active_ms as f32 / interval as f32).log10();
        let level = linear(f32::from(self.loudest) - weight);
        self.smoothed + (level - self.smoothed) * settings.smoothing()
    }

    fn is_stale(&self, settings: &SpeakerSettings, now: Instant) -> bool {
        self.last_observed
            .is_none_or(|at| now.saturating_duration_since(at) >= settings.update_interval * 2)
    }

    fn restart_window(&mut self, smoothed: f32) {
        self.smoothed = smoothed;
        self.loudest = SILENT;
        self.active_ms = 0;
        self.observed_ms = 0;
    }
}

/// -dBov to linear.
fn linear(level: f32) -> f32 {
    10f32.powf(-level / 20.0)
}

/// The list of one room.
#[derive(Debug, Default)]
pub struct Speakers {
    settings: SpeakerSettings,
    next_update: Option<Instant>,
    speaking: bool,
}

impl Speakers {
    pub fn new(settings: SpeakerSettings) -> Self {
        Self {
            settings,
            next_update: None,
            speaking: false,
        }
    }

    /// For the calls on [`TrackLevel`].
    pub fn settings(&self) -> &SpeakerSettings {
        &self.settings
    }

    /// An audio packet with a level arrived in the room: starts the clock when it stands still.
    pub fn handle_audio(&mut self, now: Instant) {
        self.next_update.get_or_insert(now + self.settings.update_interval);
    }

    /// When `handle_timeout` is due; None while no audio arrives.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_update
    }

    /// `tracks` are all audio tracks of the room; a participant counts with the loudest of its own. Returns who speaks,
    /// loudest first; an empty list once when nobody does any more, then None.
    pub fn handle_timeout<'a>(
        &mut self,
        now: Instant,
        tracks: impl Iterator<Item = (ParticipantHandle, &'a TrackLevel)>,
    ) -> Option<Vec<SpeakerLevel>> {
        if self.next_update.is_none_or(|at| at > now) {
            return None;
        }
        let mut speakers: Vec<SpeakerLevel> = tracks
            .filter_map(|(participant, track)| {
                Some(SpeakerLevel {
                    participant,
                    level: track.level(&self.settings, now)?.min(1.0),
                })
            })
            .collect();
        // Loudest of each participant first, then loudest of all; the handle breaks ties, so that runs repeat.
        speakers.sort_by(|a, b| a.participant.cmp(&b.participant).then(b.level.total_cmp(&a.level)));
        speakers.dedup_by_key(|speaker| speaker.participant);
        speakers.sort_by(|a, b| b.level.total_cmp(&a.level).then(a.participant.cmp(&b.participant)));
        speakers.truncate(MAX_SPEAKERS);
        let was_speaking = std::mem::replace(&mut self.speaking, !speakers.is_empty());
        // Silence stops the clock; the next packet with a level starts it again.
        self.next_update = self.speaking.then(|| now + self.settings.update_interval);
        (self.speaking || was_speaking).then_some(speakers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: ParticipantHandle = ParticipantHandle(1);
    const BOB: ParticipantHandle = ParticipantHandle(2);

    /// 20 ms packets of 48 kHz audio.
    struct Voice {
        level: TrackLevel,
        timestamp: u32,
    }

    impl Voice {
        fn new(start: u32) -> Self {
            Self {
                level: TrackLevel::new(48_000),
                timestamp: start,
            }
        }

        /// Speaks at `level` for `ms` from `from`, and returns when it is over.
        fn speak(&mut self, level: u8, ms: u64, from: Instant) -> Instant {
            let settings = SpeakerSettings::default();
            let mut now = from;
            for _ in 0..ms / 20 {
                self.timestamp = self.timestamp.wrapping_add(960);
                now += Duration::from_millis(20);
                self.level.observe(&settings, level, self.timestamp, now);
            }
            now
        }

        fn now(&self, now: Instant) -> Option<f32> {
            self.level.level(&SpeakerSettings::default(), now)
        }
    }

    #[test]
    fn a_voice_rises_over_windows_and_falls_when_silent() {
        let mut voice = Voice::new(u32::MAX - 5000); // the timestamp wraps on the way
        let now = voice.speak(20, 420, Instant::now());
        let first = voice.now(now).unwrap();
        assert!((first - 0.0667).abs() < 0.004, "two thirds of 0.1: {first}");
        let now = voice.speak(20, 1600, now);
        let steady = voice.now(now).unwrap();
        assert!((steady - 0.1).abs() < 0.004, "{steady}");
        let now = voice.speak(127, 400, now);
        assert_eq!(voice.now(now), None);
    }

    #[test]
    fn quiet_or_rare_sound_is_no_speech() {
        let mut quiet = Voice::new(0);
        let now = quiet.speak(36, 2000, Instant::now());
        assert_eq!(quiet.now(now), None);

        let mut rare = Voice::new(0);
        let mut now = Instant::now();
        for _ in 0..10 {
            now = rare.speak(10, 140, now); // 35 % of each window
            now = rare.speak(127, 260, now);
        }
        assert_eq!(rare.now(now), None);
    }

    #[test]
    fn a_track_that_stops_sending_is_silent_after_two_intervals() {
        let mut voice = Voice::new(0);
        let now = voice.speak(10, 2000, Instant::now());
        assert!(voice.now(now + Duration::from_millis(799)).is_some());
        assert_eq!(voice.now(now + Duration::from_millis(800)), None);
        // And what it was does not count when it comes back.
        let now = voice.speak(127, 20, now + Duration::from_secs(60));
        assert_eq!(voice.now(now), None);
    }

    #[test]
    fn reordered_packets_and_resets() {
        let settings = SpeakerSettings::default();
        let mut voice = Voice::new(10_000);
        let now = voice.speak(10, 2000, Instant::now());
        voice.level.observe(&settings, 127, 5, now);
        assert!(voice.now(now).is_some());
        voice.level.reset();
        assert_eq!(voice.now(now), None);
    }

    #[test]
    fn no_percentile_still_needs_sound() {
        let settings = SpeakerSettings {
            min_percentile: 0,
            smooth_intervals: 0,
            ..SpeakerSettings::default()
        };
        let mut level = TrackLevel::new(48_000);
        let now = Instant::now();
        for at in 0..50 {
            level.observe(&settings, 127, at * 960, now);
        }
        assert_eq!(level.level(&settings, now), None);
    }

    #[test]
    fn a_room_lists_its_speakers_loudest_first_and_ends_with_an_empty_list() {
        let start = Instant::now();
        let mut speakers = Speakers::default();
        let (mut alice, mut bob, mut screen) = (Voice::new(0), Voice::new(7), Voice::new(9));
        assert_eq!(speakers.poll_timeout(), None);
        speakers.handle_audio(start);
        speakers.handle_audio(start + Duration::from_millis(1));
        assert_eq!(speakers.poll_timeout(), Some(start + Duration::from_millis(400)));
        alice.speak(30, 2000, start);
        screen.speak(25, 2000, start);
        let now = bob.speak(10, 2000, start);
        let tracks = [(ALICE, &alice.level), (BOB, &bob.level), (ALICE, &screen.level)];
        let list = speakers.handle_timeout(now, tracks.into_iter()).unwrap();
        let names: Vec<_> = list.iter().map(|speaker| speaker.participant).collect();
        assert_eq!(names, [BOB, ALICE]);
        assert!((list[1].level - linear(25.0)).abs() < 0.005);
        assert_eq!(speakers.poll_timeout(), Some(now + Duration::from_millis(400)));

        let later = now + Duration::from_secs(2);
        let list = speakers.handle_timeout(later, [(BOB, &bob.level)].into_iter());
        assert_eq!(list, Some(Vec::new()));
        assert_eq!(speakers.poll_timeout(), None);
        speakers.handle_audio(later);
        let list = speakers.handle_timeout(later + Duration::from_secs(1), std::iter::empty());
        assert_eq!(list, None);
    }

    #[test]
    fn the_list_is_bounded() {
        let mut voice = Voice::new(0);
        let now = voice.speak(10, 1000, Instant::now());
        let mut speakers = Speakers::default();
        speakers.handle_audio(now);
        let tracks = (0..500).map(|id| (ParticipantHandle(id), &voice.level));
        let list = speakers
            .handle_timeout(now + Duration::from_millis(400), tracks)
            .unwrap();
        assert_eq!((list.len(), list[0].participant), (MAX_SPEAKERS, ParticipantHandle(0)));
    }
}
