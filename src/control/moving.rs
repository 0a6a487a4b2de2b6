//! A participant goes to another room: it is told which, with everything it needs to be there, and starts over there.

use std::time::Instant;

use livekit_protocol::signal_response::Message;
use livekit_protocol::{DisconnectReason, ParticipantInfo, RoomMovedResponse};

use crate::proto::claims;
use crate::types::Identity;

use super::administration::AdministrationError;
use super::room::Room;
use super::settings::TOKEN_MIN_LIFETIME;

impl Room {
    /// The client hears where it belongs now, gets a token for that room, and is told to connect anew. The others see it
    /// leave. `others` are the participants of `destination`.
    pub fn move_participant(
        &mut self,
        now: Instant,
        identity: &Identity,
        destination: livekit_protocol::Room,
        others: Vec<ParticipantInfo>,
    ) -> Result<(), AdministrationError> {
        let handle = self.find(identity)?;
        let unix = self.wall.unix(now);
        if let Some(participant) = self.participants.get_mut(&handle) {
            let grant = participant.claims.video.get_or_insert_default();
            grant.room.clone_from(&destination.name);
            let signer = &participant.signer;
            let token = claims::sign(
                &participant.claims.for_refresh(),
                &signer.api_key,
                &signer.secret,
                unix,
                participant.claims.remaining(unix).max(TOKEN_MIN_LIFETIME),
            );
            let moved = RoomMovedResponse {
                room: Some(destination),
                token: token.clone(),
                participant: Some(participant.info()),
                other_participants: others,
            };
            // Clients that do not know of moving take a new token all the same.
            self.out.signal(participant, Message::RefreshToken(token));
            self.out.signal(participant, Message::RoomMoved(moved));
        }
        self.full_reconnect(now, handle, DisconnectReason::Migration);
        Ok(())
    }
}
