//! What of a room is written down, when that has changed, and a room made from what was written down.

use std::time::{Duration, Instant};

use crate::proto::room_record::RoomRecord;
use crate::types::{RoomHandle, RoomId, RoomName, WallClock};

use super::participant::Participant;
use super::reception::playout_delay;
use super::room::Room;
use super::settings::RoomSettings;

impl Room {
    /// A room that lived in an earlier process. Who was in it has until the departure timeout to come back, from now on;
    /// other timeouts go on as if the process had not ended. `settings` are those of the node.
    pub fn restore(
        record: RoomRecord,
        handle: RoomHandle,
        mut settings: RoomSettings,
        wall: WallClock,
        seed: u64,
        now: Instant,
    ) -> Self {
        let info = record.room.unwrap_or_default();
        settings.empty_timeout = Duration::from_secs(info.empty_timeout.into());
        settings.departure_timeout = Duration::from_secs(info.departure_timeout.into());
        settings.max_participants = info.max_participants;
        settings.metadata = info.metadata;
        settings.sync_streams = record.sync_streams;
        settings.playout_delay = match (record.min_playout_delay, record.max_playout_delay) {
            (0, 0) => None,
            (min, max) => Some(playout_delay(min, max)),
        };
        let at = |unix_ms: u64| {
            let age = wall.unix(now).saturating_sub(Duration::from_millis(unix_ms));
            now.checked_sub(age).unwrap_or(now)
        };
        let created_at = at(u64::try_from(info.creation_time_ms).unwrap_or(0));
        let mut room = Self::make(RoomName(info.name), handle, settings, wall, seed, created_at);
        room.sid = RoomId(info.sid);
        room.turn_password = info.turn_password;
        room.dispatches = record.dispatches;
        room.departed_at = match (record.occupied, record.departed_ms) {
            (true, _) => Some(now),
            (false, departed) => departed.map(at),
        };
        // The clock's work begins now, however old the room is.
        room.start_clock(now);
        room.open();
        room.restore_jobs();
        room
    }

    /// What to write down in place of what was written down before; None = the same.
    pub fn take_record(&mut self) -> Option<RoomRecord> {
        if !std::mem::take(&mut self.unsaved) || self.closed {
            return None;
        }
        let delay = self.settings.playout_delay;
        let unix_ms = |at: Instant| u64::try_from(self.wall.unix(at).as_millis()).unwrap_or(u64::MAX);
        Some(RoomRecord {
            room: Some(self.info()),
            dispatches: self.dispatches.clone(),
            min_playout_delay: delay.map_or(0, |delay| delay.min.into()),
            max_playout_delay: delay.map_or(0, |delay| delay.max.into()),
            sync_streams: self.settings.sync_streams,
            occupied: self.is_occupied(),
            departed_ms: self.departed_at.map(unix_ms),
        })
    }

    pub fn sid(&self) -> &RoomId {
        &self.sid
    }

    /// Somebody is in it who counts.
    pub(super) fn is_occupied(&self) -> bool {
        self.participants
            .values()
            .any(|participant: &Participant| !participant.is_dependent())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Output, RoomEvent};

    const MINUTE: Duration = Duration::from_secs(60);

    fn settings() -> RoomSettings {
        RoomSettings {
            empty_timeout: 10 * MINUTE,
            departure_timeout: MINUTE,
            max_participants: 5,
            ..RoomSettings::default()
        }
    }

    fn written(wall: WallClock, now: Instant) -> RoomRecord {
        let mut room = Room::new(RoomName("room".into()), RoomHandle(1), settings(), wall, 1, now);
        let record = room.take_record().expect("a new room is written down");
        assert_eq!(room.take_record(), None, "once");
        room.update_metadata(now, "said").unwrap();
        let later = room.take_record().expect("its metadata is written down");
        assert_eq!(
            (record.dispatches.len(), later.room.unwrap().metadata.as_str()),
            (1, "said")
        );
        record
    }

    fn restored(record: &RoomRecord, wall: WallClock, now: Instant) -> Room {
        // The configuration has changed in between; the room has not.
        let settings = RoomSettings::default();
        Room::restore(record.clone(), RoomHandle(2), settings, wall, 2, now)
    }

    fn happened(room: &mut Room) -> Vec<RoomEvent> {
        let outputs = std::iter::from_fn(|| room.poll_output());
        let events = outputs.filter_map(|output| match output {
            Output::Happened(event) => Some(event),
            _ => None,
        });
        events.collect()
    }

    #[test]
    fn a_room_is_what_it_was_and_ends_when_it_would_have_ended() {
        let now = Instant::now();
        let wall = WallClock::new(now, Duration::from_secs(1_700_000_000));
        let mut record = written(wall, now);
        let mut room = restored(&record, wall, now + 4 * MINUTE);
        assert_eq!(Some(room.info()), record.room);
        assert_eq!((room.take_record(), happened(&mut room).len()), (None, 0));
        assert_eq!(room.poll_timeout(), Some(now + 10 * MINUTE), "nobody ever came");

        record.departed_ms = Some(1_700_000_000_000 + 30_000);
        let mut room = restored(&record, wall, now + MINUTE);
        assert_eq!(
            room.poll_timeout(),
            Some(now + MINUTE + MINUTE / 2),
            "the last one left before"
        );

        record.occupied = true;
        let mut room = restored(&record, wall, now + 20 * MINUTE);
        assert_eq!(
            room.poll_timeout(),
            Some(now + 21 * MINUTE),
            "who was in it may come back"
        );
    }

    #[test]
    fn a_room_whose_time_passed_while_nothing_ran_finishes_at_once() {
        let now = Instant::now();
        let wall = WallClock::new(now, Duration::from_secs(1_700_000_000));
        let record = written(wall, now);
        let later = now + 11 * MINUTE;
        let mut room = restored(&record, wall, later);
        room.handle_timeout(later);
        assert!(matches!(happened(&mut room)[..], [RoomEvent::RoomFinished]));
    }
}
