//! LiveKit tokens for the domain's claims.

use std::time::Duration;

use crate::node::Node;
use crate::proto::claims::{Claims, VideoGrant, sign};
use crate::proto::livekit::ParticipantPermission;
use crate::proto::livekit::TrackSource;
use crate::voice::{Claim, MediaGrant, Signer};

/// Signs with the server's key, or where it has none with this node's first.
pub(super) struct Jwt(pub Node);

impl Signer for Jwt {
    fn sign(&self, claim: &Claim) -> String {
        let claims = Claims {
            identity: claim.identity.clone(),
            metadata: claim.metadata.clone(),
            video: Some(VideoGrant {
                room_join: true,
                room: claim.room.clone(),
                can_publish: Some(claim.grant.can_publish()),
                can_subscribe: Some(claim.grant.subscribe),
                can_publish_sources: claim.grant.sources().into_iter().map(str::to_owned).collect(),
                ..VideoGrant::default()
            }),
            ..Claims::default()
        };
        let (now, ttl) = (Duration::from_secs(claim.now), Duration::from_secs(claim.ttl));
        if claim.api_key.is_empty() {
            let keys = self.0.keys();
            return match keys.first() {
                Some((key, secret)) => sign(&claims, key, secret, now, ttl),
                None => String::new(),
            };
        }
        sign(&claims, &claim.api_key, &claim.api_secret, now, ttl)
    }
}

/// The whole of a participant's rights: what is left out would be forbidden.
pub(super) fn permission(grant: MediaGrant) -> ParticipantPermission {
    let mut sources = Vec::new();
    if grant.microphone {
        sources.push(TrackSource::Microphone as i32);
    }
    if grant.camera {
        sources.push(TrackSource::Camera as i32);
    }
    if grant.screen {
        sources.extend([TrackSource::ScreenShare as i32, TrackSource::ScreenShareAudio as i32]);
    }
    ParticipantPermission {
        can_subscribe: grant.subscribe,
        can_publish: grant.can_publish(),
        // As in the token, where it follows.
        can_publish_data: grant.can_publish(),
        can_publish_sources: sources,
        ..ParticipantPermission::default()
    }
}

/// The nonce in a participant's metadata.
pub fn nonce_of(metadata: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Metadata {
        token_nonce: Option<String>,
    }
    serde_json::from_str::<Metadata>(metadata).ok()?.token_nonce
}
