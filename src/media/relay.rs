//! The relay: one room on several shards (DESIGN D4).
//!
//! A track lives on the shard of its publisher, its home; the other shards of the room mirror it: they have its parameters,
//! a ring of their own, and subscribers whose losses they repair themselves. Each encoding that somebody there is to be
//! sent crosses once, by value. Upwards go demand and key frame requests; only the home asks the publisher. What is
//! decided for the whole room (who speaks, whose voice is heard) is decided on the room's home shard, by levels that cross.
//!
//! `frame` is the byte format, `outbox` what waits to leave, `home` and `mirror` the two ends. Driven by the room (packets,
//! commands, timers) and by `Shard::handle_relay` and `poll_relay`; never knows how batches travel.

pub mod frame;
mod home;
mod mirror;
mod outbox;

pub use home::Way;
pub use mirror::Mirror;
pub use outbox::{RelayLink, Relays, Worth};

use super::edge::Command;
use super::fanout::Fanout;
use super::outside::Outside;
use crate::types::{DropReason, RoomHandle, ShardIndex};
use frame::Frame;

/// In a demand beside the bits of encodings: somebody there is subscribed, whatever it is sent now.
const SUBSCRIBED: u8 = 0x80;

impl Outside<'_> {
    /// Queues a frame for another shard of the room.
    pub fn relay(&mut self, to: ShardIndex, room: RoomHandle, frame: &Frame<'_>) {
        if let Err(reason) = self.relays.put(to, room, frame) {
            self.stats.count_drop(reason);
        }
    }
}

impl Fanout {
    /// `Command::SpanRoom`.
    pub fn span(&mut self, outside: &mut Outside<'_>, home: ShardIndex, shards: &[ShardIndex]) {
        let me = outside.relays.me;
        let others: Vec<ShardIndex> = shards.iter().copied().filter(|shard| *shard != me).collect();
        for other in &others {
            outside.relays.reach(*other);
        }
        for (_, track) in self.tracks.iter_mut() {
            track.ways.retain(|way| others.contains(&way.to));
        }
        self.data.span(outside, self.handle, &others);
        self.data_changed(outside);
        // Its tracks were unpublished before it went, or have gone with it.
        let gone = self.tracks.iter().filter(|(_, track)| {
            let mirror = track.mirror.as_deref();
            mirror.is_some_and(|mirror| !others.contains(&mirror.home))
        });
        for slot in gone.map(|(slot, _)| slot).collect::<Vec<_>>() {
            self.unpublish(outside, slot);
        }
        self.decider = (!others.is_empty()).then_some(home);
    }

    /// The shard that decides for the room, where that is another.
    pub fn decided_at(&self, outside: &Outside<'_>) -> Option<ShardIndex> {
        self.decider.filter(|decider| *decider != outside.relays.me)
    }

    /// A frame from another shard of the room.
    pub fn on_relay(&mut self, outside: &mut Outside<'_>, from: ShardIndex, frame: Frame<'_>) {
        if let Err(reason) = self.take_frame(outside, from, frame) {
            outside.stats.count_drop(reason);
        }
    }

    fn take_frame(&mut self, outside: &mut Outside<'_>, from: ShardIndex, frame: Frame<'_>) -> Result<(), DropReason> {
        let now = outside.now;
        let track = match frame {
            Frame::Begin { track, .. }
            | Frame::State { track, .. }
            | Frame::Voice { track, .. }
            | Frame::Demand { track, .. }
            | Frame::Keyframe { track, .. }
            | Frame::Heard { track, .. } => track,
            Frame::Media(media) => media.track,
            Frame::Report(report) => report.track,
            Frame::Level(level) => level.track,
            Frame::Data { sender, lossy, packet } => {
                let taken = self.data.on_relayed(now, outside, from, sender, lossy, packet);
                self.data_changed(outside);
                return taken;
            }
            Frame::DataTrack { publisher, packet } => {
                let taken = self.data.on_relayed_track(now, outside, publisher, packet);
                self.data_changed(outside);
                return taken;
            }
            Frame::Hold { sender, reader, held } => {
                self.data.on_hold(outside, from, sender, reader, held);
                return Ok(());
            }
        };
        // What names something gone is normal.
        let place = outside.index.tracks.get(&track).filter(|place| place.room == self.slot);
        let slot = place.ok_or(DropReason::StaleCommand)?.slot;
        let is_from_home = self
            .tracks
            .get(slot)
            .and_then(|track| track.mirror.as_deref())
            .map(|mirror| mirror.home == from);
        match (frame, is_from_home) {
            (
                Frame::Begin {
                    encoding, ssrc, layers, ..
                },
                Some(true),
            ) => self.begin_mirror(outside, slot, encoding, ssrc, layers),
            (Frame::Media(media), Some(true)) => return self.on_relayed_media(outside, slot, &media),
            (Frame::Report(report), Some(true)) => self.on_relayed_report(outside, slot, &report),
            (Frame::State { flowing, offered, .. }, Some(true)) => {
                self.on_relayed_state(outside, slot, flowing, offered);
            }
            (Frame::Voice { heard, .. }, Some(true)) => self.on_relayed_voice(outside, slot, heard),
            (Frame::Level(level), Some(true)) => self.on_relayed_level(outside, slot, &level),
            (Frame::Demand { encodings, present, .. }, None) => {
                self.on_demand(outside, from, slot, encodings, present);
            }
            (Frame::Keyframe { encoding, .. }, None) => self.request_keyframe(outside, slot, encoding),
            (Frame::Heard { heard, .. }, None) => self.on_heard(outside, slot, heard),
            // Not this shard's to say.
            _ => return Err(DropReason::NotPublished),
        }
        Ok(())
    }

    /// A way has room again.
    pub fn way_is_free(&mut self, outside: &mut Outside<'_>) {
        self.data.way_is_free(outside);
        self.data_changed(outside);
    }

    /// `Command::RelayDataTrack`. None = it names something gone.
    pub fn relay_data_track(&mut self, outside: &mut Outside<'_>, command: &Command) -> Option<()> {
        let Command::RelayDataTrack { track, to, relayed } = *command else {
            return None;
        };
        outside.relays.reach(to);
        self.data.relay_track(track, to, relayed).then_some(())
    }
}
