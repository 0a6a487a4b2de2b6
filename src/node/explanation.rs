//! Explanations: asked of a room's task, which asks its shard.

use std::time::Duration;

use tokio::sync::oneshot;

use super::driver::Node;
use super::room_task::RoomInput;
use crate::control::RoomExplanation;
use crate::types::{Identity, RoomName};

/// A shard answers in its next turn; one that is this late has other worries.
const LIMIT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    #[error("requested room does not exist")]
    NoRoom,
    #[error("participant does not exist")]
    NoParticipant,
    /// Overloaded, or asked too often at a time.
    #[error("the room does not answer now")]
    NoAnswer,
}

impl Node {
    /// Who is sent what in a room, and why not more. With an `identity` only that participant's part.
    ///
    /// # Errors
    /// See [`ExplainError`].
    pub async fn explain(&self, room: &str, identity: Option<&str>) -> Result<Box<RoomExplanation>, ExplainError> {
        let name = RoomName(room.to_owned());
        let room = self.registry().find(&name).ok_or(ExplainError::NoRoom)?;
        let (answer, answered) = oneshot::channel();
        let input = RoomInput::Explain {
            identity: identity.map(Identity::from),
            answer,
        };
        let asked = async {
            room.mailbox.send(input).await.map_err(|_| ExplainError::NoRoom)?;
            let explained = answered.await.map_err(|_| ExplainError::NoAnswer)?;
            explained.map_err(|_| ExplainError::NoParticipant)
        };
        tokio::time::timeout(LIMIT, asked)
            .await
            .unwrap_or(Err(ExplainError::NoAnswer))
    }
}
