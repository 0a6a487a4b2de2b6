//! One participant receiving one track, and what it said about that track whether it receives it or not.

use std::time::Instant;

use livekit_protocol::{StreamState, UpdateTrackSettings};

use crate::media::edge::SubscriptionSettings;
use crate::types::{MediaKind, ParticipantHandle, SubscriptionHandle, TrackHandle};

use super::negotiation::BoundSender;

pub(super) struct Subscription {
    pub handle: SubscriptionHandle,
    pub publisher: ParticipantHandle,
    pub kind: MediaKind,
    pub cname: String,
    /// Which of the publication's codecs it gets.
    pub codec: usize,
    /// One bit for each of the codecs that its client turned out not to take.
    pub refused: u8,
    /// What the shard goes on sending until this one, in another codec, is negotiated.
    pub replaces: Option<SubscriptionHandle>,
    /// When it was wanted; None once how long that took was told.
    pub since: Option<Instant>,
    /// The m-line it was negotiated on.
    pub bound: Option<BoundSender>,
    /// The track that the shard was told to send; None while the m-line, or the backup codec, is not there yet.
    pub sending: Option<TrackHandle>,
    /// What counts of the client's wishes: newer ones wait until `settle_at`.
    pub settings: TrackSettings,
    pub settle_at: Option<Instant>,
    /// What the shard was told last.
    pub applied: Option<SubscriptionSettings>,
    pub stream: Stream,
    /// The spatial layer that leaves for it, as far as the shard has said.
    pub shown: Option<u8>,
}

impl Subscription {
    pub(super) fn has_refused(&self, codec: usize) -> bool {
        refuses(self.refused, codec)
    }
}

/// `refused` has the codec's bit. There are `MAX_CODECS` of them at most.
pub(super) fn refuses(refused: u8, codec: usize) -> bool {
    refused & refusal(codec) != 0
}

pub(super) fn refusal(codec: usize) -> u8 {
    u32::try_from(codec)
        .ok()
        .and_then(|codec| 1u8.checked_shl(codec))
        .unwrap_or(0)
}

/// Whether the server sends a subscription's video, and what the client knows of that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stream {
    /// Stopped for want of bandwidth.
    pub paused: bool,
    /// The state the client was told last.
    pub told: Option<StreamState>,
}

/// What a client said about one track.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// None = as `auto_subscribe` says.
    pub subscribe: Option<bool>,
    pub settings: Option<TrackSettings>,
    /// Nobody publishes the track: given up then.
    pub missing_until: Option<Instant>,
}

/// `UpdateTrackSettings` of one track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TrackSettings {
    pub disabled: bool,
    /// LOW 0, MEDIUM 1, HIGH 2, OFF 3; counts only where no size is given.
    pub quality: i32,
    /// Pixels; 0 = not said.
    pub width: u32,
    pub height: u32,
    /// Frames a second; 0 = all.
    pub fps: u32,
    pub priority: u32,
}

impl From<&UpdateTrackSettings> for TrackSettings {
    fn from(request: &UpdateTrackSettings) -> Self {
        Self {
            disabled: request.disabled,
            quality: request.quality,
            width: request.width,
            height: request.height,
            fps: request.fps,
            priority: request.priority,
        }
    }
}
