//! A transport goes from one room of a shard into another, with the tracks that are published on it.
//!
//! Called by the shard, first on the room it leaves and then on the one it comes into; holds nothing. Tracks keep what
//! they know (SSRCs that were learned, stored packets, key frames): a browser writes its mids into the first packets
//! only, so that nothing could be learned a second time.

use super::data::Channels;
use super::fanout::Fanout;
use super::outside::{Outside, Place, TimerKey};
use super::slots::Slot;
use super::track::Track;
use crate::types::{ParticipantHandle, TrackHandle, TransportHandle};

/// What one room hands to the other.
#[derive(Debug, Default)]
pub struct Baggage {
    tracks: Vec<Track>,
    channels: Option<Channels>,
}

impl Fanout {
    /// Everything of a transport ends here, but for the tracks that have a new handle: these are taken out.
    pub fn let_go(
        &mut self,
        outside: &mut Outside<'_>,
        slot: Slot,
        (handle, tracks): (TransportHandle, &[(TrackHandle, TrackHandle)]),
    ) -> Baggage {
        let channels = self.data.let_go(outside, handle);
        let its_own = self.subscriptions.iter();
        let its_own = its_own.filter(|(_, subscription)| subscription.transport == slot);
        let its_own: Vec<Slot> = its_own.map(|(subscription, _)| subscription).collect();
        for subscription in its_own {
            self.drop_subscription(outside, subscription);
        }
        let published = self.tracks.iter().filter(|(_, track)| track.transport == slot);
        let published: Vec<(Slot, TrackHandle)> = published.map(|(at, track)| (at, track.handle)).collect();
        let mut taken = Vec::new();
        for (at, old) in published {
            match tracks.iter().find(|(known, _)| *known == old) {
                Some((_, new)) => taken.extend(self.take_track(outside, at, *new)),
                None => self.unpublish(outside, at),
            }
        }
        self.data_changed(outside);
        Baggage {
            tracks: taken,
            channels,
        }
    }

    fn take_track(&mut self, outside: &mut Outside<'_>, slot: Slot, handle: TrackHandle) -> Option<Track> {
        let mut track = self.tracks.remove(slot)?;
        self.unbind(outside, slot, &track);
        if let Some(loudest) = &mut self.loudest {
            loudest.forget(slot);
        }
        outside.timers.remove(track.timer);
        outside.index.tracks.remove(&track.handle);
        for subscriber in std::mem::take(&mut track.subscribers) {
            self.end_subscription(outside, subscriber);
        }
        track.handle = handle;
        Some(track)
    }

    /// `slot` is this room's from now on, and known by `handle`.
    pub fn take_in(
        &mut self,
        outside: &mut Outside<'_>,
        slot: Slot,
        (handle, participant): (TransportHandle, ParticipantHandle),
        baggage: Baggage,
    ) {
        let room = self.slot;
        for mut track in baggage.tracks {
            let name = track.handle;
            track.participant = participant;
            track.is_unheard = false;
            // Control may not have heard of its first packets, or heard of them under the old handle.
            track.unannounced = u8::MAX;
            let at = self.tracks.insert_with(|at| {
                track.timer = outside.timers.insert(TimerKey::Track { room, track: at });
                track
            });
            outside.index.tracks.insert(name, Place { room, slot: at });
            self.bind(outside, at);
            self.arm_track(outside, at);
            self.start_quality(outside);
        }
        if let Some(channels) = baggage.channels {
            self.data.take_in(outside, handle, participant, channels);
        }
        // What it sends now is little: the demand of the room it was in is history.
        self.allocate(outside, slot);
        self.data_changed(outside);
    }
}
