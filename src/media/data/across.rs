//! Data between the shards of one room: each packet crosses once to each of the others, which find its receivers among
//! their own participants.
//!
//! Owns which data tracks cross, and who is held back across shards: a reader that is behind holds a sender elsewhere by a
//! frame to that shard, and a way that is full holds whoever sends reliable data into it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;

use super::{DataLink, DataPlane};
use crate::media::relay::Worth;
use crate::media::relay::frame::Frame;
use crate::proto::envelope::{Envelope, EnvelopeError};
use crate::types::{DataTrackHandle, DropReason, ParticipantHandle, RoomHandle, ShardIndex};

/// Stands for a full way among the readers that hold a sender. Control counts handles from the other end.
const WAY: ParticipantHandle = ParticipantHandle(u64::MAX);

#[derive(Debug, Default)]
pub(super) struct Across {
    /// None: the room is here only.
    room: Option<RoomHandle>,
    others: Vec<ShardIndex>,
    /// Data tracks published here, and the shards that have subscribers of them.
    tracks: BTreeMap<DataTrackHandle, Vec<ShardIndex>>,
    /// Senders elsewhere that wait for a reader here, and where they are.
    held: BTreeMap<ParticipantHandle, BTreeMap<ParticipantHandle, ShardIndex>>,
    /// Where the packet in hand comes from.
    from: Option<ShardIndex>,
    /// Readers elsewhere that hold senders here.
    readers: BTreeMap<ParticipantHandle, ShardIndex>,
}

impl DataPlane {
    /// The room is on these shards too, from now on.
    pub fn span(&mut self, link: &mut impl DataLink, room: RoomHandle, others: &[ShardIndex]) {
        self.across.room = (!others.is_empty()).then_some(room);
        self.across.others = others.to_vec();
        self.across
            .tracks
            .values_mut()
            .for_each(|shards| shards.retain(|shard| others.contains(shard)));
        for senders in self.across.held.values_mut() {
            senders.retain(|_, shard| others.contains(shard));
        }
        let gone = self.across.readers.iter().filter(|(_, shard)| !others.contains(shard));
        for reader in gone.map(|(reader, _)| *reader).collect::<Vec<_>>() {
            self.across.readers.remove(&reader);
            self.free_senders(link, reader);
        }
    }

    /// Packets of a data track go to that shard too, or do not any more. False: there is no such track.
    pub fn relay_track(&mut self, track: DataTrackHandle, to: ShardIndex, relayed: bool) -> bool {
        if !self.tracks.contains(track) {
            return false;
        }
        let shards = self.across.tracks.entry(track).or_default();
        shards.retain(|shard| *shard != to);
        if relayed {
            shards.push(to);
        }
        true
    }

    pub(super) fn forget_relayed_tracks(&mut self) {
        let tracks = &self.tracks;
        self.across.tracks.retain(|track, _| tracks.contains(*track));
    }

    pub(super) fn stop_relaying(&mut self, track: DataTrackHandle) {
        self.across.tracks.remove(&track);
    }

    /// A stamped packet of a sender here, to the other shards.
    pub(super) fn send_across(
        &mut self,
        link: &mut impl DataLink,
        sender: ParticipantHandle,
        lossy: bool,
        packet: &[u8],
    ) {
        let Some(room) = self.across.room else { return };
        let frame = Frame::Data { sender, lossy, packet };
        let worth = if lossy { Worth::LossyData } else { Worth::ReliableData };
        for to in &self.across.others {
            let has_room = link.way_has_room(*to, worth);
            if has_room || !lossy {
                link.relay(*to, room, &frame);
            } else {
                link.count_drop(DropReason::RelayFull);
            }
            if !has_room && !lossy {
                link.wait_for_way();
                if let Some(member) = self.members.get_mut(&sender) {
                    member.held_by.insert(WAY);
                }
                self.set_reading(link, sender, false);
            }
        }
    }

    /// A packet of a data track published here, to the shards with subscribers.
    pub(super) fn send_track_across(&mut self, link: &mut impl DataLink, publisher: ParticipantHandle, packet: &[u8]) {
        let Some(room) = self.across.room.filter(|_| !self.across.tracks.is_empty()) else {
            return;
        };
        let Some(track) = self.tracks.of_packet(publisher, packet) else {
            return;
        };
        for to in self.across.tracks.get(&track).into_iter().flatten() {
            if link.way_has_room(*to, Worth::LossyData) {
                link.relay(*to, room, &Frame::DataTrack { publisher, packet });
            } else {
                link.count_drop(DropReason::RelayFull);
            }
        }
    }

    /// A stamped packet from another shard, to whoever is meant here.
    pub fn on_relayed(
        &mut self,
        now: Instant,
        link: &mut impl DataLink,
        from: ShardIndex,
        sender: ParticipantHandle,
        lossy: bool,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let envelope = Envelope::parse(packet).map_err(|error| match error {
            EnvelopeError::TooLarge => DropReason::TooLarge,
            EnvelopeError::Malformed | EnvelopeError::SeveralValues => DropReason::Malformed,
        })?;
        if let Some(nonce) = envelope.nonce()
            && self.seen_before(nonce)
        {
            return Err(DropReason::DataDuplicate);
        }
        let mut receivers = std::mem::take(&mut self.receivers);
        self.find_receivers(sender, &envelope, &mut receivers);
        let bytes = Bytes::copy_from_slice(packet);
        self.across.from = Some(from);
        for receiver in &receivers {
            if lossy {
                self.send_lossy(now, link, *receiver, &bytes);
            } else {
                self.send_reliable(now, link, Some(sender), envelope.sequence() > 0, *receiver, &bytes);
            }
        }
        self.across.from = None;
        self.receivers = receivers;
        Ok(())
    }

    /// A packet of a data track that is published on another shard.
    pub fn on_relayed_track(
        &mut self,
        now: Instant,
        link: &mut impl DataLink,
        publisher: ParticipantHandle,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        self.forward_track(now, link, publisher, packet)
    }

    /// The sender in hand is not here: its shard is told not to read it until `reader` has caught up.
    pub(super) fn hold_across(
        &mut self,
        link: &mut impl DataLink,
        sender: ParticipantHandle,
        reader: ParticipantHandle,
    ) {
        let Some((from, room)) = self.across.from.zip(self.across.room) else {
            return;
        };
        let senders = self.across.held.entry(reader).or_default();
        if senders.insert(sender, from).is_none() {
            let held = true;
            link.relay(from, room, &Frame::Hold { sender, reader, held });
        }
    }

    /// Nobody elsewhere waits for `reader` any more.
    pub(super) fn release_across(&mut self, link: &mut impl DataLink, reader: ParticipantHandle) {
        let senders = self.across.held.remove(&reader).unwrap_or_default();
        let Some(room) = self.across.room else { return };
        for (sender, to) in senders {
            let held = false;
            link.relay(to, room, &Frame::Hold { sender, reader, held });
        }
    }

    /// A reader on another shard is behind because of a sender here, or has caught up.
    pub fn on_hold(
        &mut self,
        link: &mut impl DataLink,
        from: ShardIndex,
        sender: ParticipantHandle,
        reader: ParticipantHandle,
        held: bool,
    ) {
        if held && self.members.contains_key(&sender) {
            self.across.readers.insert(reader, from);
            return self.hold(link, sender, reader);
        }
        let Some(member) = self.members.get_mut(&sender) else {
            return;
        };
        if member.held_by.remove(&reader) && member.held_by.is_empty() {
            self.set_reading(link, sender, true);
        }
        if !self.members.values().any(|member| member.held_by.contains(&reader)) {
            self.across.readers.remove(&reader);
        }
    }

    /// Ways to other shards have room again.
    pub fn way_is_free(&mut self, link: &mut impl DataLink) {
        self.free_senders(link, WAY);
    }

    fn free_senders(&mut self, link: &mut impl DataLink, reader: ParticipantHandle) {
        let mut freed = BTreeSet::new();
        for (sender, member) in &mut self.members {
            if member.held_by.remove(&reader) && member.held_by.is_empty() {
                freed.insert(*sender);
            }
        }
        for sender in freed {
            self.set_reading(link, sender, true);
        }
    }
}
