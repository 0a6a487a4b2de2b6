//! How much is on the node now: sums over its rooms, kept by their tasks and read by anyone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::histogram::Histogram;
use crate::control::{RoomEvent, Sizes};
use crate::proto::livekit::{TrackInfo, TrackType};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Debug, Default)]
        pub(super) struct Counts {
            $(pub(super) $name: AtomicU64,)*
            pub(super) room_durations: RoomDurations,
        }

        /// The values at one moment (each of its own).
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct NodeCounts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counts {
            pub(super) fn snapshot(&self) -> NodeCounts {
                NodeCounts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counts! {
    /// Now: rooms, sessions in them, tracks announced or live, subscriptions to tracks.
    rooms,
    participants,
    tracks,
    subscriptions,
    /// Now: tracks whose media flows.
    audio_tracks,
    video_tracks,
    /// Since start: connections that were let in, resumes included, and those that were not.
    sessions_started,
    sessions_refused,
    /// Since start.
    rooms_started,
    rooms_finished,
    participants_joined,
    participants_left,
    participants_aborted,
    audio_published,
    video_published,
}

impl Counts {
    /// Tracks in both directions, which `limit.num_tracks` bounds.
    pub(super) fn all_tracks(&self) -> u64 {
        self.tracks.load(Ordering::Relaxed) + self.subscriptions.load(Ordering::Relaxed)
    }
}

/// Seconds; LiveKit's buckets.
#[derive(Debug)]
pub(super) struct RoomDurations(pub(super) Histogram);

impl Default for RoomDurations {
    fn default() -> Self {
        Self(Histogram::new(&[5, 10, 60, 300, 600, 1800, 3600, 7200, 18_000, 36_000]))
    }
}

/// One room's part of the sums. Dropped with the room's task, however that ends.
#[derive(Debug)]
pub(super) struct Tally {
    counts: Arc<Counts>,
    since: Instant,
    sizes: Sizes,
    audio: u64,
    video: u64,
}

impl Tally {
    pub(super) fn new(counts: Arc<Counts>) -> Self {
        add(&counts.rooms, 1);
        Self {
            counts,
            since: Instant::now(),
            sizes: Sizes::default(),
            audio: 0,
            video: 0,
        }
    }

    pub(super) fn set(&mut self, sizes: Sizes) {
        let before = std::mem::replace(&mut self.sizes, sizes);
        let move_by = |counter: &AtomicU64, before: usize, now: usize| {
            if now >= before {
                add(counter, (now - before) as u64);
            } else {
                counter.fetch_sub((before - now) as u64, Ordering::Relaxed);
            }
        };
        move_by(&self.counts.participants, before.participants, sizes.participants);
        move_by(&self.counts.tracks, before.tracks, sizes.tracks);
        move_by(&self.counts.subscriptions, before.subscriptions, sizes.subscriptions);
    }

    pub(super) fn happened(&mut self, event: &RoomEvent) {
        let counts = &self.counts;
        match event {
            RoomEvent::RoomStarted => add(&counts.rooms_started, 1),
            RoomEvent::RoomFinished => add(&counts.rooms_finished, 1),
            RoomEvent::ParticipantJoined { .. } => add(&counts.participants_joined, 1),
            RoomEvent::ParticipantLeft { .. } => add(&counts.participants_left, 1),
            RoomEvent::ParticipantConnectionAborted { .. } => add(&counts.participants_aborted, 1),
            RoomEvent::TrackPublished { track, .. } if is_audio(track) => {
                self.audio += 1;
                add(&counts.audio_tracks, 1);
                add(&counts.audio_published, 1);
            }
            RoomEvent::TrackPublished { .. } => {
                self.video += 1;
                add(&counts.video_tracks, 1);
                add(&counts.video_published, 1);
            }
            RoomEvent::TrackUnpublished { track, .. } => {
                let (mine, all) = match is_audio(track) {
                    true => (&mut self.audio, &counts.audio_tracks),
                    false => (&mut self.video, &counts.video_tracks),
                };
                if *mine > 0 {
                    *mine -= 1;
                    all.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.set(Sizes::default());
        self.counts.room_durations.0.record(self.since.elapsed().as_secs());
        self.counts.audio_tracks.fetch_sub(self.audio, Ordering::Relaxed);
        self.counts.video_tracks.fetch_sub(self.video, Ordering::Relaxed);
        self.counts.rooms.fetch_sub(1, Ordering::Relaxed);
    }
}

fn is_audio(track: &TrackInfo) -> bool {
    track.r#type() == TrackType::Audio
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
