//! How much is on the node now: sums over its rooms, kept by their tasks and read by anyone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::histogram::Histogram;
use crate::control::{RoomEvent, Sizes, Wait, Waiting, grade};
use crate::media::edge::Event;
use crate::proto::livekit::{ParticipantInfo, TrackInfo, TrackType};
use crate::types::NetProtocol;

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Debug, Default)]
        pub(super) struct Counts {
            $(pub(super) $name: AtomicU64,)*
            pub(super) room_durations: RoomDurations,
            pub(super) join_latencies: JoinLatencies,
            pub(super) session_starts: SessionStarts,
            pub(super) session_durations: SessionDurations,
            pub(super) quality: Qualities,
            pub(super) waits: MediaWaits,
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
    /// Since start: messages of clients to their rooms, and of rooms to their clients; those that a client did not read.
    messages_received,
    messages_sent,
    messages_lost,
    /// Since start: transports that came up, over UDP, over TCP and through our relay, and those that ended.
    udp_connected,
    tcp_connected,
    turn_connected,
    transports_closed,
    /// Since start: subscriptions whose first packet has left, and those that could be sent no codec of the publisher's.
    subscribed,
    unsubscribable,
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

/// Milliseconds from a request to join to its first message.
#[derive(Debug)]
pub(super) struct JoinLatencies(pub(super) Histogram);

impl Default for JoinLatencies {
    fn default() -> Self {
        Self(Histogram::new(&[
            10, 50, 100, 200, 300, 500, 1000, 1500, 2000, 5000, 10_000,
        ]))
    }
}

/// Milliseconds from the join to the primary transport's being up; LiveKit's buckets.
#[derive(Debug)]
pub(super) struct SessionStarts(pub(super) Histogram);

impl Default for SessionStarts {
    fn default() -> Self {
        Self(Histogram::new(&[
            10, 50, 100, 200, 400, 600, 800, 1000, 2000, 5000, 10_000,
        ]))
    }
}

/// Milliseconds; LiveKit's buckets.
#[derive(Debug)]
pub(super) struct SessionDurations(pub(super) Histogram);

impl Default for SessionDurations {
    fn default() -> Self {
        Self(Histogram::new(&[
            100, 200, 500, 1_000, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 1_800_000, 3_600_000, 10_800_000,
        ]))
    }
}

/// Milliseconds until a track is published or received. Keys are combinations of a few values each, most of which never
/// occur; they are made when they do.
#[derive(Debug, Default)]
pub(super) struct MediaWaits(Mutex<BTreeMap<WaitKey, Histogram>>);

/// What is waited for, and LiveKit's names of source, kind, SDK and participant.
type WaitKey = (Waiting, [&'static str; 4]);

/// LiveKit's buckets.
const WAIT_BOUNDS: &[u64] = &[100, 200, 500, 700, 1000, 5000, 10_000];

impl MediaWaits {
    fn record(&self, wait: &Wait) {
        let names = [
            wait.source.as_str_name(),
            wait.kind.as_str_name(),
            wait.sdk.as_str_name(),
            wait.participant.as_str_name(),
        ];
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let histogram = all
            .entry((wait.waiting, names))
            .or_insert_with(|| Histogram::new(WAIT_BOUNDS));
        histogram.record(u64::try_from(wait.duration.as_millis()).unwrap_or(u64::MAX));
    }

    pub(super) fn write(&self, out: &mut String, name: &str, labels: &str) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((waiting, [source, kind, sdk, participant]), histogram) in all.iter() {
            let direction = match waiting {
                Waiting::Publish => "publish",
                Waiting::Subscribe => "subscribe",
            };
            // LiveKit: `count` is the number of tries, of which there is one here.
            let own = format!(
                "direction=\"{direction}\",source=\"{source}\",type=\"{kind}\",country=\"\",sdk=\"{sdk}\",kind=\"{participant}\",count=\"1\""
            );
            histogram.write(out, name, &format!("{labels},{own}"));
        }
    }
}

/// Ratings as clients are told them (POOR 0, GOOD 1, EXCELLENT 2, LOST 3), and scores. LiveKit's buckets.
#[derive(Debug)]
pub(super) struct Qualities {
    pub(super) ratings: Histogram,
    pub(super) scores: Histogram,
}

impl Default for Qualities {
    fn default() -> Self {
        Self {
            ratings: Histogram::new(&[0, 1, 2]),
            scores: Histogram::scaled(&[100, 200, 250, 300, 325, 350, 375, 400, 425, 450], 100),
        }
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

    /// What a shard says of a participant's connection.
    pub(super) fn observe(&self, event: &Event) {
        let counts = &self.counts;
        match event {
            Event::TransportConnected { protocol, .. } => match protocol {
                NetProtocol::Udp => add(&counts.udp_connected, 1),
                NetProtocol::Tcp => add(&counts.tcp_connected, 1),
                NetProtocol::Turn => add(&counts.turn_connected, 1),
            },
            Event::TransportClosed { .. } => add(&counts.transports_closed, 1),
            Event::SubscriptionStarted { .. } => add(&counts.subscribed, 1),
            Event::CodecUnsupported { .. } => add(&counts.unsubscribable, 1),
            Event::Quality { score, .. } => {
                counts
                    .quality
                    .ratings
                    .record(u64::try_from(grade(*score) as i32).unwrap_or_default());
                counts
                    .quality
                    .scores
                    .record((score.mos.max(0.0) * 100.0).round() as u64);
            }
            _ => {}
        }
    }

    pub(super) fn waited(&self, wait: &Wait) {
        self.counts.waits.record(wait);
    }

    pub(super) fn message_received(&self) {
        add(&self.counts.messages_received, 1);
    }

    pub(super) fn message_sent(&self, read: bool) {
        let counter = match read {
            true => &self.counts.messages_sent,
            false => &self.counts.messages_lost,
        };
        add(counter, 1);
    }

    /// Milliseconds since a participant joined; `now` is the time since 1970.
    pub(super) fn since_join(info: &ParticipantInfo, now: Duration) -> u64 {
        let joined = u64::try_from(info.joined_at_ms).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        now.saturating_sub(joined)
    }

    pub(super) fn happened(&mut self, event: &RoomEvent, now: Duration) {
        let counts = &self.counts;
        match event {
            RoomEvent::ParticipantJoined { participant } => {
                counts.session_starts.0.record(Self::since_join(participant, now));
            }
            RoomEvent::ParticipantLeft { participant } => {
                counts.session_durations.0.record(Self::since_join(participant, now));
            }
            _ => {}
        }
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
