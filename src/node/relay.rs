//! Who may use the TURN server: the participants of a room, while they are in it.
//!
//! Owned by the room's task, which shows it the commands on their way to the shard. Ends with the task, whatever ended it.

use std::collections::HashMap;

use crate::io::{Handover, ShardHandle};
use crate::media::edge::Command;
use crate::types::{ParticipantHandle, ParticipantId};

#[derive(Debug, Default)]
pub(super) struct Guests {
    /// The shard thread with the TURN server; None = there is none.
    home: Option<ShardHandle>,
    admitted: HashMap<ParticipantHandle, String>,
}

impl Guests {
    pub(super) fn new(home: Option<ShardHandle>) -> Self {
        Self {
            home,
            admitted: HashMap::new(),
        }
    }

    /// The participant goes to another room, which lets it in under the name it has: nothing is taken from it here.
    pub(super) fn pass_on(&mut self, participant: ParticipantHandle) {
        self.admitted.remove(&participant);
    }

    /// No room has taken it in.
    pub(super) async fn turn_away(&self, sid: &ParticipantId) {
        if let Some(home) = &self.home {
            let _ = home.hand_over(Handover::Revoke(sid.0.clone())).await;
        }
    }

    /// What a command says about who is there. Must be called before the participant is told its credentials.
    pub(super) async fn observe(&mut self, command: &Command) {
        let Some(home) = &self.home else { return };
        // A home that has ended takes nothing, and relays nothing.
        match command {
            Command::SetParticipant(participant) if !self.admitted.contains_key(&participant.participant) => {
                self.admitted.insert(participant.participant, participant.sid.clone());
                let _ = home.hand_over(Handover::Admit(participant.sid.clone())).await;
            }
            Command::RemoveParticipant { participant, .. } => {
                if let Some(sid) = self.admitted.remove(participant) {
                    let _ = home.hand_over(Handover::Revoke(sid)).await;
                }
            }
            _ => {}
        }
    }
}

/// A task that has panicked leaves nobody behind.
impl Drop for Guests {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            for (_, sid) in self.admitted.drain() {
                home.try_hand_over(Handover::Revoke(sid));
            }
        }
    }
}
