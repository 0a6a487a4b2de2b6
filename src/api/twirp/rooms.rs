//! `livekit.RoomService`: rooms, their participants, and what a backend does to them.

use super::endpoint::{Endpoint, Method, Right, Scope, method};
use super::error::{Code, TwirpError};
use crate::node::{AdministrationError, CreateRoomError, MetadataError, MoveError, Node, NotWritten, ShowError};
use crate::proto::claims::Claims;
use crate::proto::livekit::{
    CreateRoomRequest, DeleteRoomRequest, DeleteRoomResponse, ForwardParticipantRequest, ForwardParticipantResponse,
    ListParticipantsRequest, ListParticipantsResponse, ListRoomsRequest, ListRoomsResponse, MoveParticipantRequest,
    MoveParticipantResponse, MuteRoomTrackRequest, MuteRoomTrackResponse, ParticipantInfo, PerformRpcRequest,
    PerformRpcResponse, RemoveParticipantResponse, Room, RoomParticipantIdentity, SendDataRequest, SendDataResponse,
    UpdateParticipantRequest, UpdateRoomMetadataRequest, UpdateSubscriptionsRequest, UpdateSubscriptionsResponse,
};

const SERVICE: &str = "livekit.RoomService";

pub(super) const METHODS: &[Method] = &[
    method::<CreateRoom>(SERVICE, "CreateRoom"),
    method::<ListRooms>(SERVICE, "ListRooms"),
    method::<DeleteRoom>(SERVICE, "DeleteRoom"),
    method::<ListParticipants>(SERVICE, "ListParticipants"),
    method::<GetParticipant>(SERVICE, "GetParticipant"),
    method::<RemoveParticipant>(SERVICE, "RemoveParticipant"),
    method::<MutePublishedTrack>(SERVICE, "MutePublishedTrack"),
    method::<UpdateParticipant>(SERVICE, "UpdateParticipant"),
    method::<UpdateSubscriptions>(SERVICE, "UpdateSubscriptions"),
    method::<SendData>(SERVICE, "SendData"),
    method::<UpdateRoomMetadata>(SERVICE, "UpdateRoomMetadata"),
    method::<MoveParticipant>(SERVICE, "MoveParticipant"),
    method::<ForwardParticipant>(SERVICE, "ForwardParticipant"),
    method::<PerformRpc>(SERVICE, "PerformRpc"),
];

/// Bytes of `SendDataRequest.nonce`, where there is one: LiveKit's clients drop a second packet with the same.
const NONCE: usize = 16;

struct CreateRoom;

impl Endpoint for CreateRoom {
    type Request = CreateRoomRequest;
    type Answer = Room;
    const RIGHT: Right = Right::RoomCreate;

    async fn run(node: Node, _: Claims, request: CreateRoomRequest) -> Result<Room, TwirpError> {
        check_metadata(&node, &request.metadata)?;
        // LiveKit: a room that is to be recorded is made all the same where nothing records.
        if request.egress.is_some() {
            tracing::warn!(
                room = request.name,
                "there is no recorder for the egress that this room asks for"
            );
        }
        Ok(node.create_room(request).await?)
    }
}

struct ListRooms;

impl Endpoint for ListRooms {
    type Request = ListRoomsRequest;
    type Answer = ListRoomsResponse;
    const RIGHT: Right = Right::RoomList;

    async fn run(node: Node, _: Claims, request: ListRoomsRequest) -> Result<ListRoomsResponse, TwirpError> {
        let rooms = node.list_rooms(&request.names).await;
        Ok(ListRoomsResponse { rooms })
    }
}

struct DeleteRoom;

impl Endpoint for DeleteRoom {
    type Request = DeleteRoomRequest;
    type Answer = DeleteRoomResponse;
    const RIGHT: Right = Right::RoomCreate;

    async fn run(node: Node, _: Claims, request: DeleteRoomRequest) -> Result<DeleteRoomResponse, TwirpError> {
        node.delete_room(&request.room)
            .await
            .ok_or_else(TwirpError::no_room)??;
        Ok(DeleteRoomResponse {})
    }
}

struct ListParticipants;

impl Endpoint for ListParticipants {
    type Request = ListParticipantsRequest;
    type Answer = ListParticipantsResponse;
    const RIGHT: Right = Right::RoomAdmin;

    fn scope(request: &ListParticipantsRequest) -> Scope<'_> {
        within(&request.room)
    }

    /// LiveKit: an unknown room is one without participants.
    async fn run(
        node: Node,
        _: Claims,
        request: ListParticipantsRequest,
    ) -> Result<ListParticipantsResponse, TwirpError> {
        let participants = node.participants(&request.room).await.unwrap_or_default();
        Ok(ListParticipantsResponse { participants })
    }
}

struct GetParticipant;

impl Endpoint for GetParticipant {
    type Request = RoomParticipantIdentity;
    type Answer = ParticipantInfo;
    const RIGHT: Right = Right::RoomAdmin;

    fn scope(request: &RoomParticipantIdentity) -> Scope<'_> {
        within(&request.room)
    }

    async fn run(node: Node, _: Claims, request: RoomParticipantIdentity) -> Result<ParticipantInfo, TwirpError> {
        node.participant(&request.room, &request.identity)
            .await
            .ok_or_else(no_participant)
    }
}

struct RemoveParticipant;

impl Endpoint for RemoveParticipant {
    type Request = RoomParticipantIdentity;
    type Answer = RemoveParticipantResponse;
    const RIGHT: Right = Right::RoomAdmin;

    fn scope(request: &RoomParticipantIdentity) -> Scope<'_> {
        within(&request.room)
    }

    async fn run(
        node: Node,
        _: Claims,
        request: RoomParticipantIdentity,
    ) -> Result<RemoveParticipantResponse, TwirpError> {
        node.remove_participant(&request.room, &request.identity)
            .await
            .ok_or_else(no_participant)??;
        Ok(RemoveParticipantResponse {})
    }
}

struct MutePublishedTrack;

impl Endpoint for MutePublishedTrack {
    type Request = MuteRoomTrackRequest;
    type Answer = MuteRoomTrackResponse;
    const RIGHT: Right = Right::RoomAdmin;

    fn scope(request: &MuteRoomTrackRequest) -> Scope<'_> {
        within(&request.room)
    }

    async fn run(node: Node, _: Claims, request: MuteRoomTrackRequest) -> Result<MuteRoomTrackResponse, TwirpError> {
        let track = bus(node.mute_track(request).await)?;
        Ok(MuteRoomTrackResponse { track })
    }
}

struct UpdateParticipant;

impl Endpoint for UpdateParticipant {
    type Request = UpdateParticipantRequest;
    type Answer = ParticipantInfo;
    const RIGHT: Right = Right::RoomAdmin;

    fn scope(request: &UpdateParticipantRequest) -> Scope<'_> {
        within(&request.room)
    }

    async fn run(node: Node, _: Claims, request: UpdateParticipantRequest) -> Result<ParticipantInfo, TwirpError> {
        let limits = &node.config().room.limits;
        check(
            request.name.len(),
            limits.max_participant_name_length,
            "name length exceeds limits",
        )?;
        check_metadata(&node, &request.metadata)?;
        let size = |(key, value): (&String, &String)| key.len() + value.len();
        let attributes: usize = request.attributes.iter().map(size).sum();
        check(attributes, limits.max_attributes_size, "attribute size exceeds limits")?;
        Ok(node.update_participant(request).await.ok_or_else(no_participant)??)
    }
}

struct UpdateSubscriptions;

impl Endpoint for UpdateSubscriptions {
    type Request = UpdateSubscriptionsRequest;
    type Answer = UpdateSubscriptionsResponse;
    const RIGHT: Right = Right::RoomAdmin;

    fn scope(request: &UpdateSubscriptionsRequest) -> Scope<'_> {
        within(&request.room)
    }

    async fn run(
        node: Node,
        _: Claims,
        request: UpdateSubscriptionsRequest,
    ) -> Result<UpdateSubscriptionsResponse, TwirpError> {
        bus(node.update_subscriptions(request).await)?;
        Ok(UpdateSubscriptionsResponse {})
    }
}

struct SendData;

impl Endpoint for SendData {
    type Request = SendDataRequest;
    type Answer = SendDataResponse;
    const RIGHT: Right = Right::RoomAdmin;

    fn scope(request: &SendDataRequest) -> Scope<'_> {
        within(&request.room)
    }

    async fn run(node: Node, _: Claims, request: SendDataRequest) -> Result<SendDataResponse, TwirpError> {
        let nonce = request.nonce.len();
        if nonce != 0 && nonce != NONCE {
            let text = format!("nonce should be 16-bytes or not present, got: {nonce} bytes");
            return Err(TwirpError::new(Code::InvalidArgument, text));
        }
        node.send_data(request).await.ok_or_else(TwirpError::nobody_answers)?;
        Ok(SendDataResponse {})
    }
}

struct UpdateRoomMetadata;

impl Endpoint for UpdateRoomMetadata {
    type Request = UpdateRoomMetadataRequest;
    type Answer = Room;
    const RIGHT: Right = Right::RoomAdmin;

    fn scope(request: &UpdateRoomMetadataRequest) -> Scope<'_> {
        within(&request.room)
    }

    async fn run(node: Node, _: Claims, request: UpdateRoomMetadataRequest) -> Result<Room, TwirpError> {
        check_metadata(&node, &request.metadata)?;
        let updated = node.update_room_metadata(&request.room, request.metadata).await;
        Ok(updated.ok_or_else(TwirpError::no_room)???)
    }
}

struct MoveParticipant;

impl Endpoint for MoveParticipant {
    type Request = MoveParticipantRequest;
    type Answer = MoveParticipantResponse;
    const RIGHT: Right = Right::RoomAdminTo;

    fn scope(request: &MoveParticipantRequest) -> Scope<'_> {
        Scope {
            room: &request.room,
            destination: &request.destination_room,
        }
    }

    async fn run(
        node: Node,
        _: Claims,
        request: MoveParticipantRequest,
    ) -> Result<MoveParticipantResponse, TwirpError> {
        check_destination(&request.room, &request.destination_room)?;
        match node.move_participant(request).await {
            Ok(()) => Ok(MoveParticipantResponse {}),
            Err(MoveError::Participant(error)) => Err(error.into()),
            Err(MoveError::Destination(error)) => Err(error.into()),
            Err(error @ MoveError::DestinationFull) => Err(TwirpError::service(Code::ResourceExhausted, error)),
        }
    }
}

struct ForwardParticipant;

impl Endpoint for ForwardParticipant {
    type Request = ForwardParticipantRequest;
    type Answer = ForwardParticipantResponse;
    const RIGHT: Right = Right::RoomAdminTo;

    fn scope(request: &ForwardParticipantRequest) -> Scope<'_> {
        Scope {
            room: &request.room,
            destination: &request.destination_room,
        }
    }

    /// LiveKit's own server answers that this is not implemented.
    async fn run(
        node: Node,
        _: Claims,
        request: ForwardParticipantRequest,
    ) -> Result<ForwardParticipantResponse, TwirpError> {
        check_destination(&request.room, &request.destination_room)?;
        match node.forward_participant(request).await {
            Ok(()) => Ok(ForwardParticipantResponse {}),
            Err(ShowError::Participant(error)) => Err(error.into()),
            Err(ShowError::Destination(error)) => Err(error.into()),
            Err(ShowError::Refused(error)) => Err(TwirpError::service(Code::FailedPrecondition, error)),
            Err(error @ ShowError::Apart) => Err(TwirpError::service(Code::FailedPrecondition, error)),
        }
    }
}

fn check_destination(room: &str, destination: &str) -> Result<(), TwirpError> {
    if room == destination {
        let fault = "destination room cannot be the same as source room";
        return Err(TwirpError::argument(fault, ""));
    }
    Ok(())
}

struct PerformRpc;

impl Endpoint for PerformRpc {
    type Request = PerformRpcRequest;
    type Answer = PerformRpcResponse;
    const RIGHT: Right = Right::RoomAdmin;

    fn scope(request: &PerformRpcRequest) -> Scope<'_> {
        within(&request.room)
    }

    async fn run(node: Node, _: Claims, request: PerformRpcRequest) -> Result<PerformRpcResponse, TwirpError> {
        if request.destination_identity.is_empty() {
            let text = "destination identity is required";
            return Err(TwirpError::service(Code::InvalidArgument, text));
        }
        match bus(node.perform_rpc(request).await)? {
            Ok(payload) => Ok(PerformRpcResponse { payload }),
            Err(error) => {
                let text = format!("RpcError {}: {}", error.code, error.message);
                Err(TwirpError::service(code_of_rpc(error.code), text))
            }
        }
    }
}

/// LiveKit: errors of a call by their number.
fn code_of_rpc(code: u32) -> Code {
    match code {
        1400..=1499 => Code::InvalidArgument,
        // Nothing acknowledged, or nothing answered, in time.
        1501 | 1502 => Code::Canceled,
        1503 => Code::Unavailable,
        _ => Code::Internal,
    }
}

pub(super) fn within(room: &str) -> Scope<'_> {
    Scope {
        room,
        ..Scope::default()
    }
}

fn no_participant() -> TwirpError {
    TwirpError::service(Code::NotFound, AdministrationError::NoParticipant)
}

/// LiveKit: these calls go to the participant itself over its message bus, where nobody answers for one that is not
/// there.
fn bus<T>(outcome: Option<Result<T, AdministrationError>>) -> Result<T, TwirpError> {
    match outcome {
        None | Some(Err(AdministrationError::NoParticipant)) => Err(TwirpError::nobody_answers()),
        Some(outcome) => Ok(outcome?),
    }
}

pub(super) fn check_metadata(node: &Node, metadata: &str) -> Result<(), TwirpError> {
    let max = node.config().room.limits.max_metadata_size;
    check(metadata.len(), max, "metadata size exceeds limits")
}

/// `max` 0 = no limit.
pub(super) fn check(size: usize, max: usize, fault: &str) -> Result<(), TwirpError> {
    if max > 0 && size > max {
        return Err(TwirpError::argument(fault, max));
    }
    Ok(())
}

impl From<NotWritten> for TwirpError {
    fn from(error: NotWritten) -> Self {
        Self::service(Code::Internal, error)
    }
}

impl From<AdministrationError> for TwirpError {
    fn from(error: AdministrationError) -> Self {
        let code = match error {
            AdministrationError::NoParticipant => Code::NotFound,
            AdministrationError::TooManyCalls => Code::ResourceExhausted,
            AdministrationError::RemoteUnmuteDisabled => Code::FailedPrecondition,
            AdministrationError::Metadata(
                MetadataError::MetadataTooLarge | MetadataError::NameTooLong | MetadataError::AttributesTooLarge,
            ) => Code::InvalidArgument,
        };
        Self::service(code, error)
    }
}

impl From<CreateRoomError> for TwirpError {
    fn from(error: CreateRoomError) -> Self {
        let code = match error {
            CreateRoomError::NameEmpty | CreateRoomError::NameTooLong { .. } | CreateRoomError::UnknownPreset => {
                Code::InvalidArgument
            }
            CreateRoomError::NodeFull => Code::ResourceExhausted,
            CreateRoomError::NotWritten(error) => return error.into(),
            CreateRoomError::Closing | CreateRoomError::Draining => Code::Unavailable,
        };
        Self::service(code, error)
    }
}
