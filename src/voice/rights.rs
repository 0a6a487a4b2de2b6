//! What a connection may do with media, and the LiveKit grant that says so.

use serde::{Deserialize, Serialize};

/// What permissions, or the backend's own word, allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    #[serde(rename = "can_speak")]
    pub speak: bool,
    #[serde(rename = "can_stream")]
    pub stream: bool,
    #[serde(rename = "can_video")]
    pub video: bool,
}

impl Rights {
    pub const ALL: Self = Self {
        speak: true,
        stream: true,
        video: true,
    };
}

/// What a participant may do in its LiveKit room. Always said whole: LiveKit takes what is left out for forbidden, and an
/// empty list of sources for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaGrant {
    pub subscribe: bool,
    pub microphone: bool,
    pub camera: bool,
    /// With its sound.
    pub screen: bool,
}

impl MediaGrant {
    /// Of a token: who is muted is not told apart there, but the moment they connect.
    pub fn token(rights: Rights, deaf: bool) -> Self {
        Self {
            subscribe: !deaf,
            microphone: rights.speak && !deaf,
            camera: rights.video && !deaf,
            screen: rights.stream && !deaf,
        }
    }

    /// Of somebody in the room.
    pub fn live(rights: Rights, mute: bool, deaf: bool) -> Self {
        let grant = Self::token(rights, deaf);
        Self {
            microphone: grant.microphone && !mute,
            ..grant
        }
    }

    pub fn can_publish(self) -> bool {
        self.microphone || self.camera || self.screen
    }

    /// By LiveKit's names.
    pub fn sources(self) -> Vec<&'static str> {
        let mut sources = Vec::with_capacity(4);
        if self.microphone {
            sources.push("microphone");
        }
        if self.camera {
            sources.push("camera");
        }
        if self.screen {
            sources.extend(["screen_share", "screen_share_audio"]);
        }
        sources
    }
}

/// What a signer needs for a token: the claims, and whose key.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub identity: String,
    pub room: String,
    /// A JSON object, as text.
    pub metadata: String,
    pub grant: MediaGrant,
    /// Empty = this process's own key.
    pub api_key: String,
    pub api_secret: String,
    /// Seconds.
    pub ttl: u64,
    /// UNIX seconds.
    pub now: u64,
}

/// Makes a token of a claim: a pure function of it. The domain knows nothing of JWTs.
pub trait Signer: Send {
    fn sign(&self, claim: &Claim) -> String;
}
