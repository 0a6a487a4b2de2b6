//! Records of regions and servers, as administration writes them.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::ServerKey;
use super::choice::{Access, Coordinates};
use crate::voice::ids::{GuildId, UserId};

/// All in characters, as a schema counts them.
const MAX_ID: usize = 64;
const MAX_NAME: usize = 100;
const MAX_KEY: usize = 256;
const MAX_ENDPOINT: usize = 1024;
/// Entries of one list of restrictions.
const MAX_LIST: usize = 10_000;

/// A guild with this feature may use what is for VIPs.
const VIP_FEATURE: &str = "VIP_VOICE";

/// Why a record was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("ids have 1 to 64 characters out of letters, digits, '-', '_' and '.'")]
    Id,
    #[error("a name has at most 100 characters")]
    Name,
    #[error("latitude is between -90 and 90, longitude between -180 and 180, and both are given or neither")]
    Coordinates,
    #[error("an endpoint is a ws, wss, http or https URL")]
    Endpoint,
    #[error("keys and secrets have 1 to 256 bytes")]
    Key,
    #[error("a list of restrictions, or a feature in it, is too long")]
    List,
    #[error("the region does not exist")]
    NoRegion,
    #[error("there are too many")]
    TooMany,
}

/// Who may use a region or a server; empty = everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restrictions {
    pub vip_only: bool,
    /// Any one of them is enough.
    pub required_guild_features: BTreeSet<String>,
    pub allowed_guild_ids: BTreeSet<GuildId>,
    pub allowed_user_ids: BTreeSet<UserId>,
}

impl Restrictions {
    pub fn admits(&self, access: &Access<'_>) -> bool {
        if !self.allowed_user_ids.is_empty() && !self.allowed_user_ids.contains(&access.user) {
            return false;
        }
        let by_guild = !self.allowed_guild_ids.is_empty();
        let by_feature = self.vip_only || !self.required_guild_features.is_empty();
        if !by_guild && !by_feature {
            return true;
        }
        // Nothing of a guild's is for conversations outside of guilds.
        let Some((guild, features)) = access.guild else {
            return false;
        };
        if self.allowed_guild_ids.contains(&guild) {
            return true;
        }
        if !by_feature {
            return false;
        }
        let Some(features) = features else { return false };
        (!self.vip_only || features.contains(VIP_FEATURE))
            && (self.required_guild_features.is_empty() || !self.required_guild_features.is_disjoint(features))
    }

    fn check(&self) -> Result<(), RecordError> {
        let longest = self
            .required_guild_features
            .len()
            .max(self.allowed_guild_ids.len())
            .max(self.allowed_user_ids.len());
        let mut features = self.required_guild_features.iter();
        let is_long = |feature: &String| feature.chars().count() > MAX_ID;
        match longest > MAX_LIST || features.any(is_long) {
            true => Err(RecordError::List),
            false => Ok(()),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Region {
    pub id: String,
    pub name: String,
    #[serde(default)]
    pub emoji: String,
    /// Degrees.
    #[serde(default)]
    pub latitude: f64,
    #[serde(default)]
    pub longitude: f64,
    #[serde(default)]
    pub is_default: bool,
    #[serde(flatten)]
    pub restrictions: Restrictions,
}

impl Region {
    pub(super) fn check(&self) -> Result<(), RecordError> {
        check_id(&self.id)?;
        check_name(&self.name)?;
        check_name(&self.emoji)?;
        Coordinates::new(self.latitude, self.longitude).ok_or(RecordError::Coordinates)?;
        self.restrictions.check()
    }

    pub fn coordinates(&self) -> Coordinates {
        Coordinates {
            latitude: self.latitude,
            longitude: self.longitude,
        }
    }
}

/// One LiveKit server, or this process itself.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub region_id: String,
    pub server_id: String,
    /// Told to clients as it stands.
    pub endpoint: String,
    #[serde(default)]
    pub api_key: String,
    #[serde(default)]
    pub api_secret: String,
    /// It is this process: nothing is asked over HTTP, and its own keys sign.
    #[serde(default)]
    pub local: bool,
    #[serde(default = "yes")]
    pub is_active: bool,
    #[serde(default)]
    pub latitude: Option<f64>,
    #[serde(default)]
    pub longitude: Option<f64>,
    /// Connections from which on others are preferred.
    #[serde(default)]
    pub soft_connection_limit: Option<u32>,
    #[serde(flatten)]
    pub restrictions: Restrictions,
}

fn yes() -> bool {
    true
}

/// Secrets must not reach a log.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("region_id", &self.region_id)
            .field("server_id", &self.server_id)
            .field("endpoint", &self.endpoint)
            .field("is_active", &self.is_active)
            .finish_non_exhaustive()
    }
}

impl Server {
    pub fn key(&self) -> ServerKey {
        ServerKey {
            region: self.region_id.clone(),
            server: self.server_id.clone(),
        }
    }

    pub(super) fn check(&self) -> Result<(), RecordError> {
        check_id(&self.region_id)?;
        check_id(&self.server_id)?;
        let (scheme, rest) = self.endpoint.split_once("://").ok_or(RecordError::Endpoint)?;
        let plain = rest
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}@".contains(&byte));
        let has_host = rest
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'[');
        if !["ws", "wss", "http", "https"].contains(&scheme)
            || !plain
            || !has_host
            || self.endpoint.len() > MAX_ENDPOINT
        {
            return Err(RecordError::Endpoint);
        }
        if !self.local
            && [&self.api_key, &self.api_secret]
                .iter()
                .any(|key| key.is_empty() || key.chars().count() > MAX_KEY)
        {
            return Err(RecordError::Key);
        }
        match (self.latitude, self.longitude) {
            (None, None) => {}
            (Some(latitude), Some(longitude)) => {
                Coordinates::new(latitude, longitude).ok_or(RecordError::Coordinates)?;
            }
            _ => return Err(RecordError::Coordinates),
        }
        self.restrictions.check()
    }

    pub fn coordinates(&self) -> Option<Coordinates> {
        Coordinates::new(self.latitude?, self.longitude?)
    }

    /// Where its RoomService is.
    pub fn api_url(&self) -> String {
        let url = match self.endpoint.strip_prefix("ws") {
            Some(rest) => format!("http{rest}"),
            None => self.endpoint.clone(),
        };
        url.trim_end_matches('/').to_owned()
    }

    pub fn view(&self) -> ServerView<'_> {
        ServerView {
            region_id: &self.region_id,
            server_id: &self.server_id,
            endpoint: &self.endpoint,
            local: self.local,
            is_active: self.is_active,
            latitude: self.latitude,
            longitude: self.longitude,
            soft_connection_limit: self.soft_connection_limit,
            restrictions: &self.restrictions,
        }
    }
}

/// A server as administration sees it: without its key and secret.
#[derive(Clone, Debug, Serialize)]
pub struct ServerView<'a> {
    region_id: &'a str,
    server_id: &'a str,
    endpoint: &'a str,
    local: bool,
    is_active: bool,
    latitude: Option<f64>,
    longitude: Option<f64>,
    soft_connection_limit: Option<u32>,
    #[serde(flatten)]
    restrictions: &'a Restrictions,
}

fn check_id(id: &str) -> Result<(), RecordError> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(known) {
        true => Ok(()),
        false => Err(RecordError::Id),
    }
}

fn check_name(name: &str) -> Result<(), RecordError> {
    match name.chars().count() > MAX_NAME {
        true => Err(RecordError::Name),
        false => Ok(()),
    }
}
