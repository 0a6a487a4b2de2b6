//! From a document, flags and environment to a checked `Config`.
//!
//! Owns the order in which they count, LiveKit's legacy keys, the `--dev` defaults and the keys file. Reads no
//! environment and no clock itself; the only file it opens is `key_file`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::config::{Config, PortRange};
use super::document::{self, Fault};
use super::schema::{self, Status};
use crate::proto::claims::ApiKeys;

/// Shorter secrets can be guessed offline from any token (RFC 7518 §3.2 wants as many bytes as the hash has).
pub const MIN_SECRET: usize = 32;

/// What LiveKit's ports are when nothing names any.
const DEV_UDP_PORT: u16 = 7882;
const PORT_RANGE: (u16, u16) = (50_000, 60_000);
const DEV_RELAY_RANGE: (u16, u16) = (30_000, 30_002);

/// Everything that has a say, in rising order: the document, then each override in turn.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub document: String,
    /// `--disable-strict-config`: unknown keys are passed over.
    pub lenient: bool,
    /// By dotted key, in the form `document::scalar` gives.
    pub overrides: Vec<(String, Value)>,
    /// `--keys`, `LIVEKIT_KEYS`: a YAML mapping of key to secret.
    pub keys: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// To be logged once logging is set up.
    pub notices: Vec<Notice>,
    /// Files that were read, the document apart.
    pub files: Vec<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    Info(String),
    Warning(String),
    Error(String),
}

/// Why the server does not start. Texts are LiveKit's where it has one.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("could not parse config: {0}")]
    Yaml(String),
    #[error("could not parse config: {}", .0.iter().map(Fault::to_string).collect::<Vec<_>>().join("; "))]
    Faults(Vec<Fault>),
    #[error("could not parse config: {key}: {text}")]
    Value { key: String, text: String },
    #[error("Could not parse keys, it needs to be exactly, \"key: secret\", including the space")]
    Keys,
    #[error("key file {path}: {text}")]
    KeyFile { path: String, text: String },
    #[error("key file others permissions must be set to 0")]
    KeyFilePermission,
    #[error("one of key-file or keys must be provided")]
    NoKeys,
    #[error("secret is too short, should be at least 32 characters for security (strict_secrets is set): API key {0}")]
    ShortSecret(String),
    #[error(
        "turn server \"{0}\": turn server has no usable credentials: set a non-empty secret/secret_file for dynamic auth, or username and credential for static auth"
    )]
    TurnServerCredentials(String),
    #[error("prometheus: username and password go together")]
    PrometheusCredentials,
    #[error("api_key is required to use webhooks")]
    WebhookKey,
}

/// Loads without insisting on keys: what `ports` and similar commands need.
pub fn load(sources: &Sources) -> Result<Loaded, LoadError> {
    let document = document::read(&sources.document).map_err(LoadError::Yaml)?;
    let faults: Vec<Fault> = document
        .faults
        .into_iter()
        .filter(|fault| !(sources.lenient && fault.unknown))
        .collect();
    if !faults.is_empty() {
        return Err(LoadError::Faults(faults));
    }
    let mut notices: Vec<Notice> = document
        .inert
        .iter()
        .map(|fault| Notice::Warning(format!("config {fault}")))
        .collect();

    let mut value = document.value;
    for (key, setting) in &sources.overrides {
        if schema::leaves()
            .iter()
            .any(|leaf| leaf.path == *key && leaf.status == Status::Inert)
        {
            notices.push(Notice::Warning(format!(
                "{key}: accepted for compatibility, has no effect"
            )));
        }
        set(&mut value, key, setting.clone());
    }
    rename_deprecated(&mut value);
    // LiveKit: an empty address is all of them.
    if let Some(Value::Array(addresses)) = value.get_mut("bind_addresses") {
        addresses.retain(|address| address != "");
    }

    let mut files = Vec::new();
    let mut keys = match &sources.keys {
        Some(text) => serde_saphyr::from_str::<BTreeMap<String, String>>(text).map_err(|_| LoadError::Keys)?,
        None => take(&mut value, "keys")
            .and_then(|keys| serde_json::from_value(keys).ok())
            .unwrap_or_default(),
    };
    if let Some(Value::String(path)) = take(&mut value, "key_file").filter(|path| path != "") {
        let path = expand(&path);
        keys = read_key_file(&path)?;
        files.push(path.into());
    }

    let mut config = Config::default();
    if let Some(parsed) = parse(value)? {
        config = parsed;
    }
    config.keys = keys.into_iter().collect();
    apply_development(&mut config, &mut notices);
    apply_ports(&mut config);
    check_turn_servers(&config)?;
    if config.prometheus.username.is_empty() != config.prometheus.password.is_empty() {
        return Err(LoadError::PrometheusCredentials);
    }
    Ok(Loaded { config, notices, files })
}

/// What serving needs beside a readable configuration.
pub fn check_keys(loaded: &mut Loaded) -> Result<(), LoadError> {
    let Loaded { config, notices, .. } = loaded;
    if config.keys.is_empty() {
        return Err(LoadError::NoKeys);
    }
    for (key, secret) in config.keys.iter() {
        let placeholder = config.development && (key, secret) == PLACEHOLDER;
        if secret.len() >= MIN_SECRET || placeholder {
            continue;
        }
        if config.strict_secrets {
            return Err(LoadError::ShortSecret(key.to_owned()));
        }
        let text = "secret is too short, should be at least 32 characters for security";
        notices.push(Notice::Error(format!("{text}: API key {key}")));
    }
    if !config.webhook.urls.is_empty() && config.keys.secret(&config.webhook.api_key).is_none() {
        return Err(LoadError::WebhookKey);
    }
    Ok(())
}

/// LiveKit's documentation and SDK examples use this pair with `--dev`.
const PLACEHOLDER: (&str, &str) = ("devkey", "secret");

fn apply_development(config: &mut Config, notices: &mut Vec<Notice>) {
    if !config.development {
        return;
    }
    notices.push(Notice::Info("starting in development mode".to_owned()));
    if config.logging.level.is_empty() {
        config.logging.level = "debug".to_owned();
    }
    if config.keys.is_empty() {
        let (key, secret) = PLACEHOLDER;
        notices.push(Notice::Info(format!(
            "no keys provided, using placeholder keys: API Key {key}, API Secret {secret}"
        )));
        config.keys = ApiKeys::from_iter([PLACEHOLDER]);
        // Everybody knows these: do not listen to the network unless asked to.
        if config.bind_addresses.is_empty() {
            config.bind_addresses = vec![[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()];
        }
    }
    if (config.turn.relay_range_start, config.turn.relay_range_end) == (30_000, 40_000) {
        (config.turn.relay_range_start, config.turn.relay_range_end) = DEV_RELAY_RANGE;
    }
}

fn apply_ports(config: &mut Config) {
    if config.rtc.single_port != 0 {
        return apply_single_port(config);
    }
    let rtc = &mut config.rtc;
    if rtc.udp_port.is_none() && rtc.port_range_start == 0 {
        if config.development {
            rtc.udp_port = Some(PortRange {
                start: DEV_UDP_PORT,
                end: DEV_UDP_PORT,
            });
        } else {
            (rtc.port_range_start, rtc.port_range_end) = PORT_RANGE;
        }
    }
}

/// One port for everything; one shard, because a UDP port has one. TURN is there for clients without UDP: it costs nothing
/// more to open.
fn apply_single_port(config: &mut Config) {
    let port = config.rtc.single_port;
    config.port = port;
    config.rtc.udp_port = Some(PortRange { start: port, end: port });
    config.rtc.tcp_port = port;
    config.rtc.shards = 1;
    let (turn, tls) = (&mut config.turn, &config.tls);
    turn.enabled = true;
    turn.udp_port = port;
    if turn.cert_file.is_empty() && turn.key_file.is_empty() {
        turn.cert_file.clone_from(&tls.cert_file);
        turn.key_file.clone_from(&tls.key_file);
    }
    // Clients check the certificate against a name: without one they cannot be told of TURN under TLS.
    if let (Some(first), "") = (tls.acme.domains.first(), turn.domain.as_str()) {
        turn.domain.clone_from(first);
    }
    let has_certificate = !turn.cert_file.is_empty() || turn.external_tls || !tls.acme.domains.is_empty();
    turn.tls_port = if turn.domain.is_empty() || !has_certificate {
        0
    } else {
        port
    };
}

fn check_turn_servers(config: &Config) -> Result<(), LoadError> {
    for server in &config.rtc.turn_servers {
        let dynamic = !server.secret.trim().is_empty() || !server.secret_file.is_empty();
        if !dynamic && (server.username.is_empty() || server.credential.is_empty()) {
            return Err(LoadError::TurnServerCredentials(server.host.clone()));
        }
    }
    Ok(())
}

/// LiveKit's old names; the old one wins there, too.
fn rename_deprecated(value: &mut Value) {
    for (old, new) in [
        ("log_level", "logging.level"),
        ("prometheus_port", "prometheus.port"),
        ("room.max_metadata_size", "limit.max_metadata_size"),
        ("room.max_room_name_length", "limit.max_room_name_length"),
        (
            "room.max_participant_identity_length",
            "limit.max_participant_identity_length",
        ),
    ] {
        if let Some(setting) = take(value, old)
            && setting != json!(0)
            && setting != ""
        {
            set(value, new, setting);
        }
    }
}

/// None for an empty document. A value out of its type's range is traced to its key.
fn parse(value: Value) -> Result<Option<Config>, LoadError> {
    let error = match serde_json::from_value(value.clone()) {
        Ok(config) => return Ok(Some(config)),
        Err(error) => error,
    };
    for leaf in schema::leaves() {
        let Some(setting) = look_up(&value, &leaf.path) else {
            continue;
        };
        let mut alone = json!({});
        set(&mut alone, &leaf.path, setting.clone());
        if let Err(error) = serde_json::from_value::<Config>(alone) {
            return Err(LoadError::Value {
                key: leaf.path,
                text: error.to_string(),
            });
        }
    }
    Err(LoadError::Yaml(error.to_string()))
}

fn read_key_file(path: &str) -> Result<BTreeMap<String, String>, LoadError> {
    let fault = |text: String| LoadError::KeyFile {
        path: path.to_owned(),
        text,
    };
    let metadata = fs::metadata(path).map_err(|error| fault(error.to_string()))?;
    if metadata.permissions().mode() & 0o007 != 0 {
        return Err(LoadError::KeyFilePermission);
    }
    let text = fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    serde_saphyr::from_str(&text).map_err(|error| fault(error.to_string()))
}

/// `~/` and `$NAME` or `${NAME}` in a file name.
fn expand(path: &str) -> String {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let mut out = String::new();
    let mut rest = path;
    if let Some(tail) = path.strip_prefix("~/") {
        out = variable("HOME") + "/";
        rest = tail;
    }
    while let Some((before, after)) = rest.split_once('$') {
        out += before;
        if let Some((name, tail)) = after.strip_prefix('{').and_then(|after| after.split_once('}')) {
            out += &variable(name);
            rest = tail;
        } else {
            let end = after
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(after.len());
            let (name, tail) = after.split_at(end);
            out += &variable(name);
            rest = tail;
        }
    }
    out + rest
}

fn look_up<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, name| value.get(name))
}

fn take(value: &mut Value, path: &str) -> Option<Value> {
    let (parent, name) = match path.rsplit_once('.') {
        Some((parent, name)) => (
            parent.split('.').try_fold(value, |value, name| value.get_mut(name))?,
            name,
        ),
        None => (value, path),
    };
    parent.as_object_mut()?.remove(name)
}

fn set(value: &mut Value, path: &str, setting: Value) {
    let mut place = value;
    for name in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[name];
    }
    *place = setting;
}

#[cfg(test)]
mod tests;
