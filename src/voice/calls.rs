//! Calls in conversations: ringing, who takes part, and the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::directory::{ChannelType, Ringable};
use super::domain::{Timer, Voice};
use super::effect::{Change, Table};
use super::error::VoiceError;
use super::ids::{ChannelId, ConnectionId, MessageId, RoomKey, UnixMillis, UserId};
use super::marks::Marks;
use super::states::Connection;
use super::topology::{Access, Coordinates, Wish};

/// How long somebody's devices ring.
const RING: Duration = Duration::from_secs(30);
/// A call that nobody takes part in and nobody is rung for ends after this time.
const IDLE: Duration = Duration::from_secs(120);
/// Calls at a time; each has somebody who rang within two minutes. Further ones are refused.
const MAX_CALLS: usize = 100_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    pub message: MessageId,
    pub region: Option<String>,
    /// Until when.
    pub ringing: BTreeMap<UserId, UnixMillis>,
    /// Everybody who was ever in it.
    pub participants: BTreeSet<UserId>,
    pub created_at: UnixMillis,
    /// Since when nobody has been in it or rung.
    idle_since: UnixMillis,
}

#[derive(Clone, Debug, Default)]
pub struct Calls {
    calls: BTreeMap<ChannelId, Call>,
    count: u64,
    pub(super) changed: Marks<ChannelId>,
}

/// A call that is over, as it is kept.
#[derive(Clone, Debug, Serialize)]
struct CallRecord {
    channel_id: ChannelId,
    message_id: MessageId,
    participants: BTreeSet<UserId>,
    created_timestamp: UnixMillis,
    ended_timestamp: UnixMillis,
}

impl Calls {
    pub fn find(&self, channel: ChannelId) -> Option<&Call> {
        self.calls.get(&channel)
    }

    pub fn len(&self) -> usize {
        self.calls.len()
    }

    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ChannelId, &Call)> {
        self.calls.iter().map(|(channel, call)| (*channel, call))
    }

    fn edit(&mut self, channel: ChannelId) -> Option<&mut Call> {
        self.changed.mark(&channel);
        self.calls.get_mut(&channel)
    }

    fn put(&mut self, channel: ChannelId, call: Call) {
        self.changed.mark(&channel);
        self.calls.insert(channel, call);
    }

    fn remove(&mut self, channel: ChannelId) -> Option<Call> {
        self.changed.mark(&channel);
        self.calls.remove(&channel)
    }

    pub(super) fn region_of(&self, room: RoomKey) -> Option<String> {
        match room {
            RoomKey::Dm { channel } => self.find(channel)?.region.clone(),
            RoomKey::Guild { .. } => None,
        }
    }
}

impl Voice {
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    fn conversation(&self, user: UserId, channel: ChannelId) -> Result<(ChannelType, BTreeSet<UserId>), VoiceError> {
        let found = self
            .directory
            .channel(channel)
            .filter(|_| self.directory.can_see(channel, user));
        let found = found.ok_or(VoiceError::ChannelNotFound)?;
        match found.kind.is_call() {
            true => Ok((found.kind, found.recipients.clone())),
            false => Err(VoiceError::InvalidChannelTypeForCall),
        }
    }

    /// Whether `user` may ring in a conversation.
    ///
    /// # Errors
    /// `ChannelNotFound`, `InvalidChannelTypeForCall`.
    pub fn eligibility(&self, user: UserId, channel: ChannelId) -> Result<Ringable, VoiceError> {
        let (kind, recipients) = self.conversation(user, channel)?;
        let (no, yes) = (
            Ringable {
                ringable: false,
                silent: false,
            },
            Ringable {
                ringable: true,
                silent: false,
            },
        );
        let unclaimed = self
            .directory
            .user(user)
            .is_some_and(|user| user.unclaimed && !user.bot);
        let room = RoomKey::Dm { channel };
        let in_call = self.states.in_room(room).any(|connection| connection.user == user);
        if in_call || (unclaimed && kind == ChannelType::Dm) {
            return Ok(no);
        }
        if kind == ChannelType::GroupDm {
            return Ok(yes);
        }
        let other = recipients.iter().find(|recipient| **recipient != user);
        Ok(other.map_or(no, |other| self.directory.ringable(user, *other)))
    }

    /// Rings, and begins the call where there is none. Whoever may not be rung, or not loudly, sees the call only.
    ///
    /// # Errors
    /// `ChannelNotFound`, `InvalidChannelTypeForCall`, `UnclaimedOneOnOne`, `CannotSendToUser`, `InvalidParameters`.
    pub fn ring(
        &mut self,
        now: UnixMillis,
        user: UserId,
        channel: ChannelId,
        wanted: Option<Vec<UserId>>,
        coordinates: Option<Coordinates>,
    ) -> Result<(), VoiceError> {
        let (kind, recipients) = self.conversation(user, channel)?;
        self.check_ring(user, kind, &recipients)?;
        let wanted = wanted.unwrap_or_else(|| recipients.iter().copied().collect());
        if wanted.iter().any(|wanted| !recipients.contains(wanted)) {
            return Err(VoiceError::InvalidParameters);
        }
        let room = RoomKey::Dm { channel };
        let loud = |other: &UserId| {
            let ringable = match kind {
                ChannelType::Dm => self.directory.ringable(user, *other),
                _ => Ringable {
                    ringable: true,
                    silent: false,
                },
            };
            let in_call = self.states.in_room(room).any(|connection| connection.user == *other);
            *other != user && ringable.ringable && !ringable.silent && !in_call
        };
        let until = now.after(RING);
        let ringing: BTreeMap<UserId, UnixMillis> = wanted
            .iter()
            .filter(|other| loud(other))
            .map(|other| (*other, until))
            .collect();
        let event = match self.calls.edit(channel) {
            Some(call) => {
                call.ringing.extend(ringing);
                "CALL_UPDATE"
            }
            None => {
                self.create_call(now, user, channel, ringing, coordinates)?;
                "CALL_CREATE"
            }
        };
        self.at(until, Timer::Call(channel));
        self.tell_call(now, channel, event);
        Ok(())
    }

    /// A call that another process has begun.
    pub(super) fn take_up_call(&mut self, now: UnixMillis, channel: ChannelId, call: Call) {
        let known = self.directory.channel(channel);
        if self.calls.len() >= MAX_CALLS || !known.is_some_and(|known| known.kind.is_call()) {
            return;
        }
        for until in call.ringing.values() {
            self.at(*until, Timer::Call(channel));
        }
        self.at(now.after(IDLE), Timer::Call(channel));
        self.calls.count += 1;
        self.calls.put(channel, call);
    }

    /// Begins a call without ringing.
    ///
    /// # Errors
    /// As `ring`, and `CallAlreadyExists`.
    pub fn start_call(&mut self, now: UnixMillis, user: UserId, channel: ChannelId) -> Result<Value, VoiceError> {
        let (kind, recipients) = self.conversation(user, channel)?;
        self.check_ring(user, kind, &recipients)?;
        if self.calls.find(channel).is_some() {
            return Err(VoiceError::CallAlreadyExists);
        }
        self.create_call(now, user, channel, BTreeMap::new(), None)?;
        self.tell_call(now, channel, "CALL_CREATE");
        self.call_json(channel).ok_or(VoiceError::NoActiveCall)
    }

    fn check_ring(&self, user: UserId, kind: ChannelType, recipients: &BTreeSet<UserId>) -> Result<(), VoiceError> {
        if kind != ChannelType::Dm {
            return Ok(());
        }
        if self
            .directory
            .user(user)
            .is_some_and(|user| user.unclaimed && !user.bot)
        {
            return Err(VoiceError::UnclaimedOneOnOne);
        }
        let blocked =
            |other: &UserId| self.directory.has_blocked(*other, user) || self.directory.has_blocked(user, *other);
        match recipients.iter().any(blocked) {
            true => Err(VoiceError::CannotSendToUser),
            false => Ok(()),
        }
    }

    fn create_call(
        &mut self,
        now: UnixMillis,
        user: UserId,
        channel: ChannelId,
        ringing: BTreeMap<UserId, UnixMillis>,
        coordinates: Option<Coordinates>,
    ) -> Result<(), VoiceError> {
        if self.calls.len() >= MAX_CALLS {
            return Err(VoiceError::Full);
        }
        let room = RoomKey::Dm { channel };
        let wish = Wish {
            access: Access { user, guild: None },
            region: None,
            coordinates,
            room,
        };
        let region = self.topology.choose_region(&wish);
        self.calls.count += 1;
        let call = Call {
            message: MessageId::at(now, self.calls.count),
            region,
            ringing,
            participants: self.states.in_room(room).map(|connection| connection.user).collect(),
            created_at: now,
            idle_since: now,
        };
        self.calls.put(channel, call);
        self.at(now.after(IDLE), Timer::Call(channel));
        Ok(())
    }

    /// Stops the ringing of `wanted`, or of the user's own devices.
    ///
    /// # Errors
    /// `NoActiveCall`, and what `ring` says of the conversation.
    pub fn stop_ringing(
        &mut self,
        now: UnixMillis,
        user: UserId,
        channel: ChannelId,
        wanted: Option<Vec<UserId>>,
    ) -> Result<(), VoiceError> {
        self.conversation(user, channel)?;
        let call = self.calls.edit(channel).ok_or(VoiceError::NoActiveCall)?;
        let before = call.ringing.len();
        for other in wanted.unwrap_or_else(|| vec![user]) {
            call.ringing.remove(&other);
        }
        if call.ringing.len() != before {
            self.rest(now, channel);
            self.tell_call(now, channel, "CALL_UPDATE");
        }
        Ok(())
    }

    /// Another region for a call: those who are in it are sent there.
    ///
    /// # Errors
    /// `NoActiveCall`, `RestrictedRegion`, and what `ring` says of the conversation.
    pub fn set_call_region(
        &mut self,
        now: UnixMillis,
        user: UserId,
        channel: ChannelId,
        region: Option<String>,
    ) -> Result<(), VoiceError> {
        self.conversation(user, channel)?;
        if self.calls.find(channel).is_none() {
            return Err(VoiceError::NoActiveCall);
        }
        if let Some(region) = &region {
            let access = Access { user, guild: None };
            if !self
                .topology
                .accessible_regions(access)
                .any(|known| known.id == *region)
            {
                return Err(VoiceError::RestrictedRegion);
            }
        }
        if let Some(call) = self.calls.edit(channel).filter(|call| call.region != region) {
            call.region.clone_from(&region);
            self.tell_call(now, channel, "CALL_UPDATE");
        }
        self.move_room(now, RoomKey::Dm { channel }, region.as_deref());
        Ok(())
    }

    /// The user's part in a call ends; with the last part the call.
    ///
    /// # Errors
    /// `NoActiveCall`, and what `ring` says of the conversation.
    pub fn end_call(&mut self, now: UnixMillis, user: UserId, channel: ChannelId) -> Result<(), VoiceError> {
        self.conversation(user, channel)?;
        if self.calls.find(channel).is_none() {
            return Err(VoiceError::NoActiveCall);
        }
        let room = RoomKey::Dm { channel };
        for id in self.ids_of(user, |of| of == room) {
            self.disconnect(now, &id);
        }
        if !self.states.is_used(room) {
            self.finish_call(now, channel);
        }
        Ok(())
    }

    /// One state per user: the device that came last.
    pub(super) fn replace_in_call(&mut self, now: UnixMillis, connection: &Connection) {
        let room = connection.room;
        let others: Vec<ConnectionId> = self
            .states
            .in_room(room)
            .filter(|other| other.user == connection.user && other.id != connection.id)
            .map(|other| other.id.clone())
            .collect();
        for id in others {
            // Not `depart`: the user does not leave the call.
            if let Some(old) = self.states.disconnect(&id) {
                self.topology.disconnected(&old.server);
                let identity = super::ids::identity(old.user, &id);
                self.announce_departure(now, &old);
                self.ask_room(old.server, room, super::effect::RoomAction::Remove { identity });
            }
        }
    }

    pub(super) fn joined_call(&mut self, now: UnixMillis, room: RoomKey, user: UserId) {
        let RoomKey::Dm { channel } = room else { return };
        if let Some(call) = self.calls.edit(channel) {
            call.ringing.remove(&user);
            call.participants.insert(user);
            self.tell_call(now, channel, "CALL_UPDATE");
        }
    }

    /// One of several has left.
    pub(super) fn left_call(&mut self, now: UnixMillis, room: RoomKey) {
        let RoomKey::Dm { channel } = room else { return };
        if self.states.is_used(room) {
            self.tell_call(now, channel, "CALL_UPDATE");
        }
    }

    /// Nobody is in it or expected: it ends, unless nobody has come yet.
    pub(super) fn call_emptied(&mut self, now: UnixMillis, room: RoomKey) {
        let RoomKey::Dm { channel } = room else { return };
        if self
            .calls
            .find(channel)
            .is_some_and(|call| !call.participants.is_empty())
        {
            self.finish_call(now, channel);
        }
    }

    pub(super) fn call_due(&mut self, now: UnixMillis, channel: ChannelId) {
        let used = self.states.is_used(RoomKey::Dm { channel });
        let Some(call) = self.calls.edit(channel) else {
            return;
        };
        let before = call.ringing.len();
        call.ringing.retain(|_, until| *until > now);
        let rang_out = call.ringing.len() != before;
        let silent = call.ringing.is_empty() && !used;
        if silent && (rang_out || now >= call.idle_since.after(IDLE)) {
            return self.finish_call(now, channel);
        }
        if !silent {
            call.idle_since = now;
            self.rest(now, channel);
        }
        if rang_out {
            self.tell_call(now, channel, "CALL_UPDATE");
        }
    }

    /// Looks again when the call may have become idle.
    fn rest(&mut self, now: UnixMillis, channel: ChannelId) {
        if let Some(call) = self.calls.edit(channel) {
            call.idle_since = now;
        }
        self.at(now.after(IDLE), Timer::Call(channel));
    }

    fn finish_call(&mut self, now: UnixMillis, channel: ChannelId) {
        let Some(call) = self.calls.remove(channel) else {
            return;
        };
        let record = CallRecord {
            channel_id: channel,
            message_id: call.message,
            participants: call.participants,
            created_timestamp: call.created_at,
            ended_timestamp: now,
        };
        self.keep(Change::put(Table::Calls, call.message.to_string(), &record));
        self.tell_conversation(now, channel, "CALL_DELETE", json!({"channel_id": channel}));
    }

    /// A call as clients see it.
    pub fn call_json(&self, channel: ChannelId) -> Option<Value> {
        let call = self.calls.find(channel)?;
        let room = RoomKey::Dm { channel };
        let states: Vec<_> = self
            .states
            .in_room(room)
            .map(|connection| self.voice_state(connection))
            .collect();
        Some(json!({
            "channel_id": channel,
            "message_id": call.message,
            "region": call.region,
            "ringing": call.ringing.keys().collect::<Vec<_>>(),
            "voice_states": states,
        }))
    }

    fn tell_call(&mut self, now: UnixMillis, channel: ChannelId, event: &'static str) {
        if let Some(call) = self.call_json(channel) {
            self.tell_conversation(now, channel, event, call);
        }
    }
}
