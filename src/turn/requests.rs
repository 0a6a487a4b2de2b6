//! The requests that need a password: Allocate, Refresh, CreatePermission, ChannelBind.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use stun_types::message::{IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, Message};

use super::allocation::{Allocation, NoChannel, NoRoom};
use super::attributes::Attributes;
use super::refusal::Refusal;
use super::reply::{self, Challenge, Failure, Success, is_of_family};
use super::server::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, MAX_ALLOCATIONS, PortChange, REFRESH, Server};
use crate::types::NetPath;

/// RFC 8656 §3.2 and §7.2.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(600);
const MAX_LIFETIME: Duration = Duration::from_secs(3600);
/// RFC 8656 §14.7.
const UDP: u8 = 17;
/// RFC 8656 §18: requests for an IPv6 address beside an IPv4 one.
const IPV6: u8 = 2;
/// Clients of RFC 5766 use all of them, later ones up to 0x4FFF.
const CHANNELS: std::ops::RangeInclusive<u16> = 0x4000..=0x7ffe;
/// RFC 8489 §14.3: bytes of a username.
const MAX_USERNAME: usize = 508;

/// A request that is refused: why, and what the client is told.
struct Refused {
    refusal: Refusal,
    failure: Failure,
    /// RFC 8489 §9.2.4: 401 and 438 say how to ask again.
    challenges: bool,
}

impl Refused {
    fn new(refusal: Refusal, code: u16) -> Self {
        Self {
            refusal,
            failure: Failure::Code(code),
            challenges: matches!(code, 401 | 438),
        }
    }
}

/// Who asks, once that is certain.
struct Asker {
    user: String,
    username: String,
    key: IntegrityKey,
}

impl Server {
    pub(super) fn request(
        &mut self,
        now: Instant,
        client: NetPath,
        message: &Message<'_>,
        method: u16,
    ) -> Result<(), Refusal> {
        let attributes = Attributes::read(message.as_bytes(), message.transaction_id());
        let (result, key) = match self.authenticate(now, client, message, &attributes) {
            Ok(asker) => {
                let key = asker.key.clone();
                (
                    self.perform(now, client, message, method, &attributes, asker),
                    Some(key),
                )
            }
            Err(refused) => {
                // Nobody has proved anything: an answer may go to somebody who never asked.
                self.spend(now, client)?;
                (Err(refused), None)
            }
        };
        match result {
            Ok(success) => {
                self.transmit(client, reply::success(message, &success, key.as_ref()));
                Ok(())
            }
            Err(refused) => {
                let nonce = self.nonces.issue(client.remote, self.config.wall.unix(now));
                let challenge = refused.challenges.then_some(Challenge {
                    realm: &self.config.realm,
                    nonce: &nonce,
                });
                let answer = reply::failure(message, &refused.failure, challenge, key.as_ref());
                // At most three bytes for one, whoever asked.
                if key.is_some() || answer.len() <= 3 * message.as_bytes().len() {
                    self.transmit(client, answer);
                }
                Err(refused.refusal)
            }
        }
    }

    /// RFC 8489 §9.2.4, without the password algorithms that are not offered.
    fn authenticate(
        &self,
        now: Instant,
        client: NetPath,
        message: &Message<'_>,
        attributes: &Attributes<'_>,
    ) -> Result<Asker, Refused> {
        if !attributes.has_integrity {
            return Err(Refused::new(Refusal::Unauthenticated, 401));
        }
        let (Some(username), Some(realm), Some(nonce)) = (attributes.username, attributes.realm, attributes.nonce)
        else {
            return Err(Refused::new(Refusal::BadRequest, 400));
        };
        let unix = self.config.wall.unix(now);
        if !self.nonces.is_fresh(nonce, client.remote, unix) {
            return Err(Refused::new(Refusal::StaleNonce, 438));
        }
        let bad = || Refused::new(Refusal::BadCredentials, 401);
        let username = std::str::from_utf8(username)
            .ok()
            .filter(|name| name.len() <= MAX_USERNAME && realm == self.config.realm.as_bytes())
            .ok_or_else(bad)?;
        if let Some(allocation) = self.allocations.get(&client) {
            if allocation.username != username {
                // Answered as any stranger is, unless he knows a password: then 441.
                self.stranger(message, username, unix).ok_or_else(bad)?;
                return Err(Refused::new(Refusal::WrongUser, 441));
            }
            // The allocation outlives its credential: it lasts while the participant does.
            message
                .validate_integrity_with_key(&allocation.key)
                .map_err(|_| bad())?;
            return Ok(Asker {
                user: allocation.user.clone(),
                username: username.to_owned(),
                key: allocation.key.clone(),
            });
        }
        self.stranger(message, username, unix).ok_or_else(bad)
    }

    fn stranger(&self, message: &Message<'_>, username: &str, unix: Duration) -> Option<Asker> {
        let account = self.credentials.account(username, unix)?;
        if !self.users.contains_key(&account.user) {
            return None;
        }
        let long_term = LongTermKeyCredentials::new(username.to_owned(), account.password, self.config.realm.clone());
        let key = long_term.make_key(IntegrityAlgorithm::Sha1);
        message.validate_integrity_with_key(&key).ok()?;
        Some(Asker {
            user: account.user,
            username: username.to_owned(),
            key,
        })
    }

    fn perform(
        &mut self,
        now: Instant,
        client: NetPath,
        message: &Message<'_>,
        method: u16,
        attributes: &Attributes<'_>,
        asker: Asker,
    ) -> Result<Success, Refused> {
        if !attributes.unknown.is_empty() {
            return Err(Refused {
                refusal: Refusal::BadRequest,
                failure: Failure::UnknownAttributes(attributes.unknown.clone()),
                challenges: false,
            });
        }
        if attributes.is_broken {
            return Err(Refused::new(Refusal::BadRequest, 400));
        }
        match method {
            ALLOCATE => self.allocate(now, client, message, attributes, asker),
            REFRESH => self.refresh(now, client, attributes),
            CREATE_PERMISSION => self.create_permission(now, client, attributes),
            CHANNEL_BIND => self.bind_channel(now, client, attributes),
            _ => Err(Refused::new(Refusal::UnknownMethod, 400)),
        }
    }

    /// RFC 8656 §7.2.
    fn allocate(
        &mut self,
        now: Instant,
        client: NetPath,
        message: &Message<'_>,
        attributes: &Attributes<'_>,
        asker: Asker,
    ) -> Result<Success, Refused> {
        let dual = attributes.additional_family == Some(IPV6);
        if let Some(allocation) = self.allocations.get(&client) {
            if allocation.transaction != message.transaction_id() {
                return Err(Refused::new(Refusal::NoAllocation, 437));
            }
            return Ok(allocated(client, allocation, dual));
        }
        match attributes.requested_transport {
            None => return Err(Refused::new(Refusal::BadRequest, 400)),
            Some(UDP) => {}
            Some(_) => return Err(Refused::new(Refusal::Unsupported, 442)), // RFC 6062
        }
        // A port kept for a second allocation is of no use where ports are names.
        let reserves = attributes.even_port.is_some_and(|bits| bits & 0x80 != 0);
        if attributes.additional_family.is_some() && (!dual || attributes.requested_family.is_some() || reserves) {
            return Err(Refused::new(Refusal::BadRequest, 400));
        }
        if attributes.reservation_token || reserves {
            return Err(Refused::new(Refusal::Unsupported, 508));
        }
        let count = self.users.get(&asker.user).copied().unwrap_or(0);
        let limit = self.config.allocations_per_user;
        if limit > 0 && count >= limit {
            return Err(Refused::new(Refusal::QuotaReached, 486));
        }
        if self.allocations.len() >= MAX_ALLOCATIONS {
            return Err(Refused::new(Refusal::Full, 508));
        }
        let mut relayed = Vec::with_capacity(2);
        for family in [Some(attributes.requested_family.unwrap_or(1)), dual.then_some(IPV6)] {
            let Some(family) = family else { continue };
            let mut ips = self.config.relay_ips.iter();
            match ips.find(|ip| is_of_family(**ip, family)).copied() {
                Some(ip) => {
                    let address = self
                        .unused_address(ip)
                        .ok_or_else(|| Refused::new(Refusal::Full, 508))?;
                    relayed.push(address);
                }
                // The second family may be missing; the answer says so.
                None if dual && !relayed.is_empty() => {}
                None => return Err(Refused::new(Refusal::Unsupported, 440)),
            }
        }
        let granted = lifetime(attributes.lifetime);
        let transaction = message.transaction_id();
        *self.users.entry(asker.user.clone()).or_insert(0) += 1;
        for address in &relayed {
            self.relayed.insert(*address, client);
            self.tell_port(PortChange::Opened(*address));
        }
        let allocation = Allocation::new(
            asker.user,
            asker.username,
            asker.key,
            transaction,
            relayed,
            granted,
            now,
        );
        let success = allocated(client, &allocation, dual);
        self.allocations.insert(client, allocation);
        self.expect_expiry(client, now + granted);
        Ok(success)
    }

    /// The next port of the range that is free; even, which is all that EVEN-PORT can mean here.
    fn unused_address(&mut self, ip: std::net::IpAddr) -> Option<SocketAddr> {
        let (start, end) = self.config.relay_ports.clone().into_inner();
        for _ in start..=end {
            let port = self.next_port;
            self.next_port = if port >= end { start } else { port + 1 };
            let address = SocketAddr::new(ip, port);
            if port.is_multiple_of(2) && !self.relayed.contains_key(&address) && !self.config.peers.is_media(address) {
                return Some(address);
            }
        }
        None
    }

    /// RFC 8656 §8.1 and §8.2.
    fn refresh(&mut self, now: Instant, client: NetPath, attributes: &Attributes<'_>) -> Result<Success, Refused> {
        let allocation = self
            .allocations
            .get_mut(&client)
            .ok_or_else(|| Refused::new(Refusal::NoAllocation, 437))?;
        if let Some(family) = attributes.requested_family
            && !allocation
                .relayed
                .iter()
                .any(|relayed| is_of_family(relayed.ip(), family))
        {
            return Err(Refused::new(Refusal::FamilyMismatch, 443));
        }
        let granted = match attributes.lifetime {
            Some(0) => Duration::ZERO,
            wanted => lifetime(wanted),
        };
        let mut until = now + granted;
        // One of two addresses: the other goes on as it was. They live as long as the longer of both.
        let one = attributes.requested_family.filter(|_| allocation.relayed.len() > 1);
        if let Some(family) = one {
            if granted.is_zero() {
                self.free_family(client, family);
                return Ok(refreshed(granted));
            }
            until = until.max(allocation.until);
        }
        let is_earlier = until < std::mem::replace(&mut allocation.until, until);
        if granted.is_zero() {
            self.free(client);
        } else if is_earlier {
            self.expect_expiry(client, until);
        }
        Ok(refreshed(granted))
    }

    /// RFC 8656 §10.2. Permissions are for addresses, whatever the port.
    fn create_permission(
        &mut self,
        now: Instant,
        client: NetPath,
        attributes: &Attributes<'_>,
    ) -> Result<Success, Refused> {
        let peers = attributes.peers.as_slice();
        let allocation = self
            .allocations
            .get_mut(&client)
            .ok_or_else(|| Refused::new(Refusal::NoAllocation, 437))?;
        if peers.is_empty() {
            return Err(Refused::new(Refusal::BadRequest, 400));
        }
        if peers.iter().any(|peer| allocation.relayed_for(peer.ip()).is_none()) {
            return Err(Refused::new(Refusal::FamilyMismatch, 443));
        }
        if !peers.iter().all(|peer| self.config.peers.permits(peer.ip())) {
            return Err(Refused::new(Refusal::PeerRefused, 403));
        }
        allocation
            .permit(now, peers)
            .map_err(|NoRoom| Refused::new(Refusal::Full, 508))?;
        Ok(Success::default())
    }

    /// RFC 8656 §12.2.
    fn bind_channel(&mut self, now: Instant, client: NetPath, attributes: &Attributes<'_>) -> Result<Success, Refused> {
        let allocation = self
            .allocations
            .get_mut(&client)
            .ok_or_else(|| Refused::new(Refusal::NoAllocation, 437))?;
        let (Some(number), [peer]) = (attributes.channel, attributes.peers.as_slice()) else {
            return Err(Refused::new(Refusal::BadRequest, 400));
        };
        if !CHANNELS.contains(&number) {
            return Err(Refused::new(Refusal::BadRequest, 400));
        }
        if allocation.relayed_for(peer.ip()).is_none() {
            return Err(Refused::new(Refusal::FamilyMismatch, 443));
        }
        if !self.config.peers.reaches(*peer) {
            return Err(Refused::new(Refusal::PeerRefused, 403));
        }
        allocation.bind(now, number, *peer).map_err(|error| match error {
            NoChannel::Conflict => Refused::new(Refusal::BadRequest, 400),
            NoChannel::Full => Refused::new(Refusal::Full, 508),
        })?;
        Ok(Success::default())
    }
}

fn refreshed(granted: Duration) -> Success {
    Success {
        lifetime: Some(granted.as_secs() as u32),
        ..Success::default()
    }
}

fn allocated(client: NetPath, allocation: &Allocation, dual: bool) -> Success {
    Success {
        mapped: Some(client.remote),
        relayed: allocation.relayed.clone(),
        lifetime: Some(allocation.granted.as_secs() as u32),
        without_ipv6: dual && allocation.relayed.len() < 2,
    }
}

/// At least the default, at most an hour.
fn lifetime(wanted: Option<u32>) -> Duration {
    wanted.map_or(DEFAULT_LIFETIME, |seconds| {
        Duration::from_secs(seconds.into()).clamp(DEFAULT_LIFETIME, MAX_LIFETIME)
    })
}
