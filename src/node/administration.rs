//! What the server APIs ask of the node: rooms by name, and questions to the task of one room.
//!
//! `None` everywhere means that there is no such room (any more).

use std::time::Instant;

use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::driver::Node;
use super::journal::NotWritten;
use super::registry::LiveRoom;
use super::room_task::{Change, NotMoved, NotShown, Question, RoomInput, RpcOutcome};
use crate::control::{AdministrationError, ForwardError, Room, TooManyDispatches};
use crate::proto::livekit::{
    self, AgentDispatch, CreateAgentDispatchRequest, CreateRoomRequest, DisconnectReason, ForwardParticipantRequest,
    MoveParticipantRequest, MuteRoomTrackRequest, ParticipantInfo, PerformRpcRequest, RoomConfiguration,
    SendDataRequest, TimedVersion, TrackInfo, UpdateParticipantRequest, UpdateSubscriptionsRequest,
};
use crate::types::{Identity, RoomName, ShardIndex, TrackId};

/// How often a call that meets a closing room tries again with a new one.
const CREATE_ATTEMPTS: usize = 3;

/// Why a room was not made. Texts are LiveKit's where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateRoomError {
    /// LiveKit makes a room without a name, which nobody can ever join.
    #[error("room name cannot be empty")]
    NameEmpty,
    #[error("room name length exceeds limits: max length {max}")]
    NameTooLong { max: usize },
    #[error("unknown room configuration in create room request")]
    UnknownPreset,
    #[error("node has exceeded its configured limit")]
    NodeFull,
    #[error("node is shutting down")]
    Draining,
    #[error(transparent)]
    NotWritten(#[from] NotWritten),
    /// Every room of that name ended before it could answer.
    #[error("no response from servers")]
    Closing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateDispatchError {
    #[error("requested room does not exist")]
    NoRoom,
    #[error(transparent)]
    Room(#[from] CreateRoomError),
    #[error(transparent)]
    TooMany(#[from] TooManyDispatches),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShowError {
    #[error(transparent)]
    Participant(#[from] AdministrationError),
    #[error(transparent)]
    Destination(#[from] CreateRoomError),
    #[error(transparent)]
    Refused(#[from] ForwardError),
    #[error("the rooms are on different media shards, and nothing is forwarded between those")]
    Apart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    #[error(transparent)]
    Participant(#[from] AdministrationError),
    #[error(transparent)]
    Destination(#[from] CreateRoomError),
    #[error("room has exceeded its max participants")]
    DestinationFull,
}

impl Node {
    /// The room of that name, made if need be. LiveKit: what the request says of a room that lives is passed over.
    pub async fn create_room(&self, request: CreateRoomRequest) -> Result<livekit::Room, CreateRoomError> {
        let name = RoomName(request.name.clone());
        let mut configurations = Vec::new();
        if !request.room_preset.is_empty() {
            let preset = self.config().presets.get(&request.room_preset);
            configurations.push(preset.ok_or(CreateRoomError::UnknownPreset)?.clone());
        }
        configurations.push(configuration(request));
        // A room that was there already is asked in the same way: whoever made it may still wait for its being written.
        self.with_room(&name, (&configurations, None), |room, _| room.info())
            .await
            .map(|info| self.versioned(info))
    }

    /// Asks the room of that name, after making it from `configurations` (on this shard, if need be) where there is none;
    /// waits until what it then is has been written down.
    async fn with_room<R: Send + 'static>(
        &self,
        name: &RoomName,
        (configurations, shard): (&[RoomConfiguration], Option<ShardIndex>),
        question: impl Fn(&mut Room, Instant) -> R + Clone + Send + 'static,
    ) -> Result<R, CreateRoomError> {
        let max = self.config().max_room_name_length;
        if name.0.is_empty() {
            return Err(CreateRoomError::NameEmpty);
        }
        if max > 0 && name.0.len() > max {
            return Err(CreateRoomError::NameTooLong { max });
        }
        for _ in 0..CREATE_ATTEMPTS {
            let room = self
                .find_or_create(name, configurations, shard)
                .ok_or_else(|| match self.is_draining() {
                    true => CreateRoomError::Draining,
                    false => CreateRoomError::NodeFull,
                })?;
            if let Some(answer) = change(&room, question.clone()).await {
                return Ok(answer?);
            }
            // It was closing: the name is free for a new one.
            self.registry().forget_name(name, room.handle);
        }
        Err(CreateRoomError::Closing)
    }

    /// By name, in the order of their names; without names all of them.
    pub async fn list_rooms(&self, names: &[String]) -> Vec<livekit::Room> {
        let mut found = self.registry().rooms();
        if !names.is_empty() {
            found.retain(|(name, _)| names.contains(&name.0));
        }
        found.sort_by(|(a, _), (b, _)| a.0.cmp(&b.0));
        let infos = found.iter().map(|(_, room)| ask(room, |room, _| room.info()));
        let infos = join_all(infos).await;
        infos.into_iter().flatten().map(|info| self.versioned(info)).collect()
    }

    /// Everybody in it is told. The name is free when this returns.
    pub async fn delete_room(&self, room: &str) -> Option<Result<(), NotWritten>> {
        let name = RoomName(room.to_owned());
        let room = self.registry().find(&name)?;
        let closed = change(&room, |room, now| room.close(now, DisconnectReason::RoomDeleted)).await;
        self.registry().forget_name(&name, room.handle);
        closed
    }

    pub async fn participants(&self, room: &str) -> Option<Vec<ParticipantInfo>> {
        self.ask(room, |room, _| room.participants()).await
    }

    pub async fn participant(&self, room: &str, identity: &str) -> Option<ParticipantInfo> {
        let identity = Identity(identity.to_owned());
        self.ask(room, move |room, _| room.participant(&identity)).await?
    }

    pub async fn remove_participant(&self, room: &str, identity: &str) -> Option<Result<(), AdministrationError>> {
        let identity = Identity(identity.to_owned());
        self.ask(room, move |room, now| room.remove_participant(now, &identity))
            .await
    }

    /// As `control::Room::mute_track`.
    pub async fn mute_track(
        &self,
        request: MuteRoomTrackRequest,
    ) -> Option<Result<Option<TrackInfo>, AdministrationError>> {
        let (identity, track) = (Identity(request.identity), TrackId(request.track_sid));
        self.ask(&request.room, move |room, _| {
            room.mute_track(&identity, &track, request.muted)
        })
        .await
    }

    /// As `control::Room::update_participant`.
    pub async fn update_participant(
        &self,
        request: UpdateParticipantRequest,
    ) -> Option<Result<ParticipantInfo, AdministrationError>> {
        let identity = Identity(request.identity);
        self.ask(&request.room, move |room, now| {
            room.update_participant(
                now,
                &identity,
                &request.metadata,
                &request.name,
                &request.attributes,
                request.permission.as_ref(),
            )
        })
        .await
    }

    /// Tracks named twice count once.
    pub async fn update_subscriptions(
        &self,
        request: UpdateSubscriptionsRequest,
    ) -> Option<Result<(), AdministrationError>> {
        let identity = Identity(request.identity);
        let grouped = request
            .participant_tracks
            .into_iter()
            .flat_map(|group| group.track_sids);
        let mut tracks: Vec<TrackId> = request.track_sids.into_iter().chain(grouped).map(TrackId).collect();
        tracks.sort_by(|a, b| a.0.cmp(&b.0));
        tracks.dedup();
        self.ask(&request.room, move |room, now| {
            room.update_subscriptions(now, &identity, &tracks, request.subscribe)
        })
        .await
    }

    pub async fn send_data(&self, request: SendDataRequest) -> Option<()> {
        let name = request.room.clone();
        self.ask(&name, move |room, _| room.send_data(request)).await
    }

    pub async fn update_room_metadata(
        &self,
        room: &str,
        metadata: String,
    ) -> Option<Result<Result<livekit::Room, AdministrationError>, NotWritten>> {
        let updated = self
            .change(room, move |room, now| room.update_metadata(now, &metadata))
            .await?;
        Some(updated.map(|updated| updated.map(|info| self.versioned(info))))
    }

    /// Calls a method of a participant and waits for its response.
    pub async fn perform_rpc(&self, request: PerformRpcRequest) -> Option<RpcOutcome> {
        let room = self.registry().find(&RoomName(request.room.clone()))?;
        let (answer, answered) = oneshot::channel();
        let request = Box::new(request);
        room.mailbox
            .send(RoomInput::PerformRpc { request, answer })
            .await
            .ok()?;
        answered.await.ok()
    }

    /// Sends a participant to another room, which is made if need be. Where both rooms are on one shard it keeps its
    /// connections; else its client starts over there.
    pub async fn move_participant(&self, request: MoveParticipantRequest) -> Result<(), MoveError> {
        let no_participant = MoveError::Participant(AdministrationError::NoParticipant);
        let source = self.registry().find(&RoomName(request.room.clone()));
        let source = source.ok_or(no_participant)?;
        if self.participant(&request.room, &request.identity).await.is_none() {
            return Err(no_participant);
        }
        let name = RoomName(request.destination_room);
        let look = |room: &mut Room, _| (room.info(), room.participants());
        let (destination, mut others) = self.with_room(&name, (&[], Some(source.seat.home)), look).await?;
        let limit = destination.max_participants;
        if limit > 0 && destination.num_participants >= limit {
            return Err(MoveError::DestinationFull);
        }
        let identity = Identity(request.identity);
        let near = self
            .registry()
            .find(&name)
            .filter(|room| room.seat.is_with(&source.seat));
        if let Some(near) = near {
            let (answer, answered) = oneshot::channel();
            let input = RoomInput::LetGo {
                identity: identity.clone(),
                destination: near.mailbox,
                answer,
            };
            let sent = source.mailbox.send(input).await;
            sent.map_err(|_| no_participant)?;
            match answered.await.map_err(|_| no_participant)? {
                Ok(()) => return Ok(()),
                Err(NotMoved::NoParticipant) => return Err(no_participant),
                Err(NotMoved::TurnedBack) => return Err(CreateRoomError::Closing.into()),
                Err(NotMoved::NotPortable) => {}
            }
        }
        others.retain(|other| !other.permission.as_ref().is_some_and(|permission| permission.hidden));
        let moved = self.ask(&request.room, move |room, now| {
            room.move_participant(now, &identity, destination, others)
        });
        Ok(moved.await.ok_or(no_participant)??)
    }

    /// Shows a participant, with what it publishes, in another room, which is made if need be.
    pub async fn forward_participant(&self, request: ForwardParticipantRequest) -> Result<(), ShowError> {
        let no_participant = ShowError::Participant(AdministrationError::NoParticipant);
        let source = self.registry().find(&RoomName(request.room.clone()));
        let source = source.ok_or(no_participant)?;
        if self.participant(&request.room, &request.identity).await.is_none() {
            return Err(no_participant);
        }
        let name = RoomName(request.destination_room);
        self.with_room(&name, (&[], Some(source.seat.home)), |_, _| ()).await?;
        let destination = self.registry().find(&name).ok_or(CreateRoomError::Closing)?;
        if !destination.seat.is_with(&source.seat) {
            return Err(ShowError::Apart);
        }
        let (answer, answered) = oneshot::channel();
        let input = RoomInput::Forward {
            identity: Identity(request.identity),
            to: (destination.handle, destination.mailbox),
            from: source.mailbox.clone(),
            answer,
        };
        source.mailbox.send(input).await.map_err(|_| no_participant)?;
        match answered.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(NotShown::NoParticipant)) => Err(no_participant),
            Ok(Err(NotShown::Apart)) => Err(ShowError::Apart),
            Ok(Err(NotShown::Refused(error))) => Err(error.into()),
            Err(_) => Err(ForwardError::Closed.into()),
        }
    }

    /// LiveKit: the room is made for it where rooms make themselves.
    pub async fn create_dispatch(
        &self,
        request: CreateAgentDispatchRequest,
    ) -> Result<AgentDispatch, CreateDispatchError> {
        let name = RoomName(request.room.clone());
        if !self.config().auto_create && self.registry().find(&name).is_none() {
            return Err(CreateDispatchError::NoRoom);
        }
        let create = move |room: &mut Room, now| room.create_dispatch(now, request.clone());
        Ok(self.with_room(&name, (&[], None), create).await??)
    }

    /// With an `id` that one only.
    pub async fn dispatches(&self, room: &str, id: String) -> Option<Vec<AgentDispatch>> {
        self.ask(room, move |room, _| room.dispatches(&id)).await
    }

    /// The inner None: the room has no such dispatch.
    pub async fn delete_dispatch(&self, room: &str, id: String) -> Option<Result<Option<AgentDispatch>, NotWritten>> {
        self.change(room, move |room, now| room.delete_dispatch(now, &id)).await
    }

    async fn change<R: Send + 'static>(
        &self,
        room: &str,
        wanted: impl FnOnce(&mut Room, Instant) -> R + Send + 'static,
    ) -> Option<Result<R, NotWritten>> {
        let room = self.registry().find(&RoomName(room.to_owned()))?;
        change(&room, wanted).await
    }

    async fn ask<R: Send + 'static>(
        &self,
        room: &str,
        question: impl FnOnce(&mut Room, Instant) -> R + Send + 'static,
    ) -> Option<R> {
        let room = self.registry().find(&RoomName(room.to_owned()))?;
        ask(&room, question).await
    }

    /// LiveKit: answers of the API say of when they are.
    fn versioned(&self, mut info: livekit::Room) -> livekit::Room {
        let unix_micro = i64::try_from(self.unix().as_micros()).unwrap_or(i64::MAX);
        info.version = Some(TimedVersion { unix_micro, ticks: 0 });
        info
    }
}

/// Runs `question` in the room's task, between its other inputs. None when the room ends first.
async fn ask<R: Send + 'static>(
    room: &LiveRoom,
    question: impl FnOnce(&mut Room, Instant) -> R + Send + 'static,
) -> Option<R> {
    let (answer, answered) = oneshot::channel();
    let question: Question = Box::new(move |room, now| {
        if !room.is_closed() {
            // Whoever asked may have given up.
            let _ = answer.send(question(room, now));
        }
    });
    room.mailbox.send(RoomInput::Question(question)).await.ok()?;
    answered.await.ok()
}

/// As `ask`, for what must be written down before it is answered.
async fn change<R: Send + 'static>(
    room: &LiveRoom,
    wanted: impl FnOnce(&mut Room, Instant) -> R + Send + 'static,
) -> Option<Result<R, NotWritten>> {
    let (answer, answered) = oneshot::channel();
    let change: Change = Box::new(move |room, now| {
        let outcome = (!room.is_closed()).then(|| wanted(room, now));
        Box::new(move |written| {
            if let Some(outcome) = outcome {
                // Whoever asked may have given up.
                let _ = answer.send(written.map(|()| outcome));
            }
        })
    });
    room.mailbox.send(RoomInput::Change(change)).await.ok()?;
    answered.await.ok()
}

fn configuration(request: CreateRoomRequest) -> RoomConfiguration {
    RoomConfiguration {
        name: String::new(),
        empty_timeout: request.empty_timeout,
        departure_timeout: request.departure_timeout,
        max_participants: request.max_participants,
        metadata: request.metadata,
        egress: request.egress,
        min_playout_delay: request.min_playout_delay,
        max_playout_delay: request.max_playout_delay,
        sync_streams: request.sync_streams,
        agents: request.agents,
        tags: request.tags,
    }
}
