//! What waits to cross to the other shards: one buffer for each, flushed at the end of a turn.
//!
//! Owns the bytes until the way takes them, and the rule of what is left out when it does not. A way is full when the other
//! shard is some batches behind; then frames of media are refused here, the largest pictures first and voices last, so that
//! what matters still crosses and memory stays bounded.

use std::time::{Duration, Instant};

use super::frame::{Frame, Media};
use crate::media::slots::Slot;
use crate::types::{DropReason, RoomHandle, ShardIndex, WallClock};

/// Bytes waiting for one shard at which nothing is taken any more that can be spared: a quarter of a second of a full way
/// (4 Gbit/s of media do not fit through one core's sockets anyway).
const FULL: usize = 1 << 20;

/// Bytes waiting for one shard beyond which nothing at all is kept: that shard has ended. Demands and states are a few
/// hundred bytes a track, reliable data is held back at its senders from `FULL / 2` on.
const ENDED: usize = 8 << 20;

/// How the batches of a shard leave for others.
pub trait RelayLink {
    /// Takes the batch and leaves an empty buffer in its place, best one that was used before. False: the way is full and
    /// the batch stays.
    fn send(&mut self, to: ShardIndex, batch: &mut Vec<u8>) -> bool;
}

/// What a frame is worth when the way is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// A picture of this spatial layer.
    Picture(u8),
    Voice,
    LossyData,
    /// Taken always; its senders are to be held back when there is no room.
    ReliableData,
}

impl Worth {
    /// How much may wait before it is refused.
    fn limit(self) -> usize {
        match self {
            Self::ReliableData | Self::Picture(2..) => FULL / 2,
            Self::Picture(1) => FULL / 8 * 5,
            Self::Picture(0) => FULL / 4 * 3,
            Self::LossyData => FULL / 4 * 3,
            Self::Voice => FULL / 8 * 7,
        }
    }
}

#[derive(Debug)]
pub struct Relays {
    /// The shard that this is.
    pub me: ShardIndex,
    wall: WallClock,
    /// By index of the other shard.
    waiting: Vec<Vec<u8>>,
    /// Rooms whose senders of reliable data are held back until a way has room again.
    pub held: Vec<Slot>,
}

impl Relays {
    pub fn new(me: ShardIndex, wall: WallClock) -> Self {
        Self {
            me,
            wall,
            waiting: Vec::new(),
            held: Vec::new(),
        }
    }

    /// Makes room for what goes to that shard.
    pub fn reach(&mut self, to: ShardIndex) {
        let len = usize::from(to.0) + 1;
        if self.waiting.len() < len {
            self.waiting.resize_with(len, Vec::new);
        }
    }

    /// For the other shard's clock.
    pub fn unix(&self, at: Instant) -> Duration {
        self.wall.unix(at)
    }

    pub fn instant(&self, unix: Duration) -> Instant {
        self.wall.instant(unix)
    }

    /// Whether something of this worth would be taken.
    pub fn has_room(&self, to: ShardIndex, worth: Worth) -> bool {
        let waiting = self.waiting.get(usize::from(to.0));
        waiting.is_some_and(|waiting| waiting.len() < worth.limit())
    }

    /// Appends a frame. Whether there is room for what it carries was asked before.
    pub fn put(&mut self, to: ShardIndex, room: RoomHandle, frame: &Frame<'_>) -> Result<(), DropReason> {
        let waiting = self
            .waiting
            .get_mut(usize::from(to.0))
            .filter(|waiting| waiting.len() < ENDED)
            .ok_or(DropReason::QueueFull)?;
        frame.write(room, waiting)
    }

    /// As `put`, of a packet in two parts: what `media` holds and its `payload`.
    pub fn put_media(
        &mut self,
        to: ShardIndex,
        room: RoomHandle,
        media: &Media<'_>,
        payload: &[u8],
    ) -> Result<(), DropReason> {
        let waiting = self
            .waiting
            .get_mut(usize::from(to.0))
            .filter(|waiting| waiting.len() < ENDED)
            .ok_or(DropReason::QueueFull)?;
        media.write(room, payload, waiting)
    }

    /// True when something of it has left.
    pub fn flush(&mut self, link: &mut impl RelayLink) -> bool {
        let mut left = false;
        for (to, waiting) in (0..).zip(&mut self.waiting) {
            if !waiting.is_empty() {
                left |= link.send(ShardIndex(to), waiting);
            }
        }
        left
    }

    /// Something waits to leave.
    pub fn is_waiting(&self) -> bool {
        self.waiting.iter().any(|waiting| !waiting.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ParticipantHandle, TrackHandle};

    const OTHER: ShardIndex = ShardIndex(2);
    const ROOM: RoomHandle = RoomHandle(1);

    /// Takes what it is open for.
    struct Way {
        open: bool,
        taken: Vec<(ShardIndex, usize)>,
    }

    impl RelayLink for Way {
        fn send(&mut self, to: ShardIndex, batch: &mut Vec<u8>) -> bool {
            if self.open {
                self.taken.push((to, batch.len()));
                batch.clear();
            }
            self.open
        }
    }

    fn relays() -> Relays {
        let wall = WallClock::new(Instant::now(), Duration::from_secs(1_790_000_000));
        let mut relays = Relays::new(ShardIndex(0), wall);
        relays.reach(OTHER);
        relays
    }

    #[test]
    fn a_full_way_refuses_large_pictures_first_and_voices_last() {
        let mut relays = relays();
        let packet = [0; 1000];
        let frame = Frame::DataTrack {
            publisher: ParticipantHandle(1),
            packet: &packet,
        };
        let worths = [
            Worth::Picture(2),
            Worth::Picture(1),
            Worth::Picture(0),
            Worth::LossyData,
            Worth::Voice,
        ];
        let mut refused = Vec::new();
        while refused.len() < worths.len() {
            relays.put(OTHER, ROOM, &frame).unwrap();
            for worth in worths {
                if !relays.has_room(OTHER, worth) && !refused.contains(&worth) {
                    refused.push(worth);
                }
            }
        }
        assert_eq!(refused, worths);
        let mut way = Way {
            open: false,
            taken: Vec::new(),
        };
        assert!(!relays.flush(&mut way) && relays.is_waiting());
        way.open = true;
        assert!(relays.flush(&mut way) && !relays.is_waiting());
        assert_eq!(way.taken.len(), 1);
        assert!(worths.iter().all(|worth| relays.has_room(OTHER, *worth)));
    }

    #[test]
    fn a_shard_that_takes_nothing_costs_a_bounded_amount() {
        let mut relays = relays();
        let frame = Frame::Keyframe {
            track: TrackHandle(1),
            encoding: 0,
        };
        let refused = (0..2_000_000).find(|_| relays.put(OTHER, ROOM, &frame).is_err());
        assert!(refused.is_some());
        assert!(relays.waiting[2].capacity() <= 2 * ENDED);
        // Nobody knows of a shard beyond.
        assert!(relays.put(ShardIndex(3), ROOM, &frame).is_err());
        assert!(!relays.has_room(ShardIndex(3), Worth::Voice));
    }
}
