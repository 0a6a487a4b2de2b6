//! What is asked of rooms, carried out in order: on this node by a question to the room, elsewhere by RoomService.
//!
//! One lane per server, so that one that hangs holds up no other.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Bytes;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Input;
use super::https::{Https, Request, Url, UrlError};
use super::tokens::{nonce_of, permission};
use crate::node::Node;
use crate::proto::claims::{Claims, VideoGrant, sign};
use crate::proto::livekit::participant_info::State;
use crate::proto::livekit::{
    DeleteRoomRequest, ListParticipantsRequest, ListParticipantsResponse, MuteRoomTrackRequest, ParticipantInfo,
    RoomParticipantIdentity, TrackSource, UpdateParticipantRequest,
};
use crate::voice::{RoomAction, Seen, Server, ServerKey};

/// Actions waiting for one server: everybody of a large channel at once. Further ones are lost for a server that does not
/// keep up, and the next look at the room finds who should not be there.
const LANE: usize = 4096;

/// How often a server that was away is asked whether it is back, and after which room.
const PROBE: Duration = Duration::from_secs(5);
const PROBED: &str = "is-anybody-there";

/// Of the tokens that this node asks other servers with.
const TOKEN_TTL: Duration = Duration::from_secs(60);

/// One thing to do on one server.
#[derive(Debug)]
struct Errand {
    room: String,
    action: RoomAction,
}

/// Where a server is, and how it is asked.
#[derive(Clone, Debug)]
enum Way {
    Here,
    There { url: Url, key: String, secret: String },
}

/// The lanes to all servers that were needed so far.
pub(super) struct Lanes {
    node: Node,
    https: Https,
    mailbox: mpsc::WeakSender<Input>,
    lanes: HashMap<ServerKey, (Server, mpsc::Sender<Errand>)>,
}

impl Lanes {
    pub(super) fn new(node: Node, https: Https, mailbox: mpsc::WeakSender<Input>) -> Self {
        Self {
            node,
            https,
            mailbox,
            lanes: HashMap::new(),
        }
    }

    pub(super) fn send(&mut self, server: &Server, room: String, action: RoomAction) {
        let key = server.key();
        // Its record may have changed: then it is another server.
        let known = self.lanes.get(&key).filter(|(known, _)| known == server);
        let lane = match known {
            Some((_, lane)) => lane.clone(),
            None => match self.open(server) {
                Some(lane) => lane,
                None => return,
            },
        };
        if lane.try_send(Errand { room, action }).is_err() {
            tracing::warn!(
                server = key.server,
                region = key.region,
                "a media server does not keep up"
            );
        }
    }

    fn open(&mut self, server: &Server) -> Option<mpsc::Sender<Errand>> {
        let way = match Way::to(server) {
            Ok(way) => way,
            Err(error) => {
                tracing::error!(server = server.server_id, %error, "a media server cannot be asked");
                return None;
            }
        };
        let (lane, errands) = mpsc::channel(LANE);
        let worker = Worker {
            rooms: Rooms {
                node: self.node.clone(),
                https: self.https.clone(),
                way,
            },
            mailbox: self.mailbox.clone(),
            server: server.key(),
        };
        tokio::spawn(worker.run(errands));
        self.lanes.insert(server.key(), (server.clone(), lane.clone()));
        Some(lane)
    }
}

impl Way {
    fn to(server: &Server) -> Result<Self, UrlError> {
        if server.local {
            return Ok(Self::Here);
        }
        Ok(Self::There {
            url: Url::parse(&server.api_url())?,
            key: server.api_key.clone(),
            secret: server.api_secret.clone(),
        })
    }
}

/// Everybody in a room of `server`.
///
/// # Errors
/// The server does not say; the text is for the log.
pub async fn participants(node: &Node, server: &Server, room: &str) -> Result<Vec<ParticipantInfo>, String> {
    let rooms = Rooms {
        node: node.clone(),
        https: Https::default(),
        way: Way::to(server).map_err(|error| error.to_string())?,
    };
    rooms.list(room).await.map_err(|failure| failure.text)
}

/// The rooms of one server.
struct Rooms {
    node: Node,
    https: Https,
    way: Way,
}

struct Worker {
    rooms: Rooms,
    mailbox: mpsc::WeakSender<Input>,
    server: ServerKey,
}

/// The server did not do it.
#[derive(Debug)]
struct Failure {
    /// It does not answer, or not sensibly. Otherwise it would not.
    away: bool,
    /// For the log.
    text: String,
}

impl Worker {
    async fn run(self, mut errands: mpsc::Receiver<Errand>) {
        let mut is_down = false;
        loop {
            let errand = tokio::select! {
                errand = errands.recv() => match errand {
                    Some(errand) => Some(errand),
                    None => return,
                },
                // Nobody is sent there any more: it would not be asked again by itself.
                () = sleep(PROBE), if is_down => None,
            };
            let done = match errand {
                Some(Errand { room, action }) => self.carry_out(&room, action).await,
                None => self.rooms.list(PROBED).await.map(|_| ()),
            };
            let away = match done {
                Ok(()) => false,
                Err(failure) => {
                    let (server, text) = (&self.server.server, failure.text);
                    tracing::warn!(server, text, "a media server did not do as it was asked");
                    failure.away
                }
            };
            if away != is_down {
                is_down = away;
                let server = self.server.clone();
                self.tell(Input::Health { server, down: away }).await;
            }
        }
    }

    async fn tell(&self, input: Input) {
        if let Some(mailbox) = self.mailbox.upgrade() {
            let _ = mailbox.send(input).await;
        }
    }

    async fn carry_out(&self, room: &str, action: RoomAction) -> Result<(), Failure> {
        match action {
            RoomAction::Permit { identity, grant } => {
                let request = UpdateParticipantRequest {
                    room: room.to_owned(),
                    identity,
                    permission: Some(permission(grant)),
                    ..UpdateParticipantRequest::default()
                };
                self.rooms.update(request).await
            }
            RoomAction::MuteMicrophone { identity, muted } => self.rooms.mute(room, &identity, muted).await,
            RoomAction::Remove { identity } => self.rooms.remove(room, identity).await,
            RoomAction::Delete => self.rooms.delete(room).await,
            RoomAction::List => {
                let participants = self.rooms.list(room).await?;
                let active = |participant: &&ParticipantInfo| {
                    participant.state() == State::Active || participant.state() == State::Joined
                };
                let seen = participants.iter().filter(active).map(seen).collect();
                let (server, room) = (self.server.clone(), room.to_owned());
                self.tell(Input::Participants { server, room, seen }).await;
                Ok(())
            }
        }
    }
}

impl Rooms {
    async fn update(&self, request: UpdateParticipantRequest) -> Result<(), Failure> {
        match &self.way {
            // Whoever is gone needs no rights.
            Way::Here => {
                let _ = self.node.update_participant(request).await;
                Ok(())
            }
            Way::There { .. } => self
                .ask("UpdateParticipant", &request.room.clone(), &request)
                .await
                .map(|_| ()),
        }
    }

    async fn mute(&self, room: &str, identity: &str, muted: bool) -> Result<(), Failure> {
        let participants = match &self.way {
            Way::Here => self.node.participant(room, identity).await.into_iter().collect(),
            Way::There { .. } => self.list(room).await?,
        };
        let own = participants
            .into_iter()
            .filter(|participant| participant.identity == identity);
        let tracks = own.flat_map(|participant| participant.tracks);
        for track in tracks.filter(|track| track.source() == TrackSource::Microphone && track.muted != muted) {
            let request = MuteRoomTrackRequest {
                room: room.to_owned(),
                identity: identity.to_owned(),
                track_sid: track.sid,
                muted,
            };
            match &self.way {
                Way::Here => {
                    let _ = self.node.mute_track(request).await;
                }
                Way::There { .. } => {
                    self.ask("MutePublishedTrack", room, &request).await?;
                }
            }
        }
        Ok(())
    }

    async fn remove(&self, room: &str, identity: String) -> Result<(), Failure> {
        match &self.way {
            Way::Here => {
                let _ = self.node.remove_participant(room, &identity).await;
                Ok(())
            }
            Way::There { .. } => {
                let request = RoomParticipantIdentity {
                    room: room.to_owned(),
                    identity,
                    ..RoomParticipantIdentity::default()
                };
                self.ask("RemoveParticipant", room, &request).await.map(|_| ())
            }
        }
    }

    async fn delete(&self, room: &str) -> Result<(), Failure> {
        match &self.way {
            Way::Here => {
                let _ = self.node.delete_room(room).await;
                Ok(())
            }
            Way::There { .. } => {
                let request = DeleteRoomRequest { room: room.to_owned() };
                self.ask("DeleteRoom", room, &request).await.map(|_| ())
            }
        }
    }

    async fn list(&self, room: &str) -> Result<Vec<ParticipantInfo>, Failure> {
        match &self.way {
            Way::Here => Ok(self.node.participants(room).await.unwrap_or_default()),
            Way::There { .. } => {
                let request = ListParticipantsRequest { room: room.to_owned() };
                let answer = self.ask("ListParticipants", room, &request).await?;
                let answer = ListParticipantsResponse::decode(answer.unwrap_or_default());
                let undecodable = |error: prost::DecodeError| Failure {
                    away: true,
                    text: format!("ListParticipants: {error}"),
                };
                Ok(answer.map_err(undecodable)?.participants)
            }
        }
    }

    /// None: there is no such room or participant there, which is as well.
    async fn ask<M: Message>(&self, method: &str, room: &str, request: &M) -> Result<Option<Bytes>, Failure> {
        let Way::There { url, key, secret } = &self.way else {
            return Ok(None);
        };
        let claims = Claims {
            video: Some(VideoGrant {
                room_admin: true,
                room_create: true,
                room_list: true,
                room: room.to_owned(),
                ..VideoGrant::default()
            }),
            ..Claims::default()
        };
        let token = sign(&claims, key, secret, self.node.unix(), TOKEN_TTL);
        let request = Request {
            content_type: "application/protobuf",
            authorization: format!("Bearer {token}"),
            body: request.encode_to_vec(),
        };
        let path = format!("/twirp/livekit.RoomService/{method}");
        match self.https.post(url, &path, request).await {
            Ok((200, body)) => Ok(Some(body)),
            Ok((404, _)) => Ok(None),
            Ok((status, body)) => {
                let text = String::from_utf8_lossy(&body);
                Err(Failure {
                    away: status >= 500,
                    text: format!("{method}: {status} {text:.200}"),
                })
            }
            Err(error) => Err(Failure {
                away: true,
                text: format!("{method}: {error}"),
            }),
        }
    }
}

pub(super) fn seen(participant: &ParticipantInfo) -> Seen {
    Seen {
        identity: participant.identity.clone(),
        participant: participant.sid.clone(),
        nonce: nonce_of(&participant.metadata),
    }
}
