//! Which room is on which server, for as long as it is used.
//!
//! A pin is made with the first token and kept while anybody is connected or expected. When the last has left it waits for
//! the room to close; then the next join chooses again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::{RoomKey, UnixMillis};
use super::topology::ServerKey;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    pub server: ServerKey,
    /// As it was told to the first.
    pub endpoint: String,
    pub updated_at: UnixMillis,
    /// Since when nobody is connected or expected; None while somebody is.
    pub unused_since: Option<UnixMillis>,
}

/// A pin as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinRecord {
    /// The room's name.
    pub room: String,
    pub region_id: String,
    pub server_id: String,
    pub endpoint: String,
    pub updated_at: UnixMillis,
}

#[derive(Clone, Debug, Default)]
pub struct Pins {
    pins: BTreeMap<RoomKey, Pin>,
}

impl Pins {
    pub fn find(&self, room: RoomKey) -> Option<&Pin> {
        self.pins.get(&room)
    }

    pub fn iter(&self) -> impl Iterator<Item = (RoomKey, &Pin)> {
        self.pins.iter().map(|(room, pin)| (*room, pin))
    }

    pub fn len(&self) -> usize {
        self.pins.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pins.is_empty()
    }

    pub fn pin(&mut self, now: UnixMillis, room: RoomKey, server: ServerKey, endpoint: String) {
        let pin = Pin {
            server,
            endpoint,
            updated_at: now,
            unused_since: None,
        };
        self.pins.insert(room, pin);
    }

    pub fn remove(&mut self, room: RoomKey) -> Option<Pin> {
        self.pins.remove(&room)
    }

    /// Somebody is connected or expected.
    pub fn used(&mut self, room: RoomKey) {
        if let Some(pin) = self.pins.get_mut(&room) {
            pin.unused_since = None;
        }
    }

    /// The last has left; true the first time.
    pub fn unused(&mut self, now: UnixMillis, room: RoomKey) -> bool {
        match self.pins.get_mut(&room) {
            Some(pin) if pin.unused_since.is_none() => {
                pin.unused_since = Some(now);
                true
            }
            _ => false,
        }
    }

    /// Removes the pin of a room that nobody has used for `timeout`.
    pub fn expire(&mut self, now: UnixMillis, room: RoomKey, timeout: Duration) -> Option<Pin> {
        let since = self.pins.get(&room)?.unused_since?;
        (now >= since.after(timeout)).then(|| self.pins.remove(&room))?
    }
}
