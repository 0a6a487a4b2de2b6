//! Whether a request may become a session: LiveKit's checks in LiveKit's order, the same for `validate` and connecting.

use axum::http::StatusCode;
use axum::http::request::Parts;

use super::auth::{Refusal, query_pairs};
use super::client_info;
use crate::node::Node;
use crate::proto::claims::Claims;
use crate::proto::join_request::JoinParameters;

/// Which path was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `/rtc`: separate parameters, or a `join_request`.
    V0,
    /// `/rtc/v1`: a `join_request`, always.
    V1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Unreadable `attributes` are ignored.
    Connect,
    /// They are refused.
    Validate,
}

const NO_PERMISSION: &str = "no permissions to access the room";

pub(super) fn admit(
    node: &Node,
    claims: Option<Claims>,
    parts: &Parts,
    form: Form,
    strictness: Strictness,
) -> Result<(Claims, JoinParameters), Refusal> {
    // LiveKit: a token without a `video` grant counts as none.
    let claims = claims.filter(|claims| claims.video.is_some());
    let claims = claims.ok_or(Refusal::unauthorized(NO_PERMISSION))?;
    let grant = claims.video.clone().unwrap_or_default();

    let pairs = query_pairs(&parts.uri);
    let query = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut parameters = JoinParameters::from_query(query, form == Form::V1)?;

    if !grant.room_join {
        return Err(Refusal::unauthorized("permissions denied"));
    }
    if claims.identity.is_empty() {
        return Err(bad("identity cannot be empty".into()));
    }
    let limit = node.config().room.limits.max_participant_identity_length;
    if limit > 0 && claims.identity.len() > limit {
        return Err(bad(format!(
            "participant identity length exceeds limits: max length {limit}"
        )));
    }
    if grant.room.is_empty() {
        return Err(bad("no room name".into()));
    }
    let limit = node.config().max_room_name_length;
    if limit > 0 && grant.room.len() > limit {
        return Err(bad(format!("room name length exceeds limits: max length {limit}")));
    }

    if parameters.publish.is_some() && !grant.can_publish() {
        return Err(Refusal::unauthorized(NO_PERMISSION));
    }
    if strictness == Strictness::Validate && parameters.attributes_malformed {
        return Err(bad("cannot decode attributes".into()));
    }
    let changes_own = !parameters.metadata.is_empty() || !parameters.attributes.is_empty();
    if changes_own && !grant.can_update_own_metadata() {
        return Err(Refusal::unauthorized(NO_PERMISSION));
    }
    node.check_room(&claims, parameters.reconnect).map_err(Refusal::from)?;

    client_info::complete(&mut parameters.client_info, parts);
    Ok((claims, parameters))
}

fn bad(text: String) -> Refusal {
    Refusal::text(StatusCode::BAD_REQUEST, text)
}
