//! The OpenAPI document, made from the table of routes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::route::{Answer, ApiError, Call, Caller, Route, Schema};
use super::routes;

pub(super) const ROUTES: &[Route] = &[Route {
    method: "GET",
    path: "/voice/openapi.json",
    name: "getOpenApi",
    caller: Caller::Anybody,
    summary: "This document",
    body: None,
    answer: Some((200, || json!({"type": "object"}))),
    max_body: 0,
    run: |call| Box::pin(show(call)),
}];

pub(super) fn text(max: usize) -> Value {
    json!({"type": "string", "maxLength": max})
}

pub(super) fn boolean() -> Value {
    json!({"type": "boolean"})
}

pub(super) fn integer() -> Value {
    json!({"type": "integer"})
}

/// 1 to 2^63 - 1 in decimal.
pub(super) fn snowflake() -> Value {
    json!({"type": "string", "pattern": "^[1-9][0-9]{0,18}$", "maxLength": 19})
}

pub(super) fn list(item: Value) -> Value {
    json!({"type": "array", "items": item})
}

pub(super) fn optional(schema: Value) -> Value {
    json!({"anyOf": [schema, {"type": "null"}]})
}

pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

pub(super) fn object(properties: &[(&str, Value)], required: &[&str]) -> Value {
    let properties: Map<String, Value> = properties
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    let mut schema = json!({"type": "object", "properties": properties});
    if let (false, Some(fields)) = (required.is_empty(), schema.as_object_mut()) {
        fields.insert("required".to_owned(), json!(required));
    }
    schema
}

async fn show(_call: Call) -> Result<Answer, ApiError> {
    Ok(Answer::Json(document()))
}

pub(super) fn document() -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in routes() {
        let operations = paths.entry(route.path).or_default();
        operations.insert(route.method.to_ascii_lowercase(), operation(route));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Patchbay voice API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Voice channels and calls: tokens, voice states, moderation, calls, administration.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "user": {"type": "http", "scheme": "bearer", "description": "A short-lived token of the backend for one user"},
                "backend": {"type": "http", "scheme": "bearer", "description": "The server's secret"},
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let parameters: Vec<Value> = route
        .path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| {
            let schema = match name {
                "stream_key" | "connection_id" => text(256),
                _ => snowflake(),
            };
            json!({"name": name, "in": "path", "required": true, "schema": schema})
        })
        .collect();
    let mut responses = Map::new();
    match route.answer {
        Some((status, schema)) => responses.insert(status.to_string(), answer(route, schema)),
        None => responses.insert("204".to_owned(), json!({"description": "Done"})),
    };
    for (status, text) in [
        ("400", "A fault in the request"),
        ("401", "Not authenticated"),
        ("403", "Not allowed"),
        ("404", "Not found"),
        ("408", "The body did not arrive in time"),
        ("413", "The body is too large"),
        ("429", "Too often"),
        ("503", "Not possible now"),
    ] {
        let content = json!({"application/json": {"schema": reference("Error")}});
        responses.insert(status.to_owned(), json!({"description": text, "content": content}));
    }
    let mut operation = json!({
        "operationId": route.name,
        "summary": route.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(fields) = operation.as_object_mut() {
        match route.caller {
            Caller::User => fields.insert("security".to_owned(), json!([{"user": []}])),
            Caller::Backend => fields.insert("security".to_owned(), json!([{"backend": []}])),
            Caller::Anybody => None,
        };
        if let Some(body) = route.body {
            let content = json!({"application/json": {"schema": body()}});
            fields.insert("requestBody".to_owned(), json!({"content": content}));
        }
    }
    operation
}

fn answer(route: &Route, schema: Schema) -> Value {
    let kind = match route.name {
        "getStreamPreview" => "image/*",
        // An empty body.
        "livekitWebhook" => return json!({"description": "Taken"}),
        _ => "application/json",
    };
    json!({"description": "Done", "content": {kind: {"schema": schema()}}})
}

fn schemas() -> Value {
    let id_or_null = || optional(snowflake());
    let state = object(
        &[
            ("guild_id", id_or_null()),
            ("channel_id", id_or_null()),
            ("user_id", snowflake()),
            ("connection_id", optional(text(64))),
            ("session_id", text(64)),
            ("mute", boolean()),
            ("deaf", boolean()),
            ("self_mute", boolean()),
            ("self_deaf", boolean()),
            ("self_video", boolean()),
            ("self_stream", boolean()),
            ("is_mobile", boolean()),
            ("suppress", boolean()),
            ("viewer_stream_key", optional(text(256))),
            ("viewer_stream_keys", list(text(256))),
            ("version", integer()),
            ("token", text(65536)),
            ("endpoint", text(1024)),
            ("token_nonce", text(128)),
        ],
        &[
            "guild_id",
            "channel_id",
            "user_id",
            "connection_id",
            "session_id",
            "mute",
            "deaf",
            "self_mute",
            "self_deaf",
        ],
    );
    let restrictions = || {
        vec![
            ("vip_only", boolean()),
            ("required_guild_features", list(text(64))),
            ("allowed_guild_ids", list(snowflake())),
            ("allowed_user_ids", list(snowflake())),
        ]
    };
    let mut region = vec![
        ("id", text(64)),
        ("name", text(100)),
        ("emoji", text(100)),
        ("latitude", json!({"type": "number"})),
        ("longitude", json!({"type": "number"})),
        ("is_default", boolean()),
    ];
    region.extend(restrictions());
    let mut server = vec![
        ("region_id", text(64)),
        ("server_id", text(64)),
        ("endpoint", text(1024)),
        ("local", boolean()),
        ("is_active", boolean()),
        ("latitude", optional(json!({"type": "number"}))),
        ("longitude", optional(json!({"type": "number"}))),
        ("soft_connection_limit", optional(integer())),
    ];
    server.extend(restrictions());
    json!({
        "Error": object(&[("code", text(64)), ("message", text(1024)), ("retry_after", json!({"type": "number"})), ("errors", list(json!({"type": "object"})))], &["code", "message"]),
        "VoiceToken": object(
            &[
                ("token", text(65536)), ("endpoint", text(1024)), ("connection_id", text(64)),
                ("token_nonce", text(128)), ("region_id", text(64)), ("server_id", text(64)),
            ],
            &["token", "endpoint", "connection_id", "token_nonce"],
        ),
        "VoiceState": state,
        "Member": object(&[("user", json!({"type": "object"})), ("mute", boolean()), ("deaf", boolean())], &["user", "mute", "deaf"]),
        "RegionName": object(&[("id", text(64)), ("name", text(100)), ("emoji", text(100))], &["id", "name", "emoji"]),
        "Channel": object(&[("id", snowflake()), ("type", integer()), ("rtc_region", optional(text(64)))], &["id", "type", "rtc_region"]),
        "Call": object(
            &[
                ("channel_id", snowflake()), ("message_id", snowflake()), ("region", optional(text(64))),
                ("ringing", list(snowflake())), ("voice_states", list(reference("VoiceState"))),
            ],
            &["channel_id", "message_id", "region", "ringing", "voice_states"],
        ),
        "Participant": object(
            &[
                ("identity", text(256)), ("state", text(32)), ("tracks", list(json!({"type": "object"}))),
                ("metadata", text(524_288)), ("joined_at", integer()),
            ],
            &["identity", "state", "tracks", "metadata", "joined_at"],
        ),
        "Region": object(&region, &["id", "name"]),
        "Server": object(&server, &["region_id", "server_id", "endpoint"]),
        "DirectoryEntry": object(
            &[
                ("kind", json!({"type": "string", "enum": ["user", "guild", "role", "member", "channel", "friendship", "block"]})),
                ("version", json!({"type": "integer", "minimum": 0})),
                ("deleted", boolean()),
            ],
            &["kind", "version"],
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_in_the_document_under_a_name_of_its_own() {
        let document = document();
        let mut names = std::collections::BTreeSet::new();
        for route in routes() {
            let operation = &document["paths"][route.path][route.method.to_ascii_lowercase()];
            assert_eq!(operation["operationId"], route.name);
            assert!(names.insert(route.name), "{}", route.name);
        }
        assert!(names.len() > 30);
        // Every reference leads somewhere.
        let text = document.to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}
