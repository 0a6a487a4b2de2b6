//! What arrives with a connection: who joins, with which rights, and why a join may be refused.

use std::net::SocketAddr;

use crate::proto::claims::Claims;
use crate::proto::join_request::JoinParameters;

use super::output::ConnectionHandle;

/// A verified token and decoded parameters; the room checks what only the room can know.
#[derive(Clone, Debug)]
pub struct Join {
    pub connection: ConnectionHandle,
    /// `video` must hold the join grant: that was checked with the room's name.
    pub claims: Claims,
    pub signer: Signer,
    /// `single_connection` chooses the form: one peer connection, or one per direction.
    pub parameters: JoinParameters,
    /// Where its media is served; None = where the settings say. Of a resumed session nothing changes.
    pub media: Option<MediaAddresses>,
}

/// Candidates of the server, best first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediaAddresses {
    pub udp: Vec<SocketAddr>,
    /// Passive ICE-TCP.
    pub tcp: Vec<SocketAddr>,
}

/// The API key that signed the participant's token; refresh tokens are signed with the same one.
#[derive(Clone, PartialEq, Eq)]
pub struct Signer {
    pub api_key: String,
    pub secret: String,
}

/// Secrets must not reach a log.
impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("api_key", &self.api_key)
            .finish_non_exhaustive()
    }
}

/// Why a participant could not join. `Display` is LiveKit's text where it has one of its own; otherwise clients only see
/// `connection closed by media`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    #[error("identity cannot be empty")]
    IdentityEmpty,
    #[error("participant identity length exceeds limits: max length {max}")]
    IdentityTooLong { max: usize },
    #[error("participant name length exceeds limits: max length {max}")]
    NameTooLong { max: usize },
    #[error("metadata size exceeds limits")]
    MetadataTooLarge,
    #[error("attributes size exceeds limits")]
    AttributesTooLarge,
    /// Metadata or attributes without the right to change them, or `publish=` without the right to publish.
    #[error("no permissions to access the room")]
    NotAllowed,
    #[error("room has exceeded its max participants")]
    RoomFull,
    /// The room ended in the meantime; a new one of that name may be made.
    #[error("room has already closed")]
    RoomClosed,
}
