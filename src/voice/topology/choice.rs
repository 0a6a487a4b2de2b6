//! Which region and server a room gets: by the channel's wish, by distance, in turn.

use std::collections::BTreeSet;

use super::{Region, Server, ServerKey, Topology};
use crate::voice::ids::{GuildId, RoomKey, UserId};

/// Mean radius of the earth, kilometres.
const EARTH: f64 = 6371.0;
/// Kilometres within which two places are equally far.
const SAME_DISTANCE: f64 = 1e-6;

/// Degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coordinates {
    pub latitude: f64,
    pub longitude: f64,
}

impl Coordinates {
    /// None: not on earth.
    pub fn new(latitude: f64, longitude: f64) -> Option<Self> {
        let good = latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
        good.then_some(Self { latitude, longitude })
    }

    /// As clients send them. None: not given, or nothing that can be used, which is the same to whoever asks.
    pub fn parse(latitude: Option<&str>, longitude: Option<&str>) -> Option<Self> {
        let number = |text: &str| (text.len() <= 32).then(|| text.trim().parse::<f64>().ok())?;
        Self::new(number(latitude?)?, number(longitude?)?)
    }

    /// Kilometres along the surface (haversine).
    pub fn distance(self, other: Self) -> f64 {
        let (from, to) = (self.latitude.to_radians(), other.latitude.to_radians());
        let north = (to - from) / 2.0;
        let east = (other.longitude - self.longitude).to_radians() / 2.0;
        let half_chord = north.sin().powi(2) + from.cos() * to.cos() * east.sin().powi(2);
        2.0 * EARTH * half_chord.clamp(0.0, 1.0).sqrt().asin()
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    pub user: UserId,
    /// With its features, where they are known. None: a conversation outside of guilds.
    pub guild: Option<(GuildId, Option<&'a BTreeSet<String>>)>,
}

#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    pub access: Access<'a>,
    /// The channel's region, or the one that the request names. One that is not there, or not for whoever asks, is as
    /// if it had not been named.
    pub region: Option<&'a str>,
    pub coordinates: Option<Coordinates>,
    pub room: RoomKey,
}

impl Topology {
    /// Regions that somebody may use, and in which there is a server.
    pub fn accessible_regions<'a>(&'a self, access: Access<'a>) -> impl Iterator<Item = &'a Region> {
        self.regions().filter(move |region| self.is_accessible(region, &access))
    }

    fn is_accessible(&self, region: &Region, access: &Access<'_>) -> bool {
        region.restrictions.admits(access) && self.accessible_servers(&region.id, access).next().is_some()
    }

    /// In the order of their ids.
    fn accessible_servers<'a>(&'a self, region: &'a str, access: &'a Access<'a>) -> impl Iterator<Item = &'a Server> {
        self.servers.values().filter(move |server| {
            server.region_id == region && server.restrictions.admits(access) && self.is_usable(&server.key())
        })
    }

    /// That server, for somebody who may use it.
    pub fn admits(&self, key: &ServerKey, access: &Access<'_>) -> bool {
        let region = self.region(&key.region);
        let server = self.server(key);
        region.is_some_and(|region| region.restrictions.admits(access))
            && server.is_some_and(|server| server.restrictions.admits(access))
    }

    /// None: there is no server for whoever asks. Moves the region's turn on.
    pub fn choose(&mut self, wish: &Wish<'_>) -> Option<ServerKey> {
        if let Some(key) = self.nearest_server(wish) {
            return Some(key);
        }
        let region = self.choose_region(wish)?;
        self.next_server(&region, &wish.access)
    }

    /// The region alone, as calls show it before anybody is connected.
    pub fn choose_region(&self, wish: &Wish<'_>) -> Option<String> {
        let accessible: Vec<&Region> = self.accessible_regions(wish.access).collect();
        let explicit = wish
            .region
            .and_then(|id| accessible.iter().find(|region| region.id == id));
        if let Some(region) = explicit {
            return Some(region.id.clone());
        }
        if let Some(coordinates) = wish.coordinates {
            let distances = accessible
                .iter()
                .map(|region| coordinates.distance(region.coordinates()));
            if let Some(nearest) = nearest(distances, wish.room) {
                return accessible.get(nearest).map(|region| region.id.clone());
            }
        }
        let preferred = accessible.iter().find(|region| region.is_default);
        preferred.or(accessible.first()).map(|region| region.id.clone())
    }

    /// Servers with a place of their own are chosen by it, where neither the channel nor the request names a region.
    fn nearest_server(&self, wish: &Wish<'_>) -> Option<ServerKey> {
        let coordinates = wish.coordinates?;
        let named = |region: &&Region| wish.region.is_some_and(|id| id == region.id);
        if self.accessible_regions(wish.access).any(|region| named(&region)) {
            return None;
        }
        let mut placed: Vec<(&Server, f64)> = self
            .accessible_regions(wish.access)
            .flat_map(|region| self.accessible_servers(&region.id, &wish.access))
            .filter_map(|server| Some((server, coordinates.distance(server.coordinates()?))))
            .collect();
        if placed.iter().any(|(server, _)| self.has_room(server)) {
            placed.retain(|(server, _)| self.has_room(server));
        }
        let index = nearest(placed.iter().map(|(_, distance)| *distance), wish.room)?;
        placed.get(index).map(|(server, _)| server.key())
    }

    fn has_room(&self, server: &Server) -> bool {
        let limit = server.soft_connection_limit.unwrap_or(u32::MAX);
        self.connections(&server.key()) < limit
    }

    /// The next in turn of those that may be used, those with room first.
    fn next_server(&mut self, region: &str, access: &Access<'_>) -> Option<ServerKey> {
        let mut servers: Vec<&Server> = self.accessible_servers(region, access).collect();
        if servers.iter().any(|server| self.has_room(server)) {
            servers.retain(|server| self.has_room(server));
        }
        let keys: Vec<ServerKey> = servers.into_iter().map(Server::key).collect();
        let turn = self.rotation.entry(region.to_owned()).or_default();
        let chosen = keys.get(turn.checked_rem(keys.len())?).cloned();
        *turn = turn.wrapping_add(1);
        chosen
    }
}

/// The index of the least distance. Equal ones are told apart by the room, so that rooms spread and one room stays.
fn nearest(distances: impl Iterator<Item = f64> + Clone, room: RoomKey) -> Option<usize> {
    let least = distances.clone().fold(f64::INFINITY, f64::min);
    let tied: Vec<usize> = distances
        .enumerate()
        .filter(|(_, distance)| distance - least <= SAME_DISTANCE)
        .map(|(index, _)| index)
        .collect();
    let place = fnv1a(&room) % u64::try_from(tied.len()).ok().filter(|count| *count > 0)?;
    tied.get(usize::try_from(place).ok()?).copied()
}

/// FNV-1a, 64 bits, of the guild (or "dm") and the channel.
fn fnv1a(room: &RoomKey) -> u64 {
    let name = match room.guild() {
        Some(guild) => format!("{guild}:{}", room.channel()),
        None => format!("dm:{}", room.channel()),
    };
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
