//! Why a subscription is sent what it is sent: the values of an explanation, and the short memory behind it.
//!
//! [`Decisions`] and [`Freezes`] belong to a subscription, which notes what changed; the rest are plain values that
//! `room_report` fills in when control asks. Never decides anything.

use std::time::{Duration, Instant};

use super::edge::ConnectionScore;
use crate::types::{
    Bitrate, Codec, Layer, MediaKind, ParticipantHandle, Rid, ShardIndex, Ssrc, SubscriptionHandle, TrackHandle,
    TransportHandle,
};

/// Why the layer that is sent is not a better one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LayerReason {
    /// The best there is.
    #[default]
    Best,
    /// All that the client asked for.
    ClientAskedLess,
    /// What the client asked for does not come from the publisher now.
    NotSent,
    /// It does not fit what the path to the client carries.
    Bandwidth,
    /// It does not fit the cap set for the participant.
    ParticipantCap,
    /// The better layer begins with its next key frame.
    AwaitingKeyframe,
    /// The publisher muted the track.
    Muted,
    /// Not even the lowest layer fits: nothing is sent.
    Paused,
    /// The client wants nothing of it for now.
    Disabled,
    /// The subscriber takes none of the codecs that come.
    CodecNotNegotiated,
    /// The subscriber's transport is not up.
    NotConnected,
    /// Not among the loudest of a room that forwards only those.
    NotLoudest,
}

impl LayerReason {
    pub const ALL: [Self; 12] = [
        Self::Best,
        Self::ClientAskedLess,
        Self::NotSent,
        Self::Bandwidth,
        Self::ParticipantCap,
        Self::AwaitingKeyframe,
        Self::Muted,
        Self::Paused,
        Self::Disabled,
        Self::CodecNotNegotiated,
        Self::NotConnected,
        Self::NotLoudest,
    ];

    /// It is about which layer is sent, not about whether anything can be.
    pub fn is_about_layers(self) -> bool {
        matches!(
            self,
            Self::Best
                | Self::ClientAskedLess
                | Self::NotSent
                | Self::Bandwidth
                | Self::ParticipantCap
                | Self::AwaitingKeyframe
                | Self::Paused
        )
    }

    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::ClientAskedLess => "client_asked_less",
            Self::NotSent => "publisher_not_sending",
            Self::Bandwidth => "bandwidth",
            Self::ParticipantCap => "participant_cap",
            Self::AwaitingKeyframe => "awaiting_keyframe",
            Self::Muted => "muted",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
            Self::CodecNotNegotiated => "codec_not_negotiated",
            Self::NotConnected => "not_connected",
            Self::NotLoudest => "not_among_loudest",
        }
    }
}

/// What is said of a subscription's layers at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerState {
    /// The best layer the client would take; None = none.
    pub wanted: Option<Layer>,
    /// What it is to be given.
    pub target: Option<Layer>,
    /// What it is given: a frame of it has left.
    pub sent: Option<Layer>,
    pub reason: LayerReason,
}

/// What a reason is found from.
#[derive(Clone, Copy, Debug)]
pub struct LayerFacts {
    pub connected: bool,
    pub codec_negotiated: bool,
    pub muted: bool,
    pub disabled: bool,
    /// What the client asked for at most.
    pub asked: Layer,
    /// The best that the track has, whether or not it comes now.
    pub top: Layer,
    /// The best that comes now and is not above what was asked for. None = nothing comes.
    pub flowing: Option<Layer>,
    pub target: Option<Layer>,
    pub sent: Option<Layer>,
    /// The participant's cap, not the path, is what limits.
    pub capped: bool,
}

impl LayerFacts {
    pub fn reason(&self) -> LayerReason {
        if self.disabled {
            LayerReason::Disabled
        } else if self.muted {
            LayerReason::Muted
        } else if !self.connected {
            LayerReason::NotConnected
        } else if !self.codec_negotiated {
            LayerReason::CodecNotNegotiated
        } else {
            self.layer_reason()
        }
    }

    fn layer_reason(&self) -> LayerReason {
        let limit = if self.capped {
            LayerReason::ParticipantCap
        } else {
            LayerReason::Bandwidth
        };
        let asked = Layer {
            spatial: self.asked.spatial.min(self.top.spatial),
            temporal: self.asked.temporal.min(self.top.temporal),
        };
        match (self.flowing, self.target) {
            (None, _) => LayerReason::NotSent,
            (Some(_), None) => LayerReason::Paused,
            (Some(flowing), Some(target)) if target < flowing => limit,
            (Some(_), Some(target)) if self.sent.is_none_or(|sent| sent < target) => LayerReason::AwaitingKeyframe,
            (Some(_), Some(target)) if target < asked => LayerReason::NotSent,
            (Some(_), Some(_)) if asked < self.top => LayerReason::ClientAskedLess,
            _ => LayerReason::Best,
        }
    }
}

/// One change of a subscription's layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// How long ago.
    pub age: Duration,
    pub layers: LayerState,
    /// Of the path, then. None = the client gives no feedback.
    pub estimate: Option<Bitrate>,
}

/// Decisions remembered per subscription; the oldest goes first.
pub const MAX_DECISIONS: usize = 50;

/// Of `Entry::estimate`: none.
const NO_ESTIMATE: u32 = u32::MAX;
/// Of a packed layer: none.
const NO_LAYER: u8 = u8::MAX;

/// A decision in 12 bytes, so that 50 stay well below a subscription's 4 KiB.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// ms since `Decisions::started`; 49 days.
    at: u32,
    /// kbit/s.
    estimate: u32,
    wanted: u8,
    target: u8,
    sent: u8,
    reason: LayerReason,
}

const _: () = assert!(size_of::<Entry>() == 12);

fn pack(layer: Option<Layer>) -> u8 {
    layer.map_or(NO_LAYER, |layer| (layer.spatial & 15) << 4 | layer.temporal & 15)
}

fn unpack(packed: u8) -> Option<Layer> {
    (packed != NO_LAYER).then_some(Layer {
        spatial: packed >> 4,
        temporal: packed & 15,
    })
}

/// The last decisions about one subscription.
#[derive(Debug)]
pub struct Decisions {
    started: Instant,
    last: LayerState,
    entries: Vec<Entry>,
    /// Where the next entry goes once there are `MAX_DECISIONS`.
    next: usize,
}

impl Decisions {
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
            last: LayerState::default(),
            entries: Vec::new(),
            next: 0,
        }
    }

    /// Remembers `layers` unless it is what was noted last.
    pub fn note(&mut self, layers: LayerState, estimate: Option<Bitrate>, now: Instant) {
        if layers == self.last && !self.entries.is_empty() {
            return;
        }
        self.last = layers;
        let at = now.saturating_duration_since(self.started).as_millis();
        let kbps = estimate.map(|estimate| u32::try_from(estimate.as_kbps()).unwrap_or(NO_ESTIMATE - 1));
        let entry = Entry {
            at: u32::try_from(at).unwrap_or(u32::MAX),
            estimate: kbps.unwrap_or(NO_ESTIMATE),
            wanted: pack(layers.wanted),
            target: pack(layers.target),
            sent: pack(layers.sent),
            reason: layers.reason,
        };
        if self.entries.len() < MAX_DECISIONS {
            // At the first, so that no later one allocates.
            self.entries.reserve_exact(MAX_DECISIONS - self.entries.len());
            self.entries.push(entry);
        } else if let Some(oldest) = self.entries.get_mut(self.next) {
            *oldest = entry;
            self.next = (self.next + 1) % MAX_DECISIONS;
        }
    }

    /// Oldest first.
    pub fn list(&self, now: Instant) -> Vec<Decision> {
        let (newer, older) = self.entries.split_at(self.next.min(self.entries.len()));
        let decision = |entry: &Entry| Decision {
            age: now.saturating_duration_since(self.started + Duration::from_millis(u64::from(entry.at))),
            layers: LayerState {
                wanted: unpack(entry.wanted),
                target: unpack(entry.target),
                sent: unpack(entry.sent),
                reason: entry.reason,
            },
            estimate: (entry.estimate != NO_ESTIMATE).then(|| Bitrate::kbps(u64::from(entry.estimate))),
        };
        older.iter().chain(newer).map(decision).collect()
    }

    /// Bytes of memory held beside the struct itself.
    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }
}

/// Longer than the usual time between two frames by this much, and by this factor, is a freeze: W3C webrtc-stats,
/// `freezeCount`, here of what is sent.
const FREEZE_ADDED: Duration = Duration::from_millis(150);
const FREEZE_FACTOR: u32 = 3;
/// Frames before the usual time between two is known.
const FREEZE_FRAMES: u8 = 8;

/// Interruptions in what a subscriber is sent of a picture, beside those that somebody asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Freezes {
    pub count: u32,
    pub total: Duration,
    last_frame: Option<Instant>,
    /// Usual time between frames.
    usual: Duration,
    frames: u8,
}

impl Freezes {
    /// The last packet of a frame has been forwarded.
    pub fn handle_frame(&mut self, now: Instant) {
        let Some(last) = self.last_frame.replace(now) else {
            return;
        };
        let gap = now.saturating_duration_since(last);
        let limit = (self.usual * FREEZE_FACTOR).max(self.usual + FREEZE_ADDED);
        if self.frames < FREEZE_FRAMES {
            self.frames += 1;
        } else if gap > limit {
            self.count += 1;
            self.total += gap - self.usual;
            return; // says nothing about the usual pace
        }
        self.usual = if self.usual.is_zero() {
            gap
        } else {
            (self.usual * 15 + gap) / 16
        };
    }

    /// What follows is a pause that was asked for.
    pub fn interrupt(&mut self) {
        self.last_frame = None;
    }
}

/// Counted over a subscription's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairCounts {
    /// Sequence numbers that the receiver asked for.
    pub nacked: u32,
    pub retransmitted: u32,
    /// Key frames that the receiver asked for.
    pub keyframe_requests: u32,
    /// Starts and switches that were served from stored packets.
    pub keyframe_replays: u32,
}

/// Everything that is known about who is sent what in a room, or about one participant's part of it.
#[derive(Clone, Debug, Default)]
pub struct Explanation {
    pub receptions: Vec<ReceptionReport>,
    pub subscriptions: Vec<SubscriptionReport>,
    pub tracks: Vec<TrackReport>,
    /// The room has more subscriptions than one report holds: ask by participant.
    pub truncated: bool,
}

/// One participant's transport on which it is sent media.
#[derive(Clone, Debug)]
pub struct ReceptionReport {
    pub transport: TransportHandle,
    /// The one that serves it.
    pub shard: ShardIndex,
    pub participant: ParticipantHandle,
    pub connected: bool,
    /// What the path carries. None = the client gives no feedback: unlimited.
    pub estimate: Option<Bitrate>,
    /// What may be spent on media; None = unlimited.
    pub budget: Option<Bitrate>,
    /// What the layers that are to be sent cost, sound included.
    pub allocated: Bitrate,
    /// What all that the client wants would cost.
    pub wanted: Bitrate,
    pub may_pause: bool,
    /// The participant's cap.
    pub max_bitrate: Option<Bitrate>,
    pub rtt: Option<Duration>,
    /// Part of the packets sent lately that did not arrive, 0.0..=1.0.
    pub loss: f32,
    /// Waiting to leave.
    pub queued_packets: u32,
    /// How long packets wait on the path, above the least it takes.
    pub queue_delay: Duration,
}

#[derive(Clone, Debug)]
pub struct SubscriptionReport {
    pub subscription: SubscriptionHandle,
    pub track: TrackHandle,
    pub subscriber: ParticipantHandle,
    pub publisher: ParticipantHandle,
    pub transport: TransportHandle,
    pub kind: MediaKind,
    pub is_screen: bool,
    /// As the client set it; 0 = by source.
    pub priority: u8,
    pub layers: LayerState,
    /// Of its own reports; None before the first.
    pub rtt: Option<Duration>,
    /// Packets and payload bytes sent, retransmissions not included.
    pub packets: u32,
    pub bytes: u32,
    /// As the receiver reports it: what the publisher lost looks lost to it too.
    pub lost: i32,
    pub fraction_lost: f32,
    pub jitter: Duration,
    pub repair: RepairCounts,
    pub freezes: u32,
    /// Time frozen altogether.
    pub frozen: Duration,
    pub score: ConnectionScore,
    /// Oldest first, at most `MAX_DECISIONS`.
    pub decisions: Vec<Decision>,
}

#[derive(Clone, Debug)]
pub struct TrackReport {
    pub track: TrackHandle,
    pub publisher: ParticipantHandle,
    /// It is published on another shard: only what is relayed here is known of it.
    pub is_mirrored: bool,
    pub kind: MediaKind,
    pub is_screen: bool,
    pub muted: bool,
    pub subscribers: u32,
    pub score: ConnectionScore,
    /// By spatial layer, smallest first.
    pub encodings: Vec<EncodingReport>,
}

#[derive(Clone, Debug)]
pub struct EncodingReport {
    pub rid: Option<Rid>,
    /// None before its first packet.
    pub ssrc: Option<Ssrc>,
    /// Of the newest packet; None when none came lately.
    pub codec: Option<Codec>,
    /// Packets come now.
    pub is_flowing: bool,
    /// Payload, lately.
    pub rate: Bitrate,
    /// Received, retransmissions on an RTX stream not included.
    pub packets: u64,
    pub bytes: u64,
    /// Missing on the stream itself; `recovered` of them came by RTX.
    pub lost: u64,
    pub jitter: Duration,
    /// Sequence numbers asked of the publisher, repeats included.
    pub nacked: u32,
    /// Packets that came by RTX.
    pub recovered: u32,
    /// Key frames asked of the publisher.
    pub keyframe_requests: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(spatial: u8, reason: LayerReason) -> LayerState {
        let layer = Some(Layer { spatial, temporal: 3 });
        LayerState {
            wanted: layer,
            target: layer,
            sent: None,
            reason,
        }
    }

    #[test]
    fn the_last_fifty_changes_are_kept_and_nothing_twice() {
        let start = Instant::now();
        let mut decisions = Decisions::new(start);
        for at in 0..60u32 {
            let state = layers((at % 2) as u8, LayerReason::Bandwidth);
            let now = start + Duration::from_secs(u64::from(at));
            decisions.note(state, Some(Bitrate::kbps(u64::from(at))), now);
            decisions.note(state, Some(Bitrate::kbps(7)), now);
        }
        let list = decisions.list(start + Duration::from_secs(60));
        assert_eq!(list.len(), MAX_DECISIONS);
        let estimates: Vec<u64> = list.iter().map(|d| d.estimate.unwrap().as_kbps()).collect();
        assert_eq!(estimates, (10..60).collect::<Vec<_>>());
        assert_eq!(list[0].age, Duration::from_secs(50));
        assert_eq!(list[49].layers, layers(1, LayerReason::Bandwidth));
        assert!(decisions.heap_bytes() + size_of::<Decisions>() <= 1024);
    }

    #[test]
    fn the_reason_names_what_would_have_to_change() {
        let layer = |spatial, temporal| Layer { spatial, temporal };
        let best = LayerFacts {
            connected: true,
            codec_negotiated: true,
            muted: false,
            disabled: false,
            asked: layer(2, 3),
            top: layer(2, 2),
            flowing: Some(layer(2, 2)),
            target: Some(layer(2, 2)),
            sent: Some(layer(2, 2)),
            capped: false,
        };
        let cases = [
            (best, LayerReason::Best),
            (LayerFacts { muted: true, ..best }, LayerReason::Muted),
            (
                LayerFacts {
                    disabled: true,
                    muted: true,
                    ..best
                },
                LayerReason::Disabled,
            ),
            (
                LayerFacts {
                    connected: false,
                    ..best
                },
                LayerReason::NotConnected,
            ),
            (
                LayerFacts {
                    codec_negotiated: false,
                    ..best
                },
                LayerReason::CodecNotNegotiated,
            ),
            (LayerFacts { flowing: None, ..best }, LayerReason::NotSent),
            (LayerFacts { target: None, ..best }, LayerReason::Paused),
            (
                LayerFacts {
                    target: Some(layer(1, 2)),
                    ..best
                },
                LayerReason::Bandwidth,
            ),
            (
                LayerFacts {
                    target: Some(layer(2, 1)),
                    capped: true,
                    ..best
                },
                LayerReason::ParticipantCap,
            ),
            (
                LayerFacts {
                    sent: Some(layer(1, 2)),
                    ..best
                },
                LayerReason::AwaitingKeyframe,
            ),
            (LayerFacts { sent: None, ..best }, LayerReason::AwaitingKeyframe),
            (
                LayerFacts {
                    flowing: Some(layer(1, 2)),
                    target: Some(layer(1, 2)),
                    ..best
                },
                LayerReason::NotSent,
            ),
            (
                LayerFacts {
                    asked: layer(1, 3),
                    flowing: Some(layer(1, 2)),
                    target: Some(layer(1, 2)),
                    ..best
                },
                LayerReason::ClientAskedLess,
            ),
        ];
        for (facts, reason) in cases {
            assert_eq!(facts.reason(), reason, "{facts:?}");
        }
        let words: std::collections::BTreeSet<_> = LayerReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.len(), LayerReason::ALL.len());
    }

    #[test]
    fn a_first_note_is_kept_and_estimates_may_be_unknown() {
        let start = Instant::now();
        let mut decisions = Decisions::new(start);
        decisions.note(LayerState::default(), None, start);
        let list = decisions.list(start);
        assert_eq!((list.len(), list[0].estimate, list[0].layers.wanted), (1, None, None));
    }

    #[test]
    fn a_gap_is_a_freeze_when_it_is_far_beyond_the_usual_pace() {
        let mut now = Instant::now();
        let mut freezes = Freezes::default();
        let mut frames = |freezes: &mut Freezes, count: u32, ms: u64| {
            for _ in 0..count {
                now += Duration::from_millis(ms);
                freezes.handle_frame(now);
            }
        };
        frames(&mut freezes, 30, 33);
        frames(&mut freezes, 1, 180);
        assert_eq!(freezes.count, 0, "33 + 150 ms is the limit");
        frames(&mut freezes, 1, 400);
        assert_eq!(freezes.count, 1);
        assert!(freezes.total > Duration::from_millis(350) && freezes.total < Duration::from_millis(380));
        freezes.interrupt();
        frames(&mut freezes, 1, 60_000);
        assert_eq!(freezes.count, 1, "a pause that was asked for");
        // A shared screen at one frame a second is no series of freezes.
        let mut screen = Freezes::default();
        frames(&mut screen, 30, 1000);
        assert_eq!(screen.count, 0);
    }
}
