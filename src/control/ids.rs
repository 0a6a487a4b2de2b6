//! Every identifier a room gives out: readable ids on the wire, handles towards the shard, ICE credentials.
//!
//! Owned by the room and seeded once, so that a whole call replays from its seed. The generator is a cryptographic one,
//! because ICE passwords come from it.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::types::{
    DataTrackHandle, IceCredentials, ParticipantHandle, ParticipantId, RoomHandle, RoomId, Ssrc, SubscriptionHandle,
    TrackHandle, TrackId, TransportHandle,
};

/// Digits and letters without 0, 1, I, O and l, which people mix up.
pub(super) const BASE57: &[u8; 57] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Characters behind the prefix of an id.
const ID_LENGTH: usize = 12;
/// RFC 8445 §5.3 asks for 24 bits in the fragment and 128 bits in the password; base62 gives 5.95 bits a character.
const UFRAG_LENGTH: usize = 16;
const PWD_LENGTH: usize = 32;

/// Odd, so that multiplying is one-to-one modulo 2^32 (2^32 divided by the golden ratio: neighbours lie far apart).
const SSRC_STEP: u32 = 0x9e37_79b1;

/// The SSRCs that a room has given out until some moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpentSsrcs {
    offset: u32,
    count: u32,
}

impl SpentSsrcs {
    pub(super) fn contains(self, ssrc: Ssrc) -> bool {
        let number = ssrc.0.wrapping_sub(self.offset).wrapping_mul(inverse(SSRC_STEP));
        (1..=self.count).contains(&number)
    }
}

/// Of an odd number modulo 2^32: every step of Newton's doubles the bits that are right, and an odd number is its own
/// inverse modulo 8.
const fn inverse(odd: u32) -> u32 {
    let mut inverse = odd;
    let mut bits = 3;
    while bits < 32 {
        inverse = inverse.wrapping_mul(2u32.wrapping_sub(odd.wrapping_mul(inverse)));
        bits *= 2;
    }
    inverse
}

pub(super) struct Ids {
    rng: StdRng,
    room: RoomHandle,
    /// Handles of a room are `room << 32 | counter`; the counter is shared by all kinds.
    counter: u32,
    ssrc_offset: u32,
    ssrc_counter: u32,
}

impl Ids {
    pub(super) fn new(room: RoomHandle, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        Self {
            ssrc_offset: rng.random(),
            rng,
            room,
            counter: 0,
            ssrc_counter: 0,
        }
    }

    fn next_handle(&mut self) -> u64 {
        // 2^32 handles would take a join a millisecond for 50 days; saturating keeps the room's prefix intact even then.
        self.counter = self.counter.saturating_add(1);
        (self.room.0 << 32) | u64::from(self.counter)
    }

    pub(super) fn participant_handle(&mut self) -> ParticipantHandle {
        ParticipantHandle(self.next_handle())
    }

    pub(super) fn transport_handle(&mut self) -> TransportHandle {
        TransportHandle(self.next_handle())
    }

    pub(super) fn track_handle(&mut self) -> TrackHandle {
        TrackHandle(self.next_handle())
    }

    pub(super) fn subscription_handle(&mut self) -> SubscriptionHandle {
        SubscriptionHandle(self.next_handle())
    }

    pub(super) fn data_track_handle(&mut self) -> DataTrackHandle {
        DataTrackHandle(self.next_handle())
    }

    fn characters(&mut self, alphabet: &[u8], count: usize) -> String {
        (0..count)
            .map(|_| char::from(alphabet[self.rng.random_range(0..alphabet.len())]))
            .collect()
    }

    fn id(&mut self, prefix: &str) -> String {
        let characters = self.characters(BASE57, ID_LENGTH);
        format!("{prefix}{characters}")
    }

    pub(super) fn room_id(&mut self) -> RoomId {
        RoomId(self.id("RM_"))
    }

    pub(super) fn participant_id(&mut self) -> ParticipantId {
        ParticipantId(self.id("PA_"))
    }

    /// `kind_and_source` is one letter each: V or A, then C(amera), M(icrophone), S(creen), s(creen audio) or U.
    pub(super) fn track_id(&mut self, kind_and_source: &str) -> TrackId {
        TrackId(self.id(&format!("TR_{kind_and_source}")))
    }

    pub(super) fn data_track_id(&mut self) -> TrackId {
        TrackId(self.id("DTR_"))
    }

    pub(super) fn dispatch_id(&mut self) -> String {
        self.id("AD_")
    }

    /// Not an identity that a participant could have by chance.
    pub(super) fn call_id(&mut self) -> String {
        self.id("RPC_")
    }

    /// `count` base62 characters.
    pub(super) fn secret(&mut self, count: usize) -> String {
        self.characters(BASE62, count)
    }

    pub(super) fn cname(&mut self) -> String {
        self.characters(BASE57, 16)
    }

    pub(super) fn ice_credentials(&mut self) -> IceCredentials {
        IceCredentials {
            ufrag: self.characters(BASE62, UFRAG_LENGTH),
            pwd: self.characters(BASE62, PWD_LENGTH),
        }
    }

    /// Looks random and repeats only after 2^32: no two senders of a room share one. Never 0, which some stacks take
    /// for "none".
    pub(super) fn ssrc(&mut self) -> Ssrc {
        loop {
            self.ssrc_counter = self.ssrc_counter.wrapping_add(1);
            let ssrc = self.ssrc_counter.wrapping_mul(SSRC_STEP).wrapping_add(self.ssrc_offset);
            if ssrc != 0 {
                return Ssrc(ssrc);
            }
        }
    }

    pub(super) fn spent_ssrcs(&self) -> SpentSsrcs {
        SpentSsrcs {
            offset: self.ssrc_offset,
            count: self.ssrc_counter,
        }
    }

    pub(super) fn number(&mut self, range: std::ops::RangeInclusive<u32>) -> u32 {
        self.rng.random_range(range)
    }

    /// RFC 8866 §5.2: the session id of an `o=` line; RFC 8829 §5.2.1 keeps its top bit clear.
    pub(super) fn session_id(&mut self) -> u64 {
        self.rng.random::<u64>() >> 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_ssrc_comes_twice() {
        let mut ids = Ids::new(RoomHandle(7), 1);
        let ssrcs: std::collections::BTreeSet<Ssrc> = (0..10_000).map(|_| ids.ssrc()).collect();
        assert_eq!(ssrcs.len(), 10_000);
    }

    #[test]
    fn what_was_given_out_is_known() {
        let mut ids = Ids::new(RoomHandle(7), 1);
        let given: Vec<Ssrc> = (0..1000).map(|_| ids.ssrc()).collect();
        let spent = ids.spent_ssrcs();
        assert!(given.iter().all(|ssrc| spent.contains(*ssrc)));
        assert!((0..1000).all(|_| !spent.contains(ids.ssrc())));
    }

    #[test]
    fn ids_have_prefix_and_alphabet_and_replay_from_the_seed() {
        let mut ids = Ids::new(RoomHandle(7), 1);
        let id = ids.participant_id();
        assert_eq!(id.as_str().len(), 15);
        assert!(id.as_str().starts_with("PA_"));
        assert!(id.as_str().bytes().skip(3).all(|byte| BASE57.contains(&byte)));
        assert_eq!(ids.participant_handle(), ParticipantHandle(7 << 32 | 1));
        assert_eq!(Ids::new(RoomHandle(7), 1).participant_id(), id);
        assert_ne!(Ids::new(RoomHandle(7), 2).participant_id(), id);
    }
}
