//! Which rooms live on this node, by name for clients and by handle for shard events.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::placement::Seat;
use super::room_task::Mailbox;
use crate::types::{RoomHandle, RoomName};

/// Rooms on one node. Names come from signed tokens, so this guards against a backend gone wild, not against clients.
pub(super) const MAX_ROOMS: usize = 100_000;

#[derive(Clone, Debug)]
pub(super) struct LiveRoom {
    pub(super) handle: RoomHandle,
    pub(super) mailbox: Mailbox,
    /// Where it lives.
    pub(super) seat: Seat,
}

#[derive(Debug, Default)]
struct Rooms {
    by_name: HashMap<RoomName, LiveRoom>,
    by_handle: HashMap<RoomHandle, Mailbox>,
    last_handle: u64,
}

/// Locked for look-ups only, never across an await.
#[derive(Debug, Default)]
pub(super) struct Registry {
    rooms: Mutex<Rooms>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Rooms> {
        // The maps are changed by single calls, so a panic elsewhere cannot leave them half changed.
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn find(&self, name: &RoomName) -> Option<LiveRoom> {
        self.lock().by_name.get(name).cloned()
    }

    pub(super) fn mailbox(&self, handle: RoomHandle) -> Option<Mailbox> {
        self.lock().by_handle.get(&handle).cloned()
    }

    pub(super) fn mailboxes(&self) -> Vec<Mailbox> {
        self.lock().by_handle.values().cloned().collect()
    }

    /// Those that have a name.
    pub(super) fn rooms(&self) -> Vec<(RoomName, LiveRoom)> {
        let rooms = self.lock();
        rooms
            .by_name
            .iter()
            .map(|(name, room)| (name.clone(), room.clone()))
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().by_handle.is_empty()
    }

    /// The room of that name, made by `create` when there is none. None when the node is full.
    pub(super) fn find_or_create(
        &self,
        name: &RoomName,
        create: impl FnOnce(RoomHandle) -> LiveRoom,
    ) -> Option<LiveRoom> {
        let mut rooms = self.lock();
        if let Some(room) = rooms.by_name.get(name) {
            return Some(room.clone());
        }
        if rooms.by_name.len() >= MAX_ROOMS {
            return None;
        }
        rooms.last_handle += 1;
        let room = create(RoomHandle(rooms.last_handle));
        rooms.by_handle.insert(room.handle, room.mailbox.clone());
        rooms.by_name.insert(name.clone(), room.clone());
        Some(room)
    }

    /// New joins get a new room of that name; this one still hears its shard until `remove`.
    pub(super) fn forget_name(&self, name: &RoomName, handle: RoomHandle) {
        let mut rooms = self.lock();
        if rooms.by_name.get(name).is_some_and(|room| room.handle == handle) {
            rooms.by_name.remove(name);
        }
    }

    pub(super) fn remove(&self, name: &RoomName, handle: RoomHandle) {
        self.forget_name(name, handle);
        self.lock().by_handle.remove(&handle);
    }
}
