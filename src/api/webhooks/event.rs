//! What a webhook says about something that happened, as LiveKit's server says it.

use crate::node::{Happening, RoomEvent};
use crate::proto::json::{Form, render};
use crate::proto::livekit::{ParticipantInfo, Room, TrackInfo, WebhookEvent};

/// Every event of ours. LiveKit's names for those of services that are not there yet are reserved.
pub const EVENTS: &[&str] = &[
    "room_started",
    "room_finished",
    "participant_joined",
    "participant_left",
    "participant_connection_aborted",
    "track_published",
    "track_unpublished",
];

/// Which events are sent.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Empty = all.
    pub include: Vec<String>,
    pub exclude: Vec<String>,
}

impl Filter {
    pub fn passes(&self, event: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|name| name == event);
        (self.include.is_empty() || named(&self.include)) && !named(&self.exclude)
    }
}

/// One event, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub event: &'static str,
    pub room: String,
    pub body: String,
}

/// `id` is `EV_…`; `full_room`: events about tracks have the whole room too.
pub fn write(happening: Happening, id: String, unix_seconds: u64, full_room: bool) -> Written {
    let Happening { room, event } = happening;
    let name = room.name.clone();
    let (event, participant, track) = parts(event);
    // LiveKit: events about tracks say only which room and who.
    let brief = track.is_some();
    let room = match brief && !full_room {
        true => Room {
            sid: room.sid,
            name: room.name,
            ..Default::default()
        },
        false => Room { version: None, ..room },
    };
    let participant = participant.map(|participant| match brief {
        true => ParticipantInfo {
            sid: participant.sid,
            identity: participant.identity,
            ..Default::default()
        },
        false => participant,
    });
    let message = WebhookEvent {
        event: event.into(),
        room: Some(room),
        participant,
        track,
        id,
        created_at: i64::try_from(unix_seconds).unwrap_or(i64::MAX),
        ..Default::default()
    };
    Written {
        event,
        room: name,
        body: render(&message, Form::Webhook),
    }
}

fn parts(event: RoomEvent) -> (&'static str, Option<ParticipantInfo>, Option<TrackInfo>) {
    match event {
        RoomEvent::RoomStarted => ("room_started", None, None),
        RoomEvent::RoomFinished => ("room_finished", None, None),
        RoomEvent::ParticipantJoined { participant } => {
            // LiveKit: what is published is told by events of its own.
            let participant = ParticipantInfo {
                tracks: Vec::new(),
                ..*participant
            };
            ("participant_joined", Some(participant), None)
        }
        RoomEvent::ParticipantLeft { participant } => ("participant_left", Some(*participant), None),
        RoomEvent::ParticipantConnectionAborted { participant } => {
            ("participant_connection_aborted", Some(*participant), None)
        }
        RoomEvent::TrackPublished { participant, track } => ("track_published", Some(*participant), Some(*track)),
        RoomEvent::TrackUnpublished { participant, track } => ("track_unpublished", Some(*participant), Some(*track)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happening(event: RoomEvent) -> Happening {
        Happening {
            room: Room {
                sid: "RM_1".into(),
                name: "api".into(),
                empty_timeout: 300,
                version: Some(Default::default()),
                ..Default::default()
            },
            event,
        }
    }

    fn alice() -> Box<ParticipantInfo> {
        Box::new(ParticipantInfo {
            sid: "PA_1".into(),
            identity: "alice".into(),
            name: "Alice".into(),
            state: 3,
            ..Default::default()
        })
    }

    #[test]
    fn events_have_livekits_form() {
        let write = |event, full_room| write(happening(event), "EV_1".into(), 1_700_000_000, full_room).body;
        assert_eq!(
            write(RoomEvent::RoomStarted, false),
            r#"{"event":"room_started","room":{"sid":"RM_1","name":"api","emptyTimeout":300},"id":"EV_1","createdAt":"1700000000"}"#
        );
        assert_eq!(
            write(RoomEvent::ParticipantLeft { participant: alice() }, false),
            r#"{"event":"participant_left","room":{"sid":"RM_1","name":"api","emptyTimeout":300},"participant":{"sid":"PA_1","identity":"alice","state":"DISCONNECTED","name":"Alice"},"id":"EV_1","createdAt":"1700000000"}"#
        );
        let published = || RoomEvent::TrackPublished {
            participant: alice(),
            track: Box::new(TrackInfo {
                sid: "TR_1".into(),
                source: 2,
                ..Default::default()
            }),
        };
        assert_eq!(
            write(published(), false),
            r#"{"event":"track_published","room":{"sid":"RM_1","name":"api"},"participant":{"sid":"PA_1","identity":"alice"},"track":{"sid":"TR_1","source":"MICROPHONE"},"id":"EV_1","createdAt":"1700000000"}"#
        );
        assert!(write(published(), true).contains(r#""room":{"sid":"RM_1","name":"api","emptyTimeout":300}"#));
    }

    #[test]
    fn a_filter_leaves_out_what_it_names_and_what_it_does_not() {
        let filter = |include: &[&str], exclude: &[&str]| Filter {
            include: include.iter().map(|name| (*name).to_owned()).collect(),
            exclude: exclude.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert!(filter(&[], &[]).passes("room_started"));
        assert!(!filter(&["room_finished"], &[]).passes("room_started"));
        assert!(!filter(&[], &["room_started"]).passes("room_started"));
        assert!(!filter(&["room_started"], &["room_started"]).passes("room_started"));
    }
}
