//! The voice system's configuration and start.

mod seated;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::config::{Config, RedisConfig, nanoseconds};
use super::lease::{self, RedisConfigError};
use super::schema::Kind::{Bool, Duration as Time, Float, Int, List, Section, Text};
use super::schema::{Key, REDIS, used};
use crate::api::voice::VoiceSite;
use crate::node::voice::{
    Https, Place, PreparedInbox, StartError, Url, UrlError, UserTokens, VoiceConfig, VoiceLink, VoiceStatistics,
    VoiceTask,
};
use crate::node::{Node, new_id};
use crate::store::{RedisError, Seat, SharedDatabase, StoreError, VoiceStore};
use crate::voice::{Entry, Naming, Region, Server, VoiceError, VoiceSettings};

/// The region and server of an installation that names none.
const ONLY_REGION: &str = "default";
const ONLY_SERVER: &str = "local";

pub(super) const KEYS: &[Key] = &[
    used("enabled", Bool),
    used("database_url", Text),
    used("database_ca_cert_file", Text),
    used("redis", Section(REDIS)),
    used("node_url", Text),
    used("secret", Text),
    used("token_secret", Text),
    used("introspection_url", Text),
    used("directory_file", Text),
    used("endpoint", Text),
    used("naming", Text),
    used("token_ttl", Time),
    used("pending_timeout", Time),
    used("pin_timeout", Time),
    used("region_grace", Time),
    used("resume_window", Time),
    used("mute_permission_deafens", Bool),
    used("regions", List(&Section(REGION))),
    used("servers", List(&Section(SERVER))),
];

const REGION: &[Key] = &[
    used("id", Text),
    used("name", Text),
    used("emoji", Text),
    used("latitude", Float),
    used("longitude", Float),
    used("is_default", Bool),
    used("vip_only", Bool),
    used("required_guild_features", List(&Text)),
    used("allowed_guild_ids", List(&Text)),
    used("allowed_user_ids", List(&Text)),
];

const SERVER: &[Key] = &[
    used("region_id", Text),
    used("server_id", Text),
    used("endpoint", Text),
    used("api_key", Text),
    used("api_secret", Text),
    used("local", Bool),
    used("is_active", Bool),
    used("latitude", Float),
    used("longitude", Float),
    used("soft_connection_limit", Int),
    used("vip_only", Bool),
    used("required_guild_features", List(&Text)),
    used("allowed_guild_ids", List(&Text)),
    used("allowed_user_ids", List(&Text)),
];

/// `voice:` in the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VoiceSection {
    pub enabled: bool,
    /// `postgres://…`; empty = the server's own SQLite file.
    pub database_url: String,
    /// PEM, of the authority of PostgreSQL's certificate where the URL has `sslmode=require`; empty = the machine's
    /// authorities.
    pub database_ca_cert_file: String,
    /// Where several nodes that serve one API find each other; empty = this one serves alone.
    pub redis: RedisConfig,
    /// What the other nodes reach this one at (`http://…`); empty = its address and port.
    pub node_url: String,
    /// What the backend authenticates with; empty = there is none.
    pub secret: String,
    /// HS256, of end users' tokens.
    pub token_secret: String,
    /// RFC 7662; asked with `secret` where `token_secret` is empty.
    pub introspection_url: String,
    /// JSON, taken at every start; what is not newer changes nothing.
    pub directory_file: String,
    /// What clients are told to connect to for rooms on this server; empty = its address and port.
    pub endpoint: String,
    pub naming: Naming,
    #[serde(with = "nanoseconds")]
    pub token_ttl: Duration,
    #[serde(with = "nanoseconds")]
    pub pending_timeout: Duration,
    #[serde(with = "nanoseconds")]
    pub pin_timeout: Duration,
    #[serde(with = "nanoseconds")]
    pub region_grace: Duration,
    #[serde(with = "nanoseconds")]
    pub resume_window: Duration,
    pub mute_permission_deafens: bool,
    pub regions: Vec<Region>,
    pub servers: Vec<Server>,
}

impl Default for VoiceSection {
    fn default() -> Self {
        let settings = VoiceSettings::default();
        Self {
            enabled: false,
            database_url: String::new(),
            database_ca_cert_file: String::new(),
            redis: RedisConfig::default(),
            node_url: String::new(),
            secret: String::new(),
            token_secret: String::new(),
            introspection_url: String::new(),
            directory_file: String::new(),
            endpoint: String::new(),
            naming: settings.naming,
            token_ttl: settings.token_ttl,
            pending_timeout: settings.pending_timeout,
            pin_timeout: settings.pin_timeout,
            region_grace: settings.region_grace,
            resume_window: settings.resume_window,
            mute_permission_deafens: settings.mute_permission_deafens,
            regions: Vec::new(),
            servers: Vec::new(),
        }
    }
}

impl VoiceSection {
    /// Several nodes serve one API.
    pub fn is_shared(&self) -> bool {
        let redis = &self.redis;
        !redis.address.is_empty() || !redis.cluster_addresses.is_empty() || !redis.sentinel_master_name.is_empty()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum VoiceStartError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("voice.database_url: {0}")]
    Database(#[from] StoreError),
    #[error("voice.introspection_url: {0}")]
    Introspection(#[from] UrlError),
    #[error("voice.directory_file {path}: {text}")]
    Directory { path: String, text: String },
    #[error("voice.{0}")]
    RedisConfig(#[from] RedisConfigError),
    #[error("voice.redis: {0}")]
    Redis(#[from] RedisError),
    #[error("voice.node_url: {0}")]
    NodeUrl(UrlError),
    #[error("voice.redis: nodes that serve one API need one voice.database_url")]
    NoSharedDatabase,
    #[error(
        "voice.redis: nodes that serve one API name their media servers in voice.servers, with keys and none of them \
         `local`: whichever node the voice system runs on asks them over HTTP, and they tell of joins by webhooks"
    )]
    LocalServers,
}

/// The running system and its door.
#[derive(Debug)]
pub struct RunningVoice {
    life: Life,
    pub site: VoiceSite,
    pub statistics: Arc<VoiceStatistics>,
}

#[derive(Debug)]
enum Life {
    Alone(VoiceTask),
    Seated(seated::Seated),
}

impl RunningVoice {
    /// Clients are asked to come again; what is to be kept is written down.
    pub async fn stop(self) {
        match self.life {
            Life::Alone(task) => task.stop().await,
            Life::Seated(seated) => seated.stop().await,
        }
    }
}

/// What the voice system is started from, once or again.
struct System {
    config: Config,
    node: Node,
    users: UserTokens,
    database: SharedDatabase,
    statistics: Arc<VoiceStatistics>,
}

impl System {
    fn database(&self) -> Result<VoiceStore, StoreError> {
        match self.config.voice.database_url.as_str() {
            "" => VoiceStore::sqlite(self.database.clone()),
            url => VoiceStore::postgres(url, &self.config.voice.database_ca_cert_file),
        }
    }

    /// Takes up what was kept, and the initial directory.
    async fn start(
        &self,
        store: VoiceStore,
        link: VoiceLink,
        inbox: PreparedInbox,
    ) -> Result<VoiceTask, VoiceStartError> {
        let path = self.config.voice.directory_file.as_str();
        let entries = match path {
            "" => Vec::new(),
            path => directory(path)?,
        };
        let (node, users) = (self.node.clone(), self.users.clone());
        let task = VoiceTask::start(system(&self.config, &self.statistics), node, store, users, link, inbox).await?;
        if !entries.is_empty() {
            let fault = |text: String| VoiceStartError::Directory {
                path: path.to_owned(),
                text,
            };
            let taken = task.link().ask(|voice, now| voice.handle_sync(now, entries)).await;
            let taken: Result<_, VoiceError> = taken.map_err(|error| fault(error.to_string()))?;
            let summary = taken.map_err(|error| fault(error.http().2))?;
            tracing::info!(applied = summary.applied, "voice directory read");
        }
        Ok(task)
    }
}

/// `inbox`: of a node that serves alone, what its rooms have begun to tell.
///
/// # Errors
/// See [`VoiceStartError`].
pub async fn start(
    config: &Config,
    node: &Node,
    database: SharedDatabase,
    inbox: Option<(VoiceLink, PreparedInbox)>,
) -> Result<RunningVoice, VoiceStartError> {
    let voice = &config.voice;
    let users = if !voice.token_secret.is_empty() {
        UserTokens::shared(&voice.token_secret, Https::default())
    } else if !voice.introspection_url.is_empty() {
        UserTokens::introspection(&voice.introspection_url, &voice.secret, Https::default())?
    } else {
        tracing::warn!("voice: neither token_secret nor introspection_url is set: no end user can authenticate");
        UserTokens::default()
    };
    if voice.secret.is_empty() {
        tracing::warn!("voice: secret is not set: no backend can sync its directory or ask for tokens");
    }
    let statistics = Arc::<VoiceStatistics>::default();
    let system = System {
        config: config.clone(),
        node: node.clone(),
        users: users.clone(),
        database,
        statistics: Arc::clone(&statistics),
    };
    let (life, place) = match inbox {
        Some((link, inbox)) => {
            let task = system.start(system.database()?, link, inbox).await?;
            let (_, place) = watch::channel(Place::Here(task.link().clone()));
            (Life::Alone(task), place)
        }
        None => {
            let (seated, place) = seated::Seated::start(system, seat(config)?).await?;
            (Life::Seated(seated), place)
        }
    };
    let site = VoiceSite::new(node.clone(), place, users, &voice.secret, Arc::clone(&statistics));
    Ok(RunningVoice { life, site, statistics })
}

/// The seat of the nodes that share `voice.redis`.
fn seat(config: &Config) -> Result<Seat, VoiceStartError> {
    let voice = &config.voice;
    if voice.database_url.is_empty() {
        return Err(VoiceStartError::NoSharedDatabase);
    }
    if voice.servers.is_empty() || voice.servers.iter().any(|server| server.local) {
        return Err(VoiceStartError::LocalServers);
    }
    let url = match voice.node_url.as_str() {
        "" => own_endpoint(config).replacen("ws", "http", 1),
        url => url.trim_end_matches('/').to_owned(),
    };
    Url::parse(&url).map_err(VoiceStartError::NodeUrl)?;
    let settings = lease::settings(&voice.redis)?.ok_or(RedisError::NotRedis)?;
    Ok(Seat::new(settings, &new_id("ND_"), &url))
}

fn system(config: &Config, statistics: &Arc<VoiceStatistics>) -> VoiceConfig {
    let voice = &config.voice;
    let endpoint = match voice.endpoint.is_empty() {
        true => own_endpoint(config),
        false => voice.endpoint.clone(),
    };
    let (mut regions, mut servers) = (voice.regions.clone(), voice.servers.clone());
    if regions.is_empty() {
        regions.push(Region {
            id: ONLY_REGION.to_owned(),
            name: ONLY_REGION.to_owned(),
            is_default: true,
            ..Region::default()
        });
        servers.push(Server {
            region_id: ONLY_REGION.to_owned(),
            server_id: ONLY_SERVER.to_owned(),
            local: true,
            is_active: true,
            ..Server::default()
        });
    }
    for server in servers
        .iter_mut()
        .filter(|server| server.local && server.endpoint.is_empty())
    {
        server.endpoint.clone_from(&endpoint);
    }
    VoiceConfig {
        settings: VoiceSettings {
            naming: voice.naming,
            token_ttl: voice.token_ttl,
            pending_timeout: voice.pending_timeout,
            pin_timeout: voice.pin_timeout,
            region_grace: voice.region_grace,
            resume_window: voice.resume_window,
            mute_permission_deafens: voice.mute_permission_deafens,
            ..VoiceSettings::default()
        },
        regions,
        servers,
        statistics: Arc::clone(statistics),
    }
}

fn own_endpoint(config: &Config) -> String {
    let bound = config.bind_addresses.iter().find(|ip| !ip.is_unspecified()).copied();
    let host = match config.rtc.node_ip.v4.or(config.rtc.node_ip.v6).or(bound) {
        Some(IpAddr::V6(ip)) => format!("[{ip}]"),
        Some(IpAddr::V4(ip)) => ip.to_string(),
        None => "127.0.0.1".to_owned(),
    };
    format!("ws://{host}:{}", config.port)
}

/// An array of entries, or an object with `entries`, as they are synced over HTTP.
fn directory(path: &str) -> Result<Vec<Entry>, VoiceStartError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum File {
        Plain(Vec<Entry>),
        Named { entries: Vec<Entry> },
    }
    let fault = |text: String| VoiceStartError::Directory {
        path: path.to_owned(),
        text,
    };
    let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    match serde_json::from_str(&text).map_err(|error| fault(error.to_string()))? {
        File::Plain(entries) | File::Named { entries } => Ok(entries),
    }
}
