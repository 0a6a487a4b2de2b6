//! One participant receiving one track, and what it said about that track whether it receives it or not.

use std::time::Instant;

use livekit_protocol::UpdateTrackSettings;

use crate::types::{MediaKind, ParticipantHandle, SubscriptionHandle, TrackHandle};

use super::negotiation::BoundSender;

pub(super) struct Subscription {
    pub handle: SubscriptionHandle,
    pub publisher: ParticipantHandle,
    pub kind: MediaKind,
    pub cname: String,
    /// Which of the publication's codecs it gets.
    pub codec: usize,
    /// The m-line it was negotiated on.
    pub bound: Option<BoundSender>,
    /// The track that the shard was told to send; None while the m-line, or the backup codec, is not there yet.
    pub sending: Option<TrackHandle>,
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
