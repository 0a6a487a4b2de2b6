//! Regions and their media servers: what there is, who may use it, and how it is.
//!
//! Owns the records of administration and the health that the driver reports. Choosing is in `choice`; which room is on
//! which server is in `pins`.

mod choice;
mod records;

use std::collections::BTreeMap;

pub use choice::{Access, Coordinates, Wish};
pub use records::{RecordError, Region, Restrictions, Server, ServerView};

/// Regions, and servers of one region: a fleet larger than this has other tools.
const MAX_REGIONS: usize = 256;
const MAX_SERVERS: usize = 4096;

/// A server by its region and its own name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerKey {
    pub region: String,
    pub server: String,
}

/// What is known of a server beside its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Health {
    down: bool,
    /// Connections of the voice system on it.
    connections: u32,
}

#[derive(Clone, Debug, Default)]
pub struct Topology {
    regions: BTreeMap<String, Region>,
    servers: BTreeMap<ServerKey, Server>,
    health: BTreeMap<ServerKey, Health>,
    /// Whose turn it is, by region.
    rotation: BTreeMap<String, usize>,
}

impl Topology {
    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.regions.values()
    }

    pub fn region(&self, id: &str) -> Option<&Region> {
        self.regions.get(id)
    }

    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.values()
    }

    pub fn server(&self, key: &ServerKey) -> Option<&Server> {
        self.servers.get(key)
    }

    /// It is there, switched on, and answers.
    pub fn is_usable(&self, key: &ServerKey) -> bool {
        self.server(key).is_some_and(|server| server.is_active) && !self.health(key).down
    }

    fn health(&self, key: &ServerKey) -> Health {
        self.health.get(key).copied().unwrap_or_default()
    }

    /// # Errors
    /// The record is not acceptable, or there are too many.
    pub fn put_region(&mut self, region: Region) -> Result<(), RecordError> {
        region.check()?;
        if self.regions.len() >= MAX_REGIONS && !self.regions.contains_key(&region.id) {
            return Err(RecordError::TooMany);
        }
        self.regions.insert(region.id.clone(), region);
        Ok(())
    }

    /// # Errors
    /// The record is not acceptable, its region is not there, or there are too many.
    pub fn put_server(&mut self, server: Server) -> Result<(), RecordError> {
        server.check()?;
        if !self.regions.contains_key(&server.region_id) {
            return Err(RecordError::NoRegion);
        }
        let key = server.key();
        if self.servers.len() >= MAX_SERVERS && !self.servers.contains_key(&key) {
            return Err(RecordError::TooMany);
        }
        self.servers.insert(key, server);
        Ok(())
    }

    /// With its servers; their keys.
    pub fn remove_region(&mut self, id: &str) -> Option<Vec<ServerKey>> {
        self.regions.remove(id)?;
        let gone: Vec<ServerKey> = self.servers.keys().filter(|key| key.region == id).cloned().collect();
        for key in &gone {
            self.remove_server(key);
        }
        self.rotation.remove(id);
        Some(gone)
    }

    pub fn remove_server(&mut self, key: &ServerKey) -> Option<Server> {
        self.health.remove(key);
        self.servers.remove(key)
    }

    /// True when that is news.
    pub fn set_down(&mut self, key: &ServerKey, down: bool) -> bool {
        if !self.servers.contains_key(key) {
            return false;
        }
        let health = self.health.entry(key.clone()).or_default();
        std::mem::replace(&mut health.down, down) != down
    }

    pub fn connected(&mut self, key: &ServerKey) {
        let health = self.health.entry(key.clone()).or_default();
        health.connections = health.connections.saturating_add(1);
    }

    pub fn disconnected(&mut self, key: &ServerKey) {
        if let Some(health) = self.health.get_mut(key) {
            health.connections = health.connections.saturating_sub(1);
        }
    }

    pub fn connections(&self, key: &ServerKey) -> u32 {
        self.health(key).connections
    }
}
