//! What the rooms that show a participant of another want of its tracks: so that its publisher is asked for that, too, and
//! for nothing more.
//!
//! A room that shows tells what it would have told the publisher ([`Demand`], whole for each track); the room that the
//! participant is in adds it to what is wanted there. Driven by both rooms; who carries it between them is the node.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::types::{ParticipantHandle, RoomHandle, TrackId};

use super::dynacast::Wanted;
use super::room::Room;

/// What one room wants of one track of a participant that it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// In its own room.
    pub source: ParticipantHandle,
    track: TrackId,
    wanted: Wanted,
}

impl Demand {
    /// A newer word on the same matter.
    pub fn replaces(&self, other: &Self) -> bool {
        (self.source, &self.track) == (other.source, &other.track)
    }
}

#[derive(Debug, Default)]
pub(super) struct Demands {
    /// Of this room, to be said: one for each track.
    own: Vec<Demand>,
    /// Of the rooms that show participants of this one. As many as those have tracks, for each room.
    others: BTreeMap<(ParticipantHandle, RoomHandle), BTreeMap<TrackId, Wanted>>,
}

impl Demands {
    pub(super) fn say(&mut self, source: ParticipantHandle, track: &TrackId, wanted: Wanted) {
        let demand = Demand {
            source,
            track: track.clone(),
            wanted,
        };
        self.own.retain(|older| !demand.replaces(older));
        self.own.push(demand);
    }

    /// The best of what is wanted here and there.
    pub(super) fn add_to(&self, wanted: &mut Wanted, track: &TrackId) {
        for elsewhere in self.others.values().filter_map(|tracks| tracks.get(track)) {
            for (codec, quality) in elsewhere {
                let best = wanted.entry(*codec).or_insert(None);
                *best = (*best).max(*quality);
            }
        }
    }
}

impl Room {
    /// What has changed about what is wanted here of participants of other rooms; to be called when the outputs are carried
    /// out.
    pub fn take_demands(&mut self) -> Vec<Demand> {
        std::mem::take(&mut self.demands.own)
    }

    /// `room`, which shows a participant of this one, wants that.
    pub fn handle_demand(&mut self, now: Instant, room: RoomHandle, demand: Demand) {
        let Demand { source, track, wanted } = demand;
        let Some(participant) = self.participants.get(&source) else {
            return;
        };
        if !self.forwarded.contains_key(&source) || !participant.publications.contains_key(&track) {
            return;
        }
        let known = self.demands.others.entry((source, room)).or_default();
        known.retain(|track, _| participant.publications.contains_key(track));
        known.insert(track.clone(), wanted);
        self.update_dynacast(now, source, &track);
    }

    /// `room` does not show the participant any more.
    pub fn forget_demands(&mut self, now: Instant, source: ParticipantHandle, room: RoomHandle) {
        let forgotten = self.demands.others.remove(&(source, room)).unwrap_or_default();
        for track in forgotten.keys() {
            self.update_dynacast(now, source, track);
        }
    }
}
