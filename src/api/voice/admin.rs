//! Administration of regions and servers. Keys and secrets go in and never come out.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::route::{Answer, ApiError, Call, Caller, Route, SMALL};
use super::schemas::{boolean, list, object, record_id, reference};
use crate::voice::{Region, Server, ServerKey, Voice, VoiceError};

macro_rules! admin {
    ($path:literal, $name:literal, $summary:literal, $body:expr, $answer:expr, $run:ident) => {
        Route {
            method: "POST",
            path: concat!("/admin/voice/", $path),
            name: $name,
            caller: Caller::Backend,
            summary: $summary,
            query: &[],
            body: Some($body),
            answer: Some((200, $answer)),
            // Restrictions may list ten thousand guilds.
            max_body: 16 * SMALL,
            run: |call| Box::pin($run(call)),
        }
    };
}

pub(super) const ROUTES: &[Route] = &[
    admin!(
        "regions/list",
        "listRegions",
        "All regions",
        empty,
        regions,
        list_regions
    ),
    admin!("regions/get", "getRegion", "One region", region_id, region, get_region),
    admin!(
        "regions/create",
        "createRegion",
        "Add a region",
        || reference("Region"),
        region,
        create_region
    ),
    admin!(
        "regions/update",
        "updateRegion",
        "Change fields of a region",
        region_id,
        region,
        update_region
    ),
    admin!(
        "regions/delete",
        "deleteRegion",
        "Remove a region with its servers",
        region_id,
        success,
        delete_region
    ),
    admin!(
        "servers/list",
        "listServers",
        "Servers, of a region or all",
        empty,
        servers,
        list_servers
    ),
    admin!("servers/get", "getServer", "One server", server_id, server, get_server),
    admin!(
        "servers/create",
        "createServer",
        "Add a server",
        || reference("NewServer"),
        server,
        create_server
    ),
    admin!(
        "servers/update",
        "updateServer",
        "Change fields of a server",
        server_id,
        server,
        update_server
    ),
    admin!(
        "servers/delete",
        "deleteServer",
        "Remove a server; its rooms go elsewhere",
        server_id,
        success,
        delete_server
    ),
];

fn empty() -> Value {
    object(&[], &[])
}

fn region_id() -> Value {
    object(&[("id", record_id())], &["id"])
}

fn server_id() -> Value {
    object(
        &[("region_id", record_id()), ("server_id", record_id())],
        &["region_id", "server_id"],
    )
}

fn region() -> Value {
    object(&[("region", reference("Region"))], &["region"])
}

fn regions() -> Value {
    object(&[("regions", list(reference("Region")))], &["regions"])
}

fn server() -> Value {
    object(&[("server", reference("Server"))], &["server"])
}

fn servers() -> Value {
    object(&[("servers", list(reference("Server")))], &["servers"])
}

fn success() -> Value {
    object(&[("success", boolean())], &["success"])
}

#[derive(Deserialize)]
struct RegionId {
    id: String,
}

#[derive(Deserialize)]
struct ServerId {
    region_id: String,
    server_id: String,
}

impl ServerId {
    fn key(self) -> ServerKey {
        ServerKey {
            region: self.region_id,
            server: self.server_id,
        }
    }
}

async fn list_regions(call: Call) -> Result<Answer, ApiError> {
    let found = call
        .ask(|voice, _| {
            voice
                .topology()
                .regions()
                .map(|region| json!(region))
                .collect::<Vec<Value>>()
        })
        .await?;
    Ok(Answer::Json(json!({"regions": found})))
}

fn region_json(voice: &Voice, id: &str) -> Result<Value, VoiceError> {
    let region = voice.topology().region(id).ok_or(VoiceError::UnknownRegion)?;
    Ok(json!({"region": region}))
}

async fn get_region(call: Call) -> Result<Answer, ApiError> {
    let RegionId { id } = call.body()?;
    let found = call.try_ask(move |voice, _| region_json(voice, &id)).await?;
    Ok(Answer::Json(found))
}

async fn create_region(call: Call) -> Result<Answer, ApiError> {
    let region: Region = call.body()?;
    let created = call
        .keep(move |voice, _| {
            let id = region.id.clone();
            voice.put_region(region)?;
            region_json(voice, &id)
        })
        .await?;
    Ok(Answer::Json(created))
}

/// Fields that are named replace those of the record.
fn merged(record: Value, named: &Map<String, Value>) -> Value {
    let mut record = record;
    if let Some(fields) = record.as_object_mut() {
        for (name, value) in named {
            fields.insert(name.clone(), value.clone());
        }
    }
    record
}

async fn update_region(call: Call) -> Result<Answer, ApiError> {
    let RegionId { id } = call.body()?;
    let named = call.json.clone();
    let updated = call
        .keep(move |voice, _| {
            let before = voice.topology().region(&id).ok_or(VoiceError::UnknownRegion)?;
            let after = merged(json!(before), &named);
            let after: Region = serde_json::from_value(after).map_err(|_| VoiceError::InvalidParameters)?;
            voice.put_region(after)?;
            region_json(voice, &id)
        })
        .await?;
    Ok(Answer::Json(updated))
}

async fn delete_region(call: Call) -> Result<Answer, ApiError> {
    let RegionId { id } = call.body()?;
    call.keep(move |voice, now| voice.remove_region(now, &id)).await?;
    Ok(Answer::Json(json!({"success": true})))
}

async fn list_servers(call: Call) -> Result<Answer, ApiError> {
    let region = call.json.get("region_id").and_then(Value::as_str).map(str::to_owned);
    let found = call
        .ask(move |voice, _| {
            let servers = voice.topology().servers();
            let wanted = servers.filter(|server| region.as_ref().is_none_or(|region| *region == server.region_id));
            wanted.map(|server| json!(server.view())).collect::<Vec<Value>>()
        })
        .await?;
    Ok(Answer::Json(json!({"servers": found})))
}

fn server_json(voice: &Voice, key: &ServerKey) -> Result<Value, VoiceError> {
    let server = voice.topology().server(key).ok_or(VoiceError::UnknownServer)?;
    Ok(json!({"server": server.view()}))
}

async fn get_server(call: Call) -> Result<Answer, ApiError> {
    let id: ServerId = call.body()?;
    let found = call.try_ask(move |voice, _| server_json(voice, &id.key())).await?;
    Ok(Answer::Json(found))
}

async fn create_server(call: Call) -> Result<Answer, ApiError> {
    let server: Server = call.body()?;
    let created = call
        .keep(move |voice, now| {
            let key = server.key();
            voice.put_server(now, server)?;
            server_json(voice, &key)
        })
        .await?;
    Ok(Answer::Json(created))
}

async fn update_server(call: Call) -> Result<Answer, ApiError> {
    let id: ServerId = call.body()?;
    let named = call.json.clone();
    let updated = call
        .keep(move |voice, now| {
            let key = id.key();
            let before = voice.topology().server(&key).ok_or(VoiceError::UnknownServer)?;
            let after = merged(json!(before), &named);
            let after: Server = serde_json::from_value(after).map_err(|_| VoiceError::InvalidParameters)?;
            voice.put_server(now, after)?;
            server_json(voice, &key)
        })
        .await?;
    Ok(Answer::Json(updated))
}

async fn delete_server(call: Call) -> Result<Answer, ApiError> {
    let id: ServerId = call.body()?;
    call.keep(move |voice, now| voice.remove_server(now, &id.key())).await?;
    Ok(Answer::Json(json!({"success": true})))
}
