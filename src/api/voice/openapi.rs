//! The OpenAPI document, made from the table of routes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::route::{Answer, ApiError, Call, Caller, Route, Schema};
use super::routes;
use super::schemas::{components, connection_id, reference, snowflake, stream_key};

pub(super) const ROUTES: &[Route] = &[Route {
    method: "GET",
    path: "/voice/openapi.json",
    name: "getOpenApi",
    caller: Caller::Anybody,
    summary: "This document",
    query: &[],
    body: None,
    answer: Some((200, || json!({"type": "object"}))),
    max_body: 0,
    run: |call| Box::pin(show(call)),
}];

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
            "schemas": components(),
            "securitySchemes": {
                "user": {"type": "http", "scheme": "bearer", "description": "A short-lived token of the backend for one user"},
                "backend": {"type": "http", "scheme": "bearer", "description": "The server's secret"},
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> = route
        .path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| {
            let schema = match name {
                "stream_key" => stream_key(),
                "connection_id" => connection_id(),
                _ => snowflake(),
            };
            json!({"name": name, "in": "path", "required": true, "schema": schema})
        })
        .collect();
    let query = route.query.iter();
    parameters.extend(query.map(|name| json!({"name": name, "in": "query", "schema": snowflake()})));
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
            let schema = body();
            // No body is an empty object, where that is enough.
            let required = schema.get("required").is_some() || schema.get("properties").is_none();
            let content = json!({"application/json": {"schema": schema}});
            fields.insert(
                "requestBody".to_owned(),
                json!({"required": required, "content": content}),
            );
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
