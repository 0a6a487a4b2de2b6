//! JSON Schemas of bodies: what is taken, as exactly as a schema can say it, and what is answered.

use serde_json::{Map, Value, json};

/// A region, a server.
const NAME: &str = "^[A-Za-z0-9._-]{1,64}$";
const CONNECTION: &str = "^[A-Za-z0-9_-]{1,64}$";
const STREAM_KEY: &str = "^(dm|[1-9][0-9]{0,17}):[1-9][0-9]{0,17}:[A-Za-z0-9_-]{1,64}$";
const ENDPOINT: &str = "^(ws|wss|http|https)://[A-Za-z0-9][A-Za-z0-9.:/_~-]*$";
/// Entries of a list of restrictions; of roles, overwrites or recipients.
const MAX_RESTRICTIONS: usize = 10_000;
const MAX_PARTS: usize = 1000;

pub(super) fn text(max: usize) -> Value {
    json!({"type": "string", "maxLength": max})
}

fn pattern(pattern: &str, max: usize) -> Value {
    json!({"type": "string", "pattern": pattern, "maxLength": max})
}

/// Of a region or a server.
pub(super) fn record_id() -> Value {
    pattern(NAME, 64)
}

pub(super) fn connection_id() -> Value {
    pattern(CONNECTION, 64)
}

pub(super) fn stream_key() -> Value {
    pattern(STREAM_KEY, 102)
}

pub(super) fn coordinate() -> Value {
    optional(json!({"type": "string", "minLength": 1, "maxLength": 32}))
}

pub(super) fn key() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 256})
}

pub(super) fn endpoint() -> Value {
    pattern(ENDPOINT, 1024)
}

pub(super) fn boolean() -> Value {
    json!({"type": "boolean"})
}

pub(super) fn integer() -> Value {
    json!({"type": "integer"})
}

/// In decimal, below 2^63.
pub(super) fn snowflake() -> Value {
    pattern("^([1-9][0-9]{0,17}|[1-8][0-9]{18}|9[01][0-9]{17})$", 19)
}

pub(super) fn list(item: Value) -> Value {
    json!({"type": "array", "items": item})
}

pub(super) fn short_list(item: Value, max: usize) -> Value {
    json!({"type": "array", "items": item, "maxItems": max})
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

/// The text of the tag, the other fields, and which of them must be there.
pub(super) type Kind<'a> = (&'a str, Vec<(&'a str, Value)>, &'a [&'a str]);

/// One of several objects, told apart by the text of their field `tag`.
pub(super) fn tagged(tag: &str, kinds: Vec<Kind<'_>>) -> Value {
    let kinds = kinds.into_iter().map(|(kind, mut properties, required)| {
        properties.push((tag, json!({"const": kind})));
        let required: Vec<&str> = required.iter().copied().chain([tag]).collect();
        object(&properties, &required)
    });
    json!({"oneOf": kinds.collect::<Vec<Value>>()})
}

fn latitude() -> Value {
    json!({"type": "number", "minimum": -90, "maximum": 90})
}

fn longitude() -> Value {
    json!({"type": "number", "minimum": -180, "maximum": 180})
}

fn restrictions() -> Vec<(&'static str, Value)> {
    vec![
        ("vip_only", boolean()),
        ("required_guild_features", short_list(text(64), MAX_RESTRICTIONS)),
        ("allowed_guild_ids", short_list(snowflake(), MAX_RESTRICTIONS)),
        ("allowed_user_ids", short_list(snowflake(), MAX_RESTRICTIONS)),
    ]
}

fn region() -> Vec<(&'static str, Value)> {
    let mut region = vec![
        ("id", record_id()),
        ("name", text(100)),
        ("emoji", text(100)),
        ("latitude", latitude()),
        ("longitude", longitude()),
        ("is_default", boolean()),
    ];
    region.extend(restrictions());
    region
}

/// Without its key, and without its place: half of one is refused.
fn server() -> Vec<(&'static str, Value)> {
    let mut server = vec![
        ("region_id", record_id()),
        ("server_id", record_id()),
        ("endpoint", endpoint()),
        ("local", boolean()),
        ("is_active", boolean()),
        (
            "soft_connection_limit",
            optional(json!({"type": "integer", "minimum": 0, "maximum": u32::MAX})),
        ),
    ];
    server.extend(restrictions());
    server
}

/// Both coordinates, or neither.
fn placed(schema: Value) -> Value {
    let mut schema = schema;
    if let Some(fields) = schema.as_object_mut() {
        let both = object(
            &[("latitude", latitude()), ("longitude", longitude())],
            &["latitude", "longitude"],
        );
        let null = || json!({"type": "null"});
        let neither = object(&[("latitude", null()), ("longitude", null())], &[]);
        fields.insert("anyOf".to_owned(), json!([both, neither]));
    }
    schema
}

fn fact() -> Value {
    let flags = || json!({"type": "integer", "minimum": 0, "maximum": 63});
    let number = |max: u64| json!({"type": "integer", "minimum": 0, "maximum": max});
    // Numbers are read too, though many programs round them above 53 bits.
    let permissions = || json!({"anyOf": [pattern("^(0|[1-9][0-9]{0,18})$", 19), number(u64::MAX)]});
    let overwrite = object(
        &[
            ("id", snowflake()),
            ("type", json!({"type": "integer", "enum": [0, 1]})),
            ("allow", permissions()),
            ("deny", permissions()),
        ],
        &["id", "type"],
    );
    let name = || text(512);
    let common = |fields: Vec<(&'static str, Value)>| {
        let mut fields = fields;
        fields.push(("version", number(u64::MAX)));
        fields.push(("deleted", boolean()));
        fields
    };
    let user = vec![
        ("id", snowflake()),
        ("username", name()),
        ("bot", boolean()),
        ("unclaimed", boolean()),
        ("suspicious", boolean()),
        ("incoming_call_flags", optional(flags())),
    ];
    let guild = vec![
        ("id", snowflake()),
        ("name", name()),
        ("owner_id", optional(snowflake())),
        ("features", short_list(text(64), MAX_PARTS)),
    ];
    let role = vec![
        ("guild_id", snowflake()),
        ("id", snowflake()),
        ("permissions", permissions()),
    ];
    let member = vec![
        ("guild_id", snowflake()),
        ("user_id", snowflake()),
        ("roles", short_list(snowflake(), MAX_PARTS)),
        ("mute", boolean()),
        ("deaf", boolean()),
        ("nick", optional(name())),
        ("communication_disabled_until", optional(number(u64::MAX))),
    ];
    let channel = vec![
        ("id", snowflake()),
        ("guild_id", optional(snowflake())),
        ("type", number(u16::MAX.into())),
        ("name", name()),
        ("user_limit", number(u32::MAX.into())),
        ("rtc_region", optional(text(64))),
        ("permission_overwrites", short_list(overwrite, MAX_PARTS)),
        ("recipients", short_list(snowflake(), MAX_PARTS)),
    ];
    let pair = || vec![("user_id", snowflake()), ("other_id", snowflake())];
    let id: &[&str] = &["id", "version"];
    let both: &[&str] = &["user_id", "other_id", "version"];
    tagged(
        "kind",
        vec![
            ("user", common(user), id),
            ("guild", common(guild), id),
            ("role", common(role), &["guild_id", "id", "version"]),
            ("member", common(member), &["guild_id", "user_id", "version"]),
            ("channel", common(channel), id),
            ("friendship", common(pair()), both),
            ("block", common(pair()), both),
        ],
    )
}

pub(super) fn components() -> Value {
    let id_or_null = || optional(snowflake());
    let state = object(
        &[
            ("guild_id", id_or_null()),
            ("channel_id", id_or_null()),
            ("user_id", snowflake()),
            ("connection_id", optional(connection_id())),
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
    let mut new_server = server();
    new_server.extend([("api_key", key()), ("api_secret", key())]);
    json!({
        "Error": object(&[("code", text(64)), ("message", text(1024)), ("retry_after", json!({"type": "number"})), ("errors", list(json!({"type": "object"})))], &["code", "message"]),
        "VoiceToken": object(
            &[
                ("token", text(65536)), ("endpoint", text(1024)), ("connection_id", connection_id()),
                ("token_nonce", text(128)), ("region_id", record_id()), ("server_id", record_id()),
            ],
            &["token", "endpoint", "connection_id", "token_nonce"],
        ),
        "VoiceState": state,
        "Member": object(&[("user", json!({"type": "object"})), ("mute", boolean()), ("deaf", boolean())], &["user", "mute", "deaf"]),
        "RegionName": object(&[("id", record_id()), ("name", text(100)), ("emoji", text(100))], &["id", "name", "emoji"]),
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
        "Region": object(&region(), &["id", "name"]),
        "Server": placed(object(&server(), &["region_id", "server_id", "endpoint"])),
        "NewServer": placed(object(&new_server, &["region_id", "server_id", "endpoint", "api_key", "api_secret"])),
        "DirectoryEntry": fact(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::voice::Fact;

    #[test]
    fn every_kind_of_fact_has_its_schema() {
        let schema = fact();
        let kinds = schema["oneOf"].as_array().unwrap();
        assert_eq!(kinds.len(), 7);
        for kind in kinds {
            let name = &kind["properties"]["kind"]["const"];
            let mut fact = json!({"kind": name});
            for required in kind["required"].as_array().unwrap() {
                let field = required.as_str().unwrap();
                if !["kind", "version"].contains(&field) {
                    fact[field] = json!("1");
                }
            }
            serde_json::from_value::<Fact>(fact).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn a_form_that_has_a_tag_names_it_in_every_kind() {
        let schema = tagged("type", vec![("a", vec![("x", boolean())], &["x"]), ("b", vec![], &[])]);
        let kinds = schema["oneOf"].as_array().unwrap();
        assert_eq!(kinds[0]["required"], json!(["x", "type"]));
        assert_eq!(kinds[1]["properties"]["type"], json!({"const": "b"}));
    }
}
