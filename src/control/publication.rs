//! One track a participant publishes, from its announcement (AddTrack) to its end.

use std::collections::BTreeSet;
use std::time::Instant;

use livekit_protocol::{BackupCodecPolicy, TrackInfo, TrackSource, TrackType};

use crate::media::edge::{LayerShape, Publish};
use crate::types::{Codec, MediaKind, Mid, ParticipantHandle, TrackHandle, TrackId};

use super::dynacast::Dynacast;
use super::layers::Source;
use super::regression::Regression;

/// pending (announced) → bound (negotiated) → live (shown to the others).
pub(super) struct Publication {
    pub sid: TrackId,
    /// What clients are shown.
    pub info: TrackInfo,
    pub kind: MediaKind,
    /// The order of announcement, for m-lines that match no cid.
    pub order: u64,
    /// Names this source in RTCP of every subscription.
    pub cname: String,
    /// The primary codec first, then backup codecs. Never empty.
    pub codecs: Vec<PublishedCodec>,
    /// When it was asked for; None once that was told, and for one that is only shown here.
    pub since: Option<Instant>,
    /// The others know of it.
    pub live: bool,
    /// Participants who have a subscription, bound or not.
    pub subscribers: BTreeSet<ParticipantHandle>,
    /// `TrackSubscribed` was sent.
    pub subscribed_told: bool,
    pub dynacast: Dynacast,
    pub regression: Regression,
}

/// One codec of a track: an m-line of its own, and a track of its own on the shard.
pub(super) struct PublishedCodec {
    /// The client's name for the m-line; empty for a backup codec that is not asked for yet.
    pub cid: String,
    /// As announced; None = whatever is negotiated first.
    pub codec: Option<Codec>,
    /// What its packets have shown.
    pub seen: Option<Codec>,
    /// What its layers have shown, smallest first.
    pub shapes: [LayerShape; 3],
    /// What was sent to the shard when it was negotiated.
    pub bound: Option<Box<Publish>>,
}

impl PublishedCodec {
    pub(super) fn handle(&self) -> Option<TrackHandle> {
        self.bound.as_ref().map(|publish| publish.track)
    }

    pub(super) fn mid(&self) -> Option<Mid> {
        self.bound.as_ref().map(|publish| publish.mid)
    }

    /// What the client sends: seen in its packets, else the first negotiated codec.
    pub(super) fn sent(&self) -> Option<Codec> {
        let negotiated = self.bound.as_ref().and_then(|publish| publish.codecs.first());
        self.seen
            .or(negotiated.map(|parameters| parameters.codec))
            .or(self.codec)
    }
}

impl Publication {
    /// Its layers in one of its codecs.
    pub(super) fn source(&self, codec: usize) -> Source<'_> {
        let shapes = self.codecs.get(codec).map(|codec| codec.shapes);
        Source {
            info: &self.info,
            codec,
            shapes: shapes.unwrap_or_default(),
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.codecs.iter().all(|codec| codec.bound.is_none())
    }

    pub(super) fn uses_cid(&self, cid: &str) -> bool {
        self.codecs.iter().any(|codec| codec.cid == cid)
    }

    /// Which codec is bound to an m-line.
    pub(super) fn codec_on(&self, mid: Mid) -> Option<usize> {
        self.codecs.iter().position(|codec| codec.mid() == Some(mid))
    }

    pub(super) fn codec_of(&self, handle: TrackHandle) -> Option<usize> {
        self.codecs.iter().position(|codec| codec.handle() == Some(handle))
    }

    /// The earliest of its deadlines.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let dynacast = &self.dynacast;
        [
            dynacast.downgrade_at,
            dynacast.unwatched_at,
            self.regression.next_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.info.encryption != 0
    }
}

/// `VC`, `AM`, …: the letters behind `TR_`.
pub(super) fn id_letters(kind: MediaKind, source: TrackSource) -> String {
    let kind = match kind {
        MediaKind::Audio => 'A',
        MediaKind::Video => 'V',
    };
    let source = match source {
        TrackSource::Camera => 'C',
        TrackSource::Microphone => 'M',
        TrackSource::ScreenShare => 'S',
        TrackSource::ScreenShareAudio => 's',
        TrackSource::Unknown => 'U',
    };
    format!("{kind}{source}")
}

/// Tracks of one group are played in step.
pub(super) fn default_stream(source: TrackSource) -> &'static str {
    match source {
        TrackSource::Camera | TrackSource::Microphone => "camera",
        TrackSource::ScreenShare | TrackSource::ScreenShareAudio => "screen",
        TrackSource::Unknown => "unknown",
    }
}

pub(super) fn kind_of(track_type: i32) -> Option<MediaKind> {
    match TrackType::try_from(track_type) {
        Ok(TrackType::Audio) => Some(MediaKind::Audio),
        Ok(TrackType::Video) => Some(MediaKind::Video),
        _ => None,
    }
}

/// LiveKit: audio is sent in every codec that is asked for, unless regression is demanded.
pub(super) fn backup_policy(kind: MediaKind, requested: i32) -> i32 {
    match (kind, BackupCodecPolicy::try_from(requested)) {
        (MediaKind::Audio, Ok(BackupCodecPolicy::PreferRegression)) | (_, Err(_)) => {
            BackupCodecPolicy::Simulcast as i32
        }
        _ => requested,
    }
}
