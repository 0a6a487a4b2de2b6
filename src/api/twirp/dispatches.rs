//! `livekit.AgentDispatchService`: which agents a room asks for.

use super::endpoint::{Endpoint, Method, Right, Scope, method};
use super::error::{Code, TwirpError};
use super::rooms::{check, check_metadata, within};
use crate::node::{CreateDispatchError, Node};
use crate::proto::claims::Claims;
use crate::proto::livekit::{
    AgentDispatch, CreateAgentDispatchRequest, DeleteAgentDispatchRequest, ListAgentDispatchRequest,
    ListAgentDispatchResponse,
};

const SERVICE: &str = "livekit.AgentDispatchService";

pub(super) const METHODS: &[Method] = &[
    method::<CreateDispatch>(SERVICE, "CreateDispatch"),
    method::<DeleteDispatch>(SERVICE, "DeleteDispatch"),
    method::<ListDispatch>(SERVICE, "ListDispatch"),
];

struct CreateDispatch;

impl Endpoint for CreateDispatch {
    type Request = CreateAgentDispatchRequest;
    type Answer = AgentDispatch;
    const RIGHT: Right = Right::RoomAdmin;

    fn scope(request: &CreateAgentDispatchRequest) -> Scope<'_> {
        within(&request.room)
    }

    async fn run(node: Node, _: Claims, request: CreateAgentDispatchRequest) -> Result<AgentDispatch, TwirpError> {
        check_metadata(&node, &request.metadata)?;
        let size = |(key, value): (&String, &String)| key.len() + value.len();
        let attributes: usize = request.attributes.iter().map(size).sum();
        let max = node.config().room.limits.max_attributes_size;
        check(attributes, max, "attribute size exceeds limits")?;
        node.create_dispatch(request).await.map_err(|error| match error {
            CreateDispatchError::NoRoom => TwirpError::no_room(),
            CreateDispatchError::Room(error) => error.into(),
            CreateDispatchError::TooMany(_) => TwirpError::service(Code::ResourceExhausted, error),
        })
    }
}

struct DeleteDispatch;

impl Endpoint for DeleteDispatch {
    type Request = DeleteAgentDispatchRequest;
    type Answer = AgentDispatch;
    const RIGHT: Right = Right::RoomAdmin;

    fn scope(request: &DeleteAgentDispatchRequest) -> Scope<'_> {
        within(&request.room)
    }

    async fn run(node: Node, _: Claims, request: DeleteAgentDispatchRequest) -> Result<AgentDispatch, TwirpError> {
        node.delete_dispatch(&request.room, request.dispatch_id)
            .await
            .ok_or_else(TwirpError::nobody_answers)??
            .ok_or_else(|| TwirpError::service(Code::NotFound, "dispatch ID not found"))
    }
}

struct ListDispatch;

impl Endpoint for ListDispatch {
    type Request = ListAgentDispatchRequest;
    type Answer = ListAgentDispatchResponse;
    const RIGHT: Right = Right::RoomAdmin;

    fn scope(request: &ListAgentDispatchRequest) -> Scope<'_> {
        within(&request.room)
    }

    async fn run(
        node: Node,
        _: Claims,
        request: ListAgentDispatchRequest,
    ) -> Result<ListAgentDispatchResponse, TwirpError> {
        let agent_dispatches = node
            .dispatches(&request.room, request.dispatch_id)
            .await
            .ok_or_else(TwirpError::nobody_answers)?;
        Ok(ListAgentDispatchResponse { agent_dispatches })
    }
}
