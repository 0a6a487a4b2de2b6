//! The data plane of one room on one shard: DataPackets between its participants, and its data tracks (DESIGN D8b).
//!
//! Owns who may send, who receives, duplicate detection and what waits for slow readers. Driven by the shard: channel
//! events of the room's transports and the data commands of `edge`; it sends through the `DataLink` it is given and
//! never touches a transport, a socket or a clock. Reliable data is never dropped for a connected reader: its senders
//! are held back (their channel is not read, SCTP's window closes), and a reader that stays behind is cut.

mod across;
mod reader;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::across::Across;
use self::reader::{Backlog, Pending};
use super::data_tracks::DataTracks;
use super::edge::{DataParticipant, Event};
use super::relay::Worth;
use super::relay::frame::Frame;
use crate::proto::envelope::{self, Envelope, EnvelopeError, NONCE_LEN, Stamp, StreamHeader, ValueKind};
use crate::rtc::{ChannelId, SendDataError};
use crate::types::{
    ChannelLabel, CloseReason, DataTrackHandle, DropReason, ParticipantHandle, RoomHandle, ShardIndex, TransportHandle,
};

/// The nonces a room remembers; LiveKit's window. The oldest is forgotten first.
const NONCE_WINDOW: usize = 100;
/// Unlabeled channels of one transport that are read; `rtc` opens no more than 32 channels in all. Data on others is
/// dropped.
const MAX_OTHER_CHANNELS: usize = 32;
/// DataSequence events are coalesced over this time, latest wins (DESIGN §3).
const SEQUENCE_REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Packets passed on for one call: its acknowledgement and its response. Participants may send more; they are nobody's.
const PACKETS_PER_CALL: u8 = 2;

/// How long a reliable reader may stay behind before it is cut (DESIGN D8b).
const STUCK: Duration = Duration::from_secs(10);

/// What the data plane needs of the transports; the shard implements it over `rtc::Transport`.
pub trait DataLink {
    /// As `rtc::Transport::send_data`; `Closed` for a transport that is gone.
    fn send_data(
        &mut self,
        now: Instant,
        transport: TransportHandle,
        channel: ChannelId,
        binary: bool,
        data: &[u8],
    ) -> Result<(), SendDataError>;

    /// Bytes of a channel that the peer has not acknowledged; 0 for one that is gone.
    fn buffered_amount(&mut self, transport: TransportHandle, channel: ChannelId) -> usize;

    /// As `rtc::Transport::set_reading`. What becomes readable arrives as later `on_message` calls, never from within.
    fn set_reading(&mut self, transport: TransportHandle, channel: ChannelId, reading: bool);

    /// Ends a transport for `reason`; `on_transport_closed` may follow now or later.
    fn cut(&mut self, transport: TransportHandle, reason: CloseReason);

    /// A packet that one receiver does not get.
    fn count_drop(&mut self, reason: DropReason);

    /// A data stream begins, for so many receivers on this shard.
    fn count_stream(&mut self, _stream: StreamHeader, _receivers: usize) {}

    /// Whether the way to another shard of the room takes something of this worth.
    fn way_has_room(&self, _to: ShardIndex, _worth: Worth) -> bool {
        true
    }

    /// Queues a frame for another shard of the room.
    fn relay(&mut self, _to: ShardIndex, _room: RoomHandle, _frame: &Frame<'_>) {}

    /// `DataPlane::way_is_free` is to be called when ways have room again.
    fn wait_for_way(&mut self) {}
}

/// Call order: any of the `on_*` and command functions in the order things happened, then `poll_event` until None, then
/// `poll_timeout`, whose instant is when `handle_timeout` is due.
#[derive(Debug, Default)]
pub struct DataPlane {
    /// Ordered, so that a run replays: the order of sending is part of it.
    members: BTreeMap<ParticipantHandle, Member>,
    transports: BTreeMap<TransportHandle, Channels>,
    by_identity: HashMap<String, ParticipantHandle>,
    by_sid: HashMap<String, ParticipantHandle>,
    nonces: VecDeque<[u8; NONCE_LEN]>,
    /// Calls of the server's own, and how many packets for each are still passed on. Control bounds their number.
    calls: HashMap<String, u8>,
    tracks: DataTracks,
    /// Reliable readers over their budget, and since when; senders are held back only by these.
    late: BTreeMap<ParticipantHandle, Instant>,
    events: VecDeque<Event>,
    /// Senders whose sequence has moved since it was last reported.
    sequence_moved: BTreeSet<ParticipantHandle>,
    sequence_report_at: Option<Instant>,
    /// Reused for packets that are written once per receiver.
    scratch: Vec<u8>,
    receivers: Vec<ParticipantHandle>,
    across: Across,
}

#[derive(Debug)]
struct Member {
    info: DataParticipant,
    /// The highest sequence of its reliable packets.
    sequence: u32,
    /// Readers that are behind because of packets of this sender: it is not read while there are any.
    held_by: BTreeSet<ParticipantHandle>,
    reliable: Backlog,
    lossy: Backlog,
    pending: Pending,
}

/// The open channels of one transport.
#[derive(Debug)]
pub struct Channels {
    participant: ParticipantHandle,
    reliable: Option<ChannelId>,
    lossy: Option<ChannelId>,
    data_track: Option<ChannelId>,
    other: Vec<ChannelId>,
    /// `ChannelsOpen` has been said.
    announced: bool,
}

impl Channels {
    fn new(participant: ParticipantHandle) -> Self {
        Self {
            participant,
            reliable: None,
            lossy: None,
            data_track: None,
            other: Vec::new(),
            announced: false,
        }
    }

    fn ready(&self) -> bool {
        self.reliable.is_some() && self.lossy.is_some()
    }

    fn slot(&mut self, label: ChannelLabel) -> &mut Option<ChannelId> {
        match label {
            ChannelLabel::Reliable => &mut self.reliable,
            ChannelLabel::Lossy => &mut self.lossy,
            ChannelLabel::DataTrack => &mut self.data_track,
        }
    }

    fn label(&self, channel: ChannelId) -> Option<ChannelLabel> {
        [
            (self.reliable, ChannelLabel::Reliable),
            (self.lossy, ChannelLabel::Lossy),
            (self.data_track, ChannelLabel::DataTrack),
        ]
        .into_iter()
        .find(|(open, _)| *open == Some(channel))
        .map(|(_, label)| label)
    }

    /// Channels whose messages are passed on reliably: those that are not read while their sender is held back.
    fn holdable(&self) -> impl Iterator<Item = ChannelId> {
        self.reliable.into_iter().chain(self.other.iter().copied())
    }
}

impl DataPlane {
    // ---- what control says -------------------------------------------------------------------------------------

    pub fn set_participant(&mut self, now: Instant, link: &mut impl DataLink, info: DataParticipant) {
        let handle = info.participant;
        self.by_identity.insert(info.identity.clone(), handle);
        self.by_sid.insert(info.sid.clone(), handle);
        match self.members.get_mut(&handle) {
            Some(member) => {
                let old = std::mem::replace(&mut member.info, info);
                let (identity_changed, sid_changed) =
                    (old.identity != member.info.identity, old.sid != member.info.sid);
                let moved = old.transport != member.info.transport;
                if identity_changed {
                    self.by_identity.remove(&old.identity);
                }
                if sid_changed {
                    self.by_sid.remove(&old.sid);
                }
                if moved {
                    self.stop_waiting_for(link, handle);
                }
            }
            None => {
                self.members.insert(handle, Member::new(info));
            }
        }
        self.start_if_ready(now, link, handle);
    }

    pub fn remove_participant(&mut self, link: &mut impl DataLink, participant: ParticipantHandle) {
        self.stop_waiting_for(link, participant);
        let Some(member) = self.members.remove(&participant) else {
            // It was on another shard.
            return self.tracks.remove_participant(participant);
        };
        // A newer session of the same identity keeps its place.
        if self.by_identity.get(&member.info.identity) == Some(&participant) {
            self.by_identity.remove(&member.info.identity);
        }
        if self.by_sid.get(&member.info.sid) == Some(&participant) {
            self.by_sid.remove(&member.info.sid);
        }
        self.tracks.remove_participant(participant);
        self.forget_relayed_tracks();
    }

    /// A packet of the server's own, as it is. Empty `to` = everybody. Counts handles that name nobody.
    pub fn send(
        &mut self,
        now: Instant,
        link: &mut impl DataLink,
        to: &[ParticipantHandle],
        reliable: bool,
        packet: Vec<u8>,
    ) {
        if let Ok(Some(nonce)) = Envelope::parse(&packet).map(|envelope| envelope.nonce())
            && self.seen_before(nonce)
        {
            return link.count_drop(DropReason::DataDuplicate);
        }
        let mut receivers = std::mem::take(&mut self.receivers);
        receivers.clear();
        if to.is_empty() {
            receivers.extend(self.members.keys());
        } else {
            receivers.extend(to);
        }
        let packet = Bytes::from(packet);
        for receiver in &receivers {
            if !self.members.contains_key(receiver) {
                link.count_drop(DropReason::StaleCommand);
            } else if reliable {
                self.send_reliable(now, link, None, false, *receiver, &packet);
            } else {
                self.send_lossy(now, link, *receiver, &packet);
            }
        }
        self.receivers = receivers;
    }

    pub fn expect_rpc(&mut self, call: String) {
        self.calls.insert(call, PACKETS_PER_CALL);
    }

    /// False when there is no such call.
    pub fn end_rpc(&mut self, call: &str) -> bool {
        self.calls.remove(call).is_some()
    }

    pub fn publish_track(&mut self, publisher: ParticipantHandle, track: DataTrackHandle, publisher_handle: u16) {
        self.tracks.publish(publisher, track, publisher_handle);
    }

    pub fn has_track(&self, track: DataTrackHandle) -> bool {
        self.tracks.contains(track)
    }

    /// False when there is no such track (a stale command).
    pub fn unpublish_track(&mut self, track: DataTrackHandle) -> bool {
        self.stop_relaying(track);
        self.tracks.unpublish(track)
    }

    /// False when there is no such track.
    pub fn subscribe_track(
        &mut self,
        track: DataTrackHandle,
        subscriber: ParticipantHandle,
        subscriber_handle: u16,
    ) -> bool {
        self.tracks.subscribe(track, subscriber, subscriber_handle)
    }

    /// False when there is no such track or subscriber.
    pub fn unsubscribe_track(&mut self, track: DataTrackHandle, subscriber: ParticipantHandle) -> bool {
        self.tracks.unsubscribe(track, subscriber)
    }

    // ---- what transports say -----------------------------------------------------------------------------------

    /// `label` None = a channel of the client's own.
    pub fn on_channel_open(
        &mut self,
        now: Instant,
        link: &mut impl DataLink,
        transport: TransportHandle,
        participant: ParticipantHandle,
        channel: ChannelId,
        label: Option<ChannelLabel>,
    ) {
        let channels = self
            .transports
            .entry(transport)
            .or_insert_with(|| Channels::new(participant));
        match label {
            // A second channel of one label replaces the first: clients open a new one when the old has failed.
            Some(label) => *channels.slot(label) = Some(channel),
            None if channels.other.len() < MAX_OTHER_CHANNELS => channels.other.push(channel),
            None => {}
        }
        let announce = channels.ready() && !channels.announced;
        if announce {
            channels.announced = true;
            self.events.push_back(Event::ChannelsOpen { transport });
        }
        let held = self
            .members
            .get(&participant)
            .is_some_and(|member| !member.held_by.is_empty());
        if held && matches!(label, None | Some(ChannelLabel::Reliable)) {
            link.set_reading(transport, channel, false);
        }
        self.start_if_ready(now, link, participant);
    }

    pub fn on_channel_closed(&mut self, link: &mut impl DataLink, transport: TransportHandle, channel: ChannelId) {
        let Some(channels) = self.transports.get_mut(&transport) else {
            return;
        };
        channels.other.retain(|other| *other != channel);
        let Some(label) = channels.label(channel) else {
            return;
        };
        *channels.slot(label) = None;
        channels.announced = channels.announced && channels.ready();
        let participant = channels.participant;
        if !self.is_primary(participant, transport) {
            return;
        }
        match (label, self.members.get_mut(&participant)) {
            (ChannelLabel::Reliable, _) => self.stop_waiting_for(link, participant),
            (ChannelLabel::Lossy, Some(member)) => member.lossy.clear(),
            _ => {}
        }
    }

    pub fn on_transport_closed(&mut self, link: &mut impl DataLink, transport: TransportHandle) {
        let Some(channels) = self.transports.remove(&transport) else {
            return;
        };
        if self.is_primary(channels.participant, transport) {
            self.stop_waiting_for(link, channels.participant);
        }
    }

    /// The transport goes into another room, and its channels with it. What waits for its reader is this room's, and ends.
    pub fn let_go(&mut self, link: &mut impl DataLink, transport: TransportHandle) -> Option<Channels> {
        let channels = self.transports.remove(&transport)?;
        if self.is_primary(channels.participant, transport) {
            self.stop_waiting_for(link, channels.participant);
        }
        for channel in channels.holdable() {
            link.set_reading(transport, channel, true);
        }
        Some(channels)
    }

    /// Channels of a transport that came from another room.
    pub fn take_in(
        &mut self,
        link: &mut impl DataLink,
        transport: TransportHandle,
        participant: ParticipantHandle,
        mut channels: Channels,
    ) {
        channels.participant = participant;
        let held = self
            .members
            .get(&participant)
            .is_some_and(|member| !member.held_by.is_empty());
        if held {
            for channel in channels.holdable() {
                link.set_reading(transport, channel, false);
            }
        }
        self.transports.insert(transport, channels);
    }

    /// `ChannelWritable` of a transport: what waits for the channel goes on.
    pub fn on_writable(
        &mut self,
        now: Instant,
        link: &mut impl DataLink,
        transport: TransportHandle,
        channel: ChannelId,
    ) {
        let Some(channels) = self.transports.get(&transport) else {
            return;
        };
        let (participant, label) = (channels.participant, channels.label(channel));
        if !self.is_primary(participant, transport) {
            return;
        }
        let Some(member) = self.members.get_mut(&participant) else {
            return;
        };
        match label {
            Some(ChannelLabel::Lossy) => member.lossy.flush(now, link, transport, channel),
            Some(ChannelLabel::Reliable) => {
                member.reliable.flush(now, link, transport, channel);
                self.release_if_caught_up(link, participant);
            }
            _ => {}
        }
    }

    /// One message of a channel. An error drops it for everybody.
    pub fn on_message(
        &mut self,
        now: Instant,
        link: &mut impl DataLink,
        transport: TransportHandle,
        channel: ChannelId,
        data: &[u8],
    ) -> Result<(), DropReason> {
        let channels = self.transports.get(&transport).ok_or(DropReason::DataNotAllowed)?;
        let (sender, label) = (channels.participant, channels.label(channel));
        let other = channels.other.contains(&channel);
        let member = self.members.get(&sender).ok_or(DropReason::DataNotAllowed)?;
        if !member.info.rights.can_publish_data {
            return Err(DropReason::DataNotAllowed);
        }
        match label {
            Some(ChannelLabel::Reliable) => self.forward(now, link, sender, false, data),
            Some(ChannelLabel::Lossy) => self.forward(now, link, sender, true, data),
            Some(ChannelLabel::DataTrack) => {
                self.send_track_across(link, sender, data);
                self.forward_track(now, link, sender, data)
            }
            None if other => self.forward_other(now, link, sender, data),
            None => Err(DropReason::DataNotAllowed),
        }
    }

    pub fn handle_timeout(&mut self, now: Instant, link: &mut impl DataLink) {
        if self.sequence_report_at.is_some_and(|at| at <= now) {
            self.sequence_report_at = None;
            for participant in std::mem::take(&mut self.sequence_moved) {
                if let Some(member) = self.members.get(&participant) {
                    let sequence = member.sequence;
                    self.events.push_back(Event::DataSequence { participant, sequence });
                }
            }
        }
        let stuck = |(reader, since): (&ParticipantHandle, &Instant)| (*since + STUCK <= now).then_some(*reader);
        for reader in self.late.iter().filter_map(stuck).collect::<Vec<_>>() {
            self.cut(link, reader);
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let stuck = self.late.values().map(|since| *since + STUCK);
        stuck.chain(self.sequence_report_at).min()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    // ---- forwarding --------------------------------------------------------------------------------------------

    fn forward(
        &mut self,
        now: Instant,
        link: &mut impl DataLink,
        sender: ParticipantHandle,
        lossy: bool,
        data: &[u8],
    ) -> Result<(), DropReason> {
        let packet = Envelope::parse(data).map_err(|error| match error {
            EnvelopeError::TooLarge => DropReason::TooLarge,
            EnvelopeError::Malformed | EnvelopeError::SeveralValues => DropReason::Malformed,
        })?;
        let member = self.members.get_mut(&sender).ok_or(DropReason::DataNotAllowed)?;
        if !lossy && packet.sequence() > 0 {
            // LiveKit: after a reconnect clients send again what may have been lost.
            if packet.sequence() <= member.sequence {
                return Err(DropReason::DataDuplicate);
            }
            member.sequence = packet.sequence();
            self.sequence_moved.insert(sender);
            self.sequence_report_at.get_or_insert(now + SEQUENCE_REPORT_INTERVAL);
        }
        let rights = member.info.rights;
        match packet.value() {
            Some(ValueKind::Transcription) if !rights.agent => return Err(DropReason::DataNotAllowed),
            // For the server, not for participants.
            Some(ValueKind::Metrics) => return Err(DropReason::DataNotForwarded),
            _ => {}
        }
        let on_behalf = rights.agent && packet.on_behalf_of(&member.info.identity).is_some();
        let shown = if rights.hidden {
            ""
        } else {
            member.info.identity.as_str()
        };
        let stamp = Stamp {
            participant_sid: &member.info.sid,
            participant_identity: (!on_behalf).then_some(shown),
            lossy,
            hidden: rights.hidden,
        };
        let mut stamped = Vec::new();
        packet.write_stamped(stamp, &mut stamped);
        let stamped = Bytes::from(stamped);

        if let Some(nonce) = packet.nonce()
            && self.seen_before(nonce)
        {
            return Err(DropReason::DataDuplicate);
        }
        let mut receivers = std::mem::take(&mut self.receivers);
        self.find_receivers(sender, &packet, &mut receivers);
        for receiver in &receivers {
            if lossy {
                self.send_lossy(now, link, *receiver, &stamped);
            } else {
                self.send_reliable(now, link, Some(sender), packet.sequence() > 0, *receiver, &stamped);
            }
        }
        if let Some(stream) = packet.stream() {
            link.count_stream(stream, receivers.len());
        }
        self.receivers = receivers;
        self.send_across(link, sender, lossy, &stamped);
        if matches!(packet.value(), Some(ValueKind::RpcAck | ValueKind::RpcResponse)) {
            self.pass_to_call(sender, &packet, data);
        }
        Ok(())
    }

    /// A call of the server's own is addressed as a participant is.
    fn pass_to_call(&mut self, sender: ParticipantHandle, packet: &Envelope<'_>, data: &[u8]) {
        for identity in packet.destination_identities() {
            let Some(left) = self.calls.get_mut(identity).filter(|left| **left > 0) else {
                continue;
            };
            *left -= 1;
            self.events.push_back(Event::RpcAnswer {
                participant: sender,
                packet: data.to_vec(),
            });
        }
    }

    /// LiveKit: clients know only its own channels, so a message of another one travels as a user packet.
    fn forward_other(
        &mut self,
        now: Instant,
        link: &mut impl DataLink,
        sender: ParticipantHandle,
        data: &[u8],
    ) -> Result<(), DropReason> {
        if data.len() > envelope::MAX_PACKET {
            return Err(DropReason::TooLarge);
        }
        let member = self.members.get(&sender).ok_or(DropReason::DataNotAllowed)?;
        let hidden = member.info.rights.hidden;
        let shown = if hidden { "" } else { member.info.identity.as_str() };
        let stamp = Stamp {
            participant_sid: &member.info.sid,
            participant_identity: Some(shown),
            lossy: false,
            hidden,
        };
        let mut packet = Vec::new();
        envelope::write_user(data, stamp, &mut packet);
        let packet = Bytes::from(packet);
        let mut receivers = std::mem::take(&mut self.receivers);
        receivers.clear();
        receivers.extend(self.members.keys().filter(|receiver| **receiver != sender));
        for receiver in &receivers {
            self.send_reliable(now, link, Some(sender), false, *receiver, &packet);
        }
        self.receivers = receivers;
        self.send_across(link, sender, false, &packet);
        Ok(())
    }

    fn forward_track(
        &mut self,
        now: Instant,
        link: &mut impl DataLink,
        sender: ParticipantHandle,
        data: &[u8],
    ) -> Result<(), DropReason> {
        let Self {
            tracks,
            members,
            transports,
            scratch,
            ..
        } = self;
        tracks.forward(now, link, sender, data, scratch, |subscriber| {
            let member = members
                .get(&subscriber)
                .filter(|member| member.info.rights.can_receive)?;
            let transport = member.info.transport;
            Some((transport, transports.get(&transport)?.data_track?))
        })
    }

    /// The union of what the packet names, or everybody; never the sender. Unknown names are nobody.
    fn find_receivers(&self, sender: ParticipantHandle, packet: &Envelope<'_>, receivers: &mut Vec<ParticipantHandle>) {
        receivers.clear();
        if packet.is_addressed() {
            receivers.extend(
                packet
                    .destination_identities()
                    .filter_map(|identity| self.by_identity.get(identity)),
            );
            receivers.extend(packet.destination_sids().filter_map(|sid| self.by_sid.get(sid)));
            receivers.sort_unstable();
            receivers.dedup();
        } else {
            receivers.extend(self.members.keys());
        }
        receivers.retain(|receiver| *receiver != sender);
    }

    fn send_lossy(&mut self, now: Instant, link: &mut impl DataLink, receiver: ParticipantHandle, packet: &Bytes) {
        let Some((member, transport, channels)) = self.reader(receiver) else {
            return;
        };
        // LiveKit: lossy packets before a receiver is connected are not for it.
        let (true, Some(channel)) = (channels.ready(), channels.lossy) else {
            return;
        };
        member.lossy.send_or_drop_oldest(now, link, transport, channel, packet);
    }

    fn send_reliable(
        &mut self,
        now: Instant,
        link: &mut impl DataLink,
        sender: Option<ParticipantHandle>,
        sequenced: bool,
        receiver: ParticipantHandle,
        packet: &Bytes,
    ) {
        let Some(member) = self
            .members
            .get_mut(&receiver)
            .filter(|member| member.info.rights.can_receive)
        else {
            return;
        };
        let transport = member.info.transport;
        let channel = self
            .transports
            .get(&transport)
            .filter(|channels| channels.ready())
            .and_then(|it| it.reliable);
        let Some(channel) = channel else {
            return member.pending.push(now, link, sequenced, packet);
        };
        member.reliable.send_or_wait(now, link, transport, channel, packet);
        if member.reliable.is_over_limit() {
            return self.cut(link, receiver);
        }
        if member.reliable.is_over_budget() {
            self.late.entry(receiver).or_insert(now);
            if let Some(sender) = sender {
                self.hold(link, sender, receiver);
            }
        }
    }

    /// A reader with its primary transport and the channels of that.
    fn reader(&mut self, receiver: ParticipantHandle) -> Option<(&mut Member, TransportHandle, &Channels)> {
        let member = self
            .members
            .get_mut(&receiver)
            .filter(|member| member.info.rights.can_receive)?;
        let transport = member.info.transport;
        Some((member, transport, self.transports.get(&transport)?))
    }

    // ---- back-pressure -----------------------------------------------------------------------------------------

    /// `sender` is not read until `reader` has caught up.
    fn hold(&mut self, link: &mut impl DataLink, sender: ParticipantHandle, reader: ParticipantHandle) {
        let Some(member) = self.members.get_mut(&sender) else {
            return self.hold_across(link, sender, reader);
        };
        let first = member.held_by.is_empty();
        member.held_by.insert(reader);
        if first {
            self.set_reading(link, sender, false);
        }
    }

    fn release_if_caught_up(&mut self, link: &mut impl DataLink, reader: ParticipantHandle) {
        if self
            .members
            .get(&reader)
            .is_some_and(|member| member.reliable.has_caught_up())
        {
            self.release(link, reader);
        }
    }

    /// Nobody waits for `reader` any more.
    fn release(&mut self, link: &mut impl DataLink, reader: ParticipantHandle) {
        if self.late.remove(&reader).is_none() {
            return;
        }
        self.release_across(link, reader);
        let mut freed = Vec::new();
        for (sender, member) in &mut self.members {
            if member.held_by.remove(&reader) && member.held_by.is_empty() {
                freed.push(*sender);
            }
        }
        for sender in freed {
            self.set_reading(link, sender, true);
        }
    }

    fn set_reading(&self, link: &mut impl DataLink, sender: ParticipantHandle, reading: bool) {
        for (transport, channels) in self.transports.iter().filter(|(_, it)| it.participant == sender) {
            for channel in channels.holdable() {
                link.set_reading(*transport, channel, reading);
            }
        }
    }

    /// The reader has lost its channel (or is gone): what waited for it goes nowhere.
    fn stop_waiting_for(&mut self, link: &mut impl DataLink, reader: ParticipantHandle) {
        if let Some(member) = self.members.get_mut(&reader) {
            member.reliable.clear();
            member.lossy.clear();
        }
        self.release(link, reader);
    }

    fn cut(&mut self, link: &mut impl DataLink, reader: ParticipantHandle) {
        let Some(member) = self.members.get(&reader) else {
            return;
        };
        let transport = member.info.transport;
        self.transports.remove(&transport);
        self.stop_waiting_for(link, reader);
        link.cut(transport, CloseReason::DataReaderStuck);
    }

    /// What came while the participant was connecting is sent as soon as it can be.
    fn start_if_ready(&mut self, now: Instant, link: &mut impl DataLink, participant: ParticipantHandle) {
        let Some((member, _, channels)) = self.reader(participant) else {
            return;
        };
        if !channels.ready() || member.pending.is_empty() {
            return;
        }
        for packet in member.pending.take(now) {
            self.send_reliable(now, link, None, false, participant, &packet);
        }
    }

    fn is_primary(&self, participant: ParticipantHandle, transport: TransportHandle) -> bool {
        self.members
            .get(&participant)
            .is_some_and(|member| member.info.transport == transport)
    }

    fn seen_before(&mut self, nonce: [u8; NONCE_LEN]) -> bool {
        if self.nonces.contains(&nonce) {
            return true;
        }
        if self.nonces.len() == NONCE_WINDOW {
            self.nonces.pop_front();
        }
        self.nonces.push_back(nonce);
        false
    }
}

impl Member {
    fn new(info: DataParticipant) -> Self {
        Self {
            info,
            sequence: 0,
            held_by: BTreeSet::new(),
            reliable: Backlog::default(),
            lossy: Backlog::default(),
            pending: Pending::default(),
        }
    }
}
