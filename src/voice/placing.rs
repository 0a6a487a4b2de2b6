//! Which server a room goes to, and for how long: pins made, kept, followed and let go.

use super::domain::{Timer, Voice};
use super::effect::{Change, RoomAction, Table};
use super::error::VoiceError;
use super::ids::{ChannelId, RoomKey, UnixMillis, UserId};
use super::join::Join;
use super::pins::PinRecord;
use super::states::Connection;
use super::topology::{Access, ServerKey, Wish};

impl Voice {
    /// The server of `room`: the one it is pinned to while it is used, else a new choice.
    pub(super) fn place(&mut self, now: UnixMillis, room: RoomKey, join: &Join) -> Result<ServerKey, VoiceError> {
        if let Some(region) = join.region.as_ref().filter(|_| join.region_must_exist)
            && self.topology.region(region).is_none()
        {
            return Err(VoiceError::UnknownRegion);
        }
        let channel_region = self
            .directory
            .channel(room.channel())
            .and_then(|channel| channel.rtc_region.clone());
        let region = join.region.clone().or(channel_region).or(self.calls.region_of(room));
        let features = room.guild().and_then(|guild| self.directory.guild(guild));
        let wish = Wish {
            access: Access {
                user: join.user,
                guild: room.guild().map(|guild| (guild, features.map(|guild| &guild.features))),
            },
            region: region.as_deref(),
            coordinates: join.coordinates,
            room,
        };
        if let Some(pin) = self.pins.find(room).filter(|pin| self.topology.is_usable(&pin.server)) {
            let wanted = region.as_ref().is_none_or(|region| *region == pin.server.region);
            // While anybody is there everybody goes there, whoever may use that server by themselves.
            if self.states.is_used(room) || (wanted && self.topology.admits(&pin.server, &wish.access)) {
                return Ok(pin.server.clone());
            }
        }
        let server = self.topology.choose(&wish).ok_or(VoiceError::FeatureDisabled)?;
        self.pin(now, room, server.clone());
        if self.states.is_used(room) {
            // Its server is gone: those who were there follow.
            self.follow_pin(now, room);
        }
        Ok(server)
    }

    pub(super) fn pin(&mut self, now: UnixMillis, room: RoomKey, server: ServerKey) {
        let endpoint = self.topology.server(&server).map(|server| server.endpoint.clone());
        let record = PinRecord {
            room: self.room_name(room),
            region_id: server.region.clone(),
            server_id: server.server.clone(),
            endpoint: endpoint.clone().unwrap_or_default(),
            updated_at: now,
        };
        self.keep(Change::put(Table::Pins, record.room.clone(), &record));
        let is_new = self.pins.find(room).is_none();
        self.pins.pin(now, room, server, endpoint.unwrap_or_default());
        if is_new {
            self.at(now.after(self.settings.reconcile_interval), Timer::Reconcile(room));
        }
    }

    pub(super) fn unpin(&mut self, room: RoomKey) {
        if self.pins.remove(room).is_some() {
            let name = self.room_name(room);
            self.keep(Change::remove(Table::Pins, name));
        }
    }

    pub(super) fn end_virtual_access(&mut self, user: UserId, channel: ChannelId) {
        if self.virtual_access.remove(&(user, channel)) {
            self.virtual_changed.mark(&(user, channel));
        }
    }

    /// Lets go of what was for those in `room`, when nobody is there or expected any more.
    pub(super) fn after_departure(&mut self, now: UnixMillis, room: RoomKey, user: UserId) {
        let stays = |connection: &Connection| connection.user == user;
        if !self.states.in_room(room).chain(self.states.pending_in(room)).any(stays) {
            self.end_virtual_access(user, room.channel());
        }
        if self.states.is_used(room) {
            return;
        }
        if self.pins.unused(now, room) {
            self.at(now.after(self.settings.pin_timeout), Timer::Pin(room));
        }
        self.call_emptied(now, room);
    }

    pub(super) fn pin_due(&mut self, now: UnixMillis, room: RoomKey) {
        if let Some(pin) = self.pins.expire(now, room, self.settings.pin_timeout) {
            let name = self.room_name(room);
            self.keep(Change::remove(Table::Pins, name));
            // Whoever is in it without our knowing is found by this look.
            self.ask_room(pin.server, room, RoomAction::List);
        }
    }
}
