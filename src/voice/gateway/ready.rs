//! What a client is told at first: everything that it may see.

use serde_json::{Value, json};

use crate::voice::directory::{Channel, Guild};
use crate::voice::domain::Voice;
use crate::voice::ids::{RoomKey, SessionId, UserId};
use crate::voice::topology::{Access, Region};

impl Voice {
    pub(super) fn ready(&self, user: UserId, session: &SessionId) -> Value {
        let guilds: Vec<Value> = self
            .directory
            .guilds_of(user)
            .map(|guild| self.guild_json(user, guild))
            .collect();
        let conversations: Vec<Value> = self.directory.conversations_of(user).map(conversation_json).collect();
        json!({
            "version": 1,
            "session_id": session,
            "user": self.user_json(user),
            "guilds": guilds,
            "private_channels": conversations,
            "relationships": [],
            "presences": [],
            "sessions": [],
            "users": [],
            "user_settings": null,
            "rtc_regions": self.rtc_regions(user),
        })
    }

    /// With the voice states of the channels that `user` sees.
    fn guild_json(&self, user: UserId, guild: &Guild) -> Value {
        let visible = |channel: &&Channel| self.directory.can_see(channel.id, user);
        let channels: Vec<&Channel> = guild
            .channels
            .iter()
            .filter_map(|channel| self.directory.channel(*channel))
            .filter(visible)
            .collect();
        let states: Vec<Value> = channels
            .iter()
            .flat_map(|channel| {
                let room = RoomKey::Guild {
                    guild: guild.id,
                    channel: channel.id,
                };
                self.states().in_room(room)
            })
            .map(|connection| json!(self.voice_state(connection)))
            .collect();
        let channels: Vec<Value> = channels.iter().map(|channel| channel_json(channel)).collect();
        json!({
            "id": guild.id,
            "name": guild.name,
            "owner_id": guild.owner_id,
            "features": guild.features,
            "channels": channels,
            "voice_states": states,
        })
    }

    /// Those for everybody, by their ids.
    fn rtc_regions(&self, user: UserId) -> Vec<String> {
        let access = Access { user, guild: None };
        let regions: Vec<&Region> = self.topology().accessible_regions(access).collect();
        regions.into_iter().map(|region| region.id.clone()).collect()
    }
}

fn channel_json(channel: &Channel) -> Value {
    json!({
        "id": channel.id,
        "guild_id": channel.guild,
        "type": channel.kind.number(),
        "name": channel.name,
        "user_limit": channel.user_limit,
        "rtc_region": channel.rtc_region,
    })
}

fn conversation_json(channel: &Channel) -> Value {
    json!({
        "id": channel.id,
        "type": channel.kind.number(),
        "name": channel.name,
        "recipient_ids": channel.recipients,
    })
}
